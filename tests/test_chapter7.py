"""Chapter 7 builds interaction information and its world in plain code; the library agrees."""

from __future__ import annotations

import re

import nbformat
import numpy as np
import pytest
from notebook_cells import BOOK, tagged_cells

from sami_tutorial.information import entropy, interaction_information, mutual_information
from sami_tutorial.skill_world import SkillWorld

CHAPTER = "07_skill_aware_mi"


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells(CHAPTER, "from-scratch")


@pytest.mark.parametrize("seed", range(3))
def test_information_is_the_librarys(chapter, seed):
    table = np.random.default_rng(seed).dirichlet(np.full(24, 0.3)).reshape(2, 3, 2, 2)
    assert chapter["marginal_entropy"](table, (1, 3)) == pytest.approx(entropy(table, (1, 3)))
    ours = chapter["information"](table, (0,), (1, 3), (2,))
    assert ours == pytest.approx(mutual_information(table, 0, (1, 3), given=2))
    ours = chapter["sami"](table, (0,), (1,), (2, 3))
    assert ours == pytest.approx(interaction_information(table, 0, (2, 3), 1))


def test_the_world_is_the_librarys(chapter):
    settings = dict(
        skills=2, distractors=3, follow=0.4, clarity=0.7, reliability=0.5, sensor=0.9
    )  # no two alike
    assert np.allclose(chapter["world_table"](**settings), SkillWorld(**settings).table())


@pytest.mark.parametrize(
    ("graph", "independent"),
    [
        ("fork", (1, 2, 0)),
        ("chain", (0, 2, 1)),
        ("skill is a function of c", (1, 2, 0)),
        ("coin agent", (0, 1, ())),
    ],
)
def test_random_tables_have_the_independence_of_their_graph(chapter, graph, independent):
    x, y, given = independent
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = chapter["random_joint"](graph, rng)
        assert mutual_information(table, x, y, given) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("graph", ["hidden cause", "all edges"])
def test_the_other_graphs_promise_none(chapter, graph):
    table = chapter["random_joint"](graph, np.random.default_rng(0))
    for x, y, z in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        assert mutual_information(table, x, y) > 1e-4
        assert mutual_information(table, x, y, given=z) > 1e-4


def test_embeddings_of_one_bit_are_scored_by_what_the_bit_tells(chapter):
    world = SkillWorld(distractors=2, follow=0.8, clarity=0.9, reliability=0.9)
    scores = chapter["score_embeddings"](world.table(), 2, 2)
    assert scores.shape == (8, 3)
    constant, kind, distractor = scores[0], scores[0b011], scores[0b101]
    assert constant == pytest.approx([0, 0, 0.5], abs=1e-12)
    # Each of these bits is one axis of the table.
    for axis, row, right in ((0, kind, 1.0), (1, distractor, 0.5)):
        expected = mutual_information(world.table(), axis, (3, 4, 5))
        aware = interaction_information(world.table(), axis, 2, (3, 4, 5))
        assert row == pytest.approx([expected, aware, right])


def test_solutions_run_in_the_chapter(chapter):
    cells = nbformat.read(BOOK / f"{CHAPTER}.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if "<summary>Solution" in cell.source)
    folded = re.findall(r"<summary>Solution</summary>(.*?)</details>", text, flags=re.DOTALL)
    solutions = re.findall(r"```python\n(.*?)```", "".join(folded), flags=re.DOTALL)
    assert len(solutions) == 4
    for solution in solutions:
        exec(solution, {**chapter, "SkillWorld": SkillWorld})
