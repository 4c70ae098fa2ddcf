"""What every notebook of the book sets up in its first cell."""

from __future__ import annotations

from types import TracebackType
from typing import Any

HINT = (
    "If a cell above defines it, that cell has not run since the kernel started. Run all cells "
    "above this one first (Colab: Runtime, Run before; JupyterLab: Run, Run All Above Selected "
    "Cell)"
)


def prepare() -> None:
    """Lets an undefined name say what to do about it; does nothing outside of IPython.

    Cells run out of order, or after a restart, fail with a NameError somewhere in the middle.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((NameError,), _explain)


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
