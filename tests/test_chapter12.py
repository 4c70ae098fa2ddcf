"""Chapter 12: what it builds from scratch agrees with the library."""

import numpy as np
import pytest
from notebook_cells import tagged_cells

from sami_tutorial import comparison

CHAPTER = "12_zero_shot_generalisation"


@pytest.fixture(scope="module")
def built():
    return tagged_cells(CHAPTER, "from-scratch")


@pytest.mark.parametrize("seed", range(5))
def test_statistics_agree(built, seed):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=n) for n in rng.integers(1, 9, size=3)]
    y = [rng.integers(-2, 3, size=n).astype(float) for n in rng.integers(1, 9, size=3)]
    assert built["iqm"](x) == pytest.approx(comparison.iqm(x))
    assert built["probability_of_improvement"](y, x) == pytest.approx(
        comparison.probability_of_improvement(y, x)
    )
    # Whole numbers: ties between sign patterns are where rounding could tell the two apart.
    assert built["sign_flip_p"](y[0]) == comparison.sign_flip_p(y[0])
    assert built["sign_flip_p"](x[0]) == comparison.sign_flip_p(x[0])


def test_the_bootstrap_draws_alike(built):
    scores = [np.arange(6.0), np.arange(10.0, 14.0)]
    found, expected = (
        module(scores, comparison.iqm, np.random.default_rng(7), resamples=200)
        for module in (built["stratified_interval"], comparison.stratified_interval)
    )
    assert found == pytest.approx(expected)
