"""Chapter 12: what it builds from scratch agrees with the library."""

import numpy as np
import pandas as pd
import pytest
from notebook_cells import tagged_cells

from sami_tutorial import comparison, figures
from sami_tutorial.results import data_dir, load_table, read_manifest

CHAPTER = "12_zero_shot_generalisation"


def has_table(name):
    return name in read_manifest(data_dir())["files"]


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


# ---------------------------------------------------------------------- what the text says


MEASURES = {"cubemove_methods": "success", "panda": "success"}
ROBOTS = ("crippledhopper", "crippledhalfcheetah")
CONTROLLED = (*MEASURES, *(b for b in ROBOTS if has_table(f"results/{b}_controls.parquet")))


@pytest.fixture(scope="module", params=CONTROLLED)
def benchmark(request):
    """A benchmark's name, and one score per split, method and seed, its controls among them."""
    files = [request.param, f"{request.param}_controls"]
    found = [load_table(f"results/{f}.parquet") for f in files if has_table(f"results/{f}.parquet")]
    table = pd.concat(found)
    if "actions" in table:
        table = table[table["actions"].fillna("mean") == "mean"]
    measure = MEASURES.get(request.param, "episode_return")
    return request.param, table.groupby(["split", "method", "seed"])[measure].mean()


def gain(scores, x, y, split="train"):
    """Mean and interval of the difference, paired by seed."""
    difference = (scores[split, x] - scores[split, y]).to_numpy(dtype=float)
    return difference.mean(), figures.interval(difference, np.random.default_rng(0))


def test_a_trained_encoder_beats_one_that_is_not(benchmark):
    """In the tasks of training; and a memory by itself is not what helps."""
    _, scores = benchmark
    assert gain(scores, "tesac", "random")[1][0] > 0
    assert gain(scores, "random", "sac")[1][0] < 0


def test_true_ranks_are_worth_far_less(benchmark):
    name, scores = benchmark
    lot = "satesac_shuffled" if name == "cubemove_methods" else "shuffled_ranks"
    _, (low, high) = gain(scores, "satesac", lot)
    if name in MEASURES:
        assert 0 < low < 0.005  # "begins at zero in the digits shown"
    else:
        assert low < 0 < high and high - low > 500  # "too wide to say anything"


def test_with_another_weight_the_sign_is_another():
    scores = load_table("results/one_change.parquet").groupby(["split", "method", "seed"])[
        "success"
    ]
    assert gain(scores.mean(), "satesac", "shuffled_ranks")[1][1] < 0
