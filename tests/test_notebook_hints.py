"""A name that no cell has defined yet says what to do; other errors are left as they are."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sami_tutorial.notebook import HINT, prepare


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """A fresh kernel's shell, whose first cell ran twice."""
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
