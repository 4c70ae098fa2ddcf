"""Which trajectories are queries, positives and negatives: the choice that names the method.

=========  =======================================  ========================================
method     query and positive                       negatives
=========  =======================================  ========================================
`ccm`      two trajectories of one task             trajectories of all other tasks
`satesac`  two good trajectories of one task        bad trajectories of the same task
`saccm`    two good trajectories of one task        bad trajectories of every task
=========  =======================================  ========================================

"Good" and "bad" are the upper and the lower part of the task's trajectories ranked by return.

Sources: arXiv 2406.04815, section 4.2 (sample spaces) and 4.4 (ranking); CCM: Fu et al., arXiv
2009.13891. Built in chapter 6, *CCM*, and chapter 8, *SaNCE*.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sami_tutorial.replay import Episodes, Replay

CONTRASTS = ("ccm", "satesac", "saccm")


class NotEnoughTrajectories(ValueError):
    """The replay does not yet hold what a contrast needs."""


class ContrastiveBatch(NamedTuple):
    """Trajectories for one contrast: one task's queries and positives, and negatives."""

    query: Episodes  # (P, ...)
    positive: Episodes  # (P, ...), the i-th belongs to the i-th query
    negatives: Episodes  # (N, ...), shared by all queries
    return_gap: Tensor  # () mean return of the queries minus that of the negatives


def split_by_return(returns: Tensor, fraction: float = 0.5) -> tuple[Tensor, Tensor]:
    """Ranks trajectories and takes both ends: (E,) -> indices of the best, of the worst.

    Args:
        returns: one number per trajectory.
        fraction: of the trajectories at each end; their number is rounded down.

    Returns:
        positives, best first, and negatives, worst first: disjoint, equally many. Ties go by index,
        the lower index counting as the better.

    Raises:
        ValueError: if ``returns`` is no vector of at least two finite numbers, or if ``fraction``
            lies outside (0, 0.5] or is too small for a single trajectory.
    """
    returns = torch.as_tensor(returns)
    if returns.ndim != 1 or len(returns) < 2:
        raise ValueError(
            f"returns has shape {tuple(returns.shape)}; give a vector of at least two returns"
        )
    if not torch.isfinite(returns).all():
        raise ValueError("returns holds NaN or infinity; drop those trajectories")
    if not 0 < fraction <= 0.5:
        raise ValueError(
            f"fraction is {fraction}; give a number in (0, 0.5], so that both ends fit"
        )
    count = int(fraction * len(returns))
    if count == 0:
        raise ValueError(
            f"fraction is {fraction} of {len(returns)} trajectories, less than one; "
            "give a larger fraction or more trajectories"
        )
    best_first = torch.argsort(returns, descending=True, stable=True)
    return best_first[:count], best_first.flip(0)[:count]


def contrastive_batch(
    replay: Replay,
    method: str,
    batch_size: int,
    generator: torch.Generator,
    *,
    fraction: float = 0.5,
    same_task: str = "context",
    shuffle_returns: bool = False,
) -> ContrastiveBatch:
    """Draws one task and the trajectories of its contrast, from finished episodes only.

    Args:
        replay: where the trajectories are.
        method: ``"ccm"``, ``"satesac"`` or ``"saccm"``.
        batch_size: trajectories of each role, P = N, drawn with replacement; only a query is never
            its own positive.
        generator: draws the task and the trajectories.
        fraction: of a task's trajectories that count as good, and as bad.
        same_task: ``"context"``, equal hidden features, as the paper has it; or ``"worker"``, the
            same environment of the lockstep whatever its features, as the official code has it.
        shuffle_returns: permutes the returns among a task's trajectories before they are ranked: a
            control in which "good" and "bad" mean nothing.

    Raises:
        ValueError: for an unknown method or notion of a task, or a batch size below 1.
        NotEnoughTrajectories: if too few are finished; also a ValueError.
    """
    if method not in CONTRASTS:
        raise ValueError(f"method is {method!r}; choose one of {sorted(CONTRASTS)}")
    if same_task not in ("context", "worker"):
        raise ValueError(f"same_task is {same_task!r}; choose 'context' or 'worker'")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give a positive integer")

    slots = replay.complete.nonzero().squeeze(-1)
    task = replay.task[slots] if same_task == "context" else slots % replay.num_envs
    tasks, sizes = task.unique(return_counts=True)
    ranked = method != "ccm"
    tasks = tasks[(fraction * sizes if ranked else sizes) >= 2]  # a query and its positive
    if len(tasks) < (1 if method == "satesac" else 2):
        raise NotEnoughTrajectories(
            f"method {method!r} finds {len(tasks)} tasks with enough finished trajectories among "
            f"{len(slots)}; collect more episodes first"
        )

    def draw(n: int, pool: Tensor) -> Tensor:
        return pool[torch.randint(len(pool), (n,), generator=generator)]

    def good_and_bad(e: Tensor) -> tuple[Tensor, Tensor]:
        of_task = slots[task == e]
        returns = replay.returns[of_task]
        if shuffle_returns:
            returns = returns[torch.randperm(len(returns), generator=generator)]
        good, bad = split_by_return(returns, fraction)
        return of_task[good], of_task[bad]

    chosen = draw(1, tasks)
    if method == "ccm":
        alike = slots[task == chosen]
        negatives = draw(batch_size, slots[task != chosen])
    else:
        alike, bad = good_and_bad(chosen)
        if method == "satesac":
            negatives = draw(batch_size, bad)
        else:
            others = draw(batch_size, tasks)
            negatives = torch.cat([draw(1, good_and_bad(e)[1]) for e in others])

    query = torch.randint(len(alike), (batch_size,), generator=generator)
    step = torch.randint(1, len(alike), (batch_size,), generator=generator)
    positive = (query + step) % len(alike)  # any of the others
    return ContrastiveBatch(
        replay.episodes(alike[query]),
        replay.episodes(alike[positive]),
        replay.episodes(negatives),
        replay.returns[alike[query]].mean() - replay.returns[negatives].mean(),
    )
