"""One process per run directory: two that train the same run would overwrite each other's files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 3.0  # seconds; what is left of a killed sweep needs one to end


class RunDirBusy(RuntimeError):
    """Another process works in the run directory."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds the directory's lock; the operating system frees it when the process ends, however.

    Raises:
        RunDirBusy: if another process holds it for longer than a moment.
        ValueError: if ``directory`` is a file or lies below one.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"run_dir is {str(directory)!r}, which is a file or lies below one; name a directory"
        ) from None
    if sys.platform == "win32":
        yield  # it has no such lock
        return
    import fcntl

    deadline = time.monotonic() + PATIENCE
    with (directory / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunDirBusy(
                        f"another process is training in {str(directory)!r}; "
                        "wait for it or stop it, or choose another run directory"
                    ) from None
                time.sleep(0.1)
        yield
