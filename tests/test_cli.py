"""The command line: a run from start to table, and errors in one line."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from sami_tutorial import cli
from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.checkpoint import policy_bytes
from sami_tutorial.cli import main
from sami_tutorial.lock import exclusive
from sami_tutorial.runs import open_run
from sami_tutorial.sac import SAC, SACConfig
from sami_tutorial.train import CHECKPOINT, TrainConfig, recipe

CUBE = "sami/CubeMove-v0"


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_train_then_evaluate(tmp_path, capsys):
    run_dir, out = tmp_path / "run", tmp_path / "tables" / "oracle.parquet"
    train = ["train", "--env", CUBE, "--method", "oracle", "--steps", "11000"]
    assert main([*train, "--checkpoint-seconds", "0", "--run-dir", str(run_dir)]) == 0
    assert capsys.readouterr().out.startswith("memory: replay ")
    evaluate = ["evaluate", "--run-dir", str(run_dir), "--splits", "extreme", "--episodes", "2"]
    assert main([*evaluate, "--out", str(out)]) == 0
    table = pd.read_parquet(out)
    assert set(table["split"]) == {"extreme"} and set(table["method"]) == {"oracle"}
    assert set(table["benchmark"]) == {"cubemove"}
    assert (table.groupby("context").size() == 2).all()
    printed = capsys.readouterr()
    assert "success" in printed.out and printed.err == ""

    (run_dir / CHECKPOINT).write_bytes(b"damaged")
    assert main([*evaluate, "--out", str(out)]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "the one before it is used instead" in error
    assert (pd.read_parquet(out)["env_steps"] < table["env_steps"]).all()


def test_several_seeds_at_once(tmp_path, capsys):
    command = ["train", "--env", CUBE, "--steps", "9600", "--seeds", "4", "7"]
    assert main([*command, "--run-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("; times 2 runs\n")
    for seed in (4, 7):
        run = open_run(tmp_path / f"seed{seed}")
        assert run.config == recipe(CUBE, seed=seed, steps=9600) and run.env.closed


TRAIN = ["train", "--env", CUBE, "--run-dir", "{tmp}/run"]
EVALUATE = ["evaluate", "--run-dir", "{tmp}/damaged", "--out", "{tmp}/x.parquet"]
SWEEP = ["sweep", "{tmp}/good.toml"]
BAD_ARGUMENTS = [
    ([], "required: COMMAND; see `sami --help`"),
    (["trian"], "choose from"),
    (["train"], "required: --env, --run-dir"),
    (["train", "--env", CUBE], "required: --run-dir"),
    ([*TRAIN, "--sede", "1"], "unrecognized arguments: --sede"),
    ([*TRAIN, "--env", "sami/Moon-v0"], "choose one of"),
    ([*TRAIN, "--env", "CubeMove"], "choose one of"),
    ([*TRAIN, "--method", "magic"], "choose one of"),
    ([*TRAIN, "--split", "hard"], "choose from"),
    ([*TRAIN, "--seeds", "0", "-1"], "'-1' is out of place; give an integer from 0 up"),
    ([*TRAIN, "--seeds", "3", "3"], "the configs' seeds are [3, 3]; name each once"),
    ([*TRAIN, "--seed", "1", "--seeds", "2"], "not allowed with argument --seed"),
    ([*SWEEP, "--together", "0"], "argument --together: '0' is out of place"),
    ([*TRAIN, "--steps", "0"], "argument --steps: '0' is out of place; give a positive integer"),
    ([*TRAIN, "--steps", "1e5"], "give a positive integer"),
    ([*TRAIN, "--device", "abacus"], "device is 'abacus', but PyTorch cannot use it"),
    ([*SWEEP, "--device", "cuda:99"], "device is 'cuda:99', but PyTorch cannot use it"),
    ([*TRAIN, "--steps", "100"], "give more steps"),
    ([*TRAIN, "--steps"], "argument --steps: expected one argument"),
    ([*TRAIN, "--seed", "-1"], "give an integer from 0 up"),
    ([*TRAIN, "--seed", "one"], "give an integer from 0 up"),
    ([*TRAIN, "--checkpoint-seconds", "-5"], "give seconds from 0 up"),
    ([*TRAIN, "--checkpoint-seconds", "nan"], "give seconds from 0 up"),
    ([*TRAIN, "--checkpoint-seconds", "soon"], "give seconds from 0 up"),
    ([*TRAIN, "--shuffle-returns"], "leave it out, or choose one of ['satesac', 'saccm']"),
    ([*TRAIN, "--run-dir", "{tmp}/file"], "name a directory"),
    ([*TRAIN, "--run-dir", "{tmp}/file/run"], "name a directory"),
    ([*TRAIN, "--run-dir", "{tmp}/other"], "choose another directory"),
    ([*TRAIN, "--run-dir", "{tmp}/no_config"], "delete"),
    ([*TRAIN, "--run-dir", "{tmp}/damaged"], "there is none before it; delete it to start again"),
    (["evaluate"], "required: --run-dir, --out"),
    ([*EVALUATE, "--run-dir", "{tmp}/nowhere"], "holds no config.json; train first"),
    ([*EVALUATE, "--run-dir", "{tmp}/file"], "holds no config.json; train first"),
    ([*EVALUATE, "--run-dir", "{tmp}/other"], "holds no checkpoint.safetensors; train first"),
    ([*EVALUATE, "--run-dir", "{tmp}/no_config"], "delete"),
    (EVALUATE, "there is none before it; delete it to start again"),
    ([*EVALUATE, "--splits", "hard"], "choose from"),
    ([*EVALUATE, "--splits"], "argument --splits: expected at least one argument"),
    ([*EVALUATE, "--episodes", "0"], "give a positive integer"),
    ([*EVALUATE, "--episodes", "many"], "give a positive integer"),
    ([*EVALUATE, "--out", "{tmp}"], "is a directory; name a file"),
    ([*EVALUATE, "--out", "{tmp}/file/x.parquet"], "lies below a file; name another place"),
    (["sweep"], "required: FILE.toml"),
    (["sweep", "{tmp}/nowhere.toml"], "does not exist; name a TOML file"),
    (["sweep", "{tmp}"], "is no TOML file"),
    (["sweep", "{tmp}/file"], "is no TOML file"),
    (["sweep", "{tmp}/bytes"], "is no TOML file"),
    ([*SWEEP, "--backend", "slurm"], "choose from"),
    ([*SWEEP, "--workers", "0"], "give a positive integer"),
    ([*SWEEP, "--workers", "two"], "give a positive integer"),
    ([*SWEEP, "--scheduler", "tcp://x:1"], "choose the backend 'dask' or 'ray'"),
    ([*SWEEP, "--backend", "dask"], "run `make scale`"),
    ([*SWEEP, "--backend", "ray"], "run `make scale`"),
    ([*SWEEP, "--run-dir", "{tmp}/swept"], "choose another --run-dir, or delete that one"),
    (["verify", "--sample", "-1"], "give an integer from 0 up"),
    (["verify", "--checkpoints", "all"], "give an integer from 0 up"),
    (["verify", "--seed", "x"], "give an integer from 0 up"),
    (["verify", "--episodes", "0"], "give a positive integer"),
    (["verify", "now"], "unrecognized arguments: now"),
    (["verify"], "where there is no manifest.json; set it to the data folder"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Run directories with something wrong, and a sweep file with nothing wrong."""
    tmp = tmp_path_factory.mktemp("places")
    (tmp / "file").write_text("no = toml = at all")
    (tmp / "bytes").write_bytes(b"\xff\xfe")
    (tmp / "good.toml").write_text(f'envs = ["{CUBE}"]\nmethods = ["sac"]\nseeds = [0]\n')
    configs = {
        "other": recipe(CUBE, seed=5).to_json(),
        "swept/cubemove/sac/seed0": recipe(CUBE, seed=5).to_json(),
        "damaged": recipe(CUBE).to_json(),
        "no_config": "{}",
    }
    for name, text in configs.items():
        (tmp / name).mkdir(parents=True)
        (tmp / name / "config.json").write_text(text)
    for name in ("damaged", "no_config"):
        (tmp / name / CHECKPOINT).write_bytes(b"damaged")
    return tmp


@pytest.mark.parametrize(
    ("arguments", "hint"), BAD_ARGUMENTS, ids=[" ".join(case[0]) for case in BAD_ARGUMENTS]
)
def test_bad_arguments_get_one_line_with_the_fix(arguments, hint, places, capsys, monkeypatch):
    monkeypatch.setenv("SAMI_DATA", str(places))
    for optional in ("distributed", "ray"):  # as where they are not installed
        monkeypatch.setitem(sys.modules, optional, None)
    assert main([each.replace("{tmp}", str(places)) for each in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("sami") and hint in error and "\n" not in error


def test_there_are_forty_cases():
    assert len(BAD_ARGUMENTS) >= 40


def test_a_missing_simulator_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)  # as where it is not installed
    for name in ("panda", "panda_physics"):
        monkeypatch.delitem(sys.modules, f"sami_tutorial.envs.{name}", raising=False)
    arguments = ["train", "--env", "sami/Panda-v0", "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "not installed; run `make panda` (without a clone" in error
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    assert "'On Colab'" in error and "\n### On Colab\n" in readme


def test_a_run_in_use_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sami_tutorial.lock.PATIENCE", 0.0)
    with exclusive(tmp_path):
        assert main(["train", "--env", CUBE, "--run-dir", str(tmp_path)]) == 2
    assert "wait for it or stop it" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "resumes"), [("train", True), ("evaluate", False)])
def test_only_what_can_go_on_says_so_when_it_is_stopped(name, resumes, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, f"run_{name}", stop)
    command = {"train": ["train", "--env", CUBE, "--run-dir", "x"], "evaluate": EVALUATE}[name]
    assert main(command) == 130
    assert ("goes on from here" in capsys.readouterr().err) is resumes


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["sweep"], ["verify"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(" ".join(["usage: sami", *command]))
    assert not command or "example" in text


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
