"""A world of tasks, skills and trajectories small enough to know every probability.

A task has a *kind*, which says the one skill that works in it, and a *distractor* value, which
matters for nothing. One episode shows the agent three things: which skill it seems to have used,
whether it succeeded, and a sensor reading that depends on the distractor alone.

        kind ----> skill ----> shown skill
          |          |
          +--> outcome <--+                    distractor ----> reading

Every arrow has a strength between 0, where there is no link, and 1, where it is perfect: with that
probability the link holds, otherwise the value is drawn uniformly. Against the exact information
in such a world one can hold the contrastive estimators InfoNCE, SaNCE and Sa+InfoNCE (arXiv
2406.04815, section 4). Built in chapter 7; the estimators are studied in chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sami_tutorial.contrastive import info_nce, mi_lower_bound
from sami_tutorial.information import contrast_information, kl_divergence

Array = NDArray[np.float64]

TASK, SKILL, TRAJECTORY = (0, 1), 2, (3, 4, 5)
"""The variables c, pi and tau as axes of :meth:`SkillWorld.table`."""


@dataclass(frozen=True)
class SkillWorld:
    """Sizes and strengths of the world.

    Args:
        skills: how many skills, and kinds of task; skill i works in kind i.
        distractors: how many values the distractor and the reading have.
        follow: kind -> skill, how strongly the agent's skill follows the task.
        clarity: skill -> shown skill.
        reliability: (kind, skill) -> outcome; a skill that works succeeds with probability
            (1 + reliability) / 2, another one with (1 - reliability) / 2.
        sensor: distractor -> reading.

    Raises:
        ValueError: for a size below 1 (skills: 2), or a strength outside [0, 1].
    """

    skills: int = 2
    distractors: int = 1
    follow: float = 0.8
    clarity: float = 1.0
    reliability: float = 1.0
    sensor: float = 1.0

    def __post_init__(self) -> None:
        if self.skills < 2:
            raise ValueError(f"skills is {self.skills}; give at least 2")
        if self.distractors < 1:
            raise ValueError(f"distractors is {self.distractors}; give at least 1")
        for name in ("follow", "clarity", "reliability", "sensor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")

    @property
    def tasks(self) -> int:
        """|c|, the number of tasks, all equally likely."""
        return self.skills * self.distractors

    def behaviour(self) -> Array:
        """p(skill | kind), shape (skills, skills), a row per kind."""
        return _link(self.skills, self.follow)

    def trajectories(self) -> Array:
        """p(shown, outcome, reading | kind, distractor, skill), axes in this order, skill third."""
        succeeds = (1 + self.reliability * (2 * np.eye(self.skills) - 1)) / 2  # kind, skill
        outcome = np.stack([1 - succeeds, succeeds], axis=-1)
        shown = _link(self.skills, self.clarity)
        reading = _link(self.distractors, self.sensor)
        return np.einsum("sm,kso,dr->kdsmor", shown, outcome, reading)

    def table(self) -> Array:
        """The joint distribution; axes kind, distractor, skill, shown, outcome, reading."""
        behaviour = self.behaviour()[:, None, :, None, None, None]
        return behaviour * self.trajectories() / self.tasks

    def given_task(self) -> Array:
        """p(tau | c) under the agent's behaviour, shape (tasks, trajectories)."""
        return self.table().sum(axis=SKILL).reshape(self.tasks, -1) * self.tasks

    def by_skill(self) -> tuple[Array, Array]:
        """p(tau | c, good) and p(tau | c, bad), each (tasks, trajectories).

        A trajectory is good if its skill works in the task. Of the others, each is equally likely.
        """
        good = np.eye(self.skills)
        bad = (1 - good) / (self.skills - 1)
        both = (np.einsum("ks,kdsmor->kdmor", skill, self.trajectories()) for skill in (good, bad))
        first, second = (each.reshape(self.tasks, -1) for each in both)
        return first, second

    def by_return(self, fraction: float = 0.5) -> tuple[Array, Array]:
        """p(tau | c, top) and p(tau | c, bottom), each (tasks, trajectories).

        Top and bottom are the best and the worst ``fraction`` of a task's trajectories under the
        agent's behaviour, ranked by outcome; ties are broken by chance.

        Raises:
            ValueError: if ``fraction`` is not above 0 and at most 0.5.
        """
        if not 0 < fraction <= 0.5:
            raise ValueError(f"fraction is {fraction}; give a number above 0, at most 0.5")
        joint = self.table().sum(axis=SKILL) * self.tasks  # kind, distractor, shown, outcome, r
        share = joint.sum(axis=(2, 4), keepdims=True)  # p(outcome | c)

        def best(first: int) -> Array:
            """Takes outcome ``first``, and fills up with the other one."""
            wanted = np.minimum(share, fraction)
            wanted[:, :, :, 1 - first] = fraction - wanted[:, :, :, first]
            kept = np.divide(wanted, share, out=np.zeros_like(share), where=share > 0)
            return (joint * kept / fraction).reshape(self.tasks, -1)

        return best(1), best(0)


def _link(size: int, strength: float) -> Array:
    """p(to | from), shape (size, size): the same value with ``strength``, else any."""
    return strength * np.eye(size) + (1 - strength) / size


ESTIMATORS = ("infonce", "infonce_other", "sance", "sa_infonce")
"""Names of the ways to draw positives and negatives; see :func:`positives_and_negatives`."""


def positives_and_negatives(world: SkillWorld, estimator: str) -> tuple[Array, Array]:
    """From what an estimator draws, for each task: P and Q, each (tasks, trajectories).

    ==================  ==============================  =======================================
    estimator           positives                       negatives
    ==================  ==============================  =======================================
    ``infonce``         trajectories of the task        trajectories of all tasks (Eq. 1)
    ``infonce_other``   trajectories of the task        trajectories of the *other* tasks
    ``sance``           the task's good trajectories    the task's bad ones (Eq. 3)
    ``sa_infonce``      the task's good trajectories    the bad ones of every task
    ==================  ==============================  =======================================

    Raises:
        ValueError: for an unknown estimator.
    """
    if estimator in ("infonce", "infonce_other"):
        positive = world.given_task()
        everything = np.broadcast_to(positive.mean(axis=0), positive.shape)
        if estimator == "infonce":
            return positive, everything
        return positive, (world.tasks * everything - positive).clip(min=0) / (world.tasks - 1)
    good, bad = world.by_skill()
    if estimator == "sance":
        return good, bad
    if estimator == "sa_infonce":
        return good, np.broadcast_to(bad.mean(axis=0), bad.shape)
    raise ValueError(f"estimator is {estimator!r}; choose one of {ESTIMATORS}")


def sample_space(world: SkillWorld, estimator: str, trajectories: int = 1) -> int:
    """K*, the trajectories an estimator draws from: the paper's Definition 2.

    Args:
        world: gives |c| and the number of skills per task, one of them good.
        estimator: one of :data:`ESTIMATORS`.
        trajectories: M, how many there are of each skill in each task.

    Raises:
        ValueError: for an unknown estimator.
    """
    pairs = {
        "infonce": world.tasks * world.skills,
        "infonce_other": world.tasks * world.skills,
        "sance": world.skills,
        "sa_infonce": world.tasks * (world.skills - 1) + 1,
    }
    if estimator not in pairs:
        raise ValueError(f"estimator is {estimator!r}; choose one of {ESTIMATORS}")
    return pairs[estimator] * trajectories


def expected_contrast(positive: Array, negative: Array, num_samples: list[int]) -> Array:
    """The K-sample contrast at its best critic, averaged over tasks: exact, shape (n,)."""
    values = [
        contrast_information(p, q, num_samples) for p, q in zip(positive, negative, strict=True)
    ]
    return np.mean(values, axis=0)


def contrast_limit(positive: Array, negative: Array) -> float:
    """Where :func:`expected_contrast` goes as K grows: KL(P || Q), averaged over tasks."""
    return float(np.mean([kl_divergence(p, q) for p, q in zip(positive, negative, strict=True)]))


def best_critic(positive: Array, negative: Array) -> Array:
    """log f*(c, tau) = log p - log q, shape (tasks, trajectories), finite everywhere.

    A trajectory that only one of the two can produce gets a score of several hundred.
    """
    smallest = 1e-300
    return np.log(np.maximum(positive, smallest)) - np.log(np.maximum(negative, smallest))


def draw(
    given_task: Array, task: NDArray[np.intp], number: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """``number`` trajectories of each task in ``task`` (B,): indices, shape (B, number)."""
    cumulative = np.cumsum(given_task, axis=1)
    # One increasing sequence for all tasks: the part of task c lies between c and c + 1.
    ladder = (cumulative / cumulative[:, -1:] + np.arange(len(given_task))[:, None]).ravel()
    found = np.searchsorted(ladder, task[:, None] + rng.random((len(task), number)), side="right")
    return found - task[:, None] * given_task.shape[1]


def estimate_contrast(
    log_critic: Tensor,
    positive: Array,
    negative: Array,
    num_samples: int,
    batch: int,
    rng: np.random.Generator,
) -> Tensor:
    """The K-sample contrast (Eq. 1 and 3) as one batch of queries estimates it, in nats, shape ().

    Differentiable in ``log_critic``.

    Args:
        log_critic: log f(c, tau), shape (tasks, trajectories).
        positive, negative: P and Q, of the same shape.
        num_samples: K; each query has one positive and K - 1 negatives of its own.
        batch: queries, each with a task drawn uniformly.
        rng: draws tasks and trajectories.
    """
    task = rng.integers(len(positive), size=batch)
    drawn = [draw(positive, task, 1, rng), draw(negative, task, num_samples - 1, rng)]
    rows, columns = torch.from_numpy(task)[:, None], torch.from_numpy(np.hstack(drawn))
    scores = log_critic[rows, columns].unsqueeze(-1)  # (B, K, 1): keys of width one
    query = torch.ones_like(scores[:, 0])
    loss = info_nce(query, scores[:, 0], scores[:, 1:], temperature=1.0)
    return mi_lower_bound(loss, num_samples)


def train_critic(
    positive: Array,
    negative: Array,
    num_samples: int,
    rng: np.random.Generator,
    steps: int = 300,
    batch: int = 256,
    learning_rate: float = 0.1,
) -> Tensor:
    """A free number log f(c, tau) per pair, trained by Adam to raise :func:`estimate_contrast`.

    Every step draws anew, so there is nothing to overfit. The learning rate falls to zero.
    """
    log_critic = torch.zeros(positive.shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_critic], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        estimate = estimate_contrast(log_critic, positive, negative, num_samples, batch, rng)
        (-estimate).backward()
        optimizer.step()
        schedule.step()
    return log_critic.detach()
