"""Shared by all tests."""

import pytest


@pytest.fixture(scope="session")
def can_draw() -> None:
    """Skips a test where this computer has no OpenGL for MuJoCo to draw with."""
    import sami_tutorial.envs.mujoco  # noqa: F401  (chooses EGL or OSMesa where there is no screen)

    # isort: split
    import mujoco

    try:
        context = mujoco.GLContext(64, 64)
    except Exception as error:
        pytest.skip(f"MuJoCo cannot draw here (neither EGL, OSMesa nor a screen): {error}")
    context.free()
