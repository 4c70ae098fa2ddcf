"""How the recipe of the methods with an encoder was checked: training tasks, other seeds.

    python experiments/cubemove_recipe.py    # about 40 minutes on one core

One ingredient of ``ENCODER_RECIPES`` is taken away at a time (TESAC), and the weight of the
contrast is varied (SaTESAC). The seeds take no part in any comparison of methods, and only success
on the training tasks is looked at. Finished runs are kept in runs/cubemove_recipe and skipped on
the next call.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from cubemove_methods import ENV, EPISODES

from sami_tutorial.envs import task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.results import store_table
from sami_tutorial.train import TrainConfig, recipe, train

NAME = "cubemove_recipe"
SEEDS = (100, 101, 102)


def weighing(weight: float) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: replace(c, context=replace(c.context, contrast_weight=weight))


RUNS: dict[str, tuple[str, Callable[[TrainConfig], TrainConfig]]] = {
    "tesac": ("tesac", lambda c: c),
    "tesac, raw observations": (
        "tesac",
        lambda c: replace(c, sac=replace(c.sac, standardize=False)),
    ),
    "tesac, no exploring environments": ("tesac", lambda c: replace(c, exploring_envs=0)),
    "tesac, replay of all steps": ("tesac", lambda c: replace(c, replay_capacity=c.steps)),
    "satesac, alpha 0.01": ("satesac", weighing(0.01)),
    "satesac, alpha 0.1": ("satesac", weighing(0.1)),
    "satesac, alpha 1": ("satesac", weighing(1.0)),
}
"""Name -> method and what it changes in its recipe."""


def run(name: str, seed: int, directory: Path) -> pd.DataFrame:
    """Success in training, round by round, and with the mean action afterwards (last row)."""
    method, change = RUNS[name]
    config = change(recipe(ENV, method=method, seed=seed))
    finished = train(config, directory, progress=False)
    tasks = task_sets(ENV).train
    table = evaluate(finished.agent, ENV, tasks, episodes=EPISODES, deterministic=True)
    columns = ["env_steps", "success", "wall_seconds"]
    curve = finished.curve.dropna(subset=["success"])[columns].assign(actions="sampled")
    final = {
        "env_steps": config.steps,
        "success": table["success"].mean(),
        "wall_seconds": curve["wall_seconds"].max(),
        "actions": "mean",
    }
    curve = pd.concat([curve, pd.DataFrame([final])], ignore_index=True)
    return curve.assign(run=name, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs-only", action="store_true", help="store nothing in data/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = []
    for seed in arguments.seeds:
        for name in RUNS:
            directory = arguments.run_dir / name / f"seed{seed}"
            path = directory / "success.parquet"
            if not path.exists():
                table = run(name, seed, directory)
                table.to_parquet(path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)
            tables.append(pd.read_parquet(path))
    if arguments.runs_only:
        return
    table = pd.concat(tables, ignore_index=True)
    configs = {name: change(recipe(ENV, method=m)) for name, (m, change) in RUNS.items()}
    store_table(
        f"results/{NAME}.parquet",
        table,
        command=f"python experiments/{NAME}.py",
        config={
            "runs": {name: json.loads(c.to_json()) for name, c in configs.items()},
            "seeds": arguments.seeds,
            "episodes": EPISODES,
        },
        wall_seconds=round(float(table.groupby(["run", "seed"])["wall_seconds"].max().sum()), 1),
    )


if __name__ == "__main__":
    main()
