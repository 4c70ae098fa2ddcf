"""Grade notebooks, each in a process of its own, and write what came of each as JSON.

    python scripts/grade_one.py < jobs        (started by grade.py)

A student's code may do anything, so what runs it may be killed at any time. This program loads
PyTorch, the library and Otter-Grader once, and then forks for every job, a line of JSON on standard
input:

    {"notebook": .., "autograder": .., "folder": .., "seconds": .., "gigabytes": ..}

It answers with the child's process id and, when the child has ended, with its exit status. In the
job's folder the child keeps the file `where` up to date with what it is doing, so that grade.py can
say what was going on; what it prints goes to `output`; `result.json` appears at the end, whole.

The cells run in order in one namespace, as in Jupyter: a cell that fails is passed over, magics and
cells tagged "otter_ignore" are left out. Then Otter-Grader's own test files give the points.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import sys
import tempfile
import types
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
from otter.nbmeta_config import NBMetadataConfig
from otter.test_files import create_test_file

import sami_tutorial.envs  # noqa: F401

IGNORED = "otter_ignore"
OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|allocate memory|out of memory", re.IGNORECASE)


class Stopped(Exception):
    """The notebook did what ends its grading; the message is the reason, for the student."""


def limit(seconds: int, gigabytes: float) -> None:
    """What this process may use from here on. Wall time is the parent's business."""
    this = psutil.Process()
    size = this.memory_info().vms + int(gigabytes * 1e9)
    seconds += math.ceil(sum(this.cpu_times()[:2]))
    for kind, amount in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CPU, seconds),  # also ends a loop whose grader was killed
        (resource.RLIMIT_FSIZE, int(1e9)),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(kind, (amount, amount))
        except (OSError, ValueError):
            pass  # macOS refuses some of them; the parent watches time and memory as well


def read(path: Path) -> list[nbformat.NotebookNode]:
    """The notebook's cells."""
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
    except Exception as error:  # nbformat's many ways to say so
        reason = str(error).strip().splitlines()
        raise Stopped(
            f"the file is no notebook that can be read ({type(error).__name__}"
            f"{': ' + reason[0][:200] if reason else ''})"
        ) from None


def without_magics(source: str) -> str:
    """A cell without the lines that only Jupyter understands."""
    if source.lstrip().startswith("%%"):
        return ""
    return re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)


def out_of_memory(error: object) -> bool:
    return bool(OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"))


def run_cells(
    cells: list[nbformat.NotebookNode], where: Path, gigabytes: float
) -> tuple[dict[str, Any], list[str]]:
    """Runs a notebook: the names that it leaves, and a line for every cell that failed."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    heading, errors = "", []
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "markdown":
            found = re.search(r"^## (.+)$", cell.source, re.MULTILINE)
            heading = f", under {found[1]!r}" if found else heading
            continue
        if cell.cell_type != "code" or IGNORED in cell.metadata.get("tags", []):
            continue
        place = f"cell {number}{heading}"
        where.write_text(place)
        try:
            exec(compile(without_magics(cell.source), f"<cell {number}>", "exec"), vars(module))
        except Exception as error:
            if out_of_memory(error):
                raise Stopped(f"needed more than {gigabytes:g} GB of memory in {place}") from None
            errors.append(f"{place}: {type(error).__name__}: {error}")
        except BaseException as error:
            raise Stopped(f"ended itself by {type(error).__name__} in {place}") from None
    return vars(module), errors


def run_tests(
    autograder: Path, names: dict[str, Any], where: Path, gigabytes: float
) -> dict[str, list[dict[str, Any]]]:
    """Every question's tests: what they ask, what they are worth, whether they passed."""
    results = {}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(autograder) as archive:
        members = sorted(name for name in archive.namelist() if re.match(r"tests/\w+\.py$", name))
        archive.extractall(folder, members)
        for member in members:
            place = f"the tests of {Path(member).stem}"
            where.write_text(place)
            tests = create_test_file(str(Path(folder, member)), NBMetadataConfig())
            try:
                tests.run(names)
            except BaseException as error:  # Otter has caught every ordinary exception
                raise Stopped(f"ended itself by {type(error).__name__} in {place}") from None
            results[tests.name] = []
            for result in tests.test_case_results:
                if not result.passed and out_of_memory(result.message):
                    raise Stopped(f"needed more than {gigabytes:g} GB of memory in {place}")
                results[tests.name].append(
                    {
                        "asks": result.test_case.body.test_func.__doc__,
                        "points": result.test_case.points,
                        "passed": result.passed,
                        "hidden": result.test_case.hidden,
                        "message": "" if result.passed else last_line(result.message or ""),
                    }
                )
    return results


def last_line(message: str) -> str:
    """The exception of a failed test, without the test's own code before it."""
    lines = message.strip().splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    return "\n".join(lines[starts[-1] :] if starts else lines[-1:])


def grade(job: dict[str, Any]) -> None:
    """Grades one notebook and writes the result."""
    folder, gigabytes = Path(job["folder"]), job["gigabytes"]
    where = folder / "where"
    outcome: dict[str, Any] = {"reason": "", "errors": [], "questions": {}}
    try:
        where.write_text("the first cell")
        cells = read(Path(job["notebook"]))
        limit(job["seconds"], gigabytes)
        names, outcome["errors"] = run_cells(cells, where, gigabytes)
        outcome["questions"] = run_tests(Path(job["autograder"]), names, where, gigabytes)
    except Stopped as stopped:
        outcome["reason"] = str(stopped)
    partial = folder / "result.partial"
    partial.write_text(json.dumps(outcome))
    os.replace(partial, folder / "result.json")


def child(job: dict[str, Any]) -> None:
    """What a forked process does: leaves the parent's session, folder and pipes, and grades."""
    os.setsid()
    work = Path(job["folder"], "work")
    work.mkdir()
    os.chdir(work)
    os.environ["HOME"] = str(work)
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(Path(job["folder"], "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # the old one may hold jobs that it has read ahead
    sys.argv = ["notebook"]
    grade(job)


def main() -> None:
    """Takes jobs from standard input until it ends."""
    torch.set_num_threads(1)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            try:
                child(json.loads(line))
                sys.stdout.flush()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
            finally:
                os._exit(0)  # whatever threads or exit handlers the notebook left
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
