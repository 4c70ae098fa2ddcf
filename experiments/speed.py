"""The measurements of chapter 10: environments, updates and training against named peers.

    pip install -e '.[bench]'
    python experiments/speed.py                  # about ten minutes on one core
    python experiments/speed.py --only envs      # one of envs, update, train, compile

What `sami bench` measures, with more turns, and stored in data/. Wants a computer that has little
else to do: ratios survive company, but the quartiles around them grow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata

import pandas as pd
import torch

from sami_tutorial.bench import bench_envs, bench_train, bench_update
from sami_tutorial.results import store_table

REPETITIONS = 15
NO_STUDIES = {"populations": (), "widths": (), "batches": (), "windows": ()}
SUBJECTS: dict[str, Callable[..., pd.DataFrame]] = {
    "envs": bench_envs,
    "train": bench_train,
    "update": bench_update,
    "compile": partial(bench_update, methods=("sac",), compile=True, **NO_STUDIES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SUBJECTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for subject in [arguments.only] if arguments.only else SUBJECTS:
        start = time.perf_counter()
        table = SUBJECTS[subject](repetitions=REPETITIONS)
        store_table(
            f"results/speed_{subject}.parquet",
            table,
            command=f"python experiments/speed.py --only {subject}",
            config={
                "repetitions": REPETITIONS,
                "threads": 1,
                "versions": {
                    package: metadata.version(package)
                    for package in ("gymnasium", "mujoco", "numpy", "torch", "stable-baselines3")
                },
            },
            wall_seconds=round(time.perf_counter() - start, 1),
        )


if __name__ == "__main__":
    main()
