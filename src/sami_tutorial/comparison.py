"""Comparing methods over seeds and benchmarks: what a handful of runs can and cannot say.

A run (one seed of one method on one benchmark) is one observation. Its tasks and its episodes share
its weights, so their number does not make the comparison surer: whatever is drawn again here is
drawn by whole runs, within each benchmark.

    iqm                          mean of the middle half of all scores
    stratified_interval          bootstrap interval of any statistic of the scores
    probability_of_improvement   P(a run of x scores above a run of y)
    sign_flip_p                  could chance alone have made the paired differences this large?
    slopes, trend_p              does the score rise with a dose, and could chance have done it?

Sources: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*
(NeurIPS 2021), sections 4.1 to 4.3; Fisher, *The Design of Experiments* (1935), section 21, for the
sign flips; Page, *Ordered Hypotheses for Multiple Treatments* (JASA, 1963), for trends, there of
ranks. Built in chapters 12, *Zero-shot generalisation*, and 15, *The log-K curse in RL* (trends).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import trim_mean

Scores = Sequence[NDArray[np.float64]]
"""One array per benchmark, whose first axis holds the runs."""


def iqm(scores: Sequence[ArrayLike]) -> float:
    """The interquartile mean: of all scores of all benchmarks, the mean of the middle half.

    Less at the mercy of one lucky or failed run than the mean, less wasteful than the median.

    Args:
        scores: one array per benchmark, on a common scale.

    Raises:
        ValueError: if there are no scores, or some are not finite.
    """
    together = np.concatenate([_checked("scores", each).ravel() for each in _some(scores)])
    return float(trim_mean(together, 0.25))


def stratified_interval(
    scores: Sequence[ArrayLike],
    statistic: Callable[[Scores], float],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic: runs are drawn again in each benchmark.

    Args:
        scores: one array per benchmark, the runs along the first axis. What belongs to a run (the
            scores of two methods with the same seed, say) stands in its row and is drawn with it.
        statistic: of such a list.
        rng: draws the runs.
        confidence: the share of resampled statistics inside the interval.
        resamples: how many times the runs are drawn again.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: without runs, with scores that are not finite, for a confidence outside (0, 1),
            for fewer than one resample.
    """
    arrays = [_checked("scores", each) for each in _some(scores)]
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; give a positive integer")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; choose a value between 0 and 1")
    values = [
        statistic([each[rng.integers(len(each), size=len(each))] for each in arrays])
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def probability_of_improvement(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
    """How often a run of x scores above a run of y on the same benchmark; ties count one half.

    All pairs of runs are compared, and the benchmarks weigh the same. One half means no difference.

    Args:
        x, y: one vector of scores per benchmark; the numbers of runs may differ.

    Raises:
        ValueError: if the benchmarks do not match, or scores are missing or not finite.
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} benchmarks and y has {len(y)}; give the same ones")
    shares = []
    for of_x, of_y in zip(_some(x, "x"), y, strict=True):
        difference = _checked("x", of_x)[:, None] - _checked("y", of_y)[None, :]  # (runs, runs)
        shares.append(np.mean(difference > 0) + np.mean(difference == 0) / 2)
    return float(np.mean(shares))


def sign_flip_p(differences: ArrayLike) -> float:
    """The exact two-sided p-value of a mean paired difference, from all flips of the signs.

    If the two methods did not differ, each seed's difference could as well have had the other sign.
    Of all 2^n patterns of signs, p is the share whose mean is at least as far from zero as the one
    that was seen. With n seeds it cannot fall below 2^(1-n): five seeds never reach .05.

    Args:
        differences: one per seed, at most 20.

    Raises:
        ValueError: if there are none or too many, or some are not finite.
    """
    values = _checked("differences", differences)
    if values.ndim != 1 or len(values) > 20:
        raise ValueError(
            f"differences has shape {values.shape}; give a vector of at most 20 (2^20 sign flips)"
        )
    n = len(values)
    signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (2^n, n): bit i flips sign i
    sums = np.abs(signs @ values)
    rounding = 1e-12 * np.abs(values).sum()  # sums that cancel are ties, too
    return float(np.mean(sums >= np.abs(values.sum()) - rounding))


def slopes(x: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """The slope of the least-squares line through each run's scores.

    Args:
        x: shape (L,), the doses on the scale on which a line is fair (often their logarithm).
        scores: shape (runs, L), a run's score at each dose.

    Returns:
        Shape (runs,), change of the score per unit of x.

    Raises:
        ValueError: for shapes that do not match, doses that are all equal, values not finite.
    """
    doses, table = _doses(x, scores)
    return table @ doses / (doses @ doses)


def trend_p(
    x: ArrayLike, scores: ArrayLike, rng: np.random.Generator, *, shuffles: int = 20_000
) -> float:
    """The two-sided p-value of the mean slope, from orders of the doses drawn within each run.

    If the dose did nothing, a run's scores could as well have come in any other order. p is the
    share of orders whose mean slope is at least as far from zero as the one that was seen, itself
    among them. Few runs suffice: five with four doses have 24^5 orders.

    Args:
        x, scores: as for :func:`slopes`.
        rng: draws the orders.
        shuffles: how many.

    Raises:
        ValueError: as :func:`slopes`, and for fewer than one shuffle.
    """
    doses, table = _doses(x, scores)
    if shuffles < 1:
        raise ValueError(f"shuffles is {shuffles}; draw at least one order, better thousands")
    seen = (table @ doses).mean()
    orders = rng.permuted(np.broadcast_to(table, (shuffles, *table.shape)), axis=2)
    others = (orders @ doses).mean(axis=1)
    rounding = 1e-12 * (np.abs(table) @ np.abs(doses)).mean()  # slopes that cancel are ties, too
    as_far = np.count_nonzero(np.abs(others) >= np.abs(seen) - rounding)
    return (as_far + 1) / (shuffles + 1)


def _doses(x: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centred doses (L,) and scores (runs, L), checked."""
    doses, table = _checked("x", x), _checked("scores", scores)
    if doses.ndim != 1 or table.ndim != 2 or table.shape[1] != len(doses):
        raise ValueError(
            f"x has shape {doses.shape} and scores {table.shape}; give L doses and (runs, L) scores"
        )
    if np.ptp(doses) == 0:
        raise ValueError(f"x is {doses[0]:g} throughout; a trend needs at least two doses")
    return doses - doses.mean(), table


def _some(scores: Sequence[ArrayLike], name: str = "scores") -> Sequence[ArrayLike]:
    if len(scores) == 0:
        raise ValueError(f"{name} is empty; give an array of scores for each benchmark")
    return scores


def _checked(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} holds an array of shape {array.shape}; give at least one run")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; drop those runs or fix what made them")
    return array
