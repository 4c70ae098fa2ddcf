"""Shared by all tests."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

DRAW_WITHOUT_OUR_BODIES = """
import gymnasium, sami_tutorial.envs.headless
env = gymnasium.make("Hopper-v5", render_mode="rgb_array")
env.reset()
env.render()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what every task is tested for on the Panda task where PyBullet is not installed."""
    if find_spec("pybullet"):
        return
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("id") == "sami/Panda-v0":
            item.add_marker(pytest.mark.skip(reason="needs PyBullet (`make panda`)"))


@pytest.fixture(scope="session")
def can_draw() -> None:
    """Skips a test where this computer has nothing for MuJoCo to draw with.

    It tries in a process of its own, since a failed attempt can leave OpenGL in a bad state.
    """
    done = subprocess.run(
        [sys.executable, "-c", DRAW_WITHOUT_OUR_BODIES], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"MuJoCo has neither EGL, OSMesa nor a screen to draw with: {last_line}")
