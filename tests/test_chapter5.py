"""Chapter 5 builds information, InfoNCE and three more bounds in plain code: all as they claim.

The statistical tests compare a mean over independent batches with a limit, at five standard errors.
For a normal mean that is an error rate of 3e-7 per comparison (one-sided; twice that where both
sides are tested), and the seeds are fixed.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from notebook_cells import tagged_cells
from sklearn.metrics import mutual_info_score
from torch.distributions import Independent, Normal

from sami_tutorial import information
from sami_tutorial.contrastive import info_nce, mi_lower_bound

SIGMAS = 5


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells("05_infonce", "from-scratch")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_scores(chapter, truth: float, d: int, num_keys: int, g: torch.Generator, queries=32):
    """The perfect critic on one batch, as the chapter draws it."""
    x, y = chapter["draw_pairs"](truth, d, (queries,), g)
    negatives = torch.randn(num_keys - 1, d, generator=g, dtype=torch.float64)
    return (
        chapter["log_ratio"](x, y, truth),
        chapter["log_ratio"](x[:, None], negatives[None], truth),
    )


def mean_and_error(values) -> tuple[float, float]:
    values = torch.as_tensor(values, dtype=torch.float64)
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


# --- tables -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_entropy_and_information_are_the_librarys(chapter, rows, columns, seed):
    counts = np.random.default_rng(seed).integers(0, 5, (rows, columns))
    counts[0, 0] += 1  # not all zero
    table = counts / counts.sum()
    assert chapter["entropy"](table) == pytest.approx(information.entropy(table), abs=1e-12)
    ours = chapter["mutual_information"](table)
    assert ours == pytest.approx(information.mutual_information(table, 0, 1), abs=1e-12)
    assert ours == pytest.approx(mutual_info_score(None, None, contingency=counts), abs=1e-12)


# --- InfoNCE ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 9), st.floats(0.1, 3.0), st.integers(0, 10_000))
def test_loop_and_matrix_are_the_librarys_loss(chapter, queries, negatives, temperature, seed):
    g = generator(seed)
    q, k_plus, k_minus = (
        torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (queries, queries, negatives)
    )
    expected = info_nce(q, k_plus, k_minus, temperature).item()
    for name in ("info_nce_loop", "info_nce_matrix"):
        ours = chapter[name](q, k_plus, k_minus, temperature)
        assert float(ours) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_matrix_version_survives_large_logits_and_the_loop_does_not(chapter):
    q = torch.full((1, 2), 10.0)
    assert torch.isfinite(chapter["info_nce_matrix"](q, q, -q, 0.1))
    with pytest.raises(OverflowError):
        chapter["info_nce_loop"](q, q, -q, 0.1)


def test_the_estimate_from_scores_is_the_librarys_bound(chapter):
    """With embeddings whose products are the scores: the identity matrix as queries."""
    scores = torch.randn(5, 5, generator=generator(), dtype=torch.float64)
    keys = torch.randn(7, 5, generator=generator(1), dtype=torch.float64)
    q = torch.eye(5, dtype=torch.float64)
    loss = info_nce(q, scores, keys, temperature=1.0)
    ours = chapter["info_nce_estimate"]((q * scores).sum(dim=1), q @ keys.T)
    assert torch.isclose(ours, mi_lower_bound(loss, 8))


# --- the world of Gaussians -------------------------------------------------------------------


@pytest.mark.parametrize("truth", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("d", [1, 3])
def test_log_ratio_is_that_of_the_densities(chapter, truth, d):
    rho = chapter["correlation"](truth, d)
    assert -d / 2 * math.log(1 - rho**2) == pytest.approx(truth, abs=1e-9)
    x, y = chapter["draw_pairs"](truth, d, (50,), generator())
    given_x = Independent(Normal(rho * x, math.sqrt(1 - rho**2)), 1)
    alone = Independent(Normal(torch.zeros_like(y), 1.0), 1)
    expected = given_x.log_prob(y) - alone.log_prob(y)
    assert torch.allclose(chapter["log_ratio"](x, y, truth), expected, atol=1e-6)


def test_pairs_correlate_as_promised(chapter):
    truth, d, n = 0.8, 2, 40_000
    x, y = chapter["draw_pairs"](truth, d, (n,), generator())
    rho = chapter["correlation"](truth, d)
    error = SIGMAS * (1 - rho**2) / math.sqrt(n)  # standard error of a sample correlation
    across = torch.corrcoef(torch.cat([x, y], dim=1).T)
    assert torch.allclose(across[:d, d:].diagonal(), torch.tensor(rho).double(), atol=error)
    assert abs(across[0, d + 1]) < SIGMAS / math.sqrt(n)
    assert torch.allclose(y.std(dim=0), torch.ones(d).double(), atol=SIGMAS / math.sqrt(2 * n))


# --- the estimators keep their bounds ---------------------------------------------------------


@pytest.mark.parametrize(("truth", "d"), [(0.5, 1), (2.0, 4), (6.0, 10)])
@pytest.mark.parametrize("num_keys", [2, 16, 128])
def test_info_nce_of_the_perfect_critic_lies_below_both_limits(chapter, truth, d, num_keys):
    g = generator(num_keys)
    values = [
        chapter["info_nce_estimate"](*batch_scores(chapter, truth, d, num_keys, g)).item()
        for _ in range(100)
    ]
    mean, error = mean_and_error(values)
    assert max(values) <= math.log(num_keys)  # no chance here
    assert mean < truth + SIGMAS * error
    # And it is no empty bound: where log K is far away it is nearly the truth.
    if math.log(num_keys) > truth + 2:
        assert mean > 0.9 * truth - SIGMAS * error


def test_info_nce_rises_with_the_number_of_keys(chapter):
    g, below, below_error = generator(), 0.0, 0.0
    for num_keys in (2, 8, 32, 128):
        batches = [batch_scores(chapter, 3.0, 4, num_keys, g) for _ in range(100)]
        mean, error = mean_and_error([chapter["info_nce_estimate"](*each) for each in batches])
        assert mean - below > SIGMAS * math.hypot(error, below_error)
        below, below_error = mean, error


@pytest.mark.parametrize("seed", range(5))
def test_no_critic_lifts_info_nce_above_the_truth(chapter, seed):
    """Wrong critics: the perfect one scaled and disturbed by a random function of the pair."""
    truth, d, num_keys, g = 1.0, 2, 32, generator(seed)
    scale = 3 * torch.rand((), generator=g, dtype=torch.float64)
    w_x, w_y = torch.randn(2, d, generator=g, dtype=torch.float64)
    values = []
    for _ in range(100):
        x, y = chapter["draw_pairs"](truth, d, (32,), g)
        negatives = torch.randn(num_keys - 1, d, generator=g, dtype=torch.float64)
        plus = scale * chapter["log_ratio"](x, y, truth) + torch.tanh(x @ w_x) * (y @ w_y)
        minus = scale * chapter["log_ratio"](x[:, None], negatives[None], truth)
        minus = minus + torch.tanh(x @ w_x)[:, None] * (negatives @ w_y)
        values.append(chapter["info_nce_estimate"](plus, minus))
    mean, error = mean_and_error(values)
    assert mean < truth + SIGMAS * error


def test_dv_and_nwj_by_hand(chapter):
    plus = torch.tensor([1.0, 3.0], dtype=torch.float64)
    minus = torch.tensor([[1.0, 2.0], [4.0, 5.0]], dtype=torch.float64).log()  # mean of exp: 3
    assert chapter["dv_estimate"](plus, minus).item() == pytest.approx(2 - math.log(3))
    assert chapter["nwj_estimate"](plus, minus).item() == pytest.approx(1 + 2 - 3)


def test_nwj_of_the_perfect_critic_is_unbiased_and_dv_is_biased_upwards(chapter):
    truth, d, num_keys, g = 1.0, 6, 5, generator()
    batches = [batch_scores(chapter, truth, d, num_keys, g, queries=4) for _ in range(1500)]
    mean, error = mean_and_error([chapter["nwj_estimate"](*each) for each in batches])
    assert error < 0.03  # tight enough to see a bias
    assert abs(mean - truth) < SIGMAS * error
    mean, error = mean_and_error([chapter["dv_estimate"](*each) for each in batches])
    assert mean > truth + SIGMAS * error


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.9])
def test_the_interpolated_bound_keeps_below_truth_and_ceiling(chapter, alpha):
    truth, d, num_keys, g = 4.0, 4, 17, generator()
    values = [
        chapter["interpolated_estimate"](*batch_scores(chapter, truth, d, num_keys, g), alpha)
        for _ in range(200)
    ]
    mean, error = mean_and_error(values)
    assert mean < truth + SIGMAS * error
    assert max(values) <= 1 + math.log((num_keys - 1) / alpha)


def test_the_interpolated_bound_ends_in_nwj_and_info_nce(chapter):
    plus, minus = batch_scores(chapter, 2.0, 3, 33, generator())
    nearly_nwj = chapter["interpolated_estimate"](plus, minus, 1e-12)
    assert torch.isclose(nearly_nwj, chapter["nwj_estimate"](plus, minus))
    # At alpha = 1 it is InfoNCE over the keys it uses, one negative fewer than given.
    nearly_info_nce = chapter["interpolated_estimate"](plus, minus, 1 - 1e-12)
    assert torch.isclose(nearly_info_nce, chapter["info_nce_estimate"](plus, minus[:, 1:]))


def test_the_variance_of_the_mean_ratio_is_exponential_in_the_information(chapter):
    """n times the variance is exp(2 I) - 1, where the fourth moment exists (rho below 1/3)."""
    truth, d, n, batches = 0.3, 10, 100, 2000
    assert chapter["correlation"](truth, d) < 1 / 3
    x, y = torch.randn(2, batches, n, d, generator=generator(), dtype=torch.float64)
    means = chapter["log_ratio"](x, y, truth).exp().mean(dim=1)
    squares = n * (means - 1) ** 2
    mean, error = mean_and_error(squares)
    assert error < 0.05
    assert abs(mean - math.expm1(2 * truth)) < SIGMAS * error


# --- tasks ------------------------------------------------------------------------------------


def one_hot_loss(task, positive, negatives, num_tasks):
    """InfoNCE of an encoder that knows the task: similarities 0 within, -40 across tasks."""
    code = 40 * torch.eye(num_tasks, dtype=torch.float64)
    keys = torch.eye(num_tasks, dtype=torch.float64)
    return info_nce(code[task], keys[positive], keys[negatives], temperature=1.0)


@pytest.mark.parametrize(("num_tasks", "num_keys"), [(3, 8), (15, 64)])
def test_false_negatives_cost_what_the_binomial_says(chapter, num_tasks, num_keys):
    g, values = generator(), []
    for _ in range(200):
        task = torch.randint(num_tasks, (16,), generator=g)
        negatives = torch.randint(num_tasks, (16, num_keys - 1), generator=g)
        values.append(mi_lower_bound(one_hot_loss(task, task, negatives, num_tasks), num_keys))
    mean, error = mean_and_error(values)
    exact = chapter["perfect_encoder_bound"](num_keys, num_tasks)
    assert abs(mean - exact) < SIGMAS * error
    assert exact < math.log(num_tasks)


def test_negatives_from_other_tasks_only_are_no_bound():
    """What the chapter warns of: the reading passes all the information there is."""
    num_tasks, num_keys, g = 3, 64, generator()
    task = torch.randint(num_tasks, (16,), generator=g)
    shift = torch.randint(1, num_tasks, (16, num_keys - 1), generator=g)
    loss = one_hot_loss(task, task, (task[:, None] + shift) % num_tasks, num_tasks)
    assert mi_lower_bound(loss, num_keys) == pytest.approx(math.log(num_keys))
    assert math.log(num_keys) > math.log(num_tasks)
