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


_backend = choose_backend(os.environ)
if _backend:
    os.environ["MUJOCO_GL"] = _backend
