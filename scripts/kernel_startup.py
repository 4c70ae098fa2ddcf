"""Run by every kernel of `make lab` when it starts, also when it starts again.

A cell that then runs before the cells above it says what to do; see sami_tutorial.notebook, which
is run by its path, since importing the library would take every kernel some seconds.
"""

import runpy
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "src" / "sami_tutorial" / "notebook.py"
runpy.run_path(str(NOTEBOOK))["prepare"]()
