"""What every notebook of the book must have: the install cell, alternatives, a chapter's parts."""

from pathlib import Path

import install_cell
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"


def stem(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_starts_with_the_install_cell(path):
    first, *others = code_cells(path)
    assert first.source == install_cell.source(), "run `python scripts/install_cell.py`"
    assert first.outputs == []
    # It is plumbing: the page folds it, or leaves it out.
    assert {"hide-input", "remove-cell"} & set(first.metadata.tags)
    assert not any("pip install" in cell.source for cell in others)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_every_figure_has_a_text_alternative(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            if PLOTLY in output.get("data", {}):
                assert len(output.metadata[PLOTLY]["alt"]) > 20


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[0].isdigit()], ids=stem)
def test_has_the_parts_of_a_chapter(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for part in ("**Time", "## Exercises", "## Summary", "## References", "```{bibliography}"):
        assert part in text, part
    assert text.count("<summary>Solution</summary>") >= 3
