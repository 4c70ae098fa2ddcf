"""The cold test: what it runs, what it serves, what it finds wrong. `make colab-test` runs it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import cold_test
import install_cell
import nbformat
import pytest
from cold_test import (
    INSTALL_SECONDS,
    SMOKE,
    Outcome,
    cell_seconds,
    chosen,
    install_problems,
    notebooks,
    pointed_at,
    served,
    table,
    touched,
)
from execute_notebooks import Report
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ADDRESS = "git+http://127.0.0.1:1/book.git@main"


def stems(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, a change that is not committed, and a file that git ignores."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name, text in {
        "_config.yml": "repository:\n  url: https://github.com/o/n\n  branch: main\n",
        ".gitignore": "secret.txt\n",
        "kept.txt": "old\n",
    }.items():
        (root / name).write_text(text)
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@test.invalid"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    (root / "kept.txt").write_text("new\n")
    (root / "secret.txt").write_text("not for git\n")
    return root


def test_chapters_and_assignments_are_run() -> None:
    names = stems(notebooks())
    assert {SMOKE, "01_tasks_and_skills", "1_sac"} <= set(names)
    for path in notebooks():
        pointed_at(nbformat.read(path, as_version=4), ADDRESS)


def test_notebooks_are_chosen_by_name_and_by_what_changed() -> None:
    paths = notebooks()
    assert chosen(paths, None, None) == paths
    assert stems(chosen(paths, "2_context", None)) == ["2_context"]
    with pytest.raises(ValueError, match="welcome"):
        chosen(paths, "no such name", None)
    changed = {"book/05_infonce.ipynb", "book/assignments/1_sac.ipynb", "src/x.py"}
    assert stems(chosen(paths, None, changed)) == ["05_infonce", "1_sac"]
    assert stems(chosen(paths, None, {"pyproject.toml"})) == [SMOKE]
    assert chosen(paths, None, {"README.md"}) == []


def test_what_a_change_touches(checkout: Path) -> None:
    assert touched("HEAD", checkout) == {"kept.txt"}


def test_the_checkout_is_served_as_it_is_now(checkout: Path, tmp_path: Path) -> None:
    """To git, and file by file under the commit, as GitHub does."""
    with served(checkout) as address:
        url, branch = address.removeprefix("git+").rsplit("@", 1)
        clone = tmp_path / "clone"
        subprocess.run(["git", "clone", "--quiet", "-b", branch, url, str(clone)], check=True)
        assert (clone / "kept.txt").read_text() == "new\n"
        assert not (clone / "secret.txt").exists()
        head = ["git", "-C", str(clone), "rev-parse", "HEAD"]
        commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        raw = f"{url.removesuffix('.git')}/raw/{commit}/kept.txt"
        assert urllib.request.urlopen(raw).read() == b"new\n"
    # Serving leaves the checkout as it was.
    assert touched("HEAD", checkout) == {"kept.txt"}


def test_only_the_address_of_the_install_cell_changes() -> None:
    cells = [new_markdown_cell("# T"), new_code_cell(install_cell.source()), new_code_cell("1")]
    cell = pointed_at(new_notebook(cells=cells), ADDRESS).cells[1]
    assert f'"{ADDRESS}"' in cell.source
    here = re.sub(r"git\+http[^\"]+", "", cell.source)
    assert here == re.sub(r"git\+http[^\"]+", "", install_cell.source())
    with pytest.raises(ValueError, match="run that script"):
        pointed_at(new_notebook(cells=[new_code_cell("import numpy")]), ADDRESS)


@pytest.mark.parametrize(
    ("said", "seconds", "after", "problem"),
    [
        ("one line\n", 30.0, {}, None),
        ("one\ntwo\n", 30.0, {}, "more than one line"),
        ("", INSTALL_SECONDS + 1, {}, "took 61 s"),
        ("", 30.0, {"torch": "2.0"}, r"replaced torch 2\.9 by 2\.0"),
        ("", 30.0, {"torch": None}, "replaced torch"),
        ("", 30.0, {"sami-tutorial": None}, "installed nothing"),
    ],
)
def test_what_an_install_cell_must_not_do(said, seconds, after, problem) -> None:
    cell = new_code_cell("", outputs=[new_output("stream", name="stdout", text=said)])
    before = {"torch": "2.9", "numpy": "2.4"}
    now = {**before, "sami-tutorial": "0.1.0", "scipy": "1.17"} | after
    now = {name: version for name, version in now.items() if version}
    found = list(install_problems(cell, seconds, before, now))
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1 and re.search(problem, found[0])


def test_the_time_of_a_cell() -> None:
    times = {
        "iopub.status.busy": "2026-01-01T00:00:01.500000Z",
        "shell.execute_reply": "2026-01-01T00:00:31.750000Z",
    }
    assert cell_seconds(new_code_cell("", metadata={"execution": times})) == 30.25
    assert cell_seconds(new_code_cell("")) == 0.0


def test_the_table_names_every_notebook_and_its_verdict() -> None:
    good = Outcome("welcome", 31.0, Report(Path("a"), 40.0, peak_bytes=5 * 10**8))
    bad = Outcome(
        "01_tasks", 33.0, Report(Path("b"), 200.0, peak_bytes=10**9, problems=["too long"])
    )
    lines = table([good, bad]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.search(r"welcome .* 31\.0 .* 40\.0 .* 0\.50 \| ok", lines[2])
    assert "FAILED" in lines[3]


def test_an_environment_that_has_the_library_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(cold_test, "packages", lambda python: {"sami-tutorial": "0.1.0"})
    monkeypatch.setattr("sys.argv", ["cold_test.py", "--python", "env/bin/python"])
    with pytest.raises(SystemExit):
        cold_test.main()
    assert "without it" in capsys.readouterr().err


def test_files_are_linked_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    cold_test.link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    cold_test.link(str(tmp_path / "a"), str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "x" and not (tmp_path / "c").samefile(tmp_path / "a")


def test_a_kernel_is_registered_for_the_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    cold_test.register_kernel(Path("env/bin/python"), tmp_path)
    about = json.loads((tmp_path / "kernels/cold/kernel.json").read_text())
    assert about["argv"][0] == "env/bin/python"
