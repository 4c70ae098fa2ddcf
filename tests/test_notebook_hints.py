"""A name that no cell has defined yet says what to do; other errors are left as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir

from sami_tutorial.notebook import HINT, LENT, STARTUP, prepare

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """A fresh kernel's shell, whose first cell ran twice."""
    for name in LENT:
        monkeypatch.delenv(name, raising=False)
    shell = InteractiveShell(user_ns={})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    prepare()
    prepare()
    return shell


def test_cells_out_of_order(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("figures.show(curve)")
    assert isinstance(result.error_in_exec, NameError)
    shown = capsys.readouterr().out
    assert f"name 'figures' is not defined. {HINT}." in shown
    assert shown.count(HINT) == 1
    # Once the cells above have run, it works.
    assert shell.run_cell("figures = 1").success
    assert shell.run_cell("figures").success


@pytest.mark.parametrize(
    "source", ["1 / 0", "def f():\n    x += 1\n\nf()"], ids=["another error", "a local name"]
)
def test_other_errors_get_no_hint(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    assert shell.run_cell(source).error_in_exec is not None
    assert HINT not in capsys.readouterr().out


def test_outside_of_a_notebook_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    prepare()


def said_by_a_new_kernel(profile: Path, **variables: str) -> str:
    """What IPython prints for a name that nothing has defined, before any other cell."""
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", f"--profile-dir={profile}"],
        input="curve\n",
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_kernel_that_starts_again_knows_it_too(
    shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a computer that is lent; at home nothing is written."""
    startup = tmp_path / "startup"
    startup.mkdir()
    monkeypatch.setattr(shell, "profile_dir", ProfileDir(location=str(tmp_path)))
    prepare()
    assert not list(startup.iterdir())
    assert HINT not in said_by_a_new_kernel(tmp_path)
    monkeypatch.setenv(LENT[0], "release")
    prepare()
    assert [path.name for path in startup.iterdir()] == [STARTUP]
    assert f"name 'curve' is not defined. {HINT}." in said_by_a_new_kernel(tmp_path)


def test_a_kernel_of_make_lab_knows_it_from_the_start(tmp_path: Path) -> None:
    said = said_by_a_new_kernel(tmp_path, PYTHONSTARTUP=str(ROOT / "scripts" / "kernel_startup.py"))
    assert f"name 'curve' is not defined. {HINT}." in said
    given = 'PYTHONSTARTUP="$(CURDIR)/scripts/kernel_startup.py"'
    assert f"{given} $(BIN)/jupyter lab" in (ROOT / "Makefile").read_text()
