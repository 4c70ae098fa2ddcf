"""Run notebooks as a reader on Colab does: no clone, no library, one fresh environment for each.

    python scripts/cold_test.py --python ENV/bin/python [--only NAME] [--changed BASE]
                                                                        (`make colab-test`)

ENV is a virtual environment with the packages of requirements/colab.txt and nothing of the book.
For each notebook it is copied (by hard links, so that costs no space), and the notebook runs with
the copy in an empty folder. Its install cell is left as it is, but for the address: the checkout,
changes that are not committed included, is served on this computer as GitHub would serve it, to
git and file by file. So what is tried is pip's installation, the data and films that are fetched
afterwards, and every cell, on the versions of packages that there are today.

A notebook fails by an error, a word on standard error, an install cell that says more than one
line, that is slower than a minute or changes a package that was there, or by a broken budget.
pip keeps what it downloads in its usual cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import install_cell
import nbformat
import yaml
from execute_notebooks import Budget, Report, run
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
INSTALL_SECONDS = 60.0
SMOKE = "welcome"
"""The notebook that stands for all of them where only the library's own needs changed."""
UNSET = ("OMP_NUM_THREADS", "PYTHONPATH", "SAMI_DATA", "VIRTUAL_ENV")
"""Variables of whoever calls this; a reader on Colab has none of them."""


@dataclass
class Outcome:
    """How one notebook did; ``report`` has the time and the memory of all of it."""

    name: str
    install_seconds: float
    report: Report


def notebooks() -> list[Path]:
    """Chapters, then assignments, in reading order."""
    return [*sorted(BOOK.glob("*.ipynb")), *sorted((BOOK / "assignments").glob("*.ipynb"))]


def touched(base: str, root: Path = ROOT) -> set[str]:
    """The files that differ from a commit, those that are not committed included."""
    command = ["git", "-C", str(root), "diff", "--name-only", base]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def chosen(paths: list[Path], only: str | None, changed: set[str] | None) -> list[Path]:
    """The notebooks to run.

    Args:
        paths: all of them.
        only: part of a name, or None.
        changed: files, relative to the root; only notebooks among them are run, and the first page
            where the library's requirements are. None runs all.

    Raises:
        ValueError: if none has ``only`` in its name.
    """
    named = [path for path in paths if only is None or only in path.stem]
    if not named:
        raise ValueError(f"only is {only!r}; the notebooks are {', '.join(p.stem for p in paths)}")
    if changed is None:
        return named
    return [
        path
        for path in named
        if path.relative_to(ROOT).as_posix() in changed
        or (path.stem == SMOKE and "pyproject.toml" in changed)
    ]


# ---- a repository on this computer ----


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not write down who asked for what."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def served(root: Path = ROOT) -> Iterator[str]:
    """Serves a checkout as it is now, as GitHub serves a repository; yields what pip is given."""
    branch = yaml.safe_load((root / "_config.yml").read_text())["repository"]["branch"]
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        repository = Path(folder) / "book.git"

        def git(*arguments: str, tree: Path = root) -> str:
            command = ["git", "--git-dir", str(repository), "--work-tree", str(tree)]
            command += ["-c", "user.name=cold test", "-c", "user.email=cold@test.invalid"]
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=True, cwd=tree
            )
            return done.stdout.strip()

        subprocess.run(
            ["git", "init", "--quiet", "--bare", "-b", branch, repository], check=True, cwd=folder
        )
        git("add", "--all")
        git("commit", "--quiet", "--no-verify", "-m", "as it is now")
        git("repack", "-a", "-d", "--quiet")
        git("update-server-info")
        files = Path(folder) / "book" / "raw" / git("rev-parse", "HEAD")
        files.mkdir(parents=True)
        git("checkout", "--quiet", "--force", branch, tree=files)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"git+http://127.0.0.1:{server.server_port}/book.git@{branch}"
        finally:
            server.shutdown()
            server.server_close()


def pointed_at(notebook: NotebookNode, address: str) -> NotebookNode:
    """The notebook, its install cell with another address, in place.

    Raises:
        ValueError: if its first cell of code is not the install cell.
    """
    first = first_code_cell(notebook)
    if first.source != install_cell.source():
        raise ValueError("the first cell of code is not scripts/install_cell.py's; run that script")
    first.source, found = re.subn(r"git\+https://[^\"]+", address, first.source)
    assert found == 1
    return notebook


def first_code_cell(notebook: NotebookNode) -> NotebookNode:
    """The install cell."""
    return next(cell for cell in notebook.cells if cell.cell_type == "code")


# ---- a computer without the library ----


def packages(python: Path) -> dict[str, str]:
    """What is installed: name -> version."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {each["name"]: each["version"] for each in json.loads(done.stdout)}


def environment(python: Path, home: Path) -> dict[str, str]:
    """The variables of a computer that never saw the book, whose downloads go to ``home``."""
    command = [str(python), "-m", "pip", "cache", "dir"]
    cache = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return kept | {
        "PIP_CACHE_DIR": cache,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "XDG_CACHE_HOME": str(home),
    }


def link(source: str, target: str) -> None:
    """A hard link, which costs no space; a copy where another disk begins."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def register_kernel(python: Path, folder: Path) -> None:
    """Makes an environment's Python the kernel "cold" for this process."""
    kernel = folder / "kernels" / "cold"
    kernel.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "cold", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about))
    os.environ["JUPYTER_PATH"] = str(folder)


def run_cold(path: Path, base: Path, address: str, budget: Budget) -> Outcome:
    """Runs a notebook in a copy of the environment ``base``, in an empty folder."""
    notebook = pointed_at(nbformat.read(path, as_version=4), address)
    # Not below the checkout: the library would find the data there, and fetch nothing.
    with tempfile.TemporaryDirectory(prefix="cold-") as folder:
        here = Path(folder)
        shutil.copytree(base, here / "env", symlinks=True, copy_function=link)
        python = here / "env" / "bin" / "python"
        before = packages(python)
        register_kernel(python, here / "jupyter")
        (here / "work").mkdir()
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="cold",
            resources={"metadata": {"path": str(here / "work")}},
            coalesce_streams=True,
            record_timing=True,
            store_widget_state=False,
        )
        report = run(client, path, budget, env=environment(python, here / "cache"))
        cell = first_code_cell(notebook)
        seconds = cell_seconds(cell)
        after = packages(python)
    report.problems += install_problems(cell, seconds, before, after)
    return Outcome(path.stem, seconds, report)


def cell_seconds(cell: NotebookNode) -> float:
    """How long a cell ran; 0 if it never came to its end."""
    times = cell.metadata.get("execution", {})
    if "shell.execute_reply" not in times:
        return 0.0
    begin, end = (
        datetime.fromisoformat(times[key]) for key in ("iopub.status.busy", "shell.execute_reply")
    )
    return (end - begin).total_seconds()


def install_problems(
    cell: NotebookNode, seconds: float, before: dict[str, str], after: dict[str, str]
) -> Iterator[str]:
    """What an install cell that ran did not do as it should."""
    said = "".join(output.get("text", "") for output in cell.outputs)
    if len(said.splitlines()) > 1:
        yield f"the install cell said more than one line: {said.strip()}"
    if "sami-tutorial" not in after:
        yield "the install cell installed nothing"
    if seconds > INSTALL_SECONDS:
        yield f"the install cell took {seconds:.0f} s; {INSTALL_SECONDS:.0f} s is its limit"
    for name, version in before.items():
        if after.get(name) != version:
            yield f"the install cell replaced {name} {version} by {after.get(name)}"


# ---- the table ----


def table(outcomes: list[Outcome]) -> str:
    """What was measured, in Markdown."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = [
        f"| {'notebook':{width}} | install (s) | in all (s) | peak (GB) |        |",
        f"|-{'-' * width}-|------------:|-----------:|----------:|--------|",
    ]
    for outcome in outcomes:
        verdict = "FAILED" if outcome.report.problems else "ok"
        lines.append(
            f"| {outcome.name:{width}} | {outcome.install_seconds:11.1f} "
            f"| {outcome.report.seconds:10.1f} | {outcome.report.peak_bytes / 1e9:9.2f} "
            f"| {verdict:6} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run them; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of an environment to copy")
    parser.add_argument("--only", help="run only notebooks whose name contains this")
    parser.add_argument("--changed", metavar="BASE", help="only what differs from this commit")
    parser.add_argument("--seconds", type=float, default=Budget.seconds, help="limit of each")
    parser.add_argument("--gigabytes", type=float, default=Budget.gigabytes, help="limit of each")
    options = parser.parse_args()
    changed = None if options.changed is None else touched(options.changed)
    try:
        paths = chosen(notebooks(), options.only, changed)
    except ValueError as error:
        parser.error(str(error))
    base = options.python.absolute().parent.parent
    found = packages(options.python)
    if "sami-tutorial" in found:
        parser.error(f"{base} has the book's library; name an environment without it")
    if not paths:
        print("No notebook to run: none has changed.")
        return 0

    print(f"torch {found.get('torch')}, numpy {found.get('numpy')}, {len(paths)} notebooks")
    outcomes = []
    with served() as address:
        for path in paths:
            outcomes.append(
                run_cold(path, base, address, Budget(options.seconds, options.gigabytes))
            )
            print(outcomes[-1].report, flush=True)
    print(f"\n{table(outcomes)}")
    return int(any(outcome.report.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
