"""Lets MuJoCo draw on a computer without a screen. Import it before ``mujoco``.

MuJoCo reads the environment variable ``MUJOCO_GL`` once, when it is imported, and by default looks
for a screen. On Linux without one, this module points it to a library that draws in memory: EGL,
else OSMesa. A value that you set yourself stays, and without either library only drawing fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from ctypes.util import find_library


def choose_backend(
    variables: Mapping[str, str],
    platform: str = sys.platform,
    find: Callable[[str], str | None] = find_library,
) -> str | None:
    """The value to give ``MUJOCO_GL``, or None to leave it as it is.

    Args:
        variables: environment variables, e.g. ``os.environ``.
        platform: as in ``sys.platform``; other systems than Linux always draw in memory.
        find: where a shared library lies, or None.
    """
    has_screen = "DISPLAY" in variables or "WAYLAND_DISPLAY" in variables
    if platform != "linux" or has_screen or "MUJOCO_GL" in variables:
        return None
    return next((name.lower() for name in ("EGL", "OSMesa") if find(name)), None)


def advice(variables: Mapping[str, str]) -> str:
    """What to do where drawing fails, for an error's message."""
    value = variables.get("MUJOCO_GL")
    return (
        f"MuJoCo cannot draw here, with MUJOCO_GL {'unset' if value is None else repr(value)}. On "
        "Linux without a screen, install EGL (Debian and Ubuntu: apt install libegl1 libgl1), "
        "unset MUJOCO_GL and start Python again. Everything but drawing works without it"
    )


_backend = choose_backend(os.environ)
if _backend:
    os.environ["MUJOCO_GL"] = _backend
