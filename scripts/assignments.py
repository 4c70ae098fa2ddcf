"""Turn the assignments' sources into student editions and autograders, with Otter-Grader.

    python scripts/assignments.py [--only NAME] [--variant N]        (`make assignments`)

One file of book/assignments/source/ holds one assignment: text, questions, solutions, tests. It is
Python in jupytext's percent format; the metadata of a cell says what it is:

    # %% [markdown] question="q1"               the question, in words
    # %% question="q1" answer=true              the answer; between "# BEGIN SOLUTION" and
                                                "# END SOLUTION", or on lines that end with
                                                "# SOLUTION", is what students do not get
    # %% question="q1" points=1                 a test that students see, one function
    # %% question="q1" points=2 hidden=true     a test that they do not see
    # %% [markdown] question="q6" manual=4      a question that a person grades
    # %% tags=["otter_ignore"]                  a cell that is not run when grading

A test takes the names it needs as arguments; its docstring says what it asks, and the messages of
its assertions say what to look at. For each source this writes

- book/assignments/NAME.ipynb, the student edition. It needs the library and nothing of Otter: the
  visible tests stand in it as code.
- build/assignments/NAME.zip, the autograder for Gradescope, `otter run` and `make grade`.
- build/assignments/NAME.json, the questions and their points.
- build/assignments/NAME-solution.ipynb, for the instructor.

``--variant N`` replaces ``VARIANT = 0`` everywhere: the assignments derive numbers from it, so that
last year's numbers are wrong this year.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import install_cell
import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "book" / "assignments" / "source"
STUDENT = ROOT / "book" / "assignments"
BUILD = ROOT / "build" / "assignments"

IGNORED_WHEN_GRADING = "otter_ignore"
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

CHECK = '''\
import inspect

done = {}  # question -> whether its visible checks hold


def check(question, *tests):
    """Tries visible tests on your answers, and says what to look at where one fails."""
    done[question] = True
    for test in tests:
        answers = {name: globals().get(name) for name in inspect.signature(test).parameters}
        try:
            test(**answers)
            print("✓", test.__doc__)
        except Exception as error:
            done[question] = False
            print("✗", test.__doc__, f"\\n    {type(error).__name__}: {error}")'''


@dataclass
class Test:
    """One test: a function definition, what passing earns, whether students see it."""

    source: str
    points: float
    hidden: bool


@dataclass
class Question:
    """A question: its cells, and its tests or the points that a person gives."""

    name: str
    cells: list[NotebookNode] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    manual: float = 0.0

    @property
    def points(self) -> float:
        return self.manual or sum(test.points for test in self.tests)


@dataclass
class Assignment:
    """A source: plain cells and questions, in order."""

    name: str
    parts: list[NotebookNode | Question]

    @property
    def title(self) -> str:
        return self.parts[0].source.splitlines()[0].removeprefix("# ")

    @property
    def questions(self) -> list[Question]:
        return [part for part in self.parts if isinstance(part, Question)]


def names() -> list[str]:
    """The assignments, in order."""
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def read(name: str, variant: int = 0) -> Assignment:
    """The source of that name.

    Raises:
        ValueError: if there is none, or a question's parts do not stand together.
    """
    path = SOURCES / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"name is {name!r}; the assignments are {', '.join(names())}")
    return parse(name, path.read_text(encoding="utf-8"), variant)


def parse(name: str, text: str, variant: int = 0) -> Assignment:
    """A source's text, taken apart.

    Raises:
        ValueError: if a question's parts do not stand together.
    """
    text = re.sub(r"\bVARIANT = 0\b", f"VARIANT = {variant}", text)
    parts: list[NotebookNode | Question] = []
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        about = cell.metadata
        cell.metadata = nbformat.from_dict({"tags": about["tags"]} if "tags" in about else {})
        if "question" not in about:
            parts.append(cell)
            continue
        if not parts or not isinstance(parts[-1], Question) or parts[-1].name != about["question"]:
            if any(isinstance(p, Question) and p.name == about["question"] for p in parts):
                raise ValueError(f"{name}: cells of {about['question']} do not stand together")
            parts.append(Question(about["question"]))
        question = parts[-1]
        question.manual = about.get("manual", question.manual)
        if "points" in about:
            hidden = about.get("hidden", False)
            question.tests.append(Test(cell.source, about["points"], hidden))
        else:
            cell.metadata["answer"] = about.get("answer", False)
            question.cells.append(cell)
    return Assignment(name, parts)


def master(assignment: Assignment) -> NotebookNode:
    """The notebook in the form that `otter assign` reads."""
    config = {
        "init_cell": False,
        "export_cell": False,
        "run_tests": False,
        "requirements": "requirements.txt",
        "tests": {"files": True, "ok_format": False},
        "generate": {"show_stdout": True, "show_hidden": False},
    }
    cells = [new_raw_cell("# ASSIGNMENT CONFIG\n" + yaml.safe_dump(config, sort_keys=False))]
    for part in assignment.parts:
        if not isinstance(part, Question):
            cells.append(part)
            continue
        settings = {"name": part.name, "points": part.points}
        if part.manual:
            settings["manual"] = True
        cells.append(new_raw_cell("# BEGIN QUESTION\n" + yaml.safe_dump(settings)))
        for cell in part.cells:
            answer = cell.metadata.pop("answer")
            if answer:
                cells.append(new_raw_cell("# BEGIN SOLUTION"))
                cell = copy.deepcopy(cell)
                cell.source = with_prompt(cell.source, part.name)
            cells.append(cell)
            if answer:
                cells.append(new_raw_cell("# END SOLUTION"))
        if part.tests:
            cells.append(new_raw_cell("# BEGIN TESTS"))
        for test in part.tests:
            about = yaml.safe_dump({"points": test.points, "hidden": test.hidden})
            config_text = f'""" # BEGIN TEST CONFIG\n{about}""" # END TEST CONFIG\n'
            cells.append(new_code_cell(config_text + test.source))
        if part.tests:
            cells.append(new_raw_cell("# END TESTS"))
        cells.append(new_raw_cell("# END QUESTION"))
    return nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)


def with_prompt(source: str, question: str) -> str:
    """Leaves students an error that names the question where a block of the solution was."""
    lines = []
    for line in source.splitlines():
        space = line[: len(line) - len(line.lstrip())]
        if line.strip() == "# BEGIN SOLUTION":
            line += " NO PROMPT"
        lines.append(line)
        if line.strip() == "# END SOLUTION":
            lines += [f'{space}""" # BEGIN PROMPT']
            lines += [f'{space}raise NotImplementedError("your answer to {question} goes here")']
            lines += [f'{space}""" # END PROMPT']
    return "\n".join(lines)


def student_edition(otters: NotebookNode, assignment: Assignment) -> NotebookNode:
    """A notebook that Otter made, with the install cell, and with the visible tests as code."""
    tests = {question.name: question.tests for question in assignment.questions}
    cells: list[NotebookNode] = []
    for cell in otters.cells:
        called = re.fullmatch(r'grader\.check\("(\w+)"\)', cell.source.strip())
        if called:
            visible = [test.source for test in tests[called[1]] if not test.hidden]
            functions = re.findall(r"^def (\w+)", "\n".join(visible), re.MULTILINE)
            call = f'check("{called[1]}", {", ".join(functions)})'
            cells.append(new_code_cell("\n\n\n".join([*visible, call])))
            continue
        fresh = new_code_cell if cell.cell_type == "code" else new_markdown_cell
        source = re.sub(r"<!-- (BEGIN|END) QUESTION -->\n*", "", cell.source)
        if source.strip():
            cells.append(fresh(source))
            if IGNORED_WHEN_GRADING in cell.metadata.get("tags", []):
                cells[-1].metadata["tags"] = [IGNORED_WHEN_GRADING]

    cells[1:1] = [
        new_code_cell(
            install_cell.source(), metadata={"tags": ["hide-input", IGNORED_WHEN_GRADING]}
        ),
        new_code_cell(CHECK, metadata={"tags": ["hide-input"]}),
    ]
    for index, cell in enumerate(cells):
        cell.id = f"{assignment.name.replace('_', '-')}-{index:02d}"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def write(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def as_text(notebook: NotebookNode) -> str:
    """A notebook as it is stored."""
    return nbformat.writes(notebook) + "\n"


def requirements() -> str:
    """What Gradescope's machines install besides Otter: the library, on PyTorch's CPU build."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    library = f"sami-tutorial @ git+{repository['url']}@{repository['branch']}"
    return f"--extra-index-url https://download.pytorch.org/whl/cpu\n{library}\n"


def build(assignment: Assignment, student: Path = STUDENT, out: Path = BUILD) -> None:
    """Runs `otter assign`, and writes the student edition and what grading needs.

    Raises:
        subprocess.CalledProcessError: if Otter refuses the source; its message has been printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        notebook = f"{assignment.name}.ipynb"
        nbformat.write(master(assignment), work / notebook)
        (work / "requirements.txt").write_text(requirements())
        otter = [sys.executable, "-m", "otter", "assign", notebook, "made"]
        done = subprocess.run(otter, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            done.check_returncode()
        otters = nbformat.read(work / "made" / "student" / notebook, as_version=4)
        solution = nbformat.read(work / "made" / "autograder" / notebook, as_version=4)
        (autograder,) = (work / "made" / "autograder").glob("*.zip")

        write(student / notebook, as_text(student_edition(otters, assignment)))
        write(out / f"{assignment.name}.zip", autograder.read_bytes())
        solved = as_text(student_edition(solution, assignment))
        write(out / f"{assignment.name}-solution.ipynb", solved)
    questions = [
        {"name": q.name, "points": q.points, "manual": bool(q.manual)} for q in assignment.questions
    ]
    about = {"name": assignment.name, "title": assignment.title, "questions": questions}
    write(out / f"{assignment.name}.json", json.dumps(about, indent=2) + "\n")


def main() -> None:
    """Builds the assignments that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="an assignment whose name contains this")
    parser.add_argument("--variant", type=int, default=0, help="a number that changes the numbers")
    options = parser.parse_args()
    chosen = [name for name in names() if options.only is None or options.only in name]
    if not chosen:
        parser.error(f"--only is {options.only!r}; the assignments are {', '.join(names())}")
    for name in chosen:
        assignment = read(name, options.variant)
        build(assignment)
        total = sum(question.points for question in assignment.questions)
        print(f"{name}: {len(assignment.questions)} questions, {total:g} points")


if __name__ == "__main__":
    main()
