"""The command line: a run from start to table, and errors in one line."""

import pandas as pd
import pytest
import torch

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.checkpoint import policy_bytes
from sami_tutorial.cli import main
from sami_tutorial.sac import SAC, SACConfig
from sami_tutorial.train import TrainConfig

CUBE = "sami/CubeMove-v0"


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_train_then_evaluate(tmp_path, capsys):
    run_dir, out = tmp_path / "run", tmp_path / "tables" / "oracle.parquet"
    train = ["train", "--env", CUBE, "--method", "oracle", "--steps", "11000", "--run-dir"]
    assert main([*train, str(run_dir)]) == 0
    evaluate = ["evaluate", "--run-dir", str(run_dir), "--splits", "extreme", "--episodes", "2"]
    assert main([*evaluate, "--out", str(out)]) == 0
    table = pd.read_parquet(out)
    assert set(table["split"]) == {"extreme"} and set(table["method"]) == {"oracle"}
    assert (table.groupby("context").size() == 2).all()
    assert "success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "--env", "sami/Moon-v0"], "choose one of"),
        (["train", "--env", CUBE, "--method", "magic"], "choose one of"),
        (["train", "--env", CUBE, "--split", "hard"], "choose one of"),
        (["train", "--env", CUBE, "--steps", "0"], "give a positive integer"),
        (["evaluate", "--out", "x.parquet"], "train first"),
    ],
)
def test_bad_arguments_get_one_line_with_the_fix(arguments, hint, tmp_path, capsys):
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and "\n" not in error


def test_a_run_killed_before_its_first_checkpoint(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["evaluate", "--run-dir", str(tmp_path), "--out", str(tmp_path / "x.parquet")]) == 2
    assert "holds no checkpoint.safetensors; train first" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: sami" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["actor alone", "policy"])
def test_a_stored_policy_acts_like_its_agent(form):
    agent = SAC(4, 3, SACConfig(hidden=(8, 16, 12)), seed=2)
    config = TrainConfig(CUBE, sac=agent.config).to_json()
    stored = agent.actor if form == "actor alone" else agent.policy()
    policy = FrozenPolicy(policy_bytes(stored, config))
    observation = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).numpy()
    assert (policy.act(observation, True) == agent.act(observation, True)).all()
    for each in (agent, policy.agent):
        each.generator.manual_seed(9)
    assert (policy.act(observation) == agent.act(observation)).all()
