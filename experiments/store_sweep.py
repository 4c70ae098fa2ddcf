"""Stores the finished runs of a sweep in data/: results, curves and policies of each benchmark.

    sami sweep sweeps/crippled.toml --together 5
    python experiments/store_sweep.py sweeps/crippled.toml

A sweep that is not complete is stored as far as it is; what is missing is listed. Storing again
replaces what was stored before.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path

import pandas as pd

from sami_tutorial.results import store_bytes, store_table
from sami_tutorial.runs import CURVE, POLICY, RESULTS, Job
from sami_tutorial.sweep import read_sweep
from sami_tutorial.train import ORIGIN


def checkpoint_name(job: Job) -> str:
    return f"checkpoints/{job.benchmark}/{job.variant}/seed{job.config.seed}.safetensors"


def store(name: str, jobs: list[Job], command: str) -> None:
    """The runs of one benchmark."""
    results = pd.concat(
        [
            pd.read_parquet(job.directory / RESULTS).assign(checkpoint=checkpoint_name(job))
            for job in jobs
        ],
        ignore_index=True,
    )
    curves = pd.concat([pd.read_parquet(job.directory / CURVE) for job in jobs], ignore_index=True)
    curves = curves.dropna(subset=["episode_return"])
    wall = curves.groupby(["method", "seed"])["wall_seconds"].max()
    configs = {job.variant: json.loads(job.config.to_json()) for job in jobs}
    shared = {
        "methods": {variant: config | {"seed": None} for variant, config in configs.items()},
        "seeds": {v: sorted(j.config.seed for j in jobs if j.variant == v) for v in configs},
        "splits": jobs[0].splits,
        "episodes": jobs[0].episodes,
    }
    origins = {job.name: json.loads((job.directory / ORIGIN).read_text()) for job in jobs}
    together = {
        key: " and ".join(sorted({origin[key] for origin in origins.values()}))
        for key in ("commit", "hardware")
    }
    for folder, table in {"results": results, "curves": curves}.items():
        store_table(
            f"{folder}/{name}.parquet",
            table,
            command=command,
            config=shared,
            wall_seconds=round(float(wall.sum()), 1),
            origin=together,
        )
    for job in jobs:
        store_bytes(
            checkpoint_name(job),
            (job.directory / POLICY).read_bytes(),
            command=command,
            config=json.loads(job.config.to_json()),
            wall_seconds=round(float(wall[job.variant, job.config.seed]), 1),
            origin=origins[job.name],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the sweep, as `sami sweep` read it")
    parser.add_argument("--run-dir", type=Path, help="where its runs are (default: runs/<FILE>)")
    arguments = parser.parse_args()
    jobs = read_sweep(arguments.file, arguments.run_dir or Path("runs") / arguments.file.stem)
    command = f"sami sweep {arguments.file.as_posix()}"
    for benchmark, group in groupby(jobs, key=lambda job: job.benchmark):
        every = list(group)
        finished = [job for job in every if job.finished()]
        missing = ", ".join(job.name for job in every if job not in finished)
        print(f"{benchmark}: {len(finished)} of {len(every)} runs are finished")
        if missing:
            print(f"  missing: {missing}")
        if finished:
            store(benchmark, finished, command)


if __name__ == "__main__":
    main()
