"""Lets a test run what a chapter builds from scratch, exactly as the chapter shows it."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from torch import nn

BOOK = Path(__file__).parents[1] / "book"


def tagged_cells(chapter: str, *tags: str) -> dict[str, Any]:
    """The names that the cells of ``chapter`` with one of ``tags`` define, run in order.

    The usual imports are there; everything else must come from the cells themselves.
    """
    notebook = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    sources = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and set(tags) & set(cell.metadata.get("tags", []))
    ]
    if not sources:
        raise ValueError(f"chapter {chapter!r} has no cell tagged {tags}")
    names = {"copy": copy, "itertools": itertools, "math": math, "nn": nn, "np": np, "torch": torch}
    for source in sources:
        exec(source, names)
    return names
