"""Zero-shot evaluation: a fixed policy, fixed tasks, no updates; and honest intervals.

Built in chapter 3, *Why one policy is not enough*.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from sami_tutorial.agents import get_method
from sami_tutorial.envs import Context, get_task, make_vec

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations (N, S) to actions (N, A)."""


@runtime_checkable
class Agent(Protocol):
    """A policy with memory: it is told when episodes begin and what each step brought."""

    def begin(self, observation: np.ndarray) -> None: ...
    def act(self, observation: np.ndarray, deterministic: bool = False) -> np.ndarray: ...
    def observe(self, action: np.ndarray, reward: np.ndarray, observation: np.ndarray) -> None: ...


EVALUATION_SEED = 1_000_000
"""First episode seed of every evaluation: the same episodes for every method and seed."""


def evaluate(
    policy: Policy | Agent,
    env: str,
    contexts: Sequence[Context],
    *,
    episodes: int = 20,
    deterministic: bool = True,
    method: str = "sac",
    env_options: dict | None = None,
    first_seed: int = EVALUATION_SEED,
    max_envs: int | None = None,
) -> pd.DataFrame:
    """Runs ``episodes`` whole episodes of ``policy`` in each context.

    Args:
        policy: an agent, or any function from observations (N, S) to actions (N, A).
        env: a Gymnasium id.
        contexts: the tasks.
        episodes: per context; episode k of every context starts from seed ``first_seed + k``.
        deterministic: whether an agent takes its mean action or a sampled one. PEARL draws its c
            either way.
        method: decides what the policy sees (the oracle sees the context).
        env_options: further options of the environment.
        first_seed: see ``episodes``.
        max_envs: how many episodes run side by side; by default what the task names.

    Returns:
        One row per episode: context (JSON), episode, episode_seed, episode_return, and success and
        skill, which are missing where the task defines none.

    Raises:
        ValueError: if there is nothing to run, or ``max_envs`` is not positive.
    """
    if episodes < 1 or not contexts:
        raise ValueError(
            f"episodes is {episodes} and contexts has {len(contexts)} entries; give at least one"
        )
    if max_envs is None:
        max_envs = get_task(env).side_by_side
    if max_envs < 1:
        raise ValueError(f"max_envs is {max_envs}; give a positive integer")
    jobs = [(context, k) for context in contexts for k in range(episodes)]
    chunks = [jobs[i : i + max_envs] for i in range(0, len(jobs), max_envs)]
    rows: list[dict] = []
    for chunk in chunks:
        vector_env = get_method(method).wrap(make_vec(env, len(chunk), **(env_options or {})))
        options = {"context": [context for context, _ in chunk]}
        seeds = [first_seed + k for _, k in chunk]
        returns, final = _run_episodes(policy, vector_env, seeds, options, deterministic)
        vector_env.close()
        for i, (context, k) in enumerate(chunk):
            rows.append(
                {
                    "context": json.dumps(context),
                    "episode": k,
                    "episode_seed": seeds[i],
                    "episode_return": returns[i],
                    "success": bool(final["success"][i]) if "success" in final else None,
                    "skill": str(final["skill"][i]) if "skill" in final else None,
                }
            )
    return pd.DataFrame(rows)


def _run_episodes(
    policy: Policy | Agent, env: VectorEnv, seeds: list[int], options: dict, deterministic: bool
) -> tuple[NDArray[np.float64], dict]:
    """Returns of one episode in every environment, and the last step's infos."""
    observation, _ = env.reset(seed=seeds, options=options)  # type: ignore[arg-type]
    if isinstance(policy, Agent):
        policy.begin(observation)
    returns = np.zeros(env.num_envs)
    while True:
        if isinstance(policy, Agent):
            action = policy.act(observation, deterministic)
        else:
            action = policy(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        returns += reward
        last = (terminated | truncated).any()  # lockstep: all episodes end together
        if isinstance(policy, Agent):
            policy.observe(action, reward, np.stack(info["final_obs"]) if last else observation)
        if last:
            return returns, info["final_info"]


def interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bootstrap interval of the mean over the first axis (runs, seeds or episodes).

    Percentile bootstrap: the runs are drawn again with replacement, all trailing entries of a run
    together, and the interval spans the central ``confidence`` of the resampled means (Efron and
    Tibshirani, 1993, chapter 13).

    Args:
        values: shape (runs, ...).
        rng: the generator that draws the resamples.
        confidence: the share of resampled means inside the interval.
        resamples: how many times the runs are drawn again.

    Returns:
        lower and upper bounds, each of shape (...); with one run both equal its values.

    Raises:
        ValueError: without runs or resamples, with values that are not finite, for a confidence
            outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[0] == 0:
        raise ValueError(f"values has shape {array.shape}; the first axis must hold the runs")
    if not np.isfinite(array).all():
        raise ValueError("values holds NaN or infinity; drop those runs or fix what made them")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; choose a value between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; give a positive integer")
    runs = len(array)
    times_drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    means = times_drawn @ array.reshape(runs, -1) / runs
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low.reshape(array.shape[1:]), high.reshape(array.shape[1:])
