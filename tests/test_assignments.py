"""The assignments: solutions earn everything, stubs nothing, planted wrong answers lose points.

Here the questions are graded in this process, without Otter-Grader. That Otter gives the same
points is the business of test_grade.py.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import re
import tomllib
from typing import Any

import assignments
import install_cell
import nbformat
import pytest
from assignments import IGNORED_WHEN_GRADING, Assignment, Question

NAMES = assignments.names()
LEAST_WRONG_ANSWERS = 10


@functools.cache
def source(name: str) -> str:
    return (assignments.SOURCES / f"{name}.py").read_text(encoding="utf-8")


@functools.cache
def planted(name: str) -> dict[str, list[dict[str, Any]]]:
    """The wrong and the right answers of an assignment."""
    return tomllib.loads((assignments.SOURCES / f"{name}.toml").read_text(encoding="utf-8"))


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}-{case['name']}")
        for name in NAMES
        for case in planted(name)[kind]
    ]


def scores(assignment: Assignment) -> dict[str, float]:
    """Runs an assignment's cells in order, as grading does, then its tests: points per question.

    A cell that fails is passed over, like a failed cell of a notebook.
    """
    names: dict[str, Any] = {}
    for part in assignment.parts:
        for cell in part.cells if isinstance(part, Question) else [part]:
            ignored = IGNORED_WHEN_GRADING in cell.metadata.get("tags", [])
            if cell.cell_type == "code" and not ignored:
                try:
                    exec(cell.source, names)
                except Exception:
                    continue
    graded = [question for question in assignment.questions if not question.manual]
    return {q.name: sum(points(test, names) for test in q.tests) for q in graded}


def points(test: assignments.Test, names: dict[str, Any]) -> float:
    """What a test gives for the answers in ``names``."""
    defined: dict[str, Any] = {}
    exec(test.source, defined)
    (function,) = (defined[name] for name in re.findall(r"^def (\w+)", test.source, re.MULTILINE))
    try:
        function(**{name: names.get(name) for name in inspect.signature(function).parameters})
    except Exception:
        return 0.0
    return test.points


@functools.cache
def full(name: str) -> dict[str, float]:
    """The points of every question that is not graded by a person."""
    return {q.name: q.points for q in parsed(name).questions if not q.manual}


@functools.cache
def parsed(name: str, variant: int = 0) -> Assignment:
    return assignments.read(name, variant)


def changed(name: str, find: str, replace: str) -> Assignment:
    """The assignment with a text of its cells, which is there once, replaced."""
    assignment = copy.deepcopy(parsed(name))
    cells = [
        cell
        for part in assignment.parts
        for cell in (part.cells if isinstance(part, Question) else [part])
        if find in cell.source
    ]
    assert len(cells) == 1 and cells[0].source.count(find) == 1, "`find` must name one place"
    cells[0].source = cells[0].source.replace(find, replace)
    return assignment


# ---- the sources ----


@pytest.mark.parametrize("name", NAMES)
def test_source_is_well_formed(name: str) -> None:
    """Points in the headings and in the text add up; every graded question has both kinds."""
    assignment = parsed(name)
    for question in assignment.questions:
        heading = question.cells[0].source
        stated = re.match(r"## Question (\d+): .*\((\d+) points?\)\n", heading)
        assert stated, f"{question.name}: no heading '## Question N: ... (P points)'"
        assert (f"q{stated[1]}", int(stated[2])) == (question.name, question.points)
        if question.manual:
            continue
        assert any(not test.hidden for test in question.tests), question.name
        assert any(test.hidden for test in question.tests), question.name
        for test in question.tests:
            (function,) = ast.parse(test.source).body
            assert isinstance(function, ast.FunctionDef)
            assert ast.get_docstring(function), function.name
            for node in ast.walk(function):  # a visible check that says nothing teaches nothing
                if isinstance(node, ast.Assert):
                    assert test.hidden or node.msg, f"{function.name}: {ast.unparse(node)}"
    functions = re.findall(r"^def (test_\w+)", source(name), re.MULTILINE)
    assert len(functions) == len(set(functions))
    total = sum(question.points for question in assignment.questions)
    assert f"**Points:** {total:g}" in assignment.parts[0].source
    assert "**Time:** 60 to 90 minutes" in assignment.parts[0].source


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_earns_every_point(name: str) -> None:
    assert scores(parsed(name)) == full(name)


@pytest.mark.parametrize("name", NAMES)
def test_another_variant_has_other_numbers(name: str) -> None:
    """The solution still earns everything, and an answer to the first variant does not."""
    assert scores(parsed(name, variant=5)) == full(name)
    mixed = copy.deepcopy(parsed(name, variant=5))
    for part in mixed.parts:  # last year's answers to this year's tests
        for cell in part.cells if isinstance(part, Question) else [part]:
            cell.source = cell.source.replace("VARIANT = 5", "VARIANT = 0")
    assert sum(scores(mixed).values()) < sum(full(name).values())


@pytest.mark.parametrize(("name", "case"), cases("wrong"))
def test_a_wrong_answer_loses_points_where_it_should(name: str, case: dict[str, Any]) -> None:
    found = scores(changed(name, case["find"], case["replace"]))
    lost = {question for question, earned in found.items() if earned < full(name)[question]}
    assert lost == set(case["loses"])


@pytest.mark.parametrize(("name", "case"), cases("right"))
def test_a_right_answer_in_other_words_earns_every_point(name: str, case: dict[str, Any]) -> None:
    assert scores(changed(name, case["find"], case["replace"])) == full(name)


@pytest.mark.parametrize("name", NAMES)
def test_enough_wrong_answers_are_planted(name: str) -> None:
    """At least ten, and some for every graded question."""
    wrong = planted(name)["wrong"]
    assert len(wrong) >= LEAST_WRONG_ANSWERS
    assert {question for case in wrong for question in case["loses"]} == full(name).keys()


# ---- the student editions ----


def student_cells(name: str) -> list[nbformat.NotebookNode]:
    path = assignments.STUDENT / f"{name}.ipynb"
    return nbformat.read(path, as_version=4).cells


def test_every_source_has_a_student_edition() -> None:
    assert [path.stem for path in sorted(assignments.STUDENT.glob("*.ipynb"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_student_edition_runs_and_earns_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No cell fails, every check says what is missing, and no test gives a point."""
    names: dict[str, Any] = {}
    first, *cells = [cell for cell in student_cells(name) if cell.cell_type == "code"]
    assert first.source == install_cell.source(), "`make assignments`"
    for cell in cells:
        exec(cell.source, names)
    printed = capsys.readouterr().out
    for question in full(name):
        assert names["done"][question] is False
    assert "✗" in printed
    assert "goes here" in printed
    for question in parsed(name).questions:
        assert not any(points(test, names) for test in question.tests), question.name


@pytest.mark.parametrize("name", NAMES)
def test_the_student_edition_shows_the_visible_tests_and_no_other(name: str) -> None:
    text = "\n".join(cell.source for cell in student_cells(name))
    for question in parsed(name).questions:
        for test in question.tests:
            assert (test.source in text) is not test.hidden
            signature = test.source.partition("(")[0]
            assert (f"{signature}(" in text) is not test.hidden


@pytest.mark.parametrize("name", NAMES)
def test_the_student_edition_is_this_sources(name: str) -> None:
    """Its cells are the source's, but for the answers: `make assignments` was run."""
    shown = [cell.source for cell in student_cells(name)]
    for part in parsed(name).parts:
        for cell in part.cells if isinstance(part, Question) else [part]:
            if not cell.metadata.get("answer"):
                assert cell.source.strip() in [each.strip() for each in shown], "`make assignments`"
