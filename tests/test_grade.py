"""Grading a folder: the points are Otter-Grader's, and no notebook can stop the others.

The tests that need Otter-Grader are skipped where .venv-otter is missing (`make otter`).
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import assignments
import grade
import nbformat
import pytest
from grade import Limits, Submission, feedback, find, rows, watch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
OTTER = ROOT / ".venv-otter/bin/python"
needs_otter = pytest.mark.skipif(not OTTER.exists(), reason="needs Otter-Grader (`make otter`)")

TESTS = """\
from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 3

@test_case(points=1, hidden=False)
def test_one(double):
    \"\"\"Twice one.\"\"\"
    assert double(1) == 2, "two times one is two"

@test_case(points=2, hidden=True)
def test_many(double):
    \"\"\"Twice anything.\"\"\"
    assert [double(x) for x in (0, 5, -3)] == [0, 10, -6], "secret"
"""
ABOUT = {
    "name": "1_toy",
    "title": "Assignment 1: a toy",
    "questions": [
        {"name": "q1", "points": 3, "manual": False},
        {"name": "q2", "points": 4, "manual": True},
    ],
}
RIGHT = "def double(x):\n    return 2 * x"


@pytest.fixture
def graders(tmp_path: Path) -> Path:
    """A folder as `make assignments` leaves it, with one small assignment."""
    folder = tmp_path / "graders"
    folder.mkdir()
    (folder / "1_toy.json").write_text(json.dumps(ABOUT))
    with zipfile.ZipFile(folder / "1_toy.zip", "w") as archive:
        archive.writestr("tests/q1.py", TESTS)
    return folder


def submit(path: Path, *sources: str, title: str = "Assignment 1: a toy") -> None:
    cells = [new_markdown_cell(f"# {title}"), *map(new_code_cell, sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)


def run(submissions: Path, out: Path, graders: Path, *options: str) -> subprocess.CompletedProcess:
    command = [OTTER, ROOT / "scripts/grade.py", submissions, out, "--graders", graders, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def table(out: Path) -> list[dict[str, str]]:
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- without Otter ----


def test_submissions_are_found_by_student_and_assignment(tmp_path: Path) -> None:
    submit(tmp_path / "ada.ipynb")
    submit(tmp_path / "bob/work/1_toy.ipynb", title="renamed")
    submit(tmp_path / "bob/again.ipynb")
    submit(tmp_path / "eve/.ipynb_checkpoints/1_toy.ipynb")
    submit(tmp_path / "fay/notes.ipynb", title="my notes")
    (tmp_path / "gus.ipynb").write_text('{"cells": [ "# Assignment 1: a toy", broken')
    found = {
        (each.student, each.assignment): each.paths for each in find(tmp_path, {"1_toy": ABOUT})
    }
    assert found.keys() == {
        ("ada", "1_toy"),
        ("bob", "1_toy"),
        ("fay", "unknown"),
        ("gus", "1_toy"),
    }
    assert len(found["bob", "1_toy"]) == 2
    with pytest.raises(ValueError, match="give a folder"):
        find(tmp_path / "nowhere", {"1_toy": ABOUT})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no notebook"):
        find(tmp_path / "empty", {"1_toy": ABOUT})
    with pytest.raises(ValueError, match="make assignments"):
        grade.built(tmp_path / "empty")


def watched(code: str, folder: Path, limits: Limits) -> str:
    """Runs code in a process under limits: the reason why it was stopped."""
    output = folder / "output"
    with (
        output.open("w") as file,
        subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=file) as process,
    ):

        def running() -> bool:
            time.sleep(0.05)
            return process.poll() is None

        return watch(process.pid, running, limits, started=output, output=output)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", ""),
        ("while True: pass", "ran longer than 1 s"),
        ("while True: print('x' * 1000)", "printed more than 1 MB"),
        ("x = b'x' * 700_000_000\nwhile True: pass", "needed more than 0.3 GB of memory"),
    ],
)
def test_a_process_is_stopped_at_its_limits(tmp_path: Path, code: str, reason: str) -> None:
    seconds = 1 if "longer" in reason else 60
    limits = Limits(seconds, gigabytes=0.3, output_megabytes=1)
    assert watched(code, tmp_path, limits) == reason


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    """A grandchild in a session of its own, too."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True)\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    assert watched(code, tmp_path, Limits(seconds=1)) == "ran longer than 1 s"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not grade.family(pid) or grade.family(pid)[0].status() == "zombie":
            return
        time.sleep(0.1)
    raise AssertionError("the grandchild still runs")


def result(*passed: bool) -> dict[str, Any]:
    points = (1, 2)
    tests = [
        {"asks": asks, "points": p, "passed": ok, "hidden": p == 2, "message": "" if ok else hint}
        for asks, p, ok, hint in zip(
            ("Twice one.", "Twice anything."), points, passed, ("a hint", "secret"), strict=True
        )
    ]
    return {"reason": "", "errors": ["cell 4: NameError: y"], "questions": {"q1": tests}}


def test_rows_and_feedback() -> None:
    """Partial credit, a question for a person, a reason; hidden tests give nothing away."""
    submission = Submission("ada", "1_toy", ())
    first, second = rows(submission, result(True, False), ABOUT)
    assert (first["points"], first["max_points"], first["status"]) == (1, 3, "graded")
    assert (second["points"], second["max_points"], second["status"]) == ("", 4, "to grade")
    text = feedback(submission, result(False, False), ABOUT)
    assert "0 of 3 points" in text and "a hint" in text and "cell 4: NameError: y" in text
    assert "Twice anything." in text and "secret" not in text
    first, second = rows(submission, grade.failure("printed too much"), ABOUT)
    assert (first["points"], first["status"], first["reason"]) == (0, "failed", "printed too much")
    assert "printed too much" in feedback(submission, grade.failure("printed too much"), ABOUT)
    (only,) = rows(submission, grade.failure("who knows"), None)
    assert (only["points"], only["reason"]) == (0, "who knows")


# ---- with Otter ----


@needs_otter
def test_no_notebook_stops_the_others(tmp_path: Path, graders: Path) -> None:
    """Everything that must end with a 0 and its reason, beside notebooks that must not."""
    folder, out = tmp_path / "submissions", tmp_path / "grades.csv"
    submit(folder / "right.ipynb", "%matplotlib inline\n" + RIGHT, "!ls", "1 / 0")
    submit(folder / "half/1_toy.ipynb", "def double(x):\n    return 2")
    submit(folder / "loop.ipynb", RIGHT, "while True:\n    pass")
    submit(folder / "lazy.ipynb", "def double(x):\n    while True:\n        pass")
    submit(folder / "huge.ipynb", RIGHT, "import numpy\nx = numpy.ones(10**12)")
    submit(folder / "greedy.ipynb", "import torch\ndef double(x):\n    return torch.zeros(10**12)")
    submit(folder / "exit.ipynb", RIGHT, "import sys\nsys.exit()")
    submit(folder / "abrupt.ipynb", RIGHT, "import os\nos._exit(0)")
    submit(folder / "flood.ipynb", RIGHT, "while True:\n    print('x' * 10000)")
    (folder / "broken.ipynb").write_text('{"cells": ["# Assignment 1: a toy"')
    submit(folder / "other.ipynb", RIGHT, title="Shopping list")
    run(folder, out, graders, "--seconds", "6", "--gigabytes", "2")

    graded = {row["student"]: row for row in table(out) if row["question"] != "q2"}
    assert {name: float(row["points"]) for name, row in graded.items() if row["points"] != "0"} == {
        "right": 3,
        "half": 1,
    }
    reasons = {
        "loop": "ran longer than 6 s in cell 3",
        "lazy": "ran longer than 6 s in the tests of q1",
        "huge": "needed more than 2 GB of memory in cell 3",
        "greedy": "needed more than 2 GB of memory in the tests of q1",
        "exit": "ended itself by SystemExit in cell 3",
        "abrupt": "its process ended before all was graded in cell 3",
        "flood": "printed more than 10 MB in cell 3",
        "broken": "the file is no notebook that can be read",
        "other": "neither its name nor its title is that of an assignment",
        "right": "",
        "half": "",
    }
    for name, reason in reasons.items():
        assert graded[name]["reason"].startswith(reason) and (reason or not graded[name]["reason"])
        told = (tmp_path / f"grades-feedback/{name}.md").read_text()
        assert reason in told
    by_hand = {row["student"]: row for row in table(out) if row["question"] == "q2"}
    assert by_hand.keys() == graded.keys() - {"other"}
    assert {row["status"] for row in by_hand.values()} == {"to grade"}


@needs_otter
def test_a_killed_grading_goes_on(tmp_path: Path, graders: Path) -> None:
    """What was finished is kept; what changed is graded again."""
    folder, out = tmp_path / "submissions", tmp_path / "grades.csv"
    submit(folder / "first.ipynb", RIGHT)
    submit(folder / "second.ipynb", RIGHT + "\nwhile True:\n    pass")
    command = [OTTER, ROOT / "scripts/grade.py", folder, out, "--graders", graders]
    process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.DEVNULL)
    kept = tmp_path / "grades-work/first--1_toy.json"
    for _ in range(600):
        if kept.exists():
            break
        time.sleep(0.1)
    all_of_it = grade.family(process.pid)
    process.kill()
    for each in all_of_it[1:]:  # in real life the limit of CPU time ends them
        if each.is_running():
            each.kill()
    process.wait()
    assert not out.exists()
    written = kept.stat().st_mtime_ns

    submit(folder / "second.ipynb", RIGHT)
    assert "1 of 2 submissions are graded already" in run(folder, out, graders).stdout
    assert kept.stat().st_mtime_ns == written
    assert [row["points"] for row in table(out) if row["question"] == "q1"] == ["3", "3"]


@needs_otter
def test_otter_gives_the_same_points(tmp_path: Path) -> None:
    """One assignment, built by Otter: `otter run` and `make grade` agree, question by question."""
    (name, *_) = assignments.names()
    code = (
        "import assignments, sys; from pathlib import Path; "
        f"assignments.build(assignments.read({name!r}), Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    student, out = tmp_path / "student", tmp_path / "out"
    subprocess.run([OTTER, "-c", code, student, out], cwd=ROOT / "scripts", check=True)
    edition = (student / f"{name}.ipynb").read_bytes()
    assert edition == (assignments.STUDENT / f"{name}.ipynb").read_bytes(), "`make assignments`"

    notebook = nbformat.read(out / f"{name}-solution.ipynb", as_version=4)
    answers = [c for c in notebook.cells if c.cell_type == "code" and "# END SOLUTION" in c.source]
    answers[1].source = re.sub(r"return .*", "return 0.0", answers[1].source)
    answers[2].source = "raise RuntimeError"
    partly = tmp_path / "submissions/ada.ipynb"
    partly.parent.mkdir()
    nbformat.write(notebook, partly)

    otter = [OTTER, "-m", "otter", "run", partly, "-a", out / f"{name}.zip", "-o", tmp_path]
    subprocess.run(otter, check=True, capture_output=True)
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    by_otter = {test["name"]: test["score"] for test in tests if "score" in test}
    run(partly.parent, tmp_path / "grades.csv", out)
    by_us = {row["question"]: float(row["points"]) for row in table(tmp_path / "grades.csv")}
    assert by_us == by_otter
    assert 0 < sum(by_us.values()) < 20
