"""Stored results: tables in data/, each with the command, config, commit and hardware that made it.

``data/manifest.json`` holds one entry per file: sha256, bytes, command, config, commit, hardware,
wall_seconds, created. A table is only read after its hash was checked against that entry, so a
figure in the book can always be traced to the run that produced it. Where only the library is
installed, the files are fetched when they are asked for: see :mod:`sami_tutorial.download`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sami_tutorial import download
from sami_tutorial.download import MANIFEST as MANIFEST
from sami_tutorial.files import write_whole
from sami_tutorial.lock import locked

LOCK = "lock"  # beside the manifest, and not in it
PATIENCE = 120.0  # seconds; storing one file takes a small part of one


class ResultsError(ValueError):
    """A stored result that is missing, unknown or not what the manifest says."""


def data_dir() -> Path:
    """The data folder: ``$SAMI_DATA`` if set, else ``data/`` of the clone, else a local copy of it.

    Raises:
        ResultsError: if there is none.
        DownloadError: if the copy cannot be begun.
    """
    if "SAMI_DATA" in os.environ:
        named = Path(os.environ["SAMI_DATA"])
        if (named / MANIFEST).is_file():
            return named
        raise ResultsError(
            f"SAMI_DATA is {str(named)!r}, where there is no {MANIFEST}; set it to the data folder "
            "of a clone of the book's repository, or unset it"
        )
    for start in (Path.cwd().resolve(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "data" / MANIFEST).is_file():
                return folder / "data"
    copy = download.cache("data")
    if copy is not None:
        return copy
    raise ResultsError(
        "no data/manifest.json found; work in a clone of the book's repository, "
        "or set SAMI_DATA to its data folder"
    )


def store_table(
    name: str,
    table: pd.DataFrame,
    *,
    command: str,
    config: dict[str, Any],
    wall_seconds: float,
    origin: dict[str, str] | None = None,
    directory: Path | None = None,
) -> Path:
    """Writes ``table`` as Parquet below the data folder; see :func:`store_bytes`."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return store_bytes(
        name,
        buffer.getvalue(),
        command=command,
        config=config,
        wall_seconds=wall_seconds,
        origin=origin,
        directory=directory,
    )


def store_bytes(
    name: str,
    content: bytes,
    *,
    command: str,
    config: dict[str, Any],
    wall_seconds: float,
    origin: dict[str, str] | None = None,
    directory: Path | None = None,
) -> Path:
    """Writes a file below the data folder and enters it in the manifest; both atomically.

    Args:
        name: path below the data folder, e.g. ``"curves/cubemove.parquet"``.
        content: the file.
        command: what reproduces it.
        config: every setting of the run, seeds included.
        wall_seconds: of the runs behind it.
        origin: what :func:`current_origin` said when the runs began; default: what it says now.
        directory: the data folder, if not :func:`data_dir`.

    Raises:
        TimeoutError: if another process goes on storing for minutes.
    """
    directory = directory or data_dir()
    path = directory / name
    entry = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "command": command,
        "config": config,
        **(origin or current_origin()),
        "wall_seconds": wall_seconds,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / LOCK, PATIENCE):  # else entries made meanwhile would be lost
        write_whole(path, content)
        manifest = read_manifest(directory)
        manifest["files"] = dict(sorted((manifest["files"] | {name: entry}).items()))
        write_whole(directory / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    return path


def load_bytes(name: str, directory: Path | None = None) -> bytes:
    """A stored file, after its hash was found to match the manifest.

    Raises:
        ResultsError: if it is unknown, missing or damaged.
        DownloadError: if it must be fetched and cannot be.
    """
    directory = directory or data_dir()
    files = read_manifest(directory)["files"]
    if name not in files:
        raise _unknown(name, files)
    path = directory / name
    if not path.is_file() and download.holds(path):
        download.fetch(path, sha256=files[name]["sha256"])
    if not path.is_file():
        raise ResultsError(f"{path} is missing; make it again with: {files[name]['command']}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != files[name]["sha256"]:
        raise ResultsError(
            f"{path} differs from its hash in {MANIFEST}; restore it with git, "
            f"or make it again with: {files[name]['command']}"
        )
    return content


def load_table(name: str, directory: Path | None = None) -> pd.DataFrame:
    """A stored Parquet table; see :func:`load_bytes` for what is checked."""
    return pd.read_parquet(io.BytesIO(load_bytes(name, directory)))


def provenance(name: str, directory: Path | None = None) -> dict[str, Any]:
    """The manifest's entry for a stored file."""
    files = read_manifest(directory or data_dir())["files"]
    if name not in files:
        raise _unknown(name, files)
    return files[name]


def _unknown(name: str, files: dict[str, Any]) -> ResultsError:
    """The manifest lists hundreds of files: those whose names are most alike help."""
    near = get_close_matches(name, files, n=5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name in it is alike"
    return ResultsError(f"{name!r} is not in {MANIFEST}, which lists {len(files)} files; {hint}")


def read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    return json.loads(path.read_text()) if path.exists() else {"files": {}}


def current_origin(device: torch.device | None = None) -> dict[str, str]:
    """The code and the machine that a run which begins now comes from.

    Args:
        device: where it computes, if not on the processor.
    """
    machine = hardware()
    if device is not None and device.type == "cuda":
        machine += f"; {torch.cuda.get_device_name(device)}"
    return {"commit": current_commit(), "hardware": machine}


def current_commit() -> str:
    """The commit of the library, with ``+changes`` if the clone's src/ or experiments/ differ."""
    installed = download.origin()
    if installed is not None:
        return installed[1]
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        try:
            result = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True
            )
        except OSError:  # no git on this machine
            return ""
        return result.stdout.strip() if result.returncode == 0 else ""

    # Git looks upwards: it also answers for a foreign repository around an installed library.
    top, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if not commit or Path(top).resolve() != root:
        return "unknown"
    return commit + ("+changes" if git("status", "--porcelain", "src", "experiments") else "")


def hardware() -> str:
    """Processor, cores and the versions that matter, without anything that names a machine."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
