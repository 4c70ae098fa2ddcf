"""Brings the stored runs of a sweep back from data/, so that it goes on where data/ ends.

    python experiments/restore_sweep.py sweeps/crippled.toml
    sami sweep sweeps/crippled.toml --together 5

The inverse of store_sweep.py, for a clone whose runs/ is empty: each stored run gets its folder
again, all but the checkpoints of its training, and counts as finished. A folder that holds a run
already is left alone; so is a stored run whose config is not the sweep's any more, which is listed.
One that was evaluated otherwise is listed, too, and the sweep begins it anew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from store_sweep import checkpoint_name

from sami_tutorial.files import write_whole
from sami_tutorial.results import data_dir, load_bytes, load_table, read_manifest
from sami_tutorial.runs import CURVE, POLICY, RESULTS, Job, write_table
from sami_tutorial.sweep import read_sweep
from sami_tutorial.train import CONFIG, ORIGIN, TrainConfig


def restore(job: Job) -> str:
    """Writes what is stored of a run into its folder; what became of it, in a word or two."""
    name = checkpoint_name(job)
    stored = read_manifest(data_dir())["files"].get(name)
    if stored is None:
        return "not stored"
    if job.directory.exists():
        return "there already"
    if TrainConfig.from_json(json.dumps(stored["config"])) != job.config:
        return "stored with another config"

    def rows(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["method"] == job.variant) & (table["seed"] == job.config.seed)]

    results = rows(load_table(f"results/{job.benchmark}.parquet"))
    curve = rows(load_table(f"curves/{job.benchmark}.parquet"))
    policy = load_bytes(name)
    job.directory.mkdir(parents=True)
    origin = {key: stored[key] for key in ("commit", "hardware")}
    write_whole(job.directory / CONFIG, job.config.to_json().encode())
    write_whole(job.directory / ORIGIN, json.dumps(origin).encode())
    write_whole(job.directory / POLICY, policy)
    write_table(curve, job.directory / CURVE)
    write_table(results.drop(columns="checkpoint"), job.directory / RESULTS)  # last: it is finished
    return "restored" if job.finished() else "stored with another evaluation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the sweep, as `sami sweep` read it")
    parser.add_argument("--run-dir", type=Path, help="where its runs belong (default: runs/<FILE>)")
    arguments = parser.parse_args()
    jobs = read_sweep(arguments.file, arguments.run_dir or Path("runs") / arguments.file.stem)
    outcomes = pd.Series({job.name: restore(job) for job in jobs})
    for outcome, group in outcomes.groupby(outcomes):
        print(f"{len(group)} {outcome}")
        if "another" in str(outcome):
            print("  " + ", ".join(group.index))


if __name__ == "__main__":
    main()
