"""Information measures keep the laws of information, and the world is what its graph says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sami_tutorial.contrastive import sance
from sami_tutorial.information import (
    contrast_information,
    entropy,
    interaction_information,
    kl_divergence,
    mutual_information,
)
from sami_tutorial.skill_world import (
    ESTIMATORS,
    SKILL,
    TASK,
    TRAJECTORY,
    SkillWorld,
    best_critic,
    contrast_limit,
    draw,
    estimate_contrast,
    expected_contrast,
    positives_and_negatives,
    sample_space,
    train_critic,
)

TINY = 1e-12
laws = settings(max_examples=50, deadline=None)
XOR = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]]) / 4
NOISY = SkillWorld(skills=2, distractors=3, follow=0.5, clarity=0.7, reliability=0.6, sensor=0.8)


@st.composite
def tables(draw, dimensions: int = 3) -> np.ndarray:
    """Distributions with zeros, ties and all sizes from 1 to 3."""
    shape = tuple(draw(st.integers(1, 3)) for _ in range(dimensions))
    size = int(np.prod(shape))
    weights = draw(
        st.lists(st.integers(0, 9), min_size=size, max_size=size).filter(lambda each: sum(each) > 0)
    )
    return np.array(weights, dtype=float).reshape(shape) / sum(weights)


@st.composite
def pairs(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two distributions over the same values."""
    stacked = draw(tables(2).filter(lambda each: (each.sum(axis=1) > 0).all()))
    p, q = stacked[0], stacked[-1]
    return p / p.sum(), q / q.sum()


# ---- closed forms ----


def test_closed_forms():
    assert entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8))
    copy = np.diag([0.25, 0.75])
    assert mutual_information(copy, 0, 1) == pytest.approx(entropy([0.25, 0.75]))
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert interaction_information(XOR, 0, 1, 2) == pytest.approx(-np.log(2))
    assert interaction_information(np.einsum("i,ij,ik->ijk", p, *[np.eye(2)] * 2), 0, 1, 2) == (
        pytest.approx(np.log(2))
    )


def test_mutual_information_is_the_divergence_from_independence():
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(12)).reshape(3, 4)
    product = np.outer(table.sum(1), table.sum(0))
    assert mutual_information(table, 0, 1) == pytest.approx(kl_divergence(table, product))


def test_conditional_information_averages_over_what_is_known():
    rng = np.random.default_rng(1)
    table = rng.dirichlet(np.ones(24)).reshape(2, 3, 4)
    by_value = [
        weight * mutual_information(table[:, :, z] / weight, 0, 1)
        for z, weight in enumerate(table.sum(axis=(0, 1)))
    ]
    assert mutual_information(table, 0, 1, given=2) == pytest.approx(sum(by_value))


# ---- identities and bounds, for any distribution ----


@laws
@given(tables())
def test_entropy_is_between_nothing_and_the_uniform(table):
    for axis in range(3):
        assert -TINY <= entropy(table, axis) <= np.log(table.shape[axis]) + TINY
    assert entropy(table, (0, 1)) <= entropy(table) + TINY
    assert entropy(table) <= sum(entropy(table, axis) for axis in range(3)) + TINY


@laws
@given(tables())
def test_information_is_symmetric_not_negative_and_bounded(table):
    for x, y, z in itertools.permutations(range(3)):
        information = mutual_information(table, x, y, given=z)
        assert information >= -TINY
        assert information == pytest.approx(mutual_information(table, y, x, given=z), abs=TINY)
        assert -TINY <= mutual_information(table, x, y)
        assert mutual_information(table, x, y) <= min(entropy(table, x), entropy(table, y)) + TINY


@laws
@given(tables())
def test_chain_rule(table):
    both = mutual_information(table, 0, (1, 2))
    one_by_one = mutual_information(table, 0, 1) + mutual_information(table, 0, 2, given=1)
    assert both == pytest.approx(one_by_one, abs=TINY)
    assert entropy(table) == pytest.approx(
        entropy(table, 0) + entropy(table, (1, 2)) - both, abs=TINY
    )


@laws
@given(tables())
def test_interaction_information_is_symmetric_and_at_most_each_pairs(table):
    value = interaction_information(table, 0, 1, 2)
    for x, y, z in itertools.permutations(range(3)):
        assert value == pytest.approx(interaction_information(table, x, y, z), abs=TINY)
        assert value <= mutual_information(table, x, y) + TINY
        assert value >= -mutual_information(table, x, y, given=z) - TINY


@laws
@given(st.integers(0, 2**32 - 1))
def test_it_is_never_negative_if_one_pair_is_independent_given_the_third(seed):
    """A fork x <- z -> y: what is left is I(x; y), and the same holds for a chain x -> z -> y."""
    rng = np.random.default_rng(seed)
    cause = rng.dirichlet(np.full(3, 0.3))
    to_x, to_y = rng.dirichlet(np.full(4, 0.3), (2, 3))
    fork = np.einsum("z,zx,zy->xyz", cause, to_x, to_y)
    chain = np.einsum("x,xz,zy->xyz", rng.dirichlet(np.ones(4)), to_x[[0, 1, 2, 0]][:, :3], to_y)
    chain /= chain.sum()
    for table in (fork, chain):
        value = interaction_information(table, 0, 1, 2)
        assert value == pytest.approx(mutual_information(table, 0, 1), abs=TINY)


def test_a_hidden_common_cause_allows_every_sign():
    """Four hidden states, three variables that are independent given them: XOR."""
    hidden = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    table = sum(np.einsum("i,j,k->ijk", *np.eye(2)[bits]) for bits in hidden) / 4
    assert interaction_information(table, 0, 1, 2) == pytest.approx(-np.log(2))


@laws
@given(tables(4))
def test_axes_count_from_either_end_and_in_any_order(table):
    assert mutual_information(table, (0, 1), (-2, 3)) == mutual_information(table, (1, 0), (3, 2))


# ---- the K-sample contrast ----


def guess_by_enumeration(p, q, num_samples):
    """I(position; candidates) from all tuples of candidates."""
    joint = np.array(
        [
            [
                np.prod([(p if j == position else q)[each] for j, each in enumerate(candidates)])
                for candidates in itertools.product(range(len(p)), repeat=num_samples)
            ]
            for position in range(num_samples)
        ]
    )
    return mutual_information(joint / num_samples, 0, 1)


@laws
@given(pairs())
def test_contrast_is_the_information_about_the_position(pair):
    p, q = pair
    expected = [guess_by_enumeration(p, q, k) for k in (1, 2, 3, 4)]
    assert_allclose(contrast_information(p, q, [1, 2, 3, 4]), expected, atol=1e-10)


@laws
@given(pairs())
def test_contrast_rises_and_stays_below_log_k_and_the_divergence(pair):
    p, q = pair
    k = [1, 2, 5, 30, 1000]
    values = contrast_information(p, q, k)
    assert (np.diff(values) >= -1e-9).all()
    assert (values <= np.log(k) + 1e-9).all()
    assert (values <= kl_divergence(p, q) + 1e-9).all()


def test_contrast_reaches_the_divergence():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    assert contrast_information(p, q, [10**6])[0] == pytest.approx(kl_divergence(p, q), abs=1e-5)
    assert_allclose(contrast_information([1.0, 0.0], [0.0, 1.0], [2, 50]), np.log([2, 50]))


# ---- the world ----


def test_the_world_is_its_graph():
    """Probabilities by hand for one path through the graph, and what each link decides."""
    table = NOISY.table()
    assert table.sum() == pytest.approx(1)
    same, other = (1 + 0.5) / 2, 0.3 / 2  # skill = kind; shown /= skill
    reading = 0.2 / 3
    succeeds = (1 + 0.6) / 2
    # kind 1, distractor 2, skill 1, shown 0, success, reading 0
    assert table[1, 2, 1, 0, 1, 0] == pytest.approx(1 / 6 * same * other * succeeds * reading)
    # kind 1, skill 0: fails with the same probability
    assert table[1, 2, 0, 1, 0, 0] == pytest.approx(1 / 6 * (1 - same) * other * succeeds * reading)
    assert mutual_information(table, 5, (0, 2, 3, 4)) == pytest.approx(0, abs=TINY)
    assert mutual_information(table, 3, (0, 4), given=SKILL) == pytest.approx(0, abs=TINY)


def test_skill_aware_information_leaves_distractors_out():
    values = {}
    for distractors in (1, 4, 16):
        world = SkillWorld(distractors=distractors, clarity=0.8, reliability=0.7, sensor=1.0)
        table = world.table()
        values[distractors] = (
            mutual_information(table, TASK, TRAJECTORY),
            interaction_information(table, TASK, TRAJECTORY, SKILL),
        )
    plain, aware = zip(*values.values(), strict=True)
    assert_allclose(np.array(plain) - plain[0], np.log([1, 4, 16]), atol=1e-9)
    assert_allclose(aware, aware[0], atol=1e-9)


@pytest.mark.parametrize("follow", [0.0, 0.3, 1.0])
def test_a_shown_skill_makes_it_the_information_between_task_and_skill(follow):
    table = SkillWorld(distractors=2, follow=follow, reliability=0.4).table()
    value = interaction_information(table, TASK, TRAJECTORY, SKILL)
    assert value == pytest.approx(mutual_information(table, TASK, SKILL), abs=1e-9)


def test_good_and_bad_add_up_to_the_behaviour():
    good, bad = NOISY.by_skill()
    right = (1 + NOISY.follow) / 2
    assert_allclose(right * good + (1 - right) * bad, NOISY.given_task(), atol=TINY)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_ranked_trajectories_by_sorting_many(fraction):
    """Exact shares against a ranked sample of 200 000; six standard errors, so p < 1e-6 in all."""
    top, bottom = NOISY.by_return(fraction)
    given_task = NOISY.given_task()
    rng = np.random.default_rng(0)
    n = 200_000
    trajectory = draw(given_task, np.array([4]), n, rng)[0]
    outcome = np.unravel_index(trajectory, (2, 2, 3))[1]
    order = np.lexsort((rng.random(n), -outcome))
    taken = int(fraction * n)
    for exact, chosen in ((top, order[:taken]), (bottom, order[-taken:])):
        counted = np.bincount(trajectory[chosen], minlength=12) / taken
        assert_allclose(counted, exact[4], atol=6 * 0.5 / np.sqrt(taken))
    if fraction == 0.5:
        assert_allclose((top + bottom) / 2, given_task, atol=TINY)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_positives_and_negatives_are_distributions_over_trajectories(estimator):
    positive, negative = positives_and_negatives(NOISY, estimator)
    assert positive.shape == negative.shape == (NOISY.tasks, 2 * 2 * 3)
    assert_allclose(positive.sum(axis=1), 1)
    assert_allclose(negative.sum(axis=1), 1)


def test_limits_of_the_estimators():
    table = NOISY.table()
    limit = {name: contrast_limit(*positives_and_negatives(NOISY, name)) for name in ESTIMATORS}
    information = mutual_information(table, TASK, TRAJECTORY)
    assert limit["infonce"] == pytest.approx(information)
    assert limit["infonce_other"] > information
    # Skill and outcome tell good from bad independently, and the reading does not.
    evidence = [
        0.7 * np.log((1 + 0.7) / (1 - 0.7)),
        0.6 * np.log((1 + 0.6) / (1 - 0.6)),
    ]
    assert limit["sance"] == pytest.approx(sum(evidence))
    good, bad = NOISY.by_skill()
    split = np.mean([kl_divergence(p, good.mean(axis=0)) for p in good])
    split += kl_divergence(good.mean(axis=0), bad.mean(axis=0))
    assert limit["sa_infonce"] == pytest.approx(split)


def test_other_tasks_alone_are_no_marginal():
    """Without noise, two tasks: log K for every K, however little there is to know."""
    world = SkillWorld(skills=2, follow=1.0)
    positive, negative = positives_and_negatives(world, "infonce_other")
    assert_allclose(expected_contrast(positive, negative, [2, 64]), np.log([2, 64]))
    assert mutual_information(world.table(), TASK, TRAJECTORY) == pytest.approx(np.log(2))


def test_sample_spaces_are_definition_2():
    world = SkillWorld(skills=2, distractors=5)
    counts = {name: sample_space(world, name, trajectories=7) for name in ESTIMATORS}
    expected = {"infonce": 140, "infonce_other": 140, "sance": 14, "sa_infonce": 77}
    assert counts == expected


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_scatter_around_their_expectation(estimator):
    """40 batches; six standard errors of their mean, so a false alarm in 10^8 runs."""
    positive, negative = positives_and_negatives(NOISY, estimator)
    critic = torch.from_numpy(best_critic(positive, negative))
    rng = np.random.default_rng(0)
    for k in (2, 16):
        estimates = [
            estimate_contrast(critic, positive, negative, k, 400, rng).item() for _ in range(40)
        ]
        error = np.std(estimates, ddof=1) / np.sqrt(40)
        expected = expected_contrast(positive, negative, [k])[0]
        assert abs(np.mean(estimates) - expected) < 6 * error
        assert max(estimates) <= np.log(k)


def test_a_trained_critic_comes_close_to_the_best_and_not_above():
    positive, negative = positives_and_negatives(NOISY, "sance")
    rng = np.random.default_rng(0)
    critic = train_critic(positive, negative, 8, rng, steps=150, batch=128)
    trained = estimate_contrast(critic, positive, negative, 8, 40_000, rng).item()
    best = expected_contrast(positive, negative, [8])[0]
    assert 0.95 * best < trained < best + 0.02


def test_the_librarys_sance_has_this_expectation_within_one_task():
    """All pairs of a positive and a negative, weighted by their probabilities."""
    positive, negative = (each[:1] for each in NOISY.by_skill())
    query = torch.from_numpy(best_critic(positive, negative))  # (1, trajectories)
    keys = torch.eye(12, dtype=torch.float64)
    expected = sum(
        -positive[0, i] * negative[0, j]
        * sance(query, keys[[i]], keys[[j]], temperature=1.0, weight="none").item()
        for i, j in itertools.product(range(12), repeat=2)
    )  # fmt: skip
    assert expected == pytest.approx(expected_contrast(positive, negative, [2])[0])


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: entropy(0.5), "single number"),
        (lambda: entropy([0.5, 0.4]), "adds up to 0.9"),
        (lambda: entropy([1.5, -0.5]), "negative"),
        (lambda: entropy([np.nan, 1.0]), "non-finite"),
        (lambda: entropy(XOR, 3), "0 to 2"),
        (lambda: mutual_information(XOR, 0, (1, 1)), r"y is \(1, 1\)"),
        (lambda: mutual_information(XOR, 0, 1, given=(1, 2)), "y and given share axis 1"),
        (lambda: interaction_information(XOR, 0, 0, 1), "x and y share axis 0"),
        (lambda: kl_divergence([1.0], [0.5, 0.5]), "same values"),
        (lambda: contrast_information([1.0], [0.5, 0.5], [2]), "same values"),
        (lambda: contrast_information([1.0], [1.0], [0]), "whole numbers"),
        (lambda: contrast_information([1.0], [1.0], 2), "list"),
        (lambda: SkillWorld(skills=1), "skills is 1"),
        (lambda: SkillWorld(distractors=0), "distractors is 0"),
        (lambda: SkillWorld(sensor=1.1), "sensor is 1.1"),
        (lambda: NOISY.by_return(0.6), "fraction is 0.6"),
        (lambda: positives_and_negatives(NOISY, "nce"), "estimator is 'nce'"),
        (lambda: sample_space(NOISY, "nce"), "estimator is 'nce'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
