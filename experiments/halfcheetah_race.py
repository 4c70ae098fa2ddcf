"""The race: how soon SAC earns 4000 per episode on the nominal HalfCheetah.

Stable-Baselines3's SAC as it comes (one environment, an update after every step, two layers of 256,
batches of 256, learning rate 3e-4) against the book's recipe (16 environments, an update per 16
steps, two layers of 128), alone and as a population of five seeds. Nothing is held equal but the
task and its evaluation: halfcheetah_anchor.py holds the settings equal.

    pip install -e '.[bench]'
    python experiments/halfcheetah_race.py    # an hour and a half of one core, mostly SB3's

A contestant is evaluated every 8,000 environment steps (the book's after every second round of 16
episodes, which is every 32,000) and stops at the first evaluation whose ten episodes return 4000 on
average, or after 500,000 steps. The clocks stand still during evaluations. Finished runs are kept
in runs/race and skipped on the next call; the table is stored in data/.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import torch

from sami_tutorial.evaluate import Policy, evaluate
from sami_tutorial.results import store_table
from sami_tutorial.train import Run, recipe, train_together

ENV = "sami/HalfCheetah-v0"
GOAL = 4000.0
STEPS = 500_000
EPISODES = 10
SEEDS = (0, 1, 2, 3, 4)
SB3_SEEDS = (0,)
CONTESTANTS = {"ours": SEEDS[:3], "ours_5": SEEDS, "sb3_default": SB3_SEEDS}


class Reached(Exception):
    """Everybody is at the goal."""


class Log:
    """One contestant's evaluations; ``share`` is the part of the process's time that is its own."""

    def __init__(self, every: int, share: float = 1.0):
        self.every, self.share = every, share
        self.rows: list[dict[str, Any]] = []
        self.wall_seconds = self.cpu_seconds = 0.0
        self.resume()

    def resume(self) -> None:
        self.wall_start, self.cpu_start = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        self.wall_seconds += self.share * (time.perf_counter() - self.wall_start)
        self.cpu_seconds += self.share * (time.process_time() - self.cpu_start)

    def due(self, env_steps: int) -> bool:
        last = self.rows[-1]["env_steps"] if self.rows else 0
        return not self.reached and env_steps // self.every > last // self.every

    def add(self, env_steps: int, updates: int, policy: Policy) -> None:
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

    @property
    def reached(self) -> bool:
        return bool(self.rows) and self.rows[-1]["episode_return"] >= GOAL


def run_ours(seeds: tuple[int, ...]) -> dict[int, pd.DataFrame]:
    """The book's recipe, one seed or several at once; those at the goal train on with the rest."""
    configs = [recipe(ENV, "sac", seed=s, split="nominal", steps=STEPS) for s in seeds]
    logs = {seed: Log(32_000, share=1 / len(seeds)) for seed in seeds}

    def on_round(run: Run) -> None:
        seed = run.config.seed
        if seed == seeds[0]:
            for log in logs.values():
                log.pause()
        if logs[seed].due(run.env_steps):
            policy = lambda obs: run.agent.act(obs, deterministic=True)  # noqa: E731
            logs[seed].add(run.env_steps, run.updates, policy)
        if seed == seeds[-1]:
            if all(log.reached for log in logs.values()):
                raise Reached
            for log in logs.values():
                log.resume()

    try:
        train_together(configs, on_round=on_round)
    except Reached:
        pass
    return {seed: pd.DataFrame(log.rows) for seed, log in logs.items()}


def run_sb3(seed: int) -> pd.DataFrame:
    """Stable-Baselines3's SAC with nothing set but the seed."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    log = Log(8_000)

    class Evaluate(BaseCallback):
        def _on_training_start(self) -> None:
            log.resume()

        def _on_step(self) -> bool:
            if log.due(self.num_timesteps):
                log.pause()
                policy = lambda obs: self.model.predict(obs, deterministic=True)[0]  # noqa: E731
                log.add(self.num_timesteps, self.model._n_updates, policy)
                print(f"sb3_default, seed {seed}: {log.rows[-1]}", flush=True)
                log.resume()
            return not log.reached

    model = SAC("MlpPolicy", gym.make(ENV, split="nominal"), seed=seed, device="cpu")
    model.learn(STEPS, callback=Evaluate())
    return pd.DataFrame(log.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/race"))
    parser.add_argument("--only", choices=CONTESTANTS, help="run one of them, store nothing")
    parser.add_argument("--seeds", type=int, nargs="+", help="with --only: these seeds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run_dir.mkdir(parents=True, exist_ok=True)

    def path_of(contestant: str, seed: int) -> Path:
        return arguments.run_dir / f"{contestant}_seed{seed}.parquet"

    for contestant, seeds in CONTESTANTS.items():
        if arguments.only not in (None, contestant):
            continue
        for seed in arguments.seeds or seeds:
            if path_of(contestant, seed).exists():
                continue
            if contestant == "sb3_default":
                finished = {seed: run_sb3(seed)}
            else:
                finished = run_ours(seeds if contestant == "ours_5" else (seed,))
            for each, table in finished.items():
                table.insert(0, "benchmark", "halfcheetah_race")
                table.insert(1, "method", contestant)
                table.insert(2, "seed", each)
                table.insert(3, "split", "nominal")
                path = path_of(contestant, each)
                table.to_parquet(path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)
    if arguments.only is None:
        table = pd.concat(
            [pd.read_parquet(path_of(c, s)) for c, seeds in CONTESTANTS.items() for s in seeds],
            ignore_index=True,
        )
        seconds = table.groupby(["method", "seed"])["wall_seconds"].max().sum()
        store_table(
            "curves/halfcheetah_race.parquet",
            table,
            command="python experiments/halfcheetah_race.py",
            config=json.loads(recipe(ENV, "sac", split="nominal", steps=STEPS).to_json())
            | {
                "goal": GOAL,
                "seeds": CONTESTANTS,
                "episodes": EPISODES,
                "stable_baselines3": metadata.version("stable-baselines3"),
            },
            wall_seconds=round(float(seconds), 1),
        )


if __name__ == "__main__":
    main()
