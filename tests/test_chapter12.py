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


def controls_of(name):
    """What the benchmark's table calls shuffled ranks."""
    return "satesac_shuffled" if name == "cubemove_methods" else "shuffled_ranks"


SPLITS = ("train", "moderate", "extreme")


def verdicts(scores, x, y):
    """Per split: +1 above zero, -1 below, 0 where the interval holds zero."""
    ends = [gain(scores, x, y, split)[1] for split in SPLITS]
    return [int(low > 0) - int(high < 0) for low, high in ends]


def test_a_memory_by_itself_helps_nowhere(benchmark):
    name, scores = benchmark
    expected = {"panda": [-1, 0, 0], "crippledhopper": [-1, -1, -1]}  # "in a third of the sets"
    assert verdicts(scores, "random", "sac") == expected.get(name, [0, 0, 0])


def test_where_training_the_encoder_is_worth_something(benchmark):
    name, scores = benchmark
    assert (
        verdicts(scores, "tesac", "random")
        == {
            "cubemove_methods": [1, 1, 1],
            "panda": [1, 0, 0],
            "crippledhopper": [1, 1, 1],
            "crippledhalfcheetah": [0, -1, -1],  # "the encoder that never learned is ahead"
        }[name]
    )


def test_true_ranks_are_ahead_in_one_place(benchmark):
    name, scores = benchmark
    lot = controls_of(name)
    expected = {"cubemove_methods": [1, 0, 1], "panda": [1, 0, 0], "crippledhalfcheetah": [1, 0, 0]}
    assert verdicts(scores, "satesac", lot) == expected.get(name, [0, 0, 0])
    if name == "crippledhalfcheetah":
        assert (scores["train", "satesac"] > scores["train", lot]).all()
    if name in MEASURES:  # "begins at zero in the digits shown"
        assert all(gain(scores, "satesac", lot, split)[1][0] < 0.005 for split in SPLITS)


def test_with_another_weight_the_sign_is_another():
    scores = load_table("results/one_change.parquet").groupby(["split", "method", "seed"])[
        "success"
    ]
    assert gain(scores.mean(), "satesac", "shuffled_ranks")[1][1] < 0
