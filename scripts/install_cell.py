"""The first code cell of every notebook: it installs the library where that is missing.

    python scripts/install_cell.py            writes it into the notebooks of book/

It is made from the repository and the branch that `_config.yml` names, and a test compares every
notebook with it. The assignments get it from `make assignments`.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from sami_tutorial.files import write_whole

ROOT = Path(__file__).resolve().parent.parent

TEMPLATE = """\
# Run this cell first, also after a restart. It installs the book's library where that is missing.
import importlib.util
import subprocess
import sys
from importlib.metadata import version

if importlib.util.find_spec("sami_tutorial") is None:
    if sys.version_info < (3, 11):
        raise RuntimeError("The book needs Python 3.11 or newer: choose another kernel.")
    print("Installing the book's library; this takes about half a minute ...", end=" ", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    pip += ["git+{url}@{branch}"]
    kept = [name for name in ("numpy", "torch") if importlib.util.find_spec(name)]
    pip += [f"{{name}}=={{version(name)}}" for name in kept]
    done = subprocess.run(pip, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode != 0:
        raise RuntimeError(
            f"{{done.stderr}}\\nThe book's library is not installed; pip says why. It needs git, "
            "the network and 2 GB of disk. Put that right and run this cell again."
        )
    print("done.")

from sami_tutorial.notebook import prepare

prepare()"""


def source() -> str:
    """The cell."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return TEMPLATE.format(url=repository["url"], branch=repository["branch"])


def inserted(text: str) -> str:
    """A stored notebook with this cell as its first one of code; on the page it is folded."""
    notebook = json.loads(text)
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    first["source"] = source().splitlines(keepends=True)
    first["metadata"].setdefault("tags", ["hide-input"])
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes the cell into every chapter."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        after = inserted(before)
        if after != before:
            write_whole(path, after.encode())
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
