"""Sweeps: what a file may say, which runs are made, and what survives failures and kills.

Most tests let the workers run a toy of a few lines in the place of a training run.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sami_tutorial import sweep as sweeps
from sami_tutorial.cli import main
from sami_tutorial.envs import task_sets
from sami_tutorial.results import current_origin
from sami_tutorial.runs import evaluate_run, jobs_to_line, open_run
from sami_tutorial.sweep import SweepError, populations, read_sweep, run_sweep
from sami_tutorial.train import recipe, train
from sami_tutorial.workers import Task, run_task, spread

ROOT = Path(__file__).resolve().parent.parent
CUBE = "sami/CubeMove-v0"
GOOD = f'envs = ["{CUBE}"]\nmethods = ["sac", "tesac"]\nseeds = [0, 3]\n'

TINY = f"""
envs = ["{CUBE}"]
methods = ["tesac"]
seeds = [1]

[overrides]
steps = 320
num_envs = 4
warmup_steps = 160
exploring_envs = 0
replay_capacity = 400
batch_size = 16
sac = {{ hidden = [8] }}
context = {{ hidden = 8, episodes = 4 }}

[evaluation]
splits = ["extreme", "train"]
episodes = 1
"""


def write(tmp_path, text) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return path


# ---- the file ----


def test_the_runs_are_the_product(tmp_path):
    jobs = read_sweep(write(tmp_path, GOOD), tmp_path / "runs")
    assert [job.config for job in jobs] == [
        recipe(CUBE, method=method, seed=seed) for method in ("sac", "tesac") for seed in (0, 3)
    ]
    assert jobs[1].directory == tmp_path / "runs/cubemove/sac/seed3"
    assert jobs[1].splits == ("train", "moderate", "extreme") and jobs[1].episodes == 20
    assert len({job.name for job in jobs}) == 4


def test_overrides_reach_every_level(tmp_path):
    text = (
        GOOD + "overrides = { steps = 50_000, env_options = { distractors = 2 }, "
        "sac = { hidden = [8, 8], discount = 0, target_entropy = -2 }, "
        "context = { shuffle_returns = true, loss = 'bce', skill_weight = 'none' } }"
    )
    for job in read_sweep(write(tmp_path, text), tmp_path):
        standard = recipe(CUBE, method=job.config.method, seed=job.config.seed)
        assert job.config == dataclasses.replace(
            standard,
            steps=50_000,
            env_options={"distractors": 2},
            sac=dataclasses.replace(standard.sac, hidden=(8, 8), discount=0.0, target_entropy=-2.0),
            context=dataclasses.replace(
                standard.context, shuffle_returns=True, loss="bce", skill_weight="none"
            ),
        )


VARIANTS = f"""
envs = ["{CUBE}"]
seeds = [0]
name = "forms"
overrides = {{ steps = 50_000, context = {{ contrast_weight = 0.5 }} }}

[variants.unweighted]
method = "satesac"
context = {{ skill_weight = "none" }}

[variants.many_keys]
method = "ccm"
steps = 60_000
context = {{ contrast_batch = 99, contrast_weight = 1 }}
"""


def test_variants_override_on_top_of_what_all_runs_share(tmp_path):
    unweighted, many = read_sweep(write(tmp_path, VARIANTS), tmp_path / "runs")
    assert unweighted.config.method == "satesac" and unweighted.config.steps == 50_000
    assert unweighted.config.context.skill_weight == "none"
    assert unweighted.config.context.contrast_weight == 0.5
    assert many.config.method == "ccm" and many.config.steps == 60_000
    assert many.config.context.contrast_batch == 99
    assert many.config.context.contrast_weight == 1.0
    assert many.directory == tmp_path / "runs/forms/many_keys/seed0"
    assert many.name == "forms many_keys seed 0"


def test_methods_come_before_variants(tmp_path):
    jobs = read_sweep(write(tmp_path, VARIANTS + "[variants.z]\nmethod='sac'"), tmp_path)
    assert [job.variant for job in jobs] == ["unweighted", "many_keys", "z"]
    text = 'methods = ["tesac"]\n' + VARIANTS
    jobs = read_sweep(write(tmp_path, text), tmp_path)
    assert [job.variant for job in jobs] == ["tesac", "unweighted", "many_keys"]
    assert jobs[0].config.method == "tesac" and jobs[0].benchmark == "forms"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "envs is None; give a list with at least one entry"),
        (GOOD + "sedes = [0]", "the file has the unknown key 'sedes'; choose from"),
        (GOOD.replace("[0, 3]", "[]"), "seeds is []; give a list"),
        (GOOD.replace("[0, 3]", "5"), "seeds is 5; give a list"),
        (GOOD.replace("[0, 3]", "[-1]"), "seeds holds -1; give integers from 0 up"),
        (GOOD.replace("[0, 3]", "[true]"), "seeds holds True; give integers from 0 up"),
        (GOOD.replace("[0, 3]", "[1, 1]"), "name each entry once"),
        (GOOD.replace("CubeMove", "Moon"), "envs holds 'sami/Moon-v0'; choose from"),
        (GOOD.replace('"tesac"', '"magic"'), "methods holds 'magic'; choose from"),
        (GOOD.replace('"tesac"', "7"), "methods holds 7; choose from"),
        (GOOD + "name = 'A/B'", "name holds 'A/B'; use small letters"),
        (GOOD + "name = ''", "name holds ''; use small letters"),
        (GOOD.replace('0"]', '0", "sami/Hopper-v0"]') + "name = 'x'", "envs lists 2 environments"),
        (GOOD + "variants = 3", "write it as a table, [variants]"),
        (GOOD + "variants.x = 3", "variants.x is 3; write it as a table, [variants.x]"),
        (GOOD + "variants.x.steps = 9", "variants.x.method is None; choose from"),
        (GOOD + "variants.x.method = 'magic'", "variants.x.method is 'magic'; choose from"),
        (GOOD + "variants.sac.method = 'sac'", "has the name of a method; choose another"),
        (GOOD + "variants.'a b'.method = 'sac'", "variants holds 'a b'; use small letters"),
        (GOOD + "variants.x = { method = 'sac', seed = 3 }", "list it under 'seeds' instead"),
        (
            GOOD + "variants.x = { method = 'sac', sac = { hiden = [8] } }",
            "[variants.x.sac] has the unknown key 'hiden'",
        ),
        (GOOD + "overrides = 3", "write it as a table, [overrides]"),
        (GOOD + "overrides.seed = 3", "list it under 'seeds' instead"),
        (GOOD + "overrides.env = 'x'", "list it under 'envs' instead"),
        (GOOD + "overrides.setps = 3", "[overrides] has the unknown key 'setps'; choose from"),
        (GOOD + "overrides.steps = 'many'", "overrides.steps is 'many'; give an integer"),
        (GOOD + "overrides.steps = 1e5", "overrides.steps is 100000.0; give an integer"),
        (GOOD + "overrides.steps = 100", "give more steps"),
        (GOOD + "overrides.split = 'hard'", "choose one of"),
        (GOOD + "overrides.sac = 3", "write it as a table, [overrides.sac]"),
        (GOOD + "overrides.sac.rate = 3", "[overrides.sac] has the unknown key 'rate'"),
        (GOOD + "overrides.sac.hidden = 8", "overrides.sac.hidden is 8; give a list of integers"),
        (GOOD + "overrides.sac.learning_rate = nan", "learning_rate is nan; give a number"),
        (GOOD + "overrides.sac.learning_rate = 0", "give a number above 0"),
        (GOOD + "overrides.sac.target_entropy = '1'", "target_entropy is '1'; give a number"),
        (GOOD + "overrides.sac.standardize = 1", "standardize is 1; give true or false"),
        (GOOD + "overrides.env_options = 1", "env_options is 1; give a table"),
        (GOOD + "overrides.env_options.distractors = 99", "give an integer from 0 to 8"),
        (GOOD + "overrides.env_options.wind = 1", "sami/CubeMove-v0 does not open"),
        (GOOD + "overrides.context.loss = 'l2'", "choose one of"),
        (
            GOOD + "variants.x = { method = 'sac', env_options = { wind = 1 } }\n"
            "variants.y = { method = 'sac' }",
            "sami/CubeMove-v0 does not open for 'x'",
        ),
        (
            GOOD + "variants.x = { method = 'ccm', context = { window = 7 } }\n"
            "variants.y = { method = 'sac' }",
            "context.window is 7 for 'x'; give a divisor of the 40 steps",
        ),
        (GOOD + "evaluation.split = []", "[evaluation] has the unknown key 'split'"),
        (GOOD + "evaluation.splits = ['hard']", "splits holds 'hard'; choose from"),
        (GOOD + "evaluation.episodes = 0", "episodes is 0; give a positive integer"),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(text, hint, tmp_path):
    with pytest.raises(SweepError) as error:
        read_sweep(write(tmp_path, text), tmp_path)
    message = str(error.value)
    assert hint in message and "sweep.toml" in message and "\n" not in message


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.toml")), ids=lambda p: p.name)
def test_the_sweeps_of_the_project_are_in_order(path, tmp_path):
    if "sami/Panda-v0" in path.read_text():
        pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
    assert read_sweep(path, tmp_path)


# ---- the runs ----


def test_a_run_is_trained_and_evaluated_as_by_hand(tmp_path, capsys):
    variant = "name = 'toys'\nvariants.plain.method = 'tesac'\nseeds"
    path = write(tmp_path, TINY.replace('methods = ["tesac"]\nseeds', variant))
    command = ["sweep", str(path), "--workers", "1", "--run-dir", str(tmp_path / "swept")]
    assert main(command) == 0
    assert "toys plain seed 1: success extreme " in capsys.readouterr().out
    job = read_sweep(path, tmp_path / "swept")[0]
    trained = train(job.config, tmp_path / "by hand", progress=False)
    table = evaluate_run(open_run(tmp_path / "by hand"), ["extreme", "train"], 1)
    table = table.assign(benchmark="toys", method="plain")
    assert pd.read_parquet(job.directory / "results.parquet").equals(table)
    curve = pd.read_parquet(job.directory / "curve.parquet")
    assert curve["critic_loss"].equals(trained.curve["critic_loss"])
    assert set(curve["method"]) == {"plain"} and set(curve["split"]) == {"train"}

    origin = json.loads((job.directory / "origin.json").read_text())
    assert origin == current_origin() and origin["commit"] != "unknown"

    assert main(command) == 0  # skipped: no process is started
    assert "1 runs, 1 of them finished before" in capsys.readouterr().out
    assert dataclasses.replace(job, episodes=2).finished() is False
    assert dataclasses.replace(job, splits=("train",)).finished() is False
    with pytest.raises(ValueError, match="another config"):
        dataclasses.replace(job, config=dataclasses.replace(job.config, seed=2)).finished()
    (job.directory / "results.parquet").write_bytes(b"damaged")
    assert job.finished() is False


def test_a_run_is_evaluated_on_the_tasks_that_its_options_make(tmp_path):
    options = {"distractors": 2, "distractors_of": "task"}
    text = TINY.replace(
        "[overrides]", "[overrides]\nenv_options = {distractors = 2, distractors_of = 'task'}"
    )
    job = read_sweep(write(tmp_path, text), tmp_path)[0]
    train(job.config, tmp_path / "run", progress=False)
    table = evaluate_run(open_run(tmp_path / "run"), ["extreme"], 1)
    seen = [json.loads(context) for context in table["context"]]
    assert seen == task_sets(CUBE, **options).extreme


TOY = """
import json, os, pathlib, shutil, signal, sys, time
directories = [pathlib.Path(job["directory"]) for job in json.loads(sys.stdin.readline())]
behaviours = []
for directory in directories:
    tries = len(list(directory.glob("try*")))
    directory.mkdir(parents=True, exist_ok=True)
    note = [os.getpid(), os.environ["OMP_NUM_THREADS"]]
    (directory / f"try{tries}").write_text(json.dumps(note))
    behaviours.append(os.environ.get("TOY_" + directory.name.upper(), ""))
if "fails" in behaviours or ("fails once" in behaviours and tries == 0):
    raise RuntimeError(f"no luck in try {tries}")
if "dies" in behaviours:
    os.kill(os.getpid(), signal.SIGKILL)
if "silent" in behaviours:
    sys.exit(3)
if "waits" in behaviours:
    while os.read(0, 1):
        pass
    (directory / "let go").touch()
    os._exit(1)
for directory in directories:
    shutil.copy(os.environ["TOY_RESULTS"], directory / "results.parquet")
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Workers run ``toy.py``, which behaves as $TOY_SEED<k> says."""
    (tmp_path / "toy.py").write_text(TOY)
    results = tmp_path / "results.parquet"
    table = pd.DataFrame({"split": ["train", "extreme"], "episode": 0, "success": [True, False]})
    table.assign(episode_return=1.5).to_parquet(results)
    old = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{old}")
    monkeypatch.setenv("TOY_RESULTS", str(results))
    monkeypatch.setattr(sweeps, "RUN_MODULE", "toy")
    text = TINY.replace("[1]", "[0, 1, 2, 3]")
    return read_sweep(write(tmp_path, text), tmp_path / "runs")


def tries(job) -> int:
    return len(list(job.directory.glob("try*")))


def test_failed_runs_are_tried_twice_and_the_others_go_on(toys, tmp_path, monkeypatch, capsys):
    for seed, behaviour in enumerate(["fails", "fails once", "dies", ""]):
        monkeypatch.setenv(f"TOY_SEED{seed}", behaviour)
    path = str(tmp_path / "sweep.toml")
    command = ["sweep", path, "--workers", "1", "--run-dir", str(tmp_path / "runs")]
    assert main(command) == 1
    assert [tries(job) for job in toys] == [2, 2, 2, 1]
    printed = capsys.readouterr()
    errors = printed.err[printed.err.index("sami sweep: 2 of 4 runs failed twice") :]
    assert "cubemove tesac seed 0: RuntimeError: no luck in try 1 (log: " in errors
    assert "cubemove tesac seed 2: ended by SIGKILL; out of memory? (log: " in errors
    assert "seed 1" not in errors and "seed 3" not in errors
    assert "seed 3: success extreme 0, train 1; " in printed.out  # one line per finished run
    assert "seed 0: failed, will be tried once more: RuntimeError" in printed.out
    assert "100%" not in printed.err and "/4 [" in printed.err  # the bar, with its estimate

    for seed in (0, 2):
        monkeypatch.setenv(f"TOY_SEED{seed}", "")
    assert main(command) == 0
    assert [tries(job) for job in toys] == [3, 2, 3, 1]  # only what was missing


def test_a_population_fails_as_one_and_is_tried_again_one_by_one(toys, monkeypatch, capsys):
    monkeypatch.setenv("TOY_SEED1", "fails")
    errors = run_sweep(toys, together=3)
    assert list(errors) == ["cubemove tesac seed 1"]
    assert [tries(job) for job in toys] == [2, 2, 2, 1]
    notes = [json.loads((job.directory / "try0").read_text())[0] for job in toys]
    assert len(set(notes[:3])) == 1 and notes[3] != notes[0]  # seeds 0 to 2 in one process
    notes = [json.loads((job.directory / "try1").read_text())[0] for job in toys[:3]]
    assert len(set(notes)) == 3
    printed = capsys.readouterr().out
    assert "seed 0: failed, will be tried once more: RuntimeError: no luck" in printed
    assert "seed 3: success" in printed


def test_populations_hold_runs_that_differ_in_their_seed_only(tmp_path):
    text = TINY.replace('["tesac"]', '["sac", "tesac"]').replace("[1]", "[0, 1, 2]")
    jobs = read_sweep(write(tmp_path, text), tmp_path)
    groups = populations([*jobs, dataclasses.replace(jobs[0], episodes=7)], together=2)
    names = [[job.name.removeprefix("cubemove ") for job in group] for group in groups]
    assert names == [
        ["sac seed 0", "sac seed 1"], ["sac seed 2"],
        ["tesac seed 0", "tesac seed 1"], ["tesac seed 2"],
        ["sac seed 0"],
    ]  # fmt: skip


def test_a_sweep_of_populations_gives_the_same_runs(tmp_path):
    path = write(tmp_path, TINY.replace("[1]", "[1, 2]"))
    for number in ("1", "2"):
        command = ["sweep", str(path), "--workers", "1", "--together", number]
        assert main([*command, "--run-dir", str(tmp_path / number)]) == 0
    for alone, member in zip(
        read_sweep(path, tmp_path / "1"), read_sweep(path, tmp_path / "2"), strict=True
    ):
        assert member.finished()
        for name in ("curve.parquet", "results.parquet"):
            tables = [pd.read_parquet(job.directory / name) for job in (alone, member)]
            own = [table.drop(columns="wall_seconds", errors="ignore") for table in tables]
            pd.testing.assert_frame_equal(*own, rtol=1e-3, atol=1e-4)


def test_a_lost_worker_counts_as_a_failure_of_what_it_had_not_finished(toys, monkeypatch):
    def lost(tasks):
        yield from spread(tasks[:1])
        raise RuntimeError("the pool\nis broken")

    monkeypatch.setattr(sweeps, "spread", lost)
    errors = run_sweep(toys)
    assert len(errors) == 2  # four runs, one finished in each of the two rounds
    assert all("its worker was lost" in e and "\n" not in e for e in errors.values())


def test_a_task_has_one_thread_and_says_what_went_wrong(toys, tmp_path, monkeypatch):
    def outcome(job, behaviour):
        monkeypatch.setenv(f"TOY_{job.directory.name.upper()}", behaviour)
        return run_task(Task("x", "toy", jobs_to_line([job]), job.directory / "log.txt"), owner=0)

    assert outcome(toys[0], "").error is None
    assert json.loads((toys[0].directory / "try0").read_text())[1] == "1"
    assert outcome(toys[1], "silent").error == "exit status 3 without a message"
    missing = Task("x", "no_such_module", "{}", tmp_path / "log.txt")
    assert "No module named no_such_module" in run_task(missing, owner=0).error


SPREAD = """
import json, sys
from pathlib import Path
from sami_tutorial.workers import Task, spread, workers
if __name__ == "__main__":
    tasks = [Task(n, "toy", line, Path(log)) for n, line, log in json.load(sys.stdin)]
    with workers(sys.argv[1], 2):
        for outcome in spread(tasks):
            print(outcome.name, outcome.error, flush=True)
"""


def start(tmp_path, jobs, backend) -> subprocess.Popen:
    """The toys of these jobs on two workers, from a process of its own."""
    script = tmp_path / "spread.py"
    script.write_text(SPREAD)
    process = subprocess.Popen(
        [sys.executable, script, backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    tasks = [(job.name, jobs_to_line([job]), str(job.directory / "log.txt")) for job in jobs]
    process.stdin.write(json.dumps(tasks))
    process.stdin.close()
    return process


@pytest.mark.parametrize(("backend", "package"), [("loky", None), ("dask", "distributed"),
                                                  ("ray", "ray")])  # fmt: skip
def test_backends(backend, package, toys, tmp_path, monkeypatch):
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package} (`make scale`)")
    monkeypatch.setenv("TOY_SEED1", "fails")
    with start(tmp_path, toys, backend) as process:
        lines = sorted(process.stdout.read().splitlines())
    assert process.returncode == 0
    assert lines == [
        "cubemove tesac seed 0 None",
        "cubemove tesac seed 1 RuntimeError: no luck in try 0",
        "cubemove tesac seed 2 None",
        "cubemove tesac seed 3 None",
    ]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_kill_9_of_a_sweep_leaves_no_run_behind_and_the_next_call_completes_it(
    toys, tmp_path, monkeypatch
):
    for seed in (2, 3):
        monkeypatch.setenv(f"TOY_SEED{seed}", "waits")
    notes = [toys[seed].directory / "try0" for seed in (2, 3)]
    with start(tmp_path, toys, "loky") as process:
        while not all(note.exists() and note.read_text() for note in notes):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    runs = [json.loads(note.read_text())[0] for note in notes]
    deadline = time.monotonic() + 60
    while any(map(alive, runs)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, runs))
    assert all(note.with_name("let go").exists() for note in notes)
    assert [job.finished() for job in toys] == [True, True, False, False]
    for seed in (2, 3):
        monkeypatch.setenv(f"TOY_SEED{seed}", "")
    assert run_sweep(toys) == {}
    assert [tries(job) for job in toys] == [1, 1, 2, 2]
