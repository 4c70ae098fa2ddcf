"""Chapter 1: its plain-Python CubeMove is the library's, and its exercises' solutions hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sami_tutorial.envs import cube_skills, make_vec

NOTEBOOK = Path(__file__).parents[1] / "book" / "01_tasks_and_skills.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def chapter(cells) -> dict:
    """The names that the chapter defines: its code cells run, without set-up and figures."""
    names: dict = {}
    skipped = ("figures.show", "figures.new_figure(", "LIVE", "%pip")
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not any(word in source for word in skipped):
            exec(source, names)
    return names


def test_the_plain_cube_is_the_librarys(chapter):
    rng = np.random.default_rng(17)
    num_envs = 200
    contexts = [
        {"mass": float(m), "friction": float(f)}
        for m, f in zip(
            rng.uniform(0.1, 2.6, num_envs), rng.uniform(0.01, 3, num_envs), strict=True
        )
    ]
    envs = make_vec("sami/CubeMove-v0", num_envs, seed=1)
    observation, _ = envs.reset(options={"context": contexts})
    states = [(0.0, 0.0, 0.0, float(o[3]), float(o[0])) for o in observation]
    for step in range(39):
        if step % 5 == 0:
            actions = rng.uniform(-1, 1, (num_envs, 2)).astype(np.float32)
        observation, rewards, *_ = envs.step(actions)
        for i, context in enumerate(contexts):
            action = actions[i].astype(float)
            states[i] = chapter["cube_step"](states[i], action, **context)
            x, v, z, w, goal = states[i]
            assert np.allclose(observation[i], [goal - x, v, z / 0.06, w, x], atol=1e-5)
            assert rewards[i] == pytest.approx(chapter["cube_reward"](states[i], action), abs=1e-5)


def test_the_plain_map_is_the_librarys(chapter):
    for mass in np.geomspace(0.05, 5, 40):
        for friction in np.geomspace(0.005, 9, 40):
            expected = cube_skills.optimal_skill(friction, mass)
            assert chapter["optimal_skill"](friction, mass) == expected


def test_the_solutions_hold(cells, chapter):
    """Each solution ends in assertions of its own."""
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    solutions = re.findall(r"<summary>Solution</summary>.*?```python\n(.*?)```", text, re.DOTALL)
    assert len(solutions) == 3
    for solution in solutions:
        assert "assert" in solution
        exec(solution, dict(chapter))
