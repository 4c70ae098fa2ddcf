"""Chapter 15 counts keys, noise, ages and trends by hand; its data are what its sweep says."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells
from scipy import stats

from sami_tutorial import comparison
from sami_tutorial.contrastive import info_nce
from sami_tutorial.results import provenance
from sami_tutorial.sweep import read_sweep

SWEEP = Path(__file__).parents[1] / "sweeps" / "log_k.toml"


@pytest.fixture(scope="module")
def built():
    return tagged_cells("15_log_k_in_rl", "from-scratch")


# ---------------------------------------------------------------------- keys and pools


@pytest.mark.parametrize(("classes", "keys"), [(2, 2), (2, 6), (3, 4), (4, 5)])
def test_the_ideal_reading_is_the_mean_over_all_draws(built, classes, keys):
    """The query is of class 0; its loss with an encoder that knows the class alone."""
    readings = [
        math.log(keys) - math.log(1 + drawn.count(0))
        for drawn in itertools.product(range(classes), repeat=keys - 1)
    ]
    assert built["ideal_estimate"](classes, keys) == pytest.approx(np.mean(readings))
    assert built["ideal_estimate"](classes, keys, own_class=False) == math.log(keys)


def test_the_ideal_reading_has_two_ceilings(built):
    for classes, keys in itertools.product((2, 15, 50), (4, 64, 256)):
        reading = built["ideal_estimate"](classes, keys)
        assert 0 < reading < min(math.log(keys), math.log(classes))
    assert built["ideal_estimate"](2, 256) == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize(("draws", "pool"), [(1, 5), (3, 2), (4, 4)])
def test_different_ones_are_counted_over_all_draws(built, draws, pool):
    counts = [len(set(each)) for each in itertools.product(range(pool), repeat=draws)]
    assert built["different"](draws, pool) == pytest.approx(np.mean(counts))


# ---------------------------------------------------------------------- the gradient's noise


def test_noise_is_that_of_the_librarys_gradient(built):
    rng = np.random.default_rng(0)
    q, positives, negatives = (rng.normal(size=shape) for shape in ((2, 3), (4, 2, 3), (5, 6, 3)))
    g = np.empty((4, 5, 3))
    for a, b in itertools.product(range(4), range(5)):
        query = torch.tensor(q, requires_grad=True)
        loss = info_nce(query, torch.tensor(positives[a]), torch.tensor(negatives[b]), 0.3)
        g[a, b] = -torch.autograd.grad(loss, query)[0].sum(dim=0).numpy()  # of a mean over queries
    flat = g.reshape(-1, 3)
    signal = np.linalg.norm(flat.mean(axis=0))
    of_rows = g.mean(axis=1)
    expected = [math.sqrt(each.var(axis=0).sum()) / signal for each in (flat, of_rows)]
    assert built["noise"](q, positives, negatives, beta=0.3) == pytest.approx(expected)


def test_one_set_of_negatives_leaves_the_positives_noise_alone(built):
    rng = np.random.default_rng(1)
    sets = np.broadcast_to(rng.normal(size=(1, 4, 3)), (7, 4, 3))
    q, positives = rng.normal(size=(2, 3)), rng.normal(size=(5, 2, 3))
    everything, of_positives = built["noise"](q, positives, sets)
    assert everything == pytest.approx(of_positives) and of_positives > 0


def test_the_positives_noise_falls_with_the_queries_and_the_shared_negatives_does_not(built):
    """Far negatives of no weight, or positives all alike, leave one source each."""
    rng = np.random.default_rng(2)
    one, many = 1, 64
    noise_of = {}
    for count in (one, many):
        q = np.zeros((count, 3))  # all keys weigh the same
        scattered = rng.normal(size=(400, count, 3)) + 5
        alike = np.full((2, count, 3), 5.0)
        still, moving = np.zeros((2, 4, 3)), rng.normal(size=(400, 4, 3))
        noise_of[count] = (
            built["noise"](q, scattered, still)[0],
            built["noise"](q, alike, moving)[0],
        )
    assert noise_of[one][0] / noise_of[many][0] == pytest.approx(8, rel=0.2)  # sqrt(64)
    assert noise_of[one][1] / noise_of[many][1] == pytest.approx(1, rel=0.2)


def test_newer_is_the_statistic_of_mann_and_whitney(built):
    rng = np.random.default_rng(2)
    good, bad = rng.integers(6, size=9).tolist(), rng.integers(5, size=7).tolist()
    expected = stats.mannwhitneyu(good, bad).statistic / (len(good) * len(bad))
    assert built["newer"](good, bad) == pytest.approx(expected)
    assert built["newer"]([5, 6], [1, 2]) == 1.0 and built["newer"]([3], [3]) == 0.5


# ---------------------------------------------------------------------- trends

DOUBLINGS = np.log2([4.0, 13.0, 64.0, 256.0])


def test_trends_by_hand_are_the_librarys(built):
    scores = np.random.default_rng(3).normal(size=(5, 4))
    by_hand = built["slopes"](DOUBLINGS, scores)
    assert by_hand == pytest.approx(comparison.slopes(DOUBLINGS, scores))
    drawn = built["trend_p"](DOUBLINGS, scores, np.random.default_rng(0), shuffles=500)
    assert drawn == comparison.trend_p(DOUBLINGS, scores, np.random.default_rng(0), shuffles=500)


def test_any_pattern_is_found_where_a_slope_finds_none(built):
    rng = np.random.default_rng(6)
    hump = np.array([0.7, 0.9, 0.9, 0.7]) + 0.02 * rng.normal(size=(5, 4))
    assert built["any_pattern_p"](hump, rng) < 0.001
    assert built["trend_p"](np.arange(4.0), hump, rng) > 0.2
    p = [built["any_pattern_p"](rng.normal(size=(5, 4)), rng, shuffles=200) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
    assert built["any_pattern_p"](np.full((5, 4), 0.9), rng, shuffles=50) == 1


# ---------------------------------------------------------------------- the stored runs


def test_the_points_in_the_middle_differ_in_nothing_but_the_dose():
    """What the chapter joins by a line are runs of one recipe."""
    jobs = {job.variant: job.config for job in read_sweep(SWEEP, Path("runs"))}
    centre = provenance("results/one_change.parquet")["config"]["methods"]
    varied = {"keys": "contrast_batch", "replay": "replay_capacity", "alpha": "contrast_weight"}
    for variant, config in jobs.items():
        method, factor, _ = variant.split("_")
        settings = {"replay_capacity": config.replay_capacity, **vars(config.context)}
        middle = centre[method]
        middle = {"replay_capacity": middle["replay_capacity"], **middle["context"]}
        assert [key for key in middle if middle[key] != settings[key]] == [varied[factor]]
        assert config.steps == centre[method]["steps"]
