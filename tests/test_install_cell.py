"""The cell that notebooks begin with: what it installs, when, and what it says if it cannot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import install_cell
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Lets the library be missing, and stands in for pip; ``installed`` says what there is."""
    fake = SimpleNamespace(calls=[], installed={"numpy", "torch"}, returncode=0, stderr="")
    find = importlib.util.find_spec

    def find_spec(name: str) -> object | None:
        if name in ("numpy", "torch", "sami_tutorial"):
            return object() if name in fake.installed else None
        return find(name)

    def run(command: list[str], **options: object) -> SimpleNamespace:
        fake.calls.append(command)
        return fake

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(subprocess, "run", run)
    return fake


def run() -> None:
    exec(install_cell.source(), {})


def test_it_does_nothing_where_the_library_is(pip, capsys) -> None:
    pip.installed.add("sami_tutorial")
    run()
    assert pip.calls == []
    assert capsys.readouterr().out == ""


def test_it_installs_from_the_books_repository_and_says_so_in_one_line(pip, capsys) -> None:
    run()
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    assert f"git+{repository['url']}@{repository['branch']}" in command
    assert capsys.readouterr().out.splitlines()[0].endswith("... done.")
    # Nothing forces what is there to be replaced.
    assert not {"--upgrade", "-U", "--force-reinstall", "--ignore-installed"} & set(command)


@pytest.mark.parametrize("present", [(), ("numpy",), ("numpy", "torch")])
def test_it_keeps_the_versions_that_are_there(pip, present) -> None:
    pip.installed = set(present)
    run()
    pins = {each for each in pip.calls[0] if "==" in each}
    assert pins == {f"{name}=={metadata.version(name)}" for name in present}


def test_a_failure_says_what_pip_said_and_what_to_do(pip) -> None:
    pip.returncode, pip.stderr = 1, "ERROR: No space left on device"
    with pytest.raises(RuntimeError) as caught:
        run()
    message = str(caught.value)
    assert "No space left on device" in message
    assert "network" in message and "disk" in message and "run this cell again" in message


def test_a_python_that_is_too_old_is_refused_before_anything_is_fetched(pip, monkeypatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(RuntimeError, match=r"Python 3\.11 or newer: choose another kernel"):
        run()
    assert pip.calls == []


def test_it_is_written_into_a_notebook_once() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# T"], "metadata": {}},
        {"cell_type": "code", "source": ["old"], "metadata": {}},
        {"cell_type": "code", "source": ["1"], "metadata": {}},
    ]
    once = install_cell.inserted(json.dumps({"cells": cells}))
    after = json.loads(once)["cells"]
    assert "".join(after[1]["source"]) == install_cell.source()
    assert (after[0], after[2]) == (cells[0], cells[2])
    assert install_cell.inserted(once) == once
