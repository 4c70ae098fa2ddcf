"""What the last run of every notebook needed, kept for the book's status page."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import nbformat

from sami_tutorial.files import write_whole

STATUS = "_status.json"  # beside the notebooks; a name that the book's build leaves alone
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "scikit-learn", "umap-learn", "plotly")


def code_hash(notebook: Path) -> str:
    """Of the code, as text and outputs may change without another run.

    The first cell does not count: it installs the library, and changes with the repository's name.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code[1:]).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages whose numbers the outputs may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def record(notebook: Path, seconds: float, peak_bytes: int) -> None:
    """Notes a finished run in ``_status.json`` beside the notebook, in one step.

    Args:
        notebook: as it was written back.
        seconds: processor time of the run: its length on one core that has no other work.
        peak_bytes: most memory that its kernel held.
    """
    file = notebook.with_name(STATUS)
    runs = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    runs[notebook.stem] = {
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes,
        "code": code_hash(notebook),
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
    }
    write_whole(file, (json.dumps(dict(sorted(runs.items())), indent=1) + "\n").encode())
