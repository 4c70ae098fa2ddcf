"""Checkpoints: whole or absent, the one before kept, and a killed run goes on bit for bit."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from sami_tutorial.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    has_checkpoint,
    load_checkpoint,
    policy_bytes,
    previous_checkpoint,
    save_checkpoint,
)
from sami_tutorial.lock import RunDirBusy, exclusive
from sami_tutorial.sac import SACConfig
from sami_tutorial.train import CHECKPOINT, Run, TrainConfig, read_config, train

KILLS = int(os.environ.get("SAMI_KILLS", "1"))
"""How often the test with kill -9 kills: SAMI_KILLS=20 pytest tests/test_checkpoint.py -k kill"""

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "count": torch.tensor(3),
    "flags": torch.tensor([True, False]),
    "state": torch.arange(5, dtype=torch.uint8),
}


def small(**changes) -> TrainConfig:
    values = {
        "env": "sami/CubeMove-v0",
        "steps": 320,
        "num_envs": 4,
        "warmup_steps": 160,
        "batch_size": 16,
        "replay_capacity": 400,
        "sac": SACConfig(hidden=(8,)),
    }
    return TrainConfig(**{**values, **changes})


@pytest.fixture
def path(tmp_path) -> Path:
    """Two checkpoints, saved one after the other: counter n is 1, then 2."""
    path = tmp_path / "c.safetensors"
    for n in (1, 2):
        save_checkpoint(path, {name: value + n for name, value in TENSORS.items()}, {"n": n}, "me")
    return path


def test_round_trip(path):
    for saved, n in ((path, 2), (previous_checkpoint(path), 1)):
        tensors, counters, source = load_checkpoint(saved, "me")
        assert counters == {"n": n} and source == saved
        for name, value in TENSORS.items():
            assert torch.equal(tensors[name], value + n)
            assert tensors[name].dtype == (value + n).dtype
    assert {each.name for each in path.parent.iterdir()} == {
        "c.safetensors",
        "c.previous.safetensors",
    }


def empty(content: bytes) -> bytes:
    return b""


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit(content: bytes) -> bytes:
    """In the last tensor, which safetensors itself would not notice."""
    return content[:-1] + bytes([content[-1] ^ 1])


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def foreign(content: bytes) -> bytes:
    return policy_bytes(torch.nn.Linear(2, 2), "{}")


DAMAGES = [empty, halved, one_bit, zeros, foreign]


def spoil(path: Path, damage) -> None:
    path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_takes_the_place_of_a_damaged_one(path, damage):
    spoil(path, damage)
    with pytest.warns(CheckpointWarning, match="damaged.*; the one before it is used"):
        saved = load_checkpoint(path, "me")
    assert saved.counters == {"n": 1} and saved.path == previous_checkpoint(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_two_damaged_ones_are_an_error_that_says_what_to_do(path, damage):
    spoil(path, damage)
    spoil(previous_checkpoint(path), one_bit)
    with pytest.raises(CheckpointError, match="delete both to start again") as error:
        load_checkpoint(path, "me")
    assert "\n" not in str(error.value)
    previous_checkpoint(path).unlink()
    with pytest.raises(CheckpointError, match="there is none before it; delete it"):
        load_checkpoint(path, "me")


def test_a_checkpoint_of_another_run_is_refused(path):
    with pytest.raises(CheckpointError, match="foreign"):
        load_checkpoint(path, "you")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_between_the_renames_loses_nothing(path, renames, monkeypatch):
    """After none or one of the two renames, what was saved before can be read, silently."""

    class Killed(BaseException):
        pass

    done = []
    replace = Path.replace

    def killed(self, target):
        if len(done) == renames:
            raise Killed
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        save_checkpoint(path, TENSORS, {"n": 3}, "me")
    monkeypatch.undo()
    assert path.exists() == (renames == 0)
    assert has_checkpoint(path)
    assert load_checkpoint(path, "me").counters == {"n": 2}  # a warning would be an error here
    save_checkpoint(path, TENSORS, {"n": 4}, "me")
    assert load_checkpoint(path, "me").counters == {"n": 4}


FULL = """
import resource, sys
from pathlib import Path
import torch
from sami_tutorial.checkpoint import CheckpointError, save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path(sys.argv[1]), {"big": torch.zeros(100_000)}, {"n": 3}, "me")
except CheckpointError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_leaves_the_others_alone(path):
    """The operating system's own refusal: a file may have 100 kB and would need 400."""
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert "cannot be written" in done.stdout and "make room" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert load_checkpoint(path, "me").counters == {"n": 2}
    assert load_checkpoint(previous_checkpoint(path), "me").counters == {"n": 1}
    assert len(list(path.parent.iterdir())) == 2


def test_a_full_disk_stops_training_and_a_new_start_goes_on(tmp_path, monkeypatch):
    config = small(steps=640)
    whole = train(config, progress=False)
    saves = []
    save = save_checkpoint

    def full(path, *arguments):
        saves.append(path)
        if len(saves) == 3:
            monkeypatch.setattr("sami_tutorial.checkpoint.save_file", refuse)
        save(path, *arguments)

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sami_tutorial.train.save_checkpoint", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*make room"):
        train(config, tmp_path, progress=False, checkpoint_seconds=0)
    monkeypatch.undo()
    rounds = []
    resumed = train(config, tmp_path, progress=False, on_round=lambda run: rounds.append(run.round))
    assert rounds == [3, 4]  # two rounds had been saved
    assert same(whole.agent.state_dict(), resumed.agent.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def test_training_goes_on_from_the_one_before_and_keeps_no_damaged_one(tmp_path):
    config = small(steps=640)
    whole = train(config, progress=False)

    class Killed(Exception):
        pass

    def kill(run):
        if run.round == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path, progress=False, checkpoint_seconds=0, on_round=kill)
    path = tmp_path / CHECKPOINT
    spoil(path, halved)
    rounds = []

    def note(run):
        # What a damaged file left behind would become with the first save.
        rounds.append((run.round, path.exists(), previous_checkpoint(path).exists()))

    with pytest.warns(CheckpointWarning, match="used instead"):
        resumed = train(config, tmp_path, progress=False, checkpoint_seconds=0, on_round=note)
    assert rounds[0] == (2, True, False)
    assert same(whole.agent.state_dict(), resumed.agent.state_dict())
    _, text = read_config(tmp_path)
    for each in (path, previous_checkpoint(path)):
        load_checkpoint(each, text)  # a warning would be an error here


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    train(small(), tmp_path, progress=False)
    path = tmp_path / CHECKPOINT
    _, text = read_config(tmp_path)
    tensors, counters, _ = load_checkpoint(path, text)
    del tensors["replay.reward"]
    save_checkpoint(path, tensors, counters, text)
    with pytest.raises(CheckpointError, match=r"another version.*replay.reward.*delete the run"):
        train(small(), tmp_path, progress=False)


def test_the_memory_line_counts_what_is_there(capsys):
    run = Run(small(replay_capacity=1_000_000))
    train(small(replay_capacity=1_000_000), progress=True)
    out = capsys.readouterr().out
    assert out.splitlines() == [run.memory()]
    # 8 numbers of 4 bytes per transition (observation, action 2, reward, terminated), a last
    # observation and a few numbers per episode.
    observation = run.replay.observation.shape[-1]
    slots, horizon = run.replay.reward.shape
    numbers = slots * (horizon * (observation + 4) + observation)
    assert f"({slots * horizon:,} transitions)" in out
    shown = float(out.split("replay ")[1].split(" MiB")[0])
    assert shown == pytest.approx(numbers * 4 / 2**20, rel=0.02)


def test_the_announced_checkpoint_size_is_that_of_the_file(tmp_path):
    config = small(sac=SACConfig(hidden=(256, 256)), replay_capacity=100_000)
    train(config, tmp_path, progress=False)
    announced = float(Run(config).memory().split("about ")[1].split(" MiB")[0])
    size = (tmp_path / CHECKPOINT).stat().st_size / 2**20
    assert announced == pytest.approx(size, rel=0.02)


def test_one_process_per_run_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("sami_tutorial.lock.PATIENCE", 0.2)
    with exclusive(tmp_path), pytest.raises(RunDirBusy, match="another process is training"):
        train(small(), tmp_path, progress=False)
    train(small(), tmp_path, progress=False)  # free again


ENDLESS = """
import sys
from sami_tutorial.train import TrainConfig, train
train(TrainConfig.from_json(sys.stdin.read()), sys.argv[1], progress=False, checkpoint_seconds=0)
"""


def written(path: Path) -> int:
    """When, in nanoseconds; 0 if it is not there (it is not, for a moment, during each save)."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_kill_9_at_a_random_moment_then_resume_is_bit_identical(tmp_path):
    """A run that saves after every round is killed, restarted and killed again.

    The moment is drawn after the first new checkpoint, so that every start makes some progress, on
    a busy computer too. The run is far too long to end by itself.
    """
    config = small(steps=10_000_000)
    (tmp_path / "config.json").write_text(config.to_json())
    path = tmp_path / CHECKPOINT
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    reached = [0]
    _, text = read_config(tmp_path)
    run = Run(config)
    for _ in range(KILLS):
        before = written(path)
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)], stdin=subprocess.PIPE
        )
        process.stdin.write(config.to_json().encode())
        process.stdin.close()
        while written(path) in (before, 0):
            assert process.poll() is None, "training ended by itself"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a kill must not damage the newest one
            saved = load_checkpoint(path, text)
        assert saved.counters["round"] > reached[-1], f"seed {seed}"
        reached.append(saved.counters["round"])
    print(f"rounds reached by {KILLS} kills, seed {seed}: {reached[1:]}")
    run.restore(saved.tensors, saved.counters)
    next(run.rounds())  # and goes on from there
    fresh = Run(config)
    rounds = fresh.rounds()
    while fresh.round < reached[-1] + 1:
        next(rounds)
    assert same(fresh.tensors(), run.tensors()), f"seed {seed}"

    def without_clock(curve):
        return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in curve]

    assert without_clock(fresh.curve) == without_clock(run.curve)
