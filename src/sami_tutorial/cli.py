"""The command line: ``sami train`` and ``sami evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from sami_tutorial.agents import METHODS
from sami_tutorial.checkpoint import load_checkpoint
from sami_tutorial.envs import SPLITS, TASKS, task_sets
from sami_tutorial.evaluate import evaluate
from sami_tutorial.train import (
    CHECKPOINT,
    CONFIG,
    Run,
    TrainConfig,
    TrainingDiverged,
    recipe,
    train,
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="sami", description="Train and evaluate the agents of the SaMI tutorial book."
    )
    commands = top.add_subparsers(dest="command", required=True)

    one = commands.add_parser(
        "train",
        help="train one agent; call it again to resume",
        description="Train one agent with the book's recipe. A run that was interrupted goes on "
        "where its last checkpoint was written, exactly as if it had never stopped.",
        epilog="example: sami train --env sami/CubeMove-v0 --method oracle --run-dir runs/oracle",
    )
    one.add_argument("--env", required=True, metavar="ID", help=f"one of {', '.join(TASKS)}")
    one.add_argument("--method", default="sac", metavar="M", help=f"one of {', '.join(METHODS)}")
    one.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    one.add_argument("--steps", type=int, metavar="N", help="environment steps (default: recipe)")
    one.add_argument("--split", default="train", help="task set to train on (default train)")
    one.add_argument(
        "--shuffle-returns",
        action="store_true",
        help="rank trajectories by permuted returns: the control of satesac and saccm",
    )
    one.add_argument("--run-dir", type=Path, required=True, help="where config and weights go")
    one.add_argument(
        "--checkpoint-seconds", type=float, default=60.0, help="time between two (default 60)"
    )
    one.set_defaults(run=run_train)

    two = commands.add_parser(
        "evaluate",
        help="evaluate a trained agent without updates",
        description="Run a trained agent in every task of the given splits, with mean actions and "
        "no updates, and write one row per episode.",
        epilog="example: sami evaluate --run-dir runs/oracle --out oracle.parquet",
    )
    two.add_argument("--run-dir", type=Path, required=True, help="what `sami train` wrote")
    two.add_argument("--splits", nargs="+", default=list(SPLITS), help="default: all three")
    two.add_argument("--episodes", type=int, default=20, help="per task (default 20)")
    two.add_argument("--out", type=Path, required=True, help="the table, as Parquet")
    two.set_defaults(run=run_evaluate)
    return top


def run_train(arguments: argparse.Namespace) -> None:
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    config = recipe(
        arguments.env,
        method=arguments.method,
        seed=arguments.seed,
        split=arguments.split,
        **changes,
    )
    if arguments.shuffle_returns:
        config = replace(config, context=replace(config.context, shuffle_returns=True))
    train(config, arguments.run_dir, checkpoint_seconds=arguments.checkpoint_seconds)


def run_evaluate(arguments: argparse.Namespace) -> None:
    for name in (CONFIG, CHECKPOINT):
        if not (arguments.run_dir / name).is_file():
            raise ValueError(f"--run-dir {str(arguments.run_dir)!r} holds no {name}; train first")
    config = TrainConfig.from_json((arguments.run_dir / CONFIG).read_text())
    run = Run(config)
    run.restore(*load_checkpoint(arguments.run_dir / CHECKPOINT))
    tables = []
    for split in arguments.splits:
        table = evaluate(
            run.agent,
            config.env,
            task_sets(config.env).split(split),
            episodes=arguments.episodes,
            method=config.method,
            env_options=config.env_options,
        )
        tables.append(
            table.assign(
                benchmark=config.env.removeprefix("sami/").lower(),
                method=config.method,
                seed=config.seed,
                split=split,
                env_steps=run.env_steps,
            )
        )
    table = pd.concat(tables, ignore_index=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.out.with_suffix(".tmp")
    table.to_parquet(temporary, index=False)
    temporary.replace(arguments.out)
    columns = [c for c in ("episode_return", "success") if table[c].notna().all()]
    print(table.astype(dict.fromkeys(columns, float)).groupby("split")[columns].mean().round(3))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a bad argument ends in one line that says what to do."""
    parsed = parser().parse_args(arguments)
    torch.set_num_threads(1)  # networks this small run fastest on one thread
    try:
        parsed.run(parsed)
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"sami {parsed.command}: {error}", file=sys.stderr)
        return 2
    return 0
