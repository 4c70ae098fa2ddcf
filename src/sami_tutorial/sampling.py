"""Which trajectories are queries, positives and negatives: the choice that names the method.

=========  =======================================  ========================================
method     query and positive                       negatives
=========  =======================================  ========================================
`ccm`      two trajectories of one task             trajectories of all other tasks
`satesac`  two good trajectories of one task        bad trajectories of the same task
`saccm`    two good trajectories of one task        bad trajectories of every task
=========  =======================================  ========================================

"Good" and "bad" are the upper and the lower part of the task's trajectories ranked by return.

Of long episodes a contrast compares windows of a few steps. :func:`held_out_batch` asks whether
what it learned holds for trajectories that it has not seen.

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
    reward_gap: Tensor  # () mean reward per step of the queries' episodes, minus the negatives'

    def without_start(self) -> ContrastiveBatch:
        """The same steps, as if an episode began with them."""
        query, positive, negatives = (
            each._replace(start=None) for each in (self.query, self.positive, self.negatives)
        )
        return ContrastiveBatch(query, positive, negatives, self.reward_gap)


class HeldOut(NamedTuple):
    """Trajectories that no update has compared yet, each with keys from those before."""

    query: Episodes  # (Q, ...)
    positive: Episodes  # (Q, ...), the i-th belongs to the i-th query
    negatives: Episodes  # (Q * N, ...), N for each query in turn


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
    phase: str = "matched",
) -> ContrastiveBatch:
    """Draws one task and the trajectories of its contrast, from finished episodes only.

    Args:
        replay: where the trajectories are. One that keeps windows gives a window of each
            trajectory, else the whole.
        method: ``"ccm"``, ``"satesac"`` or ``"saccm"``.
        batch_size: trajectories of each role, P = N, drawn with replacement; only a query is never
            its own positive.
        generator: draws the task and the trajectories.
        fraction: of a task's trajectories that count as good, and as bad.
        same_task: ``"context"``, equal hidden features, as the paper has it; or ``"worker"``, the
            same environment of the lockstep whatever its features, as the official code has it.
        shuffle_returns: permutes the returns among a task's trajectories before they are ranked: a
            control in which "good" and "bad" mean nothing.
        phase: of windows: ``"matched"`` takes all of them at the same time of their episodes,
            ``"free"`` each at its own.

    Raises:
        ValueError: for an unknown method, notion of a task or phase, or a batch size below 1.
        NotEnoughTrajectories: if too few are finished; also a ValueError.
    """
    if phase not in ("matched", "free"):
        raise ValueError(f"phase is {phase!r}; choose 'matched' or 'free'")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give a positive integer")
    slots = replay.complete.nonzero().squeeze(-1)
    roles = _Roles(replay, slots, method, generator, fraction, same_task, shuffle_returns)
    alike, negatives = roles.of(roles.draw(1, roles.tasks), batch_size)
    query = torch.randint(len(alike), (batch_size,), generator=generator)
    step = torch.randint(1, len(alike), (batch_size,), generator=generator)
    positive = (query + step) % len(alike)  # any of the others

    def number(n: int) -> Tensor:
        return torch.randint(replay.horizon // replay.window, (n,), generator=generator)

    common = number(1) if replay.window else None

    def cut(slots: Tensor) -> Episodes:
        if common is None:
            return replay.episodes(slots)
        return replay.windows(
            slots, common.expand(len(slots)) if phase == "matched" else number(len(slots))
        )

    return_gap = replay.returns[alike[query]].mean() - replay.returns[negatives].mean()
    return ContrastiveBatch(
        cut(alike[query]),
        cut(alike[positive]),
        cut(negatives),
        # Returns are those of whole episodes, also where windows of them are compared.
        return_gap / replay.horizon,
    )


def held_out_batch(
    replay: Replay,
    method: str,
    num_negatives: int,
    generator: torch.Generator,
    *,
    fraction: float = 0.5,
) -> HeldOut:
    """The contrast of episodes that have just ended, before an update can have compared them.

    Of the episodes in the newest slots, the queries are those that the method would call so: all
    of them for ``"ccm"``, those that rank as good in their task for the others. Their keys are
    drawn from the episodes before. Windows are taken at a time of their own for each query, the
    same for its keys.

    Args:
        replay: whose newest episodes are finished.
        method, fraction: as in :func:`contrastive_batch`.
        num_negatives: N, for each query.
        generator: draws the keys and the times.

    Raises:
        ValueError: for an unknown method.
        NotEnoughTrajectories: if no query has keys; also a ValueError.
    """
    fresh = torch.arange(replay.head, replay.head + replay.num_envs)
    complete = replay.complete
    complete[fresh] = False
    roles = _Roles(replay, complete.nonzero().squeeze(-1), method, generator, fraction)
    queries, positives, negatives = [], [], []
    for slot in fresh[torch.isin(replay.task[fresh], roles.tasks)]:
        alike, against = roles.of(replay.task[slot], num_negatives)
        if roles.ranked and replay.returns[slot] < replay.returns[alike].min():
            continue
        queries.append(slot)
        positives.append(roles.draw(1, alike))
        negatives.append(against)
    if not queries:
        raise NotEnoughTrajectories(f"none of the newest episodes is a query of {method!r}")

    def cut(slots: Tensor, number: Tensor) -> Episodes:
        return replay.windows(slots, number) if replay.window else replay.episodes(slots)

    windows = replay.horizon // (replay.window or replay.horizon)
    number = torch.randint(windows, (len(queries),), generator=generator)
    return HeldOut(
        cut(torch.stack(queries), number),
        cut(torch.cat(positives), number),
        cut(torch.cat(negatives), number.repeat_interleave(num_negatives)),
    )


class _Roles:
    """Who is compared with whom, among the trajectories in ``slots``.

    ``tasks`` are those with enough trajectories for a query and its positive.
    """

    def __init__(
        self,
        replay: Replay,
        slots: Tensor,
        method: str,
        generator: torch.Generator,
        fraction: float,
        same_task: str = "context",
        shuffle_returns: bool = False,
    ):
        if method not in CONTRASTS:
            raise ValueError(f"method is {method!r}; choose one of {sorted(CONTRASTS)}")
        if same_task not in ("context", "worker"):
            raise ValueError(f"same_task is {same_task!r}; choose 'context' or 'worker'")
        self.method, self.ranked = method, method != "ccm"
        self.fraction, self.shuffle_returns = fraction, shuffle_returns
        self.generator = generator
        self.slots, self.returns = slots, replay.returns
        self.ranks: dict[int, tuple[Tensor, Tensor]] = {}  # of the tasks asked for so far
        self.task = replay.task[slots] if same_task == "context" else slots % replay.num_envs
        tasks, sizes = self.task.unique(return_counts=True)
        self.tasks = tasks[(fraction * sizes if self.ranked else sizes) >= 2]
        if len(self.tasks) < (1 if method == "satesac" else 2):
            raise NotEnoughTrajectories(
                f"method {method!r} finds {len(self.tasks)} tasks with enough finished "
                f"trajectories among {len(slots)}; collect more episodes first"
            )

    def draw(self, n: int, pool: Tensor) -> Tensor:
        return pool[torch.randint(len(pool), (n,), generator=self.generator)]

    def good_and_bad(self, task: Tensor) -> tuple[Tensor, Tensor]:
        name = int(task)
        if name not in self.ranks:
            of_task = self.slots[self.task == task]
            returns = self.returns[of_task]
            if self.shuffle_returns:
                returns = returns[torch.randperm(len(returns), generator=self.generator)]
            good, bad = split_by_return(returns, self.fraction)
            self.ranks[name] = of_task[good], of_task[bad]
        return self.ranks[name]

    def of(self, task: Tensor, num_negatives: int) -> tuple[Tensor, Tensor]:
        """The slots that hold queries and positives of a task, and drawn negatives for them."""
        if self.method == "ccm":
            others = self.slots[self.task != task]
            return self.slots[self.task == task], self.draw(num_negatives, others)
        good, bad = self.good_and_bad(task)
        if self.method == "satesac":
            return good, self.draw(num_negatives, bad)
        tasks = self.draw(num_negatives, self.tasks)
        return good, torch.cat([self.draw(1, self.good_and_bad(each)[1]) for each in tasks])
