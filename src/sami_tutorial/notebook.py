"""What every notebook of the book sets up in its first cell."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

HINT = (
    "If a cell above defines it, that cell has not run since the kernel started. Run all cells "
    "above this one first (Colab: Runtime, Run before; JupyterLab: Run, Run All Above Selected "
    "Cell)"
)

LENT = ("COLAB_RELEASE_TAG", "BINDER_LAUNCH_HOST")
"""Variables that Colab and Binder set: a computer lent for some hours, nobody's home."""
STARTUP = "sami_tutorial_hint.py"


def prepare() -> None:
    """Lets an undefined name say what to do about it; does nothing outside of IPython.

    Cells run out of order, or after a restart, fail with a NameError somewhere in the middle. On
    Colab and Binder a file in IPython's startup folder sees to it that a kernel which was started
    again knows this too, before a first cell has run. At home nothing is written; `make lab` has
    ``scripts/kernel_startup.py`` instead.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    shell.set_custom_exc((NameError,), _explain)
    if any(name in os.environ for name in LENT):
        # By its path: importing the library would take every kernel some seconds.
        text = f"import runpy\n\nrunpy.run_path({__file__!r})['prepare']()\n"
        Path(shell.profile_dir.startup_dir, STARTUP).write_text(text, encoding="utf-8")


def _explain(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType,
    tb_offset: int | None = None,
) -> None:
    # UnboundLocalError is a NameError too, and has nothing to do with other cells.
    if kind is NameError:
        error.args = (f"{error}. {HINT}.",)
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
