"""All methods on CubeMove, ten seeds each, and the variants that explain them.

    python experiments/cubemove_methods.py                            # hours on one core
    python experiments/cubemove_methods.py --seeds 0 1 --runs-only    # some runs, store nothing

Every run has the recipe of the methods with an encoder, also SAC and the oracle: the same number of
updates, the same exploring environments, the same standardised observations. A run trains on the
training tasks only and is then evaluated, without updates, on all three task sets, with the
policy's mean action and with sampled actions. Finished runs are kept in runs/cubemove_methods and
skipped on the next call; two calls with different seeds may run side by side.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sami_tutorial.checkpoint import policy_bytes
from sami_tutorial.envs import SPLITS, task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.results import store_bytes, store_table
from sami_tutorial.train import TrainConfig, recipe, train

BENCHMARK = "cubemove_methods"
ENV = "sami/CubeMove-v0"
METHODS = ("sac", "oracle", "random", "tesac", "ccm", "satesac", "saccm")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "satesac_shuffled": ("satesac", {"shuffle_returns": True}),
    "satesac_alpha_1": ("satesac", {"contrast_weight": 1.0}),
    "ccm_alpha_1": ("ccm", {"contrast_weight": 1.0}),
    "satesac_code": (
        "satesac",
        {
            "loss": "bce",
            "skill_weight": "return_gap",
            "same_task": "worker",
            "contrast_weight": 1.0,
        },
    ),
    "satesac_max": ("satesac", {"skill_weight": "max"}),
    "pearl": ("pearl", {}),
}
"""Name -> method and what it changes in the settings of the context."""

SEEDS = tuple(range(10))
FEWER_SEEDS = SEEDS[:4]  # of the variants that are no control
TEN_SEEDS = (*METHODS, "satesac_shuffled")
EPISODES = 40
COMMAND = "python experiments/cubemove_methods.py"


def config_of(name: str, seed: int) -> TrainConfig:
    """The run of a method or a variant."""
    method, changes = VARIANTS.get(name, (name, {}))
    shared = recipe(ENV, method="tesac")
    return replace(shared, method=method, seed=seed, context=replace(shared.context, **changes))


def checkpoint_name(name: str, seed: int) -> str:
    return f"checkpoints/{BENCHMARK}/{name}/seed{seed}.safetensors"


def run(name: str, seed: int, directory: Path) -> None:
    """Trains, evaluates and leaves results, curve and policy in ``directory``; the curve last."""
    config = config_of(name, seed)
    finished = train(config, directory, progress=False)
    agent = finished.agent
    tables = []
    for actions in ("mean", "sampled"):
        agent.generator.manual_seed(seed)
        for split in SPLITS:
            table = evaluate(
                agent,
                ENV,
                task_sets(ENV).split(split),
                episodes=EPISODES,
                deterministic=actions == "mean",
                method=config.method,
            )
            tables.append(
                table.assign(
                    benchmark=BENCHMARK,
                    method=name,
                    seed=seed,
                    split=split,
                    actions=actions,
                    env_steps=config.steps,
                    checkpoint=checkpoint_name(name, seed),
                )
            )
    pd.concat(tables, ignore_index=True).to_parquet(directory / "results.parquet")
    (directory / "policy.safetensors").write_bytes(policy_bytes(agent.policy(), config.to_json()))
    curve = finished.curve.dropna(subset=["episode_return"])
    columns = ["env_steps", "episode_return", "success", "critic_loss", "contrastive_loss"]
    curve = curve.reindex(columns=[*columns, "wall_seconds"])
    curve = curve.assign(benchmark=BENCHMARK, method=name, seed=seed, split="train")
    curve.to_parquet(directory / "curve.tmp")
    (directory / "curve.tmp").replace(directory / "curve.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs") / BENCHMARK)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *VARIANTS])
    parser.add_argument("--runs-only", action="store_true", help="store nothing in data/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    directories = {
        (name, seed): arguments.run_dir / name / f"seed{seed}"
        for seed in arguments.seeds
        for name in arguments.methods
        if name in TEN_SEEDS or seed in FEWER_SEEDS
    }
    for (name, seed), directory in directories.items():
        if not (directory / "curve.parquet").exists():
            run(name, seed, directory)
    if arguments.runs_only:
        return

    results = pd.concat([pd.read_parquet(d / "results.parquet") for d in directories.values()])
    curves = pd.concat([pd.read_parquet(d / "curve.parquet") for d in directories.values()])
    wall = curves.groupby(["method", "seed"])["wall_seconds"].max()
    settings = json.loads(config_of("tesac", 0).to_json())
    shared = {
        "methods": arguments.methods,
        "variants": {name: VARIANTS[name] for name in arguments.methods if name in VARIANTS},
        "seeds": arguments.seeds,
        "seeds_of_variants": {n: FEWER_SEEDS for n in VARIANTS if n not in TEN_SEEDS},
        "episodes": EPISODES,
    }
    for folder, table in {"results": results, "curves": curves}.items():
        store_table(
            f"{folder}/{BENCHMARK}.parquet",
            table,
            command=COMMAND,
            config=settings | shared,
            wall_seconds=round(float(wall.sum()), 1),
        )
    for (name, seed), directory in directories.items():
        store_bytes(
            checkpoint_name(name, seed),
            (directory / "policy.safetensors").read_bytes(),
            command=COMMAND,
            config=json.loads(config_of(name, seed).to_json()),
            wall_seconds=round(float(wall[name, seed]), 1),
        )


if __name__ == "__main__":
    main()
