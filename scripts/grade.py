"""Grade a folder of submissions.

    python scripts/grade.py SUBMISSIONS OUT.csv      (`make grade SUBMISSIONS=dir OUT=grades.csv`)

A submission is SUBMISSIONS/STUDENT.ipynb, or any notebook below SUBMISSIONS/STUDENT/. Which
assignment it is, its file name says (it contains "1_sac") or else its title.

Each notebook is run and graded by a process of its own (grade_one.py), under limits of time, memory
and output. One that breaks a limit, ends itself or cannot be read gets 0 with the reason, and the
others go on. Finished ones are kept in OUT-work/; a second call goes on where the first was
stopped, and grades again what has changed, the notebook or the autograder.

It writes OUT.csv, one row per student and question, and OUT-feedback/STUDENT.md. A question that a
person grades has an empty number of points and the status "to grade".
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from assignments import BUILD, write
from tqdm import tqdm

WORKER = Path(__file__).with_name("grade_one.py")
COLUMNS = ("student", "assignment", "question", "points", "max_points", "status", "reason")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Limits:
    """What one notebook may use before it is stopped; its time counts from its first cell."""

    seconds: float = 300.0
    gigabytes: float = 4.0
    output_megabytes: float = 10.0


@dataclass(frozen=True)
class Submission:
    """A student's notebook of one assignment; more than one path is one too many."""

    student: str
    assignment: str
    paths: tuple[Path, ...]


def built(folder: Path) -> dict[str, dict[str, Any]]:
    """The assignments that `make assignments` has built: what their JSON says, by name.

    Raises:
        ValueError: if there is none.
    """
    about = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not about:
        raise ValueError(f"{folder} holds no autograder; run `make assignments` first")
    return {each["name"]: each for each in about}


def find(folder: Path, assignments: dict[str, dict[str, Any]]) -> list[Submission]:
    """Every submission, by student and assignment.

    Raises:
        ValueError: if the folder is missing or holds no notebook.
    """
    if not folder.is_dir():
        raise ValueError(f"SUBMISSIONS is {str(folder)!r}; give a folder")
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            student = parts[0] if len(parts) > 1 else path.stem
            found[student, recognise(path, assignments)].append(path)
    if not found:
        raise ValueError(f"{folder} holds no notebook (*.ipynb)")
    return [Submission(*key, tuple(paths)) for key, paths in sorted(found.items())]


def recognise(path: Path, assignments: dict[str, dict[str, Any]]) -> str:
    """The assignment that a notebook belongs to; a damaged one still holds its title."""
    for name in assignments:
        if name in path.name:
            return name
    text = path.read_text(encoding="utf-8", errors="replace")
    for name, about in assignments.items():
        if about["title"] in text:
            return name
    return UNKNOWN


class Nursery:
    """A process that has loaded what grading needs, and forks for every notebook."""

    def __init__(self) -> None:
        keep = ("PATH", "LANG", "LC_ALL", "PYTHONPATH")
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            env={key: os.environ[key] for key in keep if key in os.environ}
            | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that select() sees everything that has not been read
        )

    def run(self, job: dict[str, Any], limits: Limits) -> str:
        """Grades one notebook: the reason why it was stopped, if it was."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        pid = int(self.process.stdout.readline())
        status = self.process.stdout

        def running() -> bool:
            return not select.select([status], [], [], 0.05)[0]

        folder = Path(job["folder"])
        reason = watch(pid, running, limits, folder / "where", folder / "output")
        ended = int(status.readline())
        if not reason and os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGXCPU:
            return f"ran longer than {limits.seconds:g} s"
        return reason

    def close(self) -> None:
        """Ends it, and what it runs."""
        end(self.process.pid)
        self.process.communicate()


def grade(
    submission: Submission, autograder: Path, limits: Limits, nursery: Nursery
) -> dict[str, Any]:
    """Runs one submission in a process of its own: its tests' results, or the reason for a 0."""
    if submission.assignment == UNKNOWN:
        return failure("neither its name nor its title is that of an assignment")
    if len(submission.paths) > 1:
        several = ", ".join(path.name for path in submission.paths)
        return failure(f"there are {len(submission.paths)} notebooks of one assignment: {several}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {
            "notebook": str(submission.paths[0].resolve()),
            "autograder": str(autograder.resolve()),
            "folder": name,
            "seconds": math.ceil(limits.seconds),
            "gigabytes": limits.gigabytes,
        }
        reason = nursery.run(job, limits)
        if not reason and (folder / "result.json").exists():
            return json.loads((folder / "result.json").read_text())
        reason = reason or "its process ended before all was graded"
        return failure(f"{reason} in {(folder / 'where').read_text()}")


def failure(reason: str) -> dict[str, Any]:
    """A result without points."""
    return {"reason": reason, "errors": [], "questions": {}}


def watch(
    pid: int, running: Callable[[], bool], limits: Limits, started: Path, output: Path
) -> str:
    """Stops a process at its limits: the reason why it was stopped, if it was.

    Args:
        pid: the process.
        running: whether it still runs; takes a moment to say so.
        limits: of time, of memory, of what it prints.
        started: a file; time counts from when it is there.
        output: what the process has printed.
    """
    begin = math.inf
    try:
        while running():
            if begin == math.inf and started.exists():
                begin = time.monotonic()
            if time.monotonic() - begin > limits.seconds:
                return f"ran longer than {limits.seconds:g} s"
            if printed(output) > limits.output_megabytes * 1e6:
                return f"printed more than {limits.output_megabytes:g} MB"
            if resident(pid) > limits.gigabytes * 1e9:
                return f"needed more than {limits.gigabytes:g} GB of memory"
        if printed(output) > limits.output_megabytes * 1e6:
            return f"printed more than {limits.output_megabytes:g} MB"
        return ""
    finally:
        end(pid)


def printed(output: Path) -> int:
    """Bytes in a file that may not be there yet."""
    return output.stat().st_size if output.exists() else 0


def family(pid: int) -> list[psutil.Process]:
    """A process and all it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(pid: int) -> int:
    """Bytes of memory that a process and its children hold."""
    total = 0
    for process in family(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return total


def end(pid: int) -> None:
    """Ends a process with all it has started."""
    for process in family(pid):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


def digest(*paths: Path) -> str:
    """One hash of some files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def grade_all(
    submissions: list[Submission], graders: Path, work: Path, limits: Limits, workers: int
) -> list[dict[str, Any]]:
    """Grades every submission that is not graded yet, and returns all results in order."""

    def place(submission: Submission) -> Path:
        return work / f"{submission.student}--{submission.assignment}.json"

    def key(submission: Submission) -> str:
        zipped = graders / f"{submission.assignment}.zip"
        return digest(*submission.paths, *([zipped] if zipped.exists() else []))

    def job(submission: Submission) -> None:
        nursery = nurseries.get()
        try:
            grader = graders / f"{submission.assignment}.zip"
            result = grade(submission, grader, limits, nursery)
        finally:
            nurseries.put(nursery)
        write(place(submission), json.dumps({"key": key(submission)} | result, indent=1))

    def finished(submission: Submission) -> bool:
        try:
            return json.loads(place(submission).read_text())["key"] == key(submission)
        except (OSError, ValueError, KeyError):
            return False

    left = [submission for submission in submissions if not finished(submission)]
    if skipped := len(submissions) - len(left):
        print(f"{skipped} of {len(submissions)} submissions are graded already")
    nurseries: queue.Queue[Nursery] = queue.Queue()
    started = [Nursery() for _ in range(min(workers, len(left)))]
    for nursery in started:
        nurseries.put(nursery)
    with (
        ThreadPoolExecutor(max(1, len(started))) as pool,
        tqdm(total=len(left), unit="notebook", disable=not left) as bar,
    ):
        jobs = {pool.submit(job, submission): submission for submission in left}
        try:
            for done in as_completed(jobs):
                done.result()
                bar.set_postfix_str(jobs[done].student)
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for nursery in started:
                nursery.close()
    return [json.loads(place(submission).read_text()) for submission in submissions]


def rows(
    submission: Submission, result: dict[str, Any], about: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """One row per question; one row in all where the assignment is unknown."""
    first = {"student": submission.student, "assignment": submission.assignment}
    reason = result["reason"]
    if about is None:
        return [
            {**first, "question": "", "points": 0, "max_points": 0, "status": "0", "reason": reason}
        ]
    table = []
    for question in about["questions"]:
        tests = result["questions"].get(question["name"], [])
        earned: float | str = sum(test["points"] for test in tests if test["passed"])
        status = "failed" if reason else "graded"
        if question["manual"]:
            earned, status = "", "to grade"
        table.append(
            {
                **first,
                "question": question["name"],
                "points": earned,
                "max_points": question["points"],
                "status": status,
                "reason": "" if question["manual"] else reason,
            }
        )
    return table


def feedback(submission: Submission, result: dict[str, Any], about: dict[str, Any] | None) -> str:
    """What one student reads about one assignment. Hidden tests say what they asked, no more."""
    if about is None:
        return f"## Not graded\n\nYour notebook was not recognised: {result['reason']}.\n"
    lines = [f"## {about['title']}", ""]
    if result["reason"]:
        lines += [f"**0 points:** your notebook {result['reason']}.", ""]
        lines += ["Repair this, run all cells in a fresh kernel, and hand it in again.", ""]
        return "\n".join(lines)
    for question, row in zip(about["questions"], rows(submission, result, about), strict=True):
        if question["manual"]:
            lines += [f"### {question['name']}: {question['points']:g} points, graded by hand", ""]
            continue
        lines += [f"### {question['name']}: {row['points']:g} of {question['points']:g} points", ""]
        for test in result["questions"].get(question["name"], []):
            mark = "✓" if test["passed"] else "✗"
            kind = "hidden, " if test["hidden"] else ""
            lines.append(f"- {mark} {test['asks']} ({kind}{test['points']:g})")
            if test["message"] and not test["hidden"]:
                lines.append(f"  {test['message'].splitlines()[0]}")
        lines.append("")
    if result["errors"]:
        lines += ["Cells that failed when your notebook was run from top to bottom:", ""]
        lines += [f"- {error.splitlines()[0]}" for error in result["errors"]]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Grades the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submissions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--graders", type=Path, default=BUILD, help="what `make assignments` built")
    parser.add_argument("--workers", type=int, default=2, help="notebooks at a time")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="wall time of each")
    parser.add_argument("--gigabytes", type=float, default=Limits.gigabytes, help="memory of each")
    options = parser.parse_args()
    limits = Limits(options.seconds, options.gigabytes)
    try:
        assignments = built(options.graders)
        submissions = find(options.submissions, assignments)
    except ValueError as error:
        parser.error(str(error))

    base = options.out.with_suffix("")
    work, advice = Path(f"{base}-work"), Path(f"{base}-feedback")
    results = grade_all(submissions, options.graders, work, limits, options.workers)

    table: list[dict[str, Any]] = []
    told: dict[str, list[str]] = defaultdict(list)
    for submission, result in zip(submissions, results, strict=True):
        about = assignments.get(submission.assignment)
        table += rows(submission, result, about)
        told[submission.student].append(feedback(submission, result, about))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write(options.out, text.getvalue())
    for student, parts in told.items():
        write(advice / f"{student}.md", f"# Feedback for {student}\n\n" + "\n".join(parts))

    stopped = [
        s.student for s, result in zip(submissions, results, strict=True) if result["reason"]
    ]
    print(
        f"{len(submissions)} submissions, {len(table)} rows in {options.out}; feedback in {advice}"
    )
    if stopped:
        print(f"0 points, with the reason, for {len(stopped)}: {', '.join(stopped)}")


if __name__ == "__main__":
    main()
