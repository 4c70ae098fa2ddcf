"""CubeMove without and with the hidden features: SAC against the oracle, ten seeds each.

    python experiments/cubemove_gap.py                           # about 25 minutes on one core
    python experiments/cubemove_gap.py --seeds 0 1 --runs-only   # some runs, store nothing

Each run trains on the training tasks only and is then evaluated, without updates, on all three task
sets: once with the policy's mean action and once with sampled actions, on the same episodes.
Finished runs are kept in runs/cubemove and skipped on the next call.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

from sami_tutorial.checkpoint import policy_bytes
from sami_tutorial.envs import SPLITS, task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.results import store_bytes, store_table
from sami_tutorial.train import recipe, train

BENCHMARK = "cubemove"
ENV = "sami/CubeMove-v0"
METHODS = ("sac", "oracle")
SEEDS = tuple(range(10))
EPISODES = 40
COMMAND = "python experiments/cubemove_gap.py"


def checkpoint_name(method: str, seed: int) -> str:
    return f"checkpoints/{BENCHMARK}/{method}/seed{seed}.safetensors"


def run(method: str, seed: int, directory: Path) -> None:
    """Trains, evaluates and leaves results, curve and policy in ``directory``; the curve last."""
    config = recipe(ENV, method=method, seed=seed)
    finished = train(config, directory)
    agent = finished.agent
    tables = []
    for actions in ("mean", "sampled"):
        agent.generator.manual_seed(seed)
        for split in SPLITS:
            table = evaluate(
                lambda obs, mean=actions == "mean": agent.act(obs, deterministic=mean),
                ENV,
                task_sets(ENV).split(split),
                episodes=EPISODES,
                method=method,
            )
            tables.append(
                table.assign(
                    benchmark=BENCHMARK,
                    method=method,
                    seed=seed,
                    split=split,
                    actions=actions,
                    env_steps=config.steps,
                    checkpoint=checkpoint_name(method, seed),
                )
            )
    pd.concat(tables, ignore_index=True).to_parquet(directory / "results.parquet")
    (directory / "policy.safetensors").write_bytes(policy_bytes(agent.actor, config.to_json()))
    curve = finished.curve.dropna(subset=["episode_return"])
    curve = curve[["env_steps", "episode_return", "success", "wall_seconds"]]
    curve = curve.assign(benchmark=BENCHMARK, method=method, seed=seed, split="train")
    curve.to_parquet(directory / "curve.tmp")
    (directory / "curve.tmp").replace(directory / "curve.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/cubemove"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs-only", action="store_true", help="store nothing in data/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    directories = {
        (method, seed): arguments.run_dir / method / f"seed{seed}"
        for seed in arguments.seeds
        for method in METHODS
    }
    for (method, seed), directory in directories.items():
        if not (directory / "curve.parquet").exists():
            run(method, seed, directory)
    if arguments.runs_only:
        return

    results = pd.concat([pd.read_parquet(d / "results.parquet") for d in directories.values()])
    curves = pd.concat([pd.read_parquet(d / "curve.parquet") for d in directories.values()])
    wall = curves.groupby(["method", "seed"])["wall_seconds"].max()
    settings = json.loads(recipe(ENV).to_json())
    shared = {"methods": METHODS, "seeds": arguments.seeds, "episodes": EPISODES}
    for name, table in {"results": results, "curves": curves}.items():
        store_table(
            f"{name}/{BENCHMARK}.parquet",
            table,
            command=COMMAND,
            config=settings | shared,
            wall_seconds=round(float(wall.sum()), 1),
        )
    for (method, seed), directory in directories.items():
        store_bytes(
            checkpoint_name(method, seed),
            (directory / "policy.safetensors").read_bytes(),
            command=COMMAND,
            config=settings | {"method": method, "seed": seed},
            wall_seconds=round(float(wall[method, seed]), 1),
        )


if __name__ == "__main__":
    main()
