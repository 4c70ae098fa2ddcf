"""One process at a time: two that train the same run would overwrite each other's files, two that
store results each other's entries in the manifest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PATIENCE = 3.0  # seconds; what is left of a killed sweep needs one to end


class RunDirBusy(RuntimeError):
    """Another process works in the run directory."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds the lock of a run directory, which is made if it is not there.

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
    with ExitStack() as held:
        try:
            held.enter_context(locked(directory / "lock", PATIENCE))
        except TimeoutError:
            raise RunDirBusy(
                f"another process is training in {str(directory)!r}; "
                "wait for it or stop it, or choose another run directory"
            ) from None
        yield


@contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """Holds the lock that a file stands for; the operating system frees it when the process ends.

    Raises:
        TimeoutError: if another process holds it for longer than ``patience`` seconds.
    """
    if sys.platform == "win32":
        yield  # it has no such lock
        return
    import fcntl

    deadline = time.monotonic() + patience
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"another process holds {str(path)!r}; wait for it or stop it"
                    ) from None
                time.sleep(0.1)
        yield
