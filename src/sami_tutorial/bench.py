"""Speed as ratios: this library against named peers, side by side in one run.

A time alone says little, for it changes with the processor, with its clock and with whatever else
runs on it. So contestants take turns, A B C A B C .., in short repetitions; each turn is compared
with the reference in the same round, and the median of these ratios is reported, with its
quartiles. A disturbance that lasts longer than a round slows all of them alike.

Two clocks are read: wall-clock, and the processor time of this process. Where one thread does the
work, the second is what a free core would take, and the ratios are of it; environments are compared
by wall-clock, since some of them use several processes.

CleanRL's and LeanRL's SAC are scripts and not packages: they are no contestants here.

Built in chapter 10, *Making it fast*.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata, util
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch.utils.flop_counter import FlopCounterMode

from sami_tutorial.agents import get_method
from sami_tutorial.envs import get_task, make_vec
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS
from sami_tutorial.results import current_commit, hardware
from sami_tutorial.train import Run, TrainConfig, population_update, recipe

ENVS = ("sami/Hopper-v0", "sami/HalfCheetah-v0")
UPDATE_ENV = "sami/CrippledHalfCheetah-v0"
TRAIN_ENV = "sami/HalfCheetah-v0"
METHODS = ("sac", "tesac", "satesac")
POPULATIONS = (1, 2, 5, 10)
WIDTHS = (64, 128, 256)
BATCHES = (120, 240, 480, 960)
WINDOWS = (5, 10, 20, 50)
QUICK: dict[str, dict[str, Any]] = {
    "envs": {"steps": 5},
    "update": {"seeds": 2, "populations": (), "widths": (64,), "batches": (), "windows": ()},
    "train": {"seeds": 2, "steps": 16},
}
"""Settings under which a benchmark only shows that it runs."""
GEMM = 1024  # rows and columns of the product that serves as the peak
OURS, RAW, SB3 = "ours", "mujoco.rollout", "Stable-Baselines3"


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    Args:
        name: what it is called in the table.
        work: does some of it.
        amount: how many units one call of ``work`` does, e.g. environment steps.
        flops: floating-point operations of the matrix products in one unit, if counted.
        settings: what to say of it in the table beside the name.
    """

    name: str
    work: Callable[[], Any]
    amount: float = 1.0
    flops: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def race(
    contestants: Sequence[Contestant],
    *,
    repetitions: int = 7,
    seconds: float | None = 0.05,
    clock: str = "cpu",
) -> list[dict[str, Any]]:
    """Lets contestants take turns; the first is the reference.

    Args:
        contestants: at least one.
        repetitions: turns of each, after one that does not count.
        seconds: about the length of a turn, by which the number of calls is chosen; None: one call.
        clock: ``"cpu"`` or ``"wall"``, from which the ratios are taken.

    Returns:
        One row per contestant: its settings, ``microseconds_cpu`` and ``microseconds_wall`` per
        unit (medians), ``speed`` relative to the reference with quartiles ``speed_low`` and
        ``speed_high``, and ``gflops``, 10^9 operations per second, where they were counted.

    Raises:
        ValueError: if a number is not positive or the clock unknown.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}; give a positive integer")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"seconds is {seconds}; give a number above 0")
    if clock not in ("cpu", "wall"):
        raise ValueError(f"clock is {clock!r}; choose 'cpu' or 'wall'")
    calls = []
    for each in contestants:
        each.work()  # whatever is done once
        calls.append(
            1 if seconds is None else math.ceil(seconds / (_turn(each, 1)[1] * each.amount))
        )
    turns = np.array(
        [
            [_turn(*each) for each in zip(contestants, calls, strict=True)]
            for _ in range(repetitions)
        ]
    )  # (repetitions, contestants, clocks), seconds per unit
    speed = turns[:, :1] / turns
    rows = []
    for i, each in enumerate(contestants):
        cpu, wall = np.median(turns[:, i], axis=0)
        low, middle, high = np.quantile(
            speed[:, i, ("cpu", "wall").index(clock)], (0.25, 0.5, 0.75)
        )
        row = {
            "contestant": each.name,
            **each.settings,
            "microseconds_cpu": cpu * 1e6,
            "microseconds_wall": wall * 1e6,
            "clock": clock,
            "speed": middle,
            "speed_low": low,
            "speed_high": high,
        }
        if each.flops is not None:
            row["gflops"] = each.flops / (cpu if clock == "cpu" else wall) / 1e9
        rows.append(row)
    return rows


def _turn(contestant: Contestant, calls: int) -> tuple[float, float]:
    """Processor time and wall-clock per unit, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        contestant.work()
    done = calls * contestant.amount
    return (time.process_time() - cpu) / done, (time.perf_counter() - wall) / done


# Environments


def bench_envs(
    envs: Sequence[str] = ENVS, num_envs: int = 16, steps: int = 50, repetitions: int = 7
) -> pd.DataFrame:
    """Environment steps per second with random actions.

    The lockstep environment is the reference. Its peers: ``mujoco.rollout`` alone on the same
    models and actions, called for each environment step, as acting needs it, and once for all steps
    (MuJoCo bodies only); and the single environments in Gymnasium's SyncVectorEnv and
    AsyncVectorEnv. All take the same number of steps in each turn: a body that has fallen costs
    more than one in the air, so contestants must be at the same point of their episodes.

    Args:
        envs: ids of the library's environments.
        num_envs: how many in lockstep.
        steps: of each environment per turn.
        repetitions: as in :func:`race`.

    Raises:
        ValueError: for an unknown id or a number that is not positive.
    """
    for id in envs:
        get_task(id)
    for name, value in (("num_envs", num_envs), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give a positive integer")
    rows = []
    for id in envs:
        make = partial(gym.make, id, disable_env_checker=True)
        with ExitStack() as open_envs:
            contestants = []
            for name, env in {
                OURS: make_vec(id, num_envs),
                "SyncVectorEnv": SyncVectorEnv(
                    [make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
                ),
                "AsyncVectorEnv": AsyncVectorEnv(
                    [make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
                ),
            }.items():
                open_envs.callback(env.close)
                contestants.append(Contestant(name, _stepping(env, steps), amount=steps * num_envs))
            if id in [task.id for task in MUJOCO_TASKS]:
                contestants[1:1] = _raw_rollouts(id, num_envs, steps)
            timed = race(contestants, repetitions=repetitions, seconds=None, clock="wall")
            rows += [{"env": id, "num_envs": num_envs} | row for row in timed]
    return pd.DataFrame(rows)


def _stepping(env: VectorEnv, steps: int) -> Callable[[], np.ndarray]:
    env.reset(seed=0)
    actions = _actions(steps, *env.action_space.shape)  # type: ignore[misc]

    def work() -> np.ndarray:
        for action in actions:
            observation = env.step(action)[0]
        return observation

    return work


def _actions(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _raw_rollouts(id: str, num_envs: int, steps: int) -> list[Contestant]:
    from mujoco import MjData, mj_getState, mj_stateSize, mjtState
    from mujoco.rollout import Rollout

    singles = [gym.make(id, disable_env_checker=True).unwrapped for _ in range(num_envs)]
    for i, single in enumerate(singles):
        single.reset(seed=i)
    models = [single.model for single in singles]  # type: ignore[attr-defined]
    physics_steps = singles[0].frame_skip  # type: ignore[attr-defined]
    full = mjtState.mjSTATE_FULLPHYSICS
    state = np.empty((num_envs, mj_stateSize(models[0], full)))
    for i, single in enumerate(singles):
        mj_getState(models[i], single.data, state[i], full)  # type: ignore[attr-defined]
    data = [MjData(models[0])]
    control = _actions(steps, num_envs, models[0].nu).astype(np.float64)
    control = control.repeat(physics_steps, axis=0).swapaxes(0, 1).copy()  # (num_envs, times, nu)
    rollout = Rollout(nthread=0)

    def rolling(parts: list[np.ndarray]) -> Callable[[], np.ndarray]:
        current = state

        def work() -> np.ndarray:
            nonlocal current
            for part in parts:
                current = rollout.rollout(models, data, current, part)[0][:, -1]
            return current

        return work

    amount = steps * num_envs
    return [
        Contestant(f"{RAW}, step by step", rolling(np.split(control, steps, axis=1)), amount),
        Contestant(f"{RAW}, one call", rolling([control]), amount),
    ]


# Updates


def bench_update(
    env: str = UPDATE_ENV,
    methods: Sequence[str] = METHODS,
    seeds: int = 5,
    populations: Sequence[int] = POPULATIONS,
    widths: Sequence[int] = WIDTHS,
    batches: Sequence[int] = BATCHES,
    windows: Sequence[int] = WINDOWS,
    compile: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Time of an update per seed, sampling from the replay included.

    Studies, the column ``study``: ``peers`` (SAC alone, as a population, in Stable-Baselines3 with
    equal networks, batch and optimiser, if it is installed, and compiled, if asked for),
    ``methods``, ``seeds of sac`` and ``seeds of`` the first method with windows, ``width``,
    ``batch``, and ``window`` (steps of a window, at an equal number of transitions, for the first
    method with windows). ``width`` has ``gflops`` beside a large matrix product's: the column
    ``gemm_fraction`` is the ratio.

    Args:
        env: whose recipe and whose widths of observation and action are used. The replay holds
            random numbers: what they are does not change the time.
        methods: of ``sami_tutorial.agents.METHODS``.
        seeds: members of the population.
        populations, widths, batches, windows: what the scaling studies try; an empty one is left
            out.
        compile: whether SAC's update also runs under ``torch.compile``.
        **settings: of :func:`race`.

    Raises:
        ValueError: for an unknown environment or method, a number that is not positive, or if
            compiling fails, e.g. where no compiler is installed.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give a positive integer")
    base = {method: recipe(env, method, replay_capacity=48_000) for method in methods}
    sac = recipe(env, "sac", replay_capacity=48_000)
    encoders = [config for config in base.values() if config.context.window]

    def with_width(width: int) -> TrainConfig:
        return replace(sac, sac=replace(sac.sac, hidden=(width, width)))

    studies: dict[str, Callable[[], list[Contestant]]] = {}
    studies["peers"] = lambda: [
        _updates(OURS, sac, 1),
        _updates(f"{OURS}, {seeds} seeds", sac, seeds),
        *([_sb3_updates(sac)] if util.find_spec("stable_baselines3") else []),
        *([_compiled(sac)] if compile else []),
    ]
    studies["methods"] = lambda: [
        _updates(f"{method}, P = {p}", config, p, method=method, population=p)
        for method, config in base.items()
        for p in sorted({1, seeds})
    ]
    for config in [sac, *encoders[:1]]:
        if populations:
            studies[f"seeds of {config.method}"] = partial(
                lambda config: [
                    _updates(
                        f"{config.method}, P = {p}", config, p, method=config.method, population=p
                    )
                    for p in populations
                ],
                config,
            )
    if widths:
        studies["width"] = lambda: [
            _gemm(),
            *(
                _updates(
                    f"width {w}, P = {p}", with_width(w), p, counted=True, width=w, population=p
                )
                for w in widths
                for p in sorted({1, seeds})
            ),
        ]
    if batches:
        studies["batch"] = lambda: [
            _updates(f"batch {b}, P = {p}", replace(sac, batch_size=b), p, batch=b, population=p)
            for b in batches
            for p in sorted({1, seeds})
        ]
    if encoders and windows:
        studies["window"] = lambda: [
            _updates(f"windows of {w}", _with_window(encoders[0], w), 1, window=w, population=1)
            for w in windows
        ]
    tables = []
    for study, contestants in studies.items():
        table = pd.DataFrame(race(contestants(), **settings))
        if "gflops" in table:
            table["gemm_fraction"] = table["gflops"] / table["gflops"].iloc[0]
        table.insert(0, "study", study)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _with_window(config: TrainConfig, window: int) -> TrainConfig:
    transitions = config.context.episodes * config.context.window
    context = replace(config.context, window=window, episodes=max(1, transitions // window))
    return replace(config, context=context)


def filled(config: TrainConfig) -> Run:
    """A run whose replay is full of random numbers, as if all episodes had ended."""
    run = Run(config)
    run.env.close()
    replay, generator = run.replay, torch.Generator().manual_seed(config.seed)
    for each in (replay.observation, replay.action, replay.reward, replay.returns):
        each.normal_(generator=generator)
    replay.length.fill_(replay.horizon)
    replay.task.copy_(torch.arange(len(replay.task)) % 2)  # two tasks, for a contrast to compare
    replay.head = 0
    return run


def _updates(
    name: str, config: TrainConfig, size: int, counted: bool = False, **settings: Any
) -> Contestant:
    """The update of a population of that size, per seed."""
    runs = [filled(replace(config, seed=seed)) for seed in range(size)]
    together = population_update(runs)

    def work() -> None:
        together()
        for run in runs:
            run.updates += 1  # a contrast is due every few updates

    flops = update_flops(config) if counted else None
    return Contestant(name, work, amount=size, flops=flops, settings=settings)


def update_flops(config: TrainConfig) -> float:
    """Floating-point operations of the matrix products in one update.

    Additions and everything else that is no product are left out.

    Raises:
        ValueError: for a method with an encoder: PyTorch's LSTM hides its products.
    """
    if get_method(config.method).encoder is not None:
        raise ValueError(
            f"method {config.method!r} has an encoder, whose products cannot be counted; count a "
            "method without one, such as 'sac'"
        )
    run = filled(config)
    with FlopCounterMode(display=False) as counter:
        run.update()
    return counter.get_total_flops()


def _gemm() -> Contestant:
    a, b = torch.randn(2, GEMM, GEMM, generator=torch.Generator().manual_seed(0)).unbind()
    out = torch.empty(GEMM, GEMM)
    return Contestant(
        f"torch.mm, {GEMM} x {GEMM}", lambda: torch.mm(a, b, out=out), flops=2 * GEMM**3
    )


def _compiled(config: TrainConfig) -> Contestant:
    run = filled(config)
    run.agent.update = torch.compile(run.agent.update)  # type: ignore[method-assign]
    try:
        run.update()
    except Exception as error:  # whatever the compiler's back end raises
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"compile is True, but torch.compile failed ({reason}); leave it out, or install a "
            "C++ compiler"
        ) from error
    return Contestant(f"{OURS}, torch.compile", run.update)


def sb3_model(config: TrainConfig, num_envs: int) -> Any:
    """Stable-Baselines3's SAC with the settings of a run, in that many single environments."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv(
        [lambda: gym.make(config.env, split=config.split, **config.env_options)] * num_envs
    )
    return SAC(
        "MlpPolicy",
        env,
        seed=config.seed,
        learning_rate=config.sac.learning_rate,
        buffer_size=config.replay_capacity,
        learning_starts=config.warmup_steps,
        batch_size=config.batch_size,
        tau=config.sac.target_rate,
        gamma=config.sac.discount,
        train_freq=config.update_every,
        gradient_steps=1,
        ent_coef=f"auto_{config.sac.initial_temperature}",
        target_entropy="auto" if config.sac.target_entropy is None else config.sac.target_entropy,
        policy_kwargs={"net_arch": list(config.sac.hidden)},
        device="cpu",
    )


def _sb3_updates(config: TrainConfig) -> Contestant:
    from stable_baselines3.common.logger import configure

    model = sb3_model(config, num_envs=1)
    model.set_logger(configure(None, []))
    buffer, rng = model.replay_buffer, np.random.default_rng(config.seed)
    for array in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards):
        array[:] = rng.standard_normal(array.shape, dtype=np.float32)
    buffer.full = True
    return Contestant(SB3, lambda: model.train(gradient_steps=1, batch_size=config.batch_size))


# Training


def bench_train(
    env: str = TRAIN_ENV, seeds: int = 5, steps: int = 400, repetitions: int = 7
) -> pd.DataFrame:
    """Time of the whole training loop per 1000 environment steps and seed, after the warm-up.

    SAC alone, as a population, and Stable-Baselines3's loop with equal settings, if it is
    installed. How soon a return is reached is another question, which the learning curves in
    ``data/curves/halfcheetah_anchor.parquet`` answer.

    Args:
        env: on its nominal body, with the book's recipe.
        seeds: members of the population.
        steps: environment steps per turn, rounded up to whole steps of all environments.
        repetitions: as in :func:`race`.

    Raises:
        ValueError: for an unknown environment or a number that is not positive.
    """
    for name, value in (("seeds", seeds), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give a positive integer")
    config = recipe(env, "sac", split="nominal", steps=10**9)
    steps = -(-steps // config.num_envs) * config.num_envs
    populations = {
        OURS: [config],
        f"{OURS}, {seeds} seeds": [replace(config, seed=seed) for seed in range(seeds)],
    }
    contestants = []
    with ExitStack() as open_envs:
        for name, configs in populations.items():
            runs = [Run(each) for each in configs]
            for run in runs:
                open_envs.callback(run.env.close)
            segments = _segments(runs, steps)
            amount = steps * len(runs) / 1000
            contestants.append(Contestant(name, partial(next, segments), amount))
        if util.find_spec("stable_baselines3"):
            model = sb3_model(config, config.num_envs)
            open_envs.callback(model.env.close)
            model.learn(config.warmup_steps)
            learn = partial(model.learn, steps, reset_num_timesteps=False)
            contestants.append(Contestant(SB3, learn, steps / 1000))
        timed = race(contestants, repetitions=repetitions, seconds=None)
    return pd.DataFrame([{"env": env} | row for row in timed])


def _segments(runs: Sequence[Run], steps: int) -> Iterator[None]:
    """Trains runs together; yields after the warm-up and then after each ``steps`` steps."""
    update, goal = population_update(runs), runs[0].config.warmup_steps
    for turn in zip(*(run.turns() for run in runs), strict=True):
        if turn[0] is None:
            update()
        if runs[0].env_steps >= goal:
            yield
            goal = runs[0].env_steps + steps


BENCHMARKS: dict[str, Callable[..., pd.DataFrame]] = {
    "envs": bench_envs,
    "update": bench_update,
    "train": bench_train,
}


# Reports


def report(benchmark: str, table: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """The table with what it was measured on, as JSON."""
    versions = {}
    for package in ("gymnasium", "mujoco", "numpy", "torch", "stable-baselines3"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return json.dumps(
        {
            "benchmark": benchmark,
            "settings": dict(settings),
            "hardware": hardware(),
            "threads": torch.get_num_threads(),
            "versions": versions,
            "commit": current_commit(),
            "rows": json.loads(table.to_json(orient="records")),
        },
        indent=2,
    )


def as_text(table: pd.DataFrame) -> str:
    """The table for reading: what was timed, the time per unit, and the speeds."""
    shown = table.copy()
    measured = table["microseconds_cpu"].where(table["clock"] == "cpu", table["microseconds_wall"])
    shown["time (µs)"] = measured.map("{:,.1f}".format)
    shown["speed"] = [
        f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        for middle, low, high in zip(
            table["speed"], table["speed_low"], table["speed_high"], strict=True
        )
    ]
    columns = [name for name in ("study", "env") if name in shown]
    columns += ["contestant", "time (µs)", "speed"]
    if "gemm_fraction" in shown:
        shown["of GEMM"] = shown["gemm_fraction"].map("{:.0%}".format, na_action="ignore")
        columns.append("of GEMM")
    return shown[columns].fillna("").to_string(index=False)
