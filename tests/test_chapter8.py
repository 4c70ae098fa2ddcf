"""Chapter 8 builds ranking and SaNCE in plain code; the library agrees."""

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial import figures
from sami_tutorial.contrastive import sance
from sami_tutorial.information import contrast_information
from sami_tutorial.results import load_table
from sami_tutorial.sampling import split_by_return
from sami_tutorial.two_trials import EncoderConfig, draw_tasks


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells("08_sance", "from-scratch")


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_good_and_bad_by_hand_are_the_librarys(chapter, fraction):
    rng = np.random.default_rng(0)
    for size in (10, 11, 24):
        returns = rng.integers(0, 6, size).astype(float)  # with many ties
        good, bad = chapter["good_and_bad"](returns.tolist(), fraction)
        library = split_by_return(torch.tensor(returns), fraction)
        assert (good, bad) == tuple(each.tolist() for each in library)


@pytest.mark.parametrize("weight", ["min", "max", "none"])
@pytest.mark.parametrize("scale", [0.1, 1.0])  # distances below and above 1
def test_the_loss_by_hand_is_the_librarys_and_so_is_its_gradient(chapter, weight, scale):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        (scale * torch.randn(n, 6, generator=generator, dtype=torch.float64)).requires_grad_()
        for n in (5, 5, 9)
    ]
    ours = chapter["sance_loss"](*tensors, temperature=0.5, weight=weight)
    library = sance(*tensors, temperature=0.5, weight=weight)
    assert torch.isclose(ours, library, rtol=1e-10)
    for a, b in zip(
        torch.autograd.grad(ours, tensors), torch.autograd.grad(library, tensors), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_the_value_of_the_game_by_enumeration_is_the_librarys(chapter):
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(4), 2)
    for k in (2, 3, 5):
        by_hand = chapter["value_of_the_game"](p, q, k)
        assert by_hand == pytest.approx(contrast_information(p, q, [k])[0], abs=1e-9)


@pytest.fixture(scope="module")
def second_trials():
    """Success in the test tasks after 500 updates, a number per seed, by the name of the runs."""
    table = load_table("results/two_trials.parquet")
    table = table[(table["kind"] == "success") & (table["updates"] == EncoderConfig().updates)]
    tests = ("moderate", "extreme")
    sizes = [len(draw_tasks([s], 0, np.random.default_rng(0), one_skill=True)) for s in tests]
    by_split = table.pivot_table("value", ["run", "seed"], "what")[list(tests)]
    return by_split @ np.array(sizes) / sum(sizes)


def lead(second_trials, x, y):
    """Mean and 95% interval of the difference, paired by seed."""
    difference = (second_trials[x] - second_trials[y]).to_numpy()
    assert len(difference) == 10
    return difference.mean(), figures.interval(difference, np.random.default_rng(0))


@pytest.mark.parametrize("point", ["D=0", "D=4", "D=8", "K=2", "K=16"])
def test_true_ranks_are_worth_a_tenth_everywhere(second_trials, point):
    chance = "satesac, shuffled" if point == "D=4" else f"satesac, shuffled, {point}"
    mean, (low, _) = lead(second_trials, f"satesac, {point}", chance)
    assert 0.095 <= mean < 0.125 and low > 0  # "between .10 and .12, every interval above zero"


@pytest.mark.parametrize(("distractors", "said"), [(0, 0.04), (8, 0.05)])
def test_the_lead_over_the_critic_is_not_shown(second_trials, distractors, said):
    runs = f"satesac, D={distractors}", f"critic, D={distractors}"
    mean, (low, high) = lead(second_trials, *runs)
    assert round(mean, 2) == said and low < 0 < high
