"""A run's directory, from config to tables.

``sami train`` leaves ``config.json``, ``origin.json`` and two checkpoints in it. A run of a sweep
is trained and evaluated, and adds ``policy.safetensors``, ``curve.parquet`` and, last,
``results.parquet``: a run that has the last one is finished.

``python -m sami_tutorial.runs`` completes the runs that it is told on standard input; it is what
the workers of a sweep start (:mod:`sami_tutorial.workers`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sami_tutorial.checkpoint import has_checkpoint, load_checkpoint, policy_bytes
from sami_tutorial.envs import task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.files import write_whole
from sami_tutorial.train import (
    CHECKPOINT,
    CONFIG,
    Run,
    TrainConfig,
    TrainResult,
    read_config,
    train_together,
)

RESULTS = "results.parquet"
CURVE = "curve.parquet"
POLICY = "policy.safetensors"


def benchmark(env: str) -> str:
    """The name of an environment in tables and folders: ``"cubemove"`` for CubeMove."""
    return env.removeprefix("sami/").removesuffix("-v0").lower()


def open_run(directory: Path) -> Run:
    """The run in ``directory`` as its last usable checkpoint has it, its environments closed.

    Raises:
        ValueError: if there is none, or its config is damaged.
        CheckpointError: if neither the last checkpoint nor the one before it can be used.
    """
    if not (directory / CONFIG).is_file():
        raise ValueError(f"--run-dir {str(directory)!r} holds no {CONFIG}; train first")
    if not has_checkpoint(directory / CHECKPOINT):
        raise ValueError(f"--run-dir {str(directory)!r} holds no {CHECKPOINT}; train first")
    config, text = read_config(directory)
    run = Run(config)
    run.env.close()
    # Unlike a resumed run it changes no file: a training may be going on there.
    saved = load_checkpoint(directory / CHECKPOINT, text)
    run.restore(saved.tensors, saved.counters)
    return run


def evaluate_run(run: Run, splits: Sequence[str], episodes: int) -> pd.DataFrame:
    """One row per episode of the run's policy, with mean actions and no updates.

    Args:
        run: see :func:`open_run`.
        splits: of the run's environment, each once.
        episodes: per task.

    Raises:
        ValueError: if ``splits`` is empty, repeats one or names one that there is not, or if there
            are no episodes.
    """
    if not splits or len(set(splits)) < len(splits):
        raise ValueError(f"splits is {list(splits)}; name at least one, and each once")
    config = run.config
    tables = [
        evaluate(
            run.agent,
            config.env,
            task_sets(config.env, **config.env_options).split(split),
            episodes=episodes,
            method=config.method,
            env_options=config.env_options,
        ).assign(split=split)
        for split in splits
    ]
    return pd.concat(tables, ignore_index=True).assign(
        benchmark=benchmark(config.env),
        method=config.method,
        seed=config.seed,
        env_steps=run.env_steps,
    )


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes Parquet that is whole or absent."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        directory: where everything about the run is kept.
        config: the training.
        splits: the task sets to evaluate on.
        episodes: evaluation episodes per task.
        benchmark: what its tables are called.
        variant: what the run is called in them, in the column ``method``.
        device: where its networks compute.
    """

    directory: Path
    config: TrainConfig
    splits: tuple[str, ...]
    episodes: int
    benchmark: str
    variant: str
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.benchmark} {self.variant} seed {self.config.seed}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return vars(self) | {
            "directory": str(self.directory.absolute()),
            "config": self.config.to_json(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        kept = {
            "directory": Path(values["directory"]),
            "config": TrainConfig.from_json(values["config"]),
            "splits": tuple(values["splits"]),
        }
        return cls(**values | kept)

    def finished(self) -> bool:
        """Whether this very run has been trained and evaluated.

        Raises:
            ValueError: if the directory holds a run with another config.
        """
        if (self.directory / CONFIG).exists():
            if read_config(self.directory)[0] != self.config:
                raise ValueError(
                    f"{str(self.directory)!r} holds a run with another config; choose another "
                    "--run-dir, or delete that one"
                )
        try:
            table = pd.read_parquet(self.directory / RESULTS, columns=["split", "episode"])
        except (OSError, ValueError):  # missing or damaged
            return False
        same_splits = set(table["split"]) == set(self.splits)
        return same_splits and int(table["episode"].max()) + 1 == self.episodes

    def keep(self, trained: TrainResult) -> None:
        """Writes what the finished training brought, and evaluates it."""
        policy = policy_bytes(trained.agent.policy(), self.config.to_json())
        write_whole(self.directory / POLICY, policy)
        names = {"benchmark": self.benchmark, "method": self.variant}
        curve = trained.curve.assign(**names, seed=self.config.seed, split=self.config.split)
        write_table(curve, self.directory / CURVE)
        table = evaluate_run(open_run(self.directory), self.splits, self.episodes)
        write_table(table.assign(**names), self.directory / RESULTS)

    def summary(self) -> str:
        """How the finished run did, in a few words."""
        table = pd.read_parquet(self.directory / RESULTS)
        measure = "success" if table["success"].notna().all() else "episode_return"
        means = table.astype({measure: float}).groupby("split")[measure].mean()
        scores = ", ".join(f"{split} {means[split]:.3g}" for split in self.splits)
        return f"{measure.replace('_', ' ')} {scores}"


def jobs_to_line(jobs: Sequence[Job]) -> str:
    """What :func:`main` reads."""
    return json.dumps([job.to_dict() for job in jobs])


def complete(jobs: Sequence[Job]) -> None:
    """Trains runs that differ in their seed only, from their last checkpoints, and evaluates them.

    Several are trained together, as a population.
    """
    directories = [job.directory for job in jobs]
    trained = train_together(
        [job.config for job in jobs], directories, progress=False, device=jobs[0].device
    )
    for job, result in zip(jobs, trained, strict=True):
        job.keep(result)


def main() -> None:
    """Completes the jobs in the first line of standard input."""
    jobs = [Job.from_dict(each) for each in json.loads(sys.stdin.buffer.readline())]

    def end_with_the_worker() -> None:
        os.read(sys.stdin.fileno(), 1)  # the worker holds the other end; this returns when it dies
        os._exit(1)

    threading.Thread(target=end_with_the_worker, daemon=True).start()
    torch.set_num_threads(1)
    complete(jobs)


if __name__ == "__main__":
    main()
