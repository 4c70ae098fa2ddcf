"""The runs in data/ are those of the sweeps in sweeps/, each with its config, and whole."""

import json
from pathlib import Path

import pytest

from sami_tutorial.results import data_dir, load_table, provenance, read_manifest
from sami_tutorial.sweep import read_sweep
from sami_tutorial.train import TrainConfig

SWEEPS = Path(__file__).parents[1] / "sweeps"


@pytest.mark.parametrize("name", ["one_change", "follow_up", "log_k", "distractors"])
def test_the_stored_runs_are_the_sweeps_and_whole(name):
    stored = load_table(f"results/{name}.parquet")
    jobs = read_sweep(SWEEPS / f"{name}.toml", Path("runs"))
    config = provenance(f"results/{name}.parquet")["config"]
    for job in jobs:
        settings = config["methods"][job.variant] | {"seed": job.config.seed}
        assert TrainConfig.from_json(json.dumps(settings)) == job.config
    runs = stored.groupby(["method", "seed"])
    assert set(runs.groups) == {(job.variant, job.config.seed) for job in jobs}
    assert config["seeds"].keys() == config["methods"].keys()
    assert set(runs.groups) == {(v, s) for v, seeds in config["seeds"].items() for s in seeds}
    episodes = stored.groupby(["method", "seed", "split", "context"]).size()
    assert (episodes == jobs[0].episodes).all()
    assert runs.size().nunique() == 1 and (runs["split"].nunique() == 3).all()
    listed = read_manifest(data_dir())["files"]
    assert all(checkpoint in listed for checkpoint in stored["checkpoint"].unique())
