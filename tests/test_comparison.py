"""Comparing methods: hand-worked values, and every resample of small samples counted out."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, permutation_test

from sami_tutorial.comparison import (
    iqm,
    probability_of_improvement,
    sign_flip_p,
    slopes,
    stratified_interval,
    trend_p,
)


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([[0.0, 1.0, 2.0, 100.0]]) == 1.5
    # Eight scores of two benchmarks together: 1 2 | 3 4 5 6 | 7 8
    assert iqm([[8.0, 1.0, 6.0], [5.0, 4.0, 7.0, 2.0, 3.0]]) == 4.5
    assert iqm([[[8.0, 1.0], [6.0, 5.0]], [[4.0, 7.0], [2.0, 3.0]]]) == 4.5
    assert iqm([[3.0]]) == 3.0


def test_the_interval_agrees_with_all_resamples_counted_out():
    scores = [np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 10.0])]

    def statistic(arrays):
        return float(arrays[0].mean() + 2 * arrays[1].max())

    draws = list(itertools.product(range(3), repeat=3))
    every = [statistic([scores[0][list(a)], scores[1][list(b)]]) for a in draws for b in draws]
    found = stratified_interval(
        scores, statistic, np.random.default_rng(0), confidence=0.8, resamples=20_000
    )
    assert found == pytest.approx(np.quantile(every, [0.1, 0.9]), abs=0.35)


def test_runs_are_drawn_whole_and_within_their_benchmark():
    seen = []

    def statistic(arrays):
        for k, each in enumerate(arrays):
            assert set(each[:, 0]) <= {10.0 * k, 10.0 * k + 1}
            assert (each[:, 1] == -each[:, 0]).all()  # the columns of a row stay together
        seen.append([len(each) for each in arrays])
        return 0.0

    scores = [np.array([[10.0 * k + i, -10.0 * k - i] for i in (0, 1, 0)]) for k in range(2)]
    stratified_interval(scores, statistic, np.random.default_rng(1), resamples=20)
    assert seen == [[3, 3]] * 20


def test_the_interval_depends_on_the_generator_alone():
    scores = [np.random.default_rng(2).normal(size=7)]
    a, b, other = (
        stratified_interval(scores, iqm, np.random.default_rng(s), resamples=50) for s in (3, 3, 4)
    )
    assert a == b != other


def test_probability_of_improvement_is_mann_whitney():
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 4).astype(float)  # with ties
    expected = mannwhitneyu(x, y).statistic / (9 * 4)
    assert probability_of_improvement([x], [y]) == pytest.approx(expected)
    assert probability_of_improvement([y], [x]) == pytest.approx(1 - expected)
    # Benchmarks weigh the same, whatever their number of runs.
    assert probability_of_improvement([x, [1.0]], [y, [0.0]]) == pytest.approx((expected + 1) / 2)


def test_sign_flips():
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32  # the least that five seeds can give
    assert sign_flip_p([0.0, 0.0]) == 1.0
    values = np.random.default_rng(6).normal(0.4, 1, size=8)
    exact = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(values) == pytest.approx(exact.pvalue)
    assert sign_flip_p(0.1 * values) == pytest.approx(exact.pvalue)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: iqm([]), "scores is empty; give an array"),
        (lambda: iqm([[]]), r"shape \(0,\); give at least one run"),
        (lambda: iqm([[1.0, np.nan]]), "NaN or infinity"),
        (lambda: probability_of_improvement([[1.0]], []), "x has 1 benchmarks and y has 0"),
        (lambda: probability_of_improvement([[1.0]], [[np.inf]]), "y holds NaN"),
        (lambda: sign_flip_p([]), "differences holds an array of shape"),
        (lambda: sign_flip_p([[1.0]]), "give a vector"),
        (lambda: sign_flip_p(np.ones(21)), "at most 20"),
        (
            lambda: stratified_interval([[1.0]], iqm, np.random.default_rng(), confidence=1),
            "confidence is 1",
        ),
    ],
)
def test_bad_input_is_named(call, hint):
    with pytest.raises(ValueError, match=hint):
        call()


# ---------------------------------------------------------------------- trends

DOSES = np.log2([4.0, 13, 64, 256])


def test_a_slope_is_that_of_a_fitted_line():
    scores = np.random.default_rng(3).normal(size=(5, 4))
    assert slopes(DOSES, scores) == pytest.approx([np.polyfit(DOSES, row, 1)[0] for row in scores])


def test_a_trends_p_value_is_the_share_of_all_orders():
    scores = np.array([[0.5, 0.6, 0.8, 0.7], [0.7, 0.65, 0.9, 0.95]])
    orders = [list(order) for order in itertools.permutations(range(4))]
    means = [
        abs(slopes(DOSES, np.stack([scores[0][a], scores[1][b]])).mean())
        for a, b in itertools.product(orders, orders)
    ]
    exact = np.mean(means >= abs(slopes(DOSES, scores).mean()) - 1e-12)
    found = trend_p(DOSES, scores, np.random.default_rng(0))
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert trend_p(DOSES, -scores, np.random.default_rng(0)) == found  # falling is as far as rising


def test_a_trends_p_value_errs_as_often_as_it_says():
    rng = np.random.default_rng(4)
    p = [trend_p(DOSES, rng.normal(size=(5, 4)), rng, shuffles=200) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09  # 400 draws of .05: standard error .011
    rising = 0.1 * DOSES + rng.normal(size=(5, 4)) * 0.1
    assert trend_p(DOSES, rising, rng) < 0.001


@pytest.mark.parametrize("level", [0.1, 0.35, 0.7, 0.9])
def test_scores_that_do_not_move_show_no_trend(level):
    flat = np.full((5, 4), level)
    for x in (DOSES, np.log([4.0, 13, 64, 256]), np.log2([1.0, 2, 3, 9])):
        assert trend_p(x, flat, np.random.default_rng(0), shuffles=50) == 1


@pytest.mark.parametrize("differences", [[0.1, 0.1, 0.1, -0.3], [0.1, 0.2, -0.3, 0.7, -0.3, -0.4]])
def test_a_mean_of_zero_is_never_far_from_zero(differences):
    assert sign_flip_p(differences) == 1


@pytest.mark.parametrize(
    ("x", "scores", "words"),
    [
        ([1.0, 2.0], [[1.0, 2.0, 3.0]], "x has shape"),
        ([1.0, 2.0], [1.0, 2.0], "x has shape"),
        ([2.0, 2.0], [[1.0, 2.0]], "x is 2 throughout"),
        ([1.0, 2.0], [[1.0, np.nan]], "scores holds NaN"),
        ([0.0, -np.inf], [[1.0, 2.0]], "x holds NaN"),
    ],
)
def test_doses_and_scores_that_do_not_fit_are_refused(x, scores, words):
    for refused in (
        lambda: slopes(x, scores),
        lambda: trend_p(x, scores, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=words):
            refused()


def test_an_interval_needs_a_resample():
    with pytest.raises(ValueError, match="resamples is 0"):
        stratified_interval([[1.0, 2.0]], iqm, np.random.default_rng(0), resamples=0)


def test_a_trend_needs_a_shuffle():
    with pytest.raises(ValueError, match="shuffles is 0"):
        trend_p([1.0, 2.0], [[1.0, 2.0]], np.random.default_rng(0), shuffles=0)
