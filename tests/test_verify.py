"""`sami verify`: whole data pass; a changed file, return, seed or policy does not."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
import torch

from sami_tutorial import verify
from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.checkpoint import policy_bytes
from sami_tutorial.cli import main
from sami_tutorial.envs import get_task, task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.results import MANIFEST, load_table, store_bytes, store_table
from sami_tutorial.sac import SACConfig
from sami_tutorial.train import Run, TrainConfig

CUBE = "sami/CubeMove-v0"
TABLE = "results/toy.parquet"
ENTRY = {"command": "make toy", "config": {}, "wall_seconds": 1.0}


def checkpoint(seed: int) -> str:
    return f"checkpoints/toy/oracle/seed{seed}.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with two policies that were never trained, and their episodes."""
    data = tmp_path_factory.mktemp("data")
    tables = []
    for seed in (0, 1):
        config = TrainConfig(CUBE, method="oracle", seed=seed, sac=SACConfig(hidden=(8,)))
        content = policy_bytes(Run(config).agent.policy(), config.to_json())
        store_bytes(checkpoint(seed), content, directory=data, **ENTRY)
        for actions in ("mean", "sampled"):
            table = evaluate(
                FrozenPolicy(content),
                CUBE,
                task_sets(CUBE).train[:4],
                episodes=3,
                deterministic=actions == "mean",
                method="oracle",
            )
            tables.append(
                table.assign(seed=seed, actions=actions, checkpoint=checkpoint(seed), split="train")
            )
    store_table(TABLE, pd.concat(tables, ignore_index=True), directory=data, **ENTRY)
    store_table("results/plain.parquet", pd.DataFrame({"x": [1]}), directory=data, **ENTRY)
    return data


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "data")
    monkeypatch.setenv("SAMI_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def change(data, column, value) -> None:
    """Stores the table again with another column: its hash is right, its content is not."""
    table = load_table(TABLE, data)
    store_table(TABLE, table.assign(**{column: value(table)}), directory=data, **ENTRY)


def test_whole_data_pass(data, capsys):
    assert main(["verify", "--sample", "9"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "4 of 4 files have the hash" in printed.out
    assert printed.out.count(": reproduced") == 2
    # 4 tasks of 3 episodes: neither the sampled actions nor more episodes than there are
    assert printed.out.count("100.0% of 12 returns agree") == 2


def test_the_sample_and_the_episodes_are_as_asked(data, capsys):
    chosen = set()
    for seed in range(8):
        assert main(["verify", "--sample", "1", "--seed", str(seed), "--episodes", "1"]) == 0
        line = capsys.readouterr().out.splitlines()[1]
        assert "of 4 returns agree" in line
        chosen.add(line.partition(":")[0])
    assert chosen == {checkpoint(0), checkpoint(1)}  # missed by chance once in 128
    assert main(["verify", "--sample", "0"]) == 0
    assert "reproduced" not in capsys.readouterr().out


def test_changed_and_missing_files_are_listed(data, capsys):
    (data / checkpoint(0)).unlink()
    path = data / "results/plain.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    assert main(["verify"]) == 1
    printed = capsys.readouterr()
    assert "2 of 4 files have the hash" in printed.out
    lines = printed.err.splitlines()
    assert len(lines) == 2 and all(line.startswith("sami verify: ") for line in lines)
    assert "seed0.safetensors is missing; make it again with: make toy" in lines[0]
    assert "plain.parquet differs from its hash" in lines[1]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("episode_return", lambda t: t["episode_return"] + 0.01 * t["episode_return"].std()),
        ("episode_seed", lambda t: t["episode_seed"] + 1),
        ("context", lambda t: json.dumps(task_sets(CUBE).extreme[0])),
        ("checkpoint", lambda t: t["seed"].map({0: checkpoint(1), 1: checkpoint(0)})),
    ],
)
def test_returns_that_the_policy_does_not_bring_are_listed(column, value, data, capsys):
    change(data, column, value)
    assert main(["verify"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.endswith(": not reproduced") for line in lines)


def test_a_difference_in_the_last_digits_is_tolerated(data):
    change(data, "episode_return", lambda t: t["episode_return"] * (1 + 1e-6))
    assert main(["verify"]) == 0


@pytest.mark.parametrize(
    ("value", "status"),
    [
        # In a chaotic task other episodes bring other returns, and the same mean.
        (lambda t: t["episode_return"] + 0.3 * (-1) ** t.index, 0),
        (lambda t: t["episode_return"] + t["episode_return"].std(), 1),
    ],
)
def test_of_a_chaotic_task_only_the_mean_is_compared(value, status, data, monkeypatch):
    chaotic = dataclasses.replace(get_task(CUBE), chaotic=True)
    monkeypatch.setattr(verify, "get_task", lambda env: chaotic)
    change(data, "episode_return", value)
    assert main(["verify"]) == status


def test_of_pearl_only_the_mean_is_compared():
    """It acts on draws, and those of the agent at the end of its training are gone."""
    config = TrainConfig(CUBE, method="pearl", sac=SACConfig(hidden=(8,)))
    agent = Run(config).agent
    with torch.no_grad():
        agent.actor.mlp.layers[0].weight[5:] *= 9  # so that the draws move the action
    torch.rand(1, generator=agent.generator)  # as training does
    content = policy_bytes(agent.policy(), config.to_json())
    table = evaluate(agent, CUBE, task_sets(CUBE).train[:4], episodes=10, method="pearl")
    found = verify.rerun(table, content, TABLE, checkpoint(0))
    assert found.agreeing < verify.AGREEING and found.only_means and found.holds


def test_a_policy_that_is_unknown_or_foreign_is_listed(data, capsys):
    store_bytes(checkpoint(1), b"no policy", directory=data, **ENTRY)
    names = {0: "checkpoints/gone.safetensors", 1: checkpoint(1)}
    change(data, "checkpoint", lambda t: t["seed"].map(names))
    assert main(["verify"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "gone.safetensors, which results/toy.parquet names, is not in manifest.json" in lines[0]
    assert "cannot be run: the stored policy is damaged or foreign" in lines[1]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": {}}'])
def test_a_damaged_manifest_is_named_with_the_fix(content, data, capsys):
    (data / MANIFEST).write_text(content)
    assert main(["verify"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "restore it with git" in error
