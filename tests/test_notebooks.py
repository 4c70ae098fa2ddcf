"""The notebooks as they are stored, and the script that runs them."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from execute_notebooks import Budget, execute, find, normalise, problems

BOOK = Path(__file__).resolve().parent.parent / "book"
STORED = find([BOOK], only=None)
AGAIN = "run `make notebooks ONLY={}` and commit"


# ---- what is stored ----


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebook_is_whole(path: Path) -> None:
    """Run from top to bottom in a fresh kernel, with nothing that a reader must not see."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert list(problems(notebook)) == []
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), AGAIN.format(path.stem)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebook_has_no_metadata_of_its_writer(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert normalise(copy.deepcopy(notebook)) == notebook, AGAIN.format(path.stem)


# ---- the script ----


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_outputs_are_written_back_and_metadata_is_normal(tmp_path: Path) -> None:
    path = write(tmp_path / "good.ipynb", "from pathlib import Path\nPath.cwd().name", "print(2)")
    report = execute(path, Budget())
    assert report.problems == []
    assert report.seconds > 0
    assert report.peak_bytes > 10e6
    notebook = nbformat.read(path, as_version=4)
    # A notebook runs in its own folder.
    assert notebook.cells[0].outputs[0].data["text/plain"] == repr(tmp_path.name)
    assert notebook.cells[1].outputs[0].text == "2\n"
    assert normalise(copy.deepcopy(notebook)) == notebook
    assert list(tmp_path.iterdir()) == [path]


WORK = """
import resource, subprocess, sys, time
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 1: pass"])
time.sleep(1)
own, childrens = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
own.ru_utime + own.ru_stime + childrens.ru_utime + childrens.ru_stime
"""


def test_processor_time_is_the_kernels_and_its_childrens_and_no_waiting(tmp_path: Path) -> None:
    path = write(tmp_path / "work.ipynb", WORK)
    report = execute(path, Budget())
    assert report.problems == []
    told = float(nbformat.read(path, as_version=4).cells[0].outputs[0].data["text/plain"])
    assert told - 0.3 < report.cpu_seconds < told + 0.7
    assert report.cpu_seconds < report.seconds


@pytest.mark.parametrize(
    ("source", "budget", "problem"),
    [
        ("1 / 0", Budget(), "ZeroDivisionError"),
        ("import sys\nprint('careful', file=sys.stderr)", Budget(), "careful"),
        ("while True: pass", Budget(seconds=6), "longer than 6 s"),
        ("block = b'x' * 300_000_000\nwhile True: pass", Budget(gigabytes=0.2), "more than 0.2 GB"),
        ("import os\nos._exit(1)", Budget(), "Kernel died"),
    ],
    ids=["error", "stderr", "time", "memory", "death"],
)
def test_what_fails_is_reported_and_leaves_the_notebook_alone(
    tmp_path: Path, source: str, budget: Budget, problem: str
) -> None:
    path = write(tmp_path / "bad.ipynb", source)
    before = path.read_bytes()
    report = execute(path, budget)
    assert any(problem in line for line in report.problems), report.problems
    assert str(report).startswith("FAILED")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_notebooks_are_found_by_part_of_their_name(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("02_b", "01_a", ".ipynb_checkpoints/01_a-checkpoint"):
        write(tmp_path / f"{name}.ipynb")
    assert [path.stem for path in find([tmp_path], None)] == ["01_a", "02_b"]
    assert [path.stem for path in find([tmp_path], "02")] == ["02_b"]
    with pytest.raises(ValueError, match="01_a, 02_b"):
        find([tmp_path], "03")
