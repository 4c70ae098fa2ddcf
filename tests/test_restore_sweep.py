"""What experiments/store_sweep.py puts into data/, experiments/restore_sweep.py brings back."""

import json
import sys
from pathlib import Path

import pytest

from sami_tutorial.results import MANIFEST, ResultsError, read_manifest
from sami_tutorial.runs import complete
from sami_tutorial.sweep import read_sweep

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SWEEP = """
envs = ["sami/CubeMove-v0"]
methods = ["tesac"]
seeds = [1, 2]

[overrides]
steps = 320
num_envs = 4
warmup_steps = 160
exploring_envs = 0
replay_capacity = 400
sac = { hidden = [8] }
context = { hidden = 8, episodes = 4 }

[evaluation]
splits = ["extreme", "train"]
episodes = 1
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two runs, one of them finished and stored; the scripts as functions."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    data = tmp_path / "data"
    data.mkdir()
    (data / MANIFEST).write_text('{"files": {}}')
    monkeypatch.setenv("SAMI_DATA", str(data))
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    import restore_sweep
    import store_sweep

    def command(script, run_dir):
        arguments = [script.__name__, str(file), "--run-dir", str(run_dir)]
        monkeypatch.setattr(sys, "argv", arguments)
        script.main()

    complete(read_sweep(file, tmp_path / "first")[:1])
    command(store_sweep, tmp_path / "first")
    return file, lambda run_dir: command(restore_sweep, run_dir), lambda d: command(store_sweep, d)


def test_a_stored_run_is_finished_again_and_stored_again_it_is_the_same(sweep, tmp_path, capsys):
    file, restore, store = sweep
    before = read_manifest(tmp_path / "data")["files"]
    restore(tmp_path / "second")
    assert "1 not stored\n1 restored\n" in capsys.readouterr().out
    one, two = read_sweep(file, tmp_path / "second")
    assert one.finished() and not two.finished()
    for path in (tmp_path / "first").rglob("*.json"):
        again = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert json.loads(again.read_text()) == json.loads(path.read_text())
    store(tmp_path / "second")
    after = read_manifest(tmp_path / "data")["files"]
    assert {n: e["sha256"] for n, e in after.items()} == {n: e["sha256"] for n, e in before.items()}
    assert {n: e["commit"] for n, e in after.items()} == {n: e["commit"] for n, e in before.items()}


def test_runs_that_are_there_or_differ_are_left_alone(sweep, tmp_path, capsys):
    file, restore, _ = sweep
    restore(tmp_path / "second")
    capsys.readouterr()
    restore(tmp_path / "second")
    assert "1 there already" in capsys.readouterr().out
    file.write_text(SWEEP.replace("steps = 320", "steps = 480"))
    restore(tmp_path / "third")
    out = capsys.readouterr().out
    assert "1 stored with another config\n  cubemove tesac seed 1\n" in out
    assert not (tmp_path / "third").exists()


def test_a_run_evaluated_otherwise_begins_anew(sweep, tmp_path, capsys):
    file, restore, _ = sweep
    file.write_text(SWEEP.replace("episodes = 1\n", "episodes = 2\n"))
    restore(tmp_path / "second")
    assert "1 stored with another evaluation" in capsys.readouterr().out
    first = read_sweep(file, tmp_path / "second")[:1]
    complete(first)  # what the sweep does with it
    assert first[0].finished()


def test_a_damaged_policy_leaves_no_folder(sweep, tmp_path):
    _, restore, _ = sweep
    next((tmp_path / "data").rglob("*.safetensors")).write_bytes(b"no policy")
    with pytest.raises(ResultsError, match="differs from its hash"):
        restore(tmp_path / "second")
    assert not (tmp_path / "second").exists()
