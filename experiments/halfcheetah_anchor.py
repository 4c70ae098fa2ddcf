"""The anchor: this book's SAC against Stable-Baselines3's on the nominal HalfCheetah.

Equal networks, batch, optimiser, number of environments and number of updates (one per 16
environment steps); the same evaluation episodes; wall-clock without evaluation, one thread.

    pip install -e '.[bench]'
    python experiments/halfcheetah_anchor.py                 # about 50 minutes on one core

Finished runs are kept in runs/anchor and skipped on the next call; the table is stored in data/.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

from sami_tutorial.bench import sb3_model
from sami_tutorial.evaluate import Policy, evaluate
from sami_tutorial.results import store_table
from sami_tutorial.train import Run, TrainConfig, train

ENV = "sami/HalfCheetah-v0"
STEPS = 300_000
EVALUATE_EVERY = 32_000  # environment steps: two rounds of 16 episodes
EPISODES = 10
SEEDS = (0, 1, 2)


def config(seed: int) -> TrainConfig:
    return TrainConfig(env=ENV, method="sac", seed=seed, steps=STEPS, split="nominal")


class Log:
    """Evaluates when due; the clocks stand still meanwhile."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.wall_seconds = self.cpu_seconds = 0.0
        self.resume()

    def resume(self) -> None:
        self.wall_start, self.cpu_start = time.perf_counter(), time.process_time()

    def __call__(self, env_steps: int, updates: int, policy: Policy) -> None:
        last = self.rows[-1]["env_steps"] if self.rows else 0
        if env_steps // EVALUATE_EVERY == last // EVALUATE_EVERY and env_steps < STEPS:
            return
        self.wall_seconds += time.perf_counter() - self.wall_start
        self.cpu_seconds += time.process_time() - self.cpu_start
        table = evaluate(policy, ENV, [{}], episodes=EPISODES)
        self.rows.append(
            {
                "env_steps": env_steps,
                "updates": updates,
                "episode_return": float(table["episode_return"].mean()),
                "wall_seconds": self.wall_seconds,
                "cpu_seconds": self.cpu_seconds,
            }
        )
        self.resume()


def run_ours(seed: int) -> pd.DataFrame:
    log = Log()

    def on_round(run: Run) -> None:
        log(run.env_steps, run.updates, lambda obs: run.agent.act(obs, deterministic=True))

    train(config(seed), on_round=on_round)
    return pd.DataFrame(log.rows)


def run_sb3(seed: int) -> pd.DataFrame:
    from stable_baselines3.common.callbacks import BaseCallback

    ours = config(seed)
    log = Log()

    class Evaluate(BaseCallback):
        def _on_training_start(self) -> None:
            log.resume()

        def _on_step(self) -> bool:
            policy = lambda obs: self.model.predict(obs, deterministic=True)[0]  # noqa: E731
            log(self.num_timesteps, self.model._n_updates, policy)
            return True

    model = sb3_model(ours, ours.num_envs)
    model.learn(STEPS, callback=Evaluate())
    return pd.DataFrame(log.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/anchor"))
    parser.add_argument("--only", choices=("sac", "sb3"), help="run one of the two, store nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run_dir.mkdir(parents=True, exist_ok=True)
    tables = []
    for seed in SEEDS:
        for method in ("sac", "sb3"):
            if arguments.only not in (None, method):
                continue
            path = arguments.run_dir / f"{method}_seed{seed}.parquet"
            if not path.exists():
                table = run_ours(seed) if method == "sac" else run_sb3(seed)
                table.insert(0, "benchmark", "halfcheetah_anchor")
                table.insert(1, "method", method)
                table.insert(2, "seed", seed)
                table.insert(3, "split", "nominal")
                table.to_parquet(path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)
            tables.append(pd.read_parquet(path))
    if arguments.only is None:
        table = pd.concat(tables, ignore_index=True)
        seconds = table.groupby(["method", "seed"])["wall_seconds"].max().sum()
        store_table(
            "curves/halfcheetah_anchor.parquet",
            table,
            command="python experiments/halfcheetah_anchor.py",
            config=json.loads(config(0).to_json())
            | {
                "seeds": SEEDS,
                "episodes": EPISODES,
                "stable_baselines3": metadata.version("stable-baselines3"),
            },
            wall_seconds=round(float(seconds), 1),
        )


if __name__ == "__main__":
    main()
