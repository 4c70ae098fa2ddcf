"""Runs spread over worker processes by joblib: loky on one computer, Dask or Ray on many.

A worker starts a process for each run and watches it. So a run that crashes, or that is killed for
want of memory, takes no other with it; every run starts with clean memory and has one thread; and
nothing outlives a sweep that is killed.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from joblib import Parallel, delayed, parallel_config

BACKENDS = ("loky", "dask", "ray")

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Task:
    """Something to do in a process of its own.

    Args:
        name: unique.
        module: run as ``python -m module``.
        line: what the process reads from standard input, which stays open behind it.
        log: where its output goes.
    """

    name: str
    module: str
    line: str
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a task ended; ``error`` is None after a success, else one line."""

    name: str
    seconds: float
    error: str | None


@contextmanager
def workers(backend: str, number: int, scheduler: str | None = None) -> Iterator[None]:
    """Where :func:`spread` runs its tasks.

    Args:
        backend: ``"loky"``, ``"dask"`` or ``"ray"``.
        number: of worker processes; a running cluster has its own number.
        scheduler: address of a running Dask or Ray cluster; None starts one on this computer.

    Raises:
        ValueError: if the backend is unknown, not installed, or does not answer.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; choose one of {BACKENDS}")
    if scheduler is not None and backend == "loky":
        raise ValueError(
            f"scheduler is {scheduler!r}, but loky has none; choose the backend 'dask' or 'ray'"
        )
    if backend == "loky":
        with parallel_config("loky", n_jobs=number):
            yield
    elif backend == "dask":
        with _dask(number, scheduler), parallel_config("dask", n_jobs=-1):
            yield
    else:
        with _ray(number, scheduler) as available, parallel_config("ray", n_jobs=available):
            yield


@contextmanager
def _dask(number: int, scheduler: str | None) -> Iterator[None]:
    distributed = _load("distributed", "dask")
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=20)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"scheduler {scheduler!r} does not answer ({error}); start it with "
                "`dask scheduler`, and its workers with `dask worker`"
            ) from error
        with client:
            yield
        return
    with (
        distributed.LocalCluster(
            n_workers=number, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield


@contextmanager
def _ray(number: int, scheduler: str | None) -> Iterator[int]:
    ray = _load("ray", "ray")
    backend = _load("ray.util.joblib.ray_backend", "ray").RayBackend
    # Ray's pool calls back as each task ends, which is all that generators of results need.
    backend.supports_return_generator = True
    place: dict[str, Any] = {"address": scheduler}
    if scheduler is None:
        place = {"address": "local", "num_cpus": number, "include_dashboard": False}
    try:
        ray.init(**place, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises this very class when its start takes too long
        raise ValueError(
            f"ray does not start or answer ({' '.join(str(error).split())}); take the address "
            "that `ray start --head` names, or try again when the computer is less busy"
        ) from error
    try:
        _load("ray.util.joblib", "ray").register_ray()
        yield int(ray.cluster_resources()["CPU"])
    finally:
        ray.shutdown()


def _load(module: str, backend: str) -> ModuleType:
    """An optional package, or one line on how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"backend is {backend!r}, which is not installed ({error}); run `make scale`, or "
            "`pip install 'sami-tutorial[scale]'`"
        ) from error


def spread(tasks: Sequence[Task]) -> Iterator[Outcome]:
    """Runs all tasks on the :func:`workers` in force; yields each one's outcome as it ends."""
    everything = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
    yield from everything(delayed(run_task)(task, os.getpid()) for task in tasks)


def run_task(task: Task, owner: int) -> Outcome:
    """Runs one task to its end; ends at once if ``owner``, the parent process, is gone."""
    watched = os.getppid() == owner
    start = time.monotonic()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", task.module],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended before it read; its log says why
            process.stdin.write(task.line.encode() + b"\n")
            process.stdin.flush()  # and left open: it closes when this process ends, however
        while True:
            try:
                status = process.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if watched and os.getppid() != owner:
                    os._exit(1)
        with suppress(BrokenPipeError):
            process.stdin.close()
    return Outcome(task.name, time.monotonic() - start, _error(status, task.log))


def _error(status: int, log: Path) -> str | None:
    """What went wrong, in one line."""
    if status == 0:
        return None
    if status < 0:
        hint = "; out of memory?" if -status == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-status).name}{hint}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit status {status} without a message"
    return re.sub(r"^[\w.]+\.(\w+: )", r"\1", last)  # without the path of the exception's class
