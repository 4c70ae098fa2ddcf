"""Chapter 3 builds zero-shot evaluation and its intervals in plain code; the library agrees."""

import numpy as np
import pytest
from notebook_cells import tagged_cells

from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.evaluate import evaluate, interval

CUBE = "sami/CubeMove-v0"


@pytest.fixture(scope="module")
def chapter():
    names = tagged_cells("03_one_policy", "from-scratch")
    return names | {"names": names}


def test_evaluation_by_hand_is_the_librarys(chapter):
    chapter["names"].update(CUBE=CUBE, make_vec=make_vec)
    context = task_sets(CUBE).extreme[-1]

    def policy(observation):
        return np.sign(observation[:, [0, 3]]).astype(np.float32)

    returns, success = chapter["evaluate_one"](policy, context, 10, 77)
    table = evaluate(policy, CUBE, [context], episodes=10, first_seed=77)
    assert np.array_equal(returns, table["episode_return"])
    assert np.array_equal(success, table["success"])


def test_interval_is_the_librarys_up_to_resampling(chapter):
    values = np.random.default_rng(5).normal(10, 3, 12)
    ours = chapter["bootstrap_interval"](values, np.random.default_rng(0))
    theirs = interval(values, np.random.default_rng(1), resamples=10_000)
    # The two draw other resamples; 10 000 of them place a bound within a few hundredths.
    assert np.allclose(ours, theirs, atol=0.1)


def test_the_model_of_tries_by_enumeration(chapter):
    """Every sequence of coin throws, weighted by its probability."""
    p, tries = 0.3, 3
    total = 0.0
    for throws in np.ndindex(*(2,) * tries):
        weight = np.prod([p if push else 1 - p for push in throws])
        for task in ("both", "push", "pick"):
            solved = task == "both" or (1 if task == "push" else 0) in throws
            total += weight * solved / 3
    assert chapter["success_probability"](p, tries) == pytest.approx(total)
