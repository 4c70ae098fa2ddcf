"""Benchmarks: the clockwork on a made-up clock, that peers do equal work, and the command line."""

import json

import numpy as np
import pytest
import torch

from sami_tutorial import bench
from sami_tutorial.bench import Contestant, bench_envs, bench_train, bench_update, race
from sami_tutorial.cli import main
from sami_tutorial.envs import make_vec
from sami_tutorial.train import recipe

CHEETAH = "sami/CrippledHalfCheetah-v0"


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Clock:
    """Time passes only when a contestant works; each second of work takes ``slowness`` seconds."""

    def __init__(self, monkeypatch):
        self.wall = self.cpu = 0.0
        self.slowness = 1.0
        self.order = ""
        monkeypatch.setattr(bench.time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(bench.time, "process_time", lambda: self.cpu)

    def contestant(self, name, cpu, wall, **settings):
        def work():
            self.order += name
            self.cpu += cpu * self.slowness
            self.wall += wall * self.slowness
            if name == "b":
                self.slowness *= 2  # the computer is twice as slow in every further round

        return Contestant(name, work, **settings)


def test_ratios_survive_a_computer_that_slows_down(monkeypatch):
    clock = Clock(monkeypatch)
    contestants = [clock.contestant("a", 3.0, 6.0), clock.contestant("b", 1.0, 4.0, amount=2)]
    for name, speed in {"cpu": 3.0 / 0.5, "wall": 6.0 / 2.0}.items():
        rows = race(contestants, repetitions=4, seconds=None, clock=name)
        assert [row["contestant"] for row in rows] == ["a", "b"]
        assert rows[0]["speed"] == 1.0
        for key in ("speed", "speed_low", "speed_high"):
            assert rows[1][key] == pytest.approx(speed)
    assert clock.order == ("ab" + 4 * "ab") * 2  # all warm up, then all take turns


def test_times_are_medians_per_unit_and_turns_last_long_enough(monkeypatch):
    clock = Clock(monkeypatch)
    a = clock.contestant("a", 0.25, 0.5, amount=5, flops=7e9)
    (row,) = race([a], repetitions=3, seconds=3.0)
    assert len(clock.order) == 2 + 3 * 6  # six calls of half a second fill a turn
    assert row["microseconds_cpu"] == pytest.approx(0.05e6)
    assert row["microseconds_wall"] == pytest.approx(0.1e6)
    assert row["gflops"] == pytest.approx(7 / 0.05)


@pytest.mark.parametrize("num_envs", [3])
def test_the_bare_stepper_does_the_same_work(num_envs):
    hopper = "sami/Hopper-v0"
    ours = bench._stepping(make_vec(hopper, num_envs), steps=7)
    step_by_step, one_call = bench._raw_rollouts(hopper, num_envs, steps=7)
    for _ in range(2):  # the second call goes on where the first ended
        seen, state, other = ours(), step_by_step.work(), one_call.work()
        # The observation: positions without the first, then velocities. One call for all steps
        # starts its solver where the last step ended, so it agrees only roughly.
        assert np.array_equal(seen[:, :5], state[:, 2:7])
        assert np.allclose(seen[:, :5], other[:, 2:7], atol=1e-2)


def test_flops_of_an_update_equal_the_sum_of_its_products():
    config = recipe(CHEETAH, "sac", batch_size=50, replay_capacity=32_000)
    observation, action, hidden = 18, 6, 128
    actor = [observation * hidden, hidden * hidden, hidden * 2 * action]
    critics = [2 * n for n in ((observation + action) * hidden, hidden * hidden, hidden)]
    target = sum(actor) + sum(critics)
    # A layer's backward pass is one product for its weights and one for its input; the first
    # layer's input needs none.
    critic_step = sum(critics) * 3 - critics[0]
    actor_step = sum(actor) * 3 - actor[0] + sum(critics) * 2  # only through the critics
    expected = 2 * 50 * (target + critic_step + actor_step)
    assert bench.update_flops(config) == expected


def test_flops_that_an_lstm_hides_are_not_guessed():
    with pytest.raises(ValueError, match="'tesac' has an encoder"):
        bench.update_flops(recipe(CHEETAH, "tesac", replay_capacity=32_000))


def test_a_filled_replay_lets_every_method_update():
    run = bench.filled(recipe(CHEETAH, "satesac", replay_capacity=16_000))
    assert bool(run.replay.complete.all())
    run.update()
    assert "contrastive_loss" in run.metrics
    assert all(torch.isfinite(value) for value in run.metrics.values())


def test_an_update_of_a_population_counts_once_per_seed(monkeypatch):
    made = []
    monkeypatch.setattr(bench, "filled", lambda config: made.append(config.seed) or Fake())
    monkeypatch.setattr(bench, "population_update", lambda runs: lambda: None)

    class Fake:
        updates = 0

    contestant = bench._updates("x", recipe(CHEETAH, "sac"), 3, population=3)
    assert made == [0, 1, 2] and contestant.amount == 3
    assert contestant.settings == {"population": 3}


SMALL = {"seeds": 2, "populations": (2,), "widths": (8,), "batches": (8,), "windows": (10,)}


def test_studies_of_the_update(monkeypatch):
    monkeypatch.setattr(bench, "GEMM", 64)
    table = bench_update(methods=("sac", "tesac"), repetitions=1, seconds=1e-3, **SMALL)
    studies = ["peers", "methods", "seeds of sac", "seeds of tesac", "width", "batch", "window"]
    assert list(table["study"].unique()) == studies
    assert (table.groupby("study")["speed"].first() == 1.0).all()
    assert (table[["microseconds_cpu", "microseconds_wall", "speed"]] > 0).all(axis=None)
    width = table[table["study"] == "width"]
    assert width["gemm_fraction"].iloc[0] == 1.0 and (width["gemm_fraction"] > 0).all()
    assert table[table["study"] != "width"]["gemm_fraction"].isna().all()
    assert "%" in bench.as_text(table)


def test_without_stable_baselines3_its_rows_are_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench.util, "find_spec", lambda name: None)
    out = tmp_path / "train.json"
    assert main(["bench", "train", "--quick", "--out", str(out)]) == 0
    assert "Stable-Baselines3 is not installed" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["contestant"] for row in rows] == ["ours", "ours, 2 seeds"]


def test_training_against_stable_baselines3():
    pytest.importorskip("stable_baselines3")
    table = bench_train(seeds=2, steps=16, repetitions=1)
    assert list(table["contestant"]) == ["ours", "ours, 2 seeds", "Stable-Baselines3"]


@pytest.mark.parametrize(("env", "entropy"), [("sami/CubeMove-v0", -1.0), (CHEETAH, -6.0)])
def test_stable_baselines3_gets_the_settings_of_the_run(env, entropy):
    pytest.importorskip("stable_baselines3")
    config = recipe(env, "sac", replay_capacity=100)
    model = bench.sb3_model(config, num_envs=2)
    model.env.close()
    assert model.n_envs == 2 and model.seed == config.seed
    assert model.target_entropy == entropy
    assert (model.tau, model.gamma) == (config.sac.target_rate, config.sac.discount)


def test_environments_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "deep" / "envs.json"
    ids = ["sami/Hopper-v0", "sami/CubeMove-v0"]
    assert (
        main(["bench", "envs", "--quick", "--num-envs", "2", "--out", str(out), "--env", *ids]) == 0
    )
    report = json.loads(out.read_text())
    assert report["benchmark"] == "envs" and report["threads"] == 1
    assert report["hardware"] and report["versions"]["mujoco"]
    assert report["settings"]["num_envs"] == 2
    names = {id: [r["contestant"] for r in report["rows"] if r["env"] == id] for id in ids}
    vectors = ["SyncVectorEnv", "AsyncVectorEnv"]
    raw = ["mujoco.rollout, step by step", "mujoco.rollout, one call"]
    assert names == {ids[0]: ["ours", *raw, *vectors], ids[1]: ["ours", *vectors]}
    printed = capsys.readouterr()
    assert printed.out.count("AsyncVectorEnv") == 2 and printed.err == ""


def test_a_compiler_that_fails_is_one_line(monkeypatch, tmp_path, capsys):
    def broken(function):
        def compiled(*_):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmore\nlines")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    arguments = ["bench", "update", "--quick", "--compile", "--out", str(tmp_path / "x.json")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no working C++ compiler" in error and "leave it out" in error


BAD_ARGUMENTS = [
    (["bench"], "required: {envs,update,train}"),
    (["bench", "speed"], "choose from"),
    (["bench", "envs", "--env", "Hopper-v4"], "choose one of"),
    (["bench", "envs", "--num-envs", "0"], "give a positive integer"),
    (["bench", "envs", "--seeds", "2"], "unrecognized arguments: --seeds"),
    (["bench", "update", "--env", "sami/Moon-v0"], "choose one of"),
    (["bench", "update", "--seeds", "0"], "give a positive integer"),
    (["bench", "update", "--repetitions", "few"], "give a positive integer"),
    (["bench", "train", "--env", "HalfCheetah"], "choose one of"),
    (["bench", "train", "--out", "{tmp}"], "is a directory; name a file"),
]


@pytest.mark.parametrize(
    ("arguments", "hint"), BAD_ARGUMENTS, ids=[" ".join(case[0]) for case in BAD_ARGUMENTS]
)
def test_bad_arguments_get_one_line_with_the_fix(arguments, hint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([each.replace("{tmp}", str(tmp_path)) for each in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("sami") and hint in error and "\n" not in error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: race([], repetitions=0), "repetitions is 0"),
        (lambda: race([], seconds=0.0), "seconds is 0.0"),
        (lambda: race([], clock="sun"), "clock is 'sun'"),
        (lambda: bench_envs(steps=0), "steps is 0"),
        (lambda: bench_update(seeds=0), "seeds is 0"),
        (lambda: bench_train(steps=0), "steps is 0"),
    ],
)
def test_numbers_that_measure_nothing(call, message):
    with pytest.raises(ValueError, match=message):
        call()
