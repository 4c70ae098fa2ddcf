"""Run notebooks in place, each alone in a fresh kernel, and hold them to the book's budget.

    python scripts/execute_notebooks.py [--only NAME] [--workers N] [FOLDER ...]

A notebook is written back only when it ran to its end without an error, without a word on standard
error, within the time and the memory. Metadata that changes with the machine or the editor is
dropped, so that a diff shows what changed in the book. How much processor time a run took, and
with which versions, is noted for the book's status page.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from notebook_status import record
from tqdm import tqdm

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
VOLATILE_CELL_METADATA = {"ExecuteTime", "collapsed", "execution", "scrolled"}


@dataclass(frozen=True)
class Budget:
    """What one notebook may use."""

    seconds: float = 180.0
    gigabytes: float = 2.0


@dataclass
class Report:
    """How one run went; ``problems`` is empty when it went well."""

    path: Path
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the kernel and what it starts, whatever else the machine does
    peak_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "FAILED" if self.problems else "ok"
        line = (
            f"{verdict:6} {self.seconds:6.1f} s ({self.cpu_seconds:.1f} s of processor) "
            f"{self.peak_bytes / 1e9:5.2f} GB  {self.path}"
        )
        return "\n".join([line, *(indent(problem, "    ") for problem in self.problems)])


class Watch(threading.Thread):
    """Measure a kernel and its children while they run, and stop them when the budget is spent."""

    def __init__(self, client: NotebookClient, budget: Budget) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.budget = budget
        self.peak_bytes = 0
        self.cpu_seconds = 0.0
        self.exceeded = ""
        self._start_time = time.monotonic()
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(0.1):
            pid = getattr(getattr(self.client.km, "provisioner", None), "pid", None)
            if pid is None:
                continue
            processes = family(pid)
            self.peak_bytes = max(self.peak_bytes, sum(resident_bytes(p) for p in processes))
            self.cpu_seconds = max(self.cpu_seconds, sum(cpu_seconds(p) for p in processes))
            if time.monotonic() - self._start_time > self.budget.seconds:
                self.exceeded = f"ran longer than {self.budget.seconds:g} s"
            elif self.peak_bytes > self.budget.gigabytes * 1e9:
                self.exceeded = f"took more than {self.budget.gigabytes:g} GB of memory"
            if self.exceeded:
                for process in processes:
                    kill(process)
                return

    def stop(self) -> None:
        """End the measurement."""
        self._finished.set()
        self.join()


def family(pid: int) -> list[psutil.Process]:
    """A process and all it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(process: psutil.Process) -> int:
    """Memory that a process holds now; 0 once it is gone."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and of its children that have ended; 0 once it is gone."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0


def kill(process: psutil.Process) -> None:
    """End a process that may already be gone."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass


def find(folders: list[Path], only: str | None) -> list[Path]:
    """The notebooks under some folders, in reading order, but for the assignments.

    Those are handed out as they are: without answers, and so without outputs.

    Raises:
        ValueError: if none is there, or none has ``only`` in its name.
    """
    found = sorted(
        path
        for folder in folders
        for path in folder.rglob("*.ipynb")
        if not any(
            part.startswith((".", "_")) or part == "assignments"
            for part in path.relative_to(folder).parts
        )
    )
    chosen = [path for path in found if only is None or only in path.stem]
    if not chosen:
        names = ", ".join(path.stem for path in found) or "none"
        raise ValueError(f"only is {only!r}; the notebooks are: {names}")
    return chosen


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Drop, in place, the metadata that differs between machines and editors."""
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        for key in VOLATILE_CELL_METADATA & cell.metadata.keys():
            del cell.metadata[key]
    return notebook


def problems(notebook: NotebookNode) -> Iterator[str]:
    """What a reader must not see: errors and anything on standard error."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                yield f"cell {index}: {output.ename}: {output.evalue}"
            elif output.output_type == "stream" and output.name == "stderr":
                yield f"cell {index} wrote on standard error: {output.text.strip()[:500]}"


def write(notebook: NotebookNode, path: Path) -> None:
    """Replace a notebook in one step: a reader finds the old or the new one, whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        nbformat.write(notebook, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run(client: NotebookClient, path: Path, budget: Budget, **start: object) -> Report:
    """Run a client's notebook within a budget; ``start`` goes to its kernel."""
    report = Report(path)
    watch = Watch(client, budget)
    watch.start()
    begin = time.monotonic()
    try:
        client.execute(**start)
    except CellExecutionError as error:
        report.problems.append(ANSI.sub("", str(error)).strip())
    except RuntimeError as error:  # the kernel died, while it started or while it ran
        report.problems.append(watch.exceeded or str(error))
    finally:
        watch.stop()
        report.seconds = time.monotonic() - begin
        report.cpu_seconds = watch.cpu_seconds
        report.peak_bytes = watch.peak_bytes
    if not report.problems:
        report.problems += problems(client.nb)
    return report


def execute(path: Path, budget: Budget) -> Report:
    """Run one notebook in a fresh kernel, in its own folder, and write it back if all is well."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    )
    report = run(client, path, budget)
    if not report.problems:
        write(normalise(notebook), path)
    return report


def main() -> int:
    """Run them all; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("book")])
    parser.add_argument("--only", help="run only notebooks whose name contains this")
    parser.add_argument("--workers", type=int, default=2, help="notebooks at a time")
    parser.add_argument("--seconds", type=float, default=Budget.seconds, help="limit of each")
    parser.add_argument("--gigabytes", type=float, default=Budget.gigabytes, help="limit of each")
    options = parser.parse_args()
    try:
        paths = find(options.folders, options.only)
    except ValueError as error:
        parser.error(str(error))
    budget = Budget(options.seconds, options.gigabytes)

    # Kernels inherit this: parallel notebooks must not compete for the cores, and a notebook's
    # time must not depend on how many cores there are.
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = 0
    with (
        ThreadPoolExecutor(options.workers) as pool,
        tqdm(total=len(paths), unit="notebook", file=sys.stdout) as bar,
    ):
        for future in as_completed([pool.submit(execute, path, budget) for path in paths]):
            report = future.result()
            failed += bool(report.problems)
            if not report.problems:
                record(report.path, report.cpu_seconds, report.peak_bytes)
            bar.write(str(report))
            bar.update()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
