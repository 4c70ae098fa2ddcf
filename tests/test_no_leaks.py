"""No solution and no hidden test leaves the sources: not in what students get, nor in packages.

What is looked for are the lines of the solutions and the hidden tests that stand neither in the
visible parts of the assignments nor in a chapter; a long line does not come about by chance.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import assignments
import nbformat
import pytest
from assignments import Question
from clone import tracked_files

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build/html"
LEAST_LENGTH = 25


def lines(text: str) -> set[str]:
    """The lines that are long enough to be recognised, but for imports and generators."""
    stripped = (line.strip() for line in text.splitlines())
    return {
        line
        for line in stripped
        if len(line) >= LEAST_LENGTH
        and not line.startswith(("import ", "from ", "generator =", "rng ="))
    }


@functools.cache
def secrets() -> frozenset[str]:
    """Lines of solutions and hidden tests that no chapter has."""
    secret: set[str] = set()
    shown: set[str] = set()
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            shown |= lines(cell.source)
    for name in assignments.names():
        for part in assignments.read(name).parts:
            if not isinstance(part, Question):
                shown |= lines(part.source)
                continue
            for test in part.tests:
                (secret if test.hidden else shown).update(lines(test.source))
            for cell in part.cells:
                if cell.metadata.get("answer"):
                    secret |= lines(solution(cell.source, cell.cell_type))
                else:
                    shown |= lines(cell.source)
    return frozenset(secret - shown)


def solution(source: str, kind: str) -> str:
    """What students do not get of an answer's cell."""
    if kind == "markdown":
        return source
    kept, inside = [], False
    for line in source.splitlines():
        if line.strip() in ("# BEGIN SOLUTION", "# END SOLUTION"):
            inside = "BEGIN" in line
        elif inside or line.endswith("# SOLUTION"):
            kept.append(line.removesuffix("# SOLUTION"))
    return "\n".join(kept)


def leaks(text: str) -> set[str]:
    return lines(text) & secrets()


def test_the_secrets_are_known() -> None:
    """Else the tests below would look for nothing."""
    assert len(secrets()) > 200
    for name in assignments.names():
        text = (assignments.SOURCES / f"{name}.py").read_text(encoding="utf-8")
        assert len(leaks(text)) > 40, name


@pytest.mark.parametrize("name", assignments.names())
def test_student_editions(name: str) -> None:
    path = assignments.STUDENT / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert leaks("\n".join(cell.source for cell in notebook.cells)) == set()
    assert not any(cell.get("outputs") for cell in notebook.cells)
    text = path.read_text(encoding="utf-8")  # metadata and attachments, too
    assert "SOLUTION" not in text and "hidden=True" not in text
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}


def distributions(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every file that a wheel and a source distribution hold."""
    code = (
        "import sys; from setuptools import build_meta; folder = sys.argv[1]; "
        "build_meta.build_wheel(folder); build_meta.build_sdist(folder)"
    )
    copy = folder / "tree"
    for name in tracked_files():
        source, target = ROOT / name, copy / name
        if source.is_file() and not name.startswith(("data/", "book/_static/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    made = folder / "made"
    made.mkdir()
    subprocess.run([sys.executable, "-c", code, made], cwd=copy, check=True, capture_output=True)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            yield name, archive.read(name).decode(errors="replace")
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            if (file := archive.extractfile(member)) is not None:
                yield member.name, file.read().decode(errors="replace")


def test_wheel_and_source_distribution(tmp_path: Path) -> None:
    seen = 0
    for name, text in distributions(tmp_path):
        seen += name.endswith("sami_tutorial/sac.py")
        assert "assignments/source" not in name
        assert leaks(text) == set(), name
    assert seen == 2, "the library's sac.py must have been looked at in both"


def test_published_site() -> None:
    """The pages, the copies of their sources, the search index (`make book` comes first)."""
    if not SITE.is_dir():
        pytest.skip("there is no _build/html: run `make book`")
    for path in SITE.rglob("*"):
        if path.is_file() and path.suffix in {
            ".html",
            ".ipynb",
            ".js",
            ".json",
            ".md",
            ".py",
            ".txt",
        }:
            if "vendor" in path.parts or "plotly" in path.name:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            if path.suffix == ".ipynb":
                text = text.replace("\\n", "\n").replace('\\"', '"')
            assert "assignments/source" not in path.relative_to(SITE).as_posix()
            found = {line for line in secrets() if line in text}
            assert found == set(), path.relative_to(SITE)
