"""The command line: ``sami train``, ``evaluate``, ``sweep``, ``verify`` and ``bench``."""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from sami_tutorial import bench
from sami_tutorial import sweep as sweeps
from sami_tutorial.agents import METHODS
from sami_tutorial.checkpoint import CheckpointWarning
from sami_tutorial.device import usable
from sami_tutorial.envs import SPLITS, TASKS
from sami_tutorial.files import write_whole
from sami_tutorial.lock import RunDirBusy
from sami_tutorial.results import data_dir
from sami_tutorial.runs import evaluate_run, open_run, write_table
from sami_tutorial.sweep import read_sweep, run_sweep
from sami_tutorial.train import TrainingDiverged, recipe, train, train_together
from sami_tutorial.verify import (
    AGREEING,
    MEAN_TOLERANCE,
    RETURN_TOLERANCE,
    check_files,
    reproduce,
)
from sami_tutorial.workers import BACKENDS

RANKED = [name for name, method in METHODS.items() if method.contrast in ("satesac", "saccm")]
"""The methods whose contrast ranks trajectories by their return."""


class UsageError(ValueError):
    """Arguments that make no command."""


class Parser(argparse.ArgumentParser):
    """A parser that needs one line to say what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="sami",
        description="Train and evaluate the agents of the SaMI tutorial book, and check its data.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser(
        "train",
        help="train an agent, or several seeds of it; call it again to resume",
        description="Train one agent with the book's recipe, or several seeds of it at once. A run "
        "that was interrupted goes on where its last checkpoint was written, exactly as if it had "
        "never stopped: call the same command again. Should that checkpoint be damaged, the one "
        "before it is used. The first line says how much memory the run needs.",
        epilog="example: sami train --env sami/CubeMove-v0 --method oracle --run-dir runs/oracle",
    )
    one.add_argument("--env", required=True, metavar="ID", help=f"one of {', '.join(TASKS)}")
    one.add_argument("--method", default="sac", metavar="M", help=f"one of {', '.join(METHODS)}")
    which = one.add_mutually_exclusive_group()
    which.add_argument(
        "--seed", type=integer(0), default=0, help="of everything random (default 0)"
    )
    which.add_argument(
        "--seeds",
        type=integer(0),
        nargs="+",
        metavar="SEED",
        help="of several agents, trained at once as a population, each in DIR/seed<SEED>",
    )
    one.add_argument(
        "--steps", type=integer(1), metavar="N", help="environment steps (default: recipe)"
    )
    one.add_argument(
        "--split", default="train", choices=[*SPLITS, "nominal"], help="tasks (default: train)"
    )
    one.add_argument(
        "--shuffle-returns",
        action="store_true",
        help=f"rank trajectories by permuted returns: the control of {' and '.join(RANKED)}",
    )
    one.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="where config and weights go"
    )
    one.add_argument(
        "--checkpoint-seconds",
        type=seconds,
        default=60.0,
        metavar="S",
        help="least time between two checkpoints (default 60)",
    )
    one.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help="where the networks compute: cpu (default), cuda, cuda:1, ..",
    )
    one.set_defaults(run=run_train)

    two = commands.add_parser(
        "evaluate",
        help="evaluate a trained agent without updates",
        description="Run a trained agent in every task of the given splits, with mean actions and "
        "no updates, and write one row per episode: context, episode, episode_seed, "
        "episode_return, success, skill, split, benchmark, method, seed, env_steps. Every method "
        "and seed meets the same episodes.",
        epilog="example: sami evaluate --run-dir runs/oracle --out oracle.parquet",
    )
    two.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="what `sami train` wrote"
    )
    two.add_argument(
        "--splits",
        nargs="+",
        default=list(SPLITS),
        choices=[*SPLITS, "nominal"],
        metavar="SPLIT",
        help=f"some of {', '.join(SPLITS)}, nominal (default: the first three)",
    )
    two.add_argument(
        "--episodes", type=integer(1), default=20, metavar="N", help="per task (default 20)"
    )
    two.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the table, as Parquet"
    )
    two.set_defaults(run=run_evaluate)

    three = commands.add_parser(
        "sweep",
        help="train and evaluate many agents, several at a time",
        description=f"{sweeps.__doc__}"
        "\nRuns that fail are tried once more at the end, then listed with their errors, and\n"
        "the exit status is 1. Each run is a process with one thread.\n",
        epilog="examples:\n"
        "  sami sweep sweeps/cubemove.toml --workers 4\n"
        "  sami sweep sweeps/cubemove.toml --backend dask --scheduler tcp://10.0.0.1:8786",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    three.add_argument("file", type=Path, metavar="FILE.toml", help="which runs, see above")
    three.add_argument(
        "--backend",
        choices=BACKENDS,
        default="loky",
        help="who runs them: loky needs nothing else (default); dask and ray need `make scale`",
    )
    three.add_argument(
        "--workers",
        type=integer(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at a time (default: one per core)",
    )
    three.add_argument(
        "--together",
        type=integer(1),
        default=1,
        metavar="P",
        help="seeds that one process trains as a population: less time for each, the same results "
        "up to rounding (default 1)",
    )
    three.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a running dask or ray cluster, whose workers see this folder under the same path "
        "(default: start one on this computer)",
    )
    three.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the runs go (default: runs/<FILE>)"
    )
    three.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help="where the networks compute: cpu (default), cuda, cuda:1, ..",
    )
    three.set_defaults(run=run_the_sweep)

    four = commands.add_parser(
        "verify",
        help="check that the stored results are what they say they are",
        description="Check every file of data/ against its hash in data/manifest.json. Then run "
        "randomly chosen stored policies again, in all tasks and from the seeds of their result "
        f"tables. A table is reproduced if at least {AGREEING:.0%} of a policy's returns differ "
        f"from the stored ones by at most {RETURN_TOLERANCE:g} of the returns' standard deviation, "
        f"and their mean by at most {MEAN_TOLERANCE:g} of it; of the MuJoCo bodies, which are "
        "chaotic, and of PEARL, which acts on random draws, only the mean, with three standard "
        "errors more. The exit status is 1 if anything is wrong. The data are those of the clone "
        "you are in, or of the folder $SAMI_DATA.",
        epilog="example: sami verify --sample 5 --seed 1",
    )
    four.add_argument(
        "--sample",
        "--checkpoints",
        type=integer(0),
        default=3,
        metavar="N",
        help="how many policies to run again (default 3)",
    )
    four.add_argument("--seed", type=integer(0), default=0, help="of the choice (default 0)")
    four.add_argument(
        "--episodes", type=integer(1), default=5, metavar="N", help="per task (default 5)"
    )
    four.set_defaults(run=run_verify)

    add_bench(commands)
    return top


def add_bench(commands: argparse._SubParsersAction[Any]) -> None:
    five = commands.add_parser(
        "bench",
        help="measure speed against named peers, as ratios",
        description="Measure speed against named peers. Contestants take turns, so that whatever "
        "else the computer does slows all alike, and what counts is the column speed: how many "
        "times as fast as the first of its table, the median over the turns with its quartiles. "
        "One thread. CleanRL's and LeanRL's SAC are scripts, not packages, and are left out.",
    )
    subjects = five.add_subparsers(dest="subject", required=True, metavar="{envs,update,train}")
    one = subjects.add_parser(
        "envs",
        help="environment steps",
        description="Steps of the lockstep environments, against MuJoCo's bare batch stepper on "
        "the same models (called step by step, and once for all steps), and against Gymnasium's "
        "SyncVectorEnv and AsyncVectorEnv of the same single environments. Wall-clock.",
    )
    one.add_argument(
        "--env", nargs="+", default=list(bench.ENVS), metavar="ID", help="which environments"
    )
    one.add_argument("--num-envs", type=integer(1), default=16, metavar="N", help="default 16")
    two = subjects.add_parser(
        "update",
        help="updates of the agent",
        description="One update and seed, batch included: SAC alone, as a population, and in "
        "Stable-Baselines3 with equal settings (the extra `bench`; without it that row is left "
        "out); three methods; and cost against seeds, width, batch and length of a window. The "
        "table of widths shows which fraction of the speed of a large matrix product the products "
        "of the update reach. Processor time.",
    )
    two.add_argument("--env", default=bench.UPDATE_ENV, metavar="ID", help="whose recipe")
    two.add_argument("--compile", action="store_true", help="torch.compile as well (minutes)")
    three = subjects.add_parser(
        "train",
        help="the whole training loop",
        description="The whole loop per 1000 environment steps and seed, after the warm-up: SAC "
        "alone, as a population, and Stable-Baselines3's with equal settings. Processor time. How "
        "soon a return is reached is another question: see data/curves/halfcheetah_anchor.parquet.",
    )
    three.add_argument("--env", default=bench.TRAIN_ENV, metavar="ID", help="the nominal body")
    for each in (two, three):
        each.add_argument(
            "--seeds", type=integer(1), default=5, metavar="P", help="of the population (default 5)"
        )
    for each in (one, two, three):
        each.add_argument(
            "--repetitions", type=integer(1), default=7, metavar="N", help="turns (default 7)"
        )
        each.add_argument(
            "--quick", action="store_true", help="only show that it runs; the numbers mean nothing"
        )
        each.add_argument(
            "--out", type=Path, metavar="FILE", help="default: bench_envs.json and so on"
        )
        each.set_defaults(run=run_bench)


def integer(least: int) -> Callable[[str], int]:
    """An argument's type: an integer from ``least`` up."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            kind = {0: "an integer from 0 up", 1: "a positive integer"}[least]
            raise argparse.ArgumentTypeError(f"{text!r} is out of place; give {kind}")
        return value

    return convert


def seconds(text: str) -> float:
    """An argument's type: a time from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is out of place; give seconds from 0 up")
    return value


def run_train(arguments: argparse.Namespace) -> int:
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    config = recipe(
        arguments.env,
        method=arguments.method,
        seed=arguments.seed,
        split=arguments.split,
        **changes,
    )
    if arguments.shuffle_returns:
        if arguments.method not in RANKED:
            raise ValueError(
                f"--shuffle-returns means nothing to the method {arguments.method!r}; "
                f"leave it out, or choose one of {RANKED}"
            )
        config = replace(config, context=replace(config.context, shuffle_returns=True))
    settings = {
        "checkpoint_seconds": arguments.checkpoint_seconds,
        "device": arguments.device,
    }
    if arguments.seeds is None:
        train(config, arguments.run_dir, **settings)
    else:
        train_together(
            [replace(config, seed=seed) for seed in arguments.seeds],
            [arguments.run_dir / f"seed{seed}" for seed in arguments.seeds],
            **settings,
        )
    return 0


def writable(out: Path, example: str) -> Path:
    """A file to write, whose directory is made."""
    if out.is_dir():
        raise ValueError(f"--out {str(out)!r} is a directory; name a file, say {out / example}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"--out {str(out)!r} lies below a file; name another place") from None
    return out


def run_evaluate(arguments: argparse.Namespace) -> int:
    out = writable(arguments.out, "x.parquet")
    run = open_run(arguments.run_dir)
    table = evaluate_run(run, arguments.splits, arguments.episodes)
    write_table(table, out)
    columns = [c for c in ("episode_return", "success") if table[c].notna().all()]
    print(table.astype(dict.fromkeys(columns, float)).groupby("split")[columns].mean().round(3))
    return 0


def run_the_sweep(arguments: argparse.Namespace) -> int:
    run_dir = arguments.run_dir or Path("runs") / arguments.file.stem
    usable(arguments.device)
    jobs = [replace(job, device=arguments.device) for job in read_sweep(arguments.file, run_dir)]
    errors = run_sweep(
        jobs,
        backend=arguments.backend,
        number=arguments.workers,
        scheduler=arguments.scheduler,
        together=arguments.together,
    )
    if errors:
        print(f"sami sweep: {len(errors)} of {len(jobs)} runs failed twice:", file=sys.stderr)
        for name, error in errors.items():
            print(f"  {name}: {error}", file=sys.stderr)
        return 1
    print(f"all {len(jobs)} runs are finished: {run_dir}")
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    directory = data_dir()
    files, wrong = check_files(directory)
    print(f"{files - len(wrong)} of {files} files have the hash that the manifest lists")
    if not wrong:
        for result in reproduce(
            directory, number=arguments.sample, episodes=arguments.episodes, seed=arguments.seed
        ):
            if isinstance(result, str):
                wrong.append(result)
            elif not result.holds:
                wrong.append(f"{result}: not reproduced")
            else:
                print(f"{result}: reproduced")
    for line in wrong:
        print(f"sami verify: {line}", file=sys.stderr)
    return 1 if wrong else 0


def run_bench(arguments: argparse.Namespace) -> int:
    subject: str = arguments.subject
    out = writable(arguments.out or Path(f"bench_{subject}.json"), "x.json")
    settings: dict[str, Any] = {"repetitions": arguments.repetitions}
    if subject == "envs":
        settings |= {"envs": arguments.env, "num_envs": arguments.num_envs}
    else:
        settings |= {"env": arguments.env, "seeds": arguments.seeds}
    if subject == "update":
        settings["compile"] = arguments.compile
    if arguments.quick:
        settings |= {"repetitions": 1} | bench.QUICK[subject]
    table = bench.BENCHMARKS[subject](**settings)
    print(bench.as_text(table))
    if "Stable-Baselines3" not in set(table["contestant"]) and subject != "envs":
        print("Stable-Baselines3 is not installed: pip install -e '.[bench]'")
    write_whole(out, bench.report(subject, table, settings).encode())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; whatever goes wrong ends in one line that says what to do.

    Returns:
        The exit status: 0, 1 if a sweep or a check failed, 2 after a bad argument, 130 if stopped.
    """
    torch.set_num_threads(1)  # networks this small run fastest on one thread
    command = "sami"
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        warnings.showwarning = lambda message, *_: print(f"{command}: {message}", file=sys.stderr)
        try:
            parsed = parser().parse_args(arguments)
            command = f"sami {parsed.command}"
            return parsed.run(parsed)
        except UsageError as error:
            print(error, file=sys.stderr)
        except (ValueError, OSError, ModuleNotFoundError, TrainingDiverged, RunDirBusy) as error:
            print(f"{command}: {' '.join(str(error).split())}", file=sys.stderr)
        except KeyboardInterrupt:
            resumes = command in ("sami train", "sami sweep")
            more = "; the same command goes on from here" if resumes else ""
            print(f"{command}: stopped{more}", file=sys.stderr)
            return 130
    return 2
