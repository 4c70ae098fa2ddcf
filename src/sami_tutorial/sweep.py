"""A sweep: every method, in every environment, with every seed, from one TOML file.

    envs = ["sami/CubeMove-v0"]
    methods = ["sac", "tesac", "satesac"]
    seeds = [0, 1, 2, 3, 4]
    name = "first_look"          # optional, with one environment: of its folder and its tables

    [overrides]                  # optional: any field of TrainConfig, for all runs
    steps = 100_000

    [overrides.sac]              # optional: any field of SACConfig
    learning_rate = 1e-3

    [overrides.context]          # optional: any field of ContextConfig
    contrast_weight = 0.1

    [variants.unweighted]        # optional: a run under another name, with overrides of its own
    method = "satesac"
    context = { skill_weight = "none" }

    [evaluation]                 # optional; these are the defaults
    splits = ["train", "moderate", "extreme"]
    episodes = 20                # per task

Each run has the book's recipe for its environment and method, with the overrides. It is trained and
then evaluated as `sami train` and `sami evaluate` do it, in a folder of its own,
<run-dir>/<environment or name>/<method or variant>/seed<k>, which ends up with config.json, two
checkpoints, policy.safetensors, curve.parquet and results.parquet. Finished runs are skipped and
interrupted ones go on where their last checkpoint was written: a sweep that was killed goes on when
the same command is called again.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from tqdm.auto import tqdm

from sami_tutorial.agents import METHODS, get_method
from sami_tutorial.envs import SPLITS, TASKS, make_vec
from sami_tutorial.runs import Job, benchmark, jobs_to_line
from sami_tutorial.train import recipe
from sami_tutorial.workers import Outcome, Task, spread, workers

KEYS = ("envs", "methods", "seeds", "name", "overrides", "variants", "evaluation")
LISTED = {"env": "envs", "seed": "seeds"}
"""Fields of a config that a sweep lists in the plural, and where."""
RUN_MODULE = "sami_tutorial.runs"

Settings = TypeVar("Settings")


class SweepError(ValueError):
    """A sweep file that cannot be run as it is written."""


def read_sweep(path: Path, run_dir: Path) -> list[Job]:
    """The runs that a sweep file names.

    Raises:
        SweepError: if the file cannot be read, or for the first entry that makes no sense.
    """
    try:
        table = tomllib.loads(path.read_text())
        return _jobs(table, run_dir)
    except FileNotFoundError:
        raise SweepError(f"{str(path)!r} does not exist; name a TOML file") from None
    except (IsADirectoryError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SweepError(f"{str(path)!r} is no TOML file ({error}); repair it") from None
    except ValueError as error:
        raise SweepError(f"{path}: {error}") from None


def _jobs(table: dict[str, Any], run_dir: Path) -> list[Job]:
    _check_keys(table, KEYS, "the file")
    envs = _choices(table, "envs", TASKS)
    variants = _variants(table)
    seeds = _entries(table, "seeds")
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise SweepError(f"seeds holds {seed!r}; give integers from 0 up")
    name = table.get("name")
    if name is not None:
        _check_name(name, "name")
        if len(envs) > 1:
            raise SweepError(
                f"name is {name!r}, but envs lists {len(envs)} environments; write a file for each"
            )

    evaluation = _table(table, "evaluation")
    _check_keys(evaluation, ("splits", "episodes"), "[evaluation]")
    splits = _choices({"splits": list(SPLITS)} | evaluation, "splits", SPLITS)
    episodes = evaluation.get("episodes", 20)
    if type(episodes) is not int or episodes < 1:
        raise SweepError(f"episodes is {episodes!r}; give a positive integer")

    overrides = _overrides(table, "overrides", "overrides", LISTED | {"method": "methods"})
    jobs = []
    for env in envs:
        for variant, (method, changes) in variants.items():
            for seed in seeds:
                config = overridden(recipe(env, method=method), overrides, "overrides")
                config = overridden(config, changes, f"variants.{variant}")
                config = dataclasses.replace(config, seed=seed)
                folder = name or benchmark(env)
                directory = run_dir / folder / variant / f"seed{seed}"
                jobs.append(Job(directory, config, tuple(splits), episodes, folder, variant))
            _try_to_open(jobs[-1])
    return jobs


def _variants(table: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name to method and its own overrides: the plain methods first, under their own names."""
    tables = _table(table, "variants")
    plain = _choices(table, "methods", METHODS) if "methods" in table or not tables else []
    variants: dict[str, tuple[str, dict[str, Any]]] = {method: (method, {}) for method in plain}
    for name in tables:
        where = f"variants.{name}"
        _check_name(name, "variants")
        if name in METHODS:
            raise SweepError(f"[{where}] has the name of a method; choose another name")
        changes = dict(_overrides(tables, name, where, LISTED))
        method = changes.pop("method", None)
        if method not in METHODS:
            raise SweepError(f"{where}.method is {method!r}; choose from {sorted(METHODS)}")
        variants[name] = method, changes
    return variants


def _check_name(name: Any, key: str) -> None:
    """Names of folders shall be the same on every file system."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name):
        raise SweepError(f"{key} holds {name!r}; use small letters, digits and underscores")


def _overrides(
    table: dict[str, Any], key: str, where: str, elsewhere: Mapping[str, str]
) -> dict[str, Any]:
    """Fields to change, none of those that the file lists ``elsewhere``."""
    changes = _table(table, key, where)
    for field, above in elsewhere.items():
        if field in changes:
            raise SweepError(f"[{where}] sets {field!r}; list it under {above!r} instead")
    return changes


def _check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SweepError(f"{where} has the unknown key {key!r}; choose from {sorted(known)}")


def _table(table: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        name = where or key
        raise SweepError(f"{name} is {value!r}; write it as a table, [{name}]")
    return value


def _entries(table: dict[str, Any], key: str) -> list[Any]:
    """A list without repetitions that is not empty."""
    value = table.get(key)
    if not isinstance(value, list) or not value:
        raise SweepError(f"{key} is {value!r}; give a list with at least one entry")
    if len(value) != len({str(each) for each in value}):
        raise SweepError(f"{key} is {value!r}; name each entry once")
    return value


def _choices(table: dict[str, Any], key: str, known: Iterable[str]) -> list[str]:
    value = _entries(table, key)
    for each in value:
        if each not in list(known):
            raise SweepError(f"{key} holds {each!r}; choose from {sorted(known)}")
    return value


def overridden(settings: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """A config with some of its fields replaced, those of the configs inside it too.

    Args:
        settings: a frozen dataclass.
        changes: field to value, as TOML reads it.
        where: the table's name, for messages.

    Raises:
        SweepError: for an unknown field or a value of another type than the field has.
        ValueError: for a value that the config itself refuses.
    """
    fields = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    _check_keys(changes, fields, f"[{where}]")
    values: dict[str, Any] = {}
    for key, value in changes.items():
        current = getattr(settings, key)
        name = f"{where}.{key}"
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise SweepError(f"{name} is {value!r}; write it as a table, [{name}]")
            values[key] = overridden(current, value, name)
        else:
            values[key] = _like(current, value, name)
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def _like(current: Any, value: Any, name: str) -> Any:
    """``value`` in the type of ``current``."""
    if isinstance(current, float) or current is None:  # None: a number that the task decides
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif isinstance(current, tuple):
        if isinstance(value, list) and all(type(each) is int for each in value):
            return tuple(value)
    elif type(value) is type(current):
        return value
    kinds = {bool: "true or false", int: "an integer", str: "a string", dict: "a table",
             tuple: "a list of integers"}  # fmt: skip
    raise SweepError(f"{name} is {value!r}; give {kinds.get(type(current), 'a number')}")


def _try_to_open(job: Job) -> None:
    """Finds a wrong option or window, or a simulator that is missing, before the first run."""
    config = job.config
    try:
        env = make_vec(config.env, 1, config.split, **config.env_options)
    except (ImportError, TypeError, ValueError, gym.error.Error) as error:
        raise SweepError(f"{config.env} does not open for {job.variant!r}: {error}") from error
    steps = env.unwrapped.max_episode_steps  # type: ignore[attr-defined]
    env.close()
    window = config.context.window
    if window and get_method(config.method).encoder is not None and steps % window:
        raise SweepError(
            f"context.window is {window} for {job.variant!r}; give a divisor of the {steps} steps "
            f"of an episode in {config.env}, or 0"
        )


def run_sweep(
    jobs: list[Job],
    *,
    backend: str = "loky",
    number: int = 1,
    scheduler: str | None = None,
    together: int = 1,
) -> dict[str, str]:
    """Completes all runs that are not finished, each at most twice.

    Args:
        jobs: see :func:`read_sweep`.
        backend: ``"loky"``, ``"dask"`` or ``"ray"``.
        number: of worker processes.
        scheduler: address of a running Dask or Ray cluster.
        together: how many runs that differ in their seed only one process trains as a population.

    Returns:
        The error of each run that failed twice, by the run's name.

    Raises:
        ValueError: if a directory holds a run with another config, or the backend cannot be used.
    """
    to_do = {job.name: job for job in jobs if not job.finished()}
    skipped = len(jobs) - len(to_do)
    print(f"{len(jobs)} runs, {skipped} of them finished before", flush=True)
    if not to_do:
        return {}
    errors: dict[str, str] = {}
    with (
        workers(backend, number, scheduler),
        # Equal weights for all runs: the estimate is the mean time times the runs left.
        tqdm(total=len(jobs), initial=skipped, unit="run", smoothing=0) as bar,
    ):
        for last_try in (False, True):
            errors = {}
            groups = {group[0].name: group for group in populations(to_do.values(), together)}
            for outcome in _outcomes(groups):
                group = groups[outcome.name]
                for job in group:
                    if outcome.error is None:
                        seconds = outcome.seconds / len(group)
                        bar.write(f"{job.name}: {job.summary()}; {seconds:.0f} s")
                        bar.update()
                    else:
                        errors[job.name] = f"{outcome.error} (log: {_log(group)})"
                        fate = "failed" if last_try else "failed, will be tried once more"
                        bar.write(f"{job.name}: {fate}: {outcome.error}")
            to_do = {name: to_do[name] for name in errors}
            together = 1  # whatever stopped one run shall not stop others again
            if not to_do:
                break
    return errors


def populations(jobs: Iterable[Job], together: int) -> list[list[Job]]:
    """Jobs that differ in their seed only, at most ``together`` in a group."""
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        seedless = dataclasses.replace(job.config, seed=0)
        alike.setdefault(f"{job.variant} {seedless} {job.splits} {job.episodes}", []).append(job)
    return [
        group[i : i + together] for group in alike.values() for i in range(0, len(group), together)
    ]


def _log(group: list[Job]) -> Path:
    return group[0].directory / "log.txt"


def _outcomes(groups: dict[str, list[Job]]) -> Iterable[Outcome]:
    """One outcome for every group, even if the workers themselves fail."""
    missing = set(groups)
    tasks = [
        Task(name, RUN_MODULE, jobs_to_line(group), _log(group)) for name, group in groups.items()
    ]
    try:
        for outcome in spread(tasks):
            missing.discard(outcome.name)
            yield outcome
    except Exception as error:  # whatever a backend raises when it loses a worker
        reason = f"its worker was lost ({' '.join(repr(error).split())})"
        yield from (Outcome(name, 0.0, reason) for name in sorted(missing))
