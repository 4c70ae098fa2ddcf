"""Encoders: acting and training see the same c, nothing looks ahead, padding changes nothing."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_tutorial.encoder import (
    ContextEncoder,
    Gaussian,
    PEARLEncoder,
    history,
    momentum_copy,
)
from sami_tutorial.nets import soft_update

S, A, D = 3, 2, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def episodes(count: int, steps: int, seed: int = 1):
    draw = generator(seed)
    return (
        torch.randn(count, steps + 1, S, generator=draw),
        torch.randn(count, steps, A, generator=draw),
        torch.randn(count, steps, generator=draw),
    )


def lstm(**changes) -> ContextEncoder:
    return ContextEncoder(S, A, generator(), hidden=8, embedding_dim=D, **changes)


def test_history_by_hand():
    observation, action, reward = episodes(2, 3)
    rows = history(observation, action, reward)
    for e in range(2):
        assert torch.equal(rows[e, 0], torch.cat([observation[e, 0], torch.zeros(A + 1)]))
        for t in range(1, 4):
            past = torch.cat([observation[e, t], action[e, t - 1], reward[e, t - 1, None]])
            assert torch.equal(rows[e, t], past)


def test_history_needs_one_observation_more_than_actions():
    observation, action, reward = episodes(2, 3)
    with pytest.raises(ValueError, match="observation holds 3 times and action 3"):
        history(observation[:, 1:], action, reward)


@pytest.mark.parametrize("kind", [ContextEncoder, PEARLEncoder])
def test_step_by_step_equals_the_whole_sequence(kind):
    encoder = kind(S, A, generator(), hidden=8, embedding_dim=D)
    observation, action, reward = episodes(5, 7)
    if kind is PEARLEncoder:  # compare the beliefs, not two draws from them
        encoder.draw = lambda belief: belief.mean + 10 * belief.variance
    with torch.no_grad():
        whole = encoder(observation, action, reward)
        memory = encoder.initial_memory(5)
        previous = torch.zeros(5, A), torch.zeros(5)
        for t in range(8):
            c, memory = encoder.step(observation[:, t], *previous, memory)
            assert torch.allclose(c, whole[:, t], atol=1e-6)
            if t < 7:
                previous = action[:, t], reward[:, t]
    assert whole.std() > 1e-3  # not a constant


@pytest.mark.parametrize("kind", [ContextEncoder, PEARLEncoder])
@settings(max_examples=20, deadline=None)
@given(t=st.integers(0, 5), seed=st.integers(0, 100))
def test_c_does_not_depend_on_what_comes_later(kind, t, seed):
    """Neither on the future nor on the padding behind an episode's end."""
    encoder = kind(S, A, generator(), hidden=8, embedding_dim=D)
    one, other = episodes(3, 6, seed), [x.clone() for x in episodes(3, 6, seed)]
    other[0][:, t + 1 :] = 99.0
    other[1][:, t:] = -99.0
    other[2][:, t:] = 99.0

    def c(of):
        if kind is PEARLEncoder:
            encoder.generator.manual_seed(0)
        return encoder(*of)

    assert torch.allclose(c(one)[:, : t + 1], c(other)[:, : t + 1], atol=1e-6)
    assert not torch.allclose(c(one)[:, t + 1], c(other)[:, t + 1], atol=1e-3)


def test_lstm_forgets_nothing_at_once_and_starts_from_zero():
    encoder = lstm()
    hidden, cell = encoder.initial_memory(4)
    assert hidden.shape == cell.shape == (4, 8)
    assert not hidden.any() and not cell.any()
    observation, action, reward = episodes(1, 6)
    c = encoder(observation.requires_grad_(), action, reward)
    (to_first,) = torch.autograd.grad(c[0, -1].sum(), observation)
    assert to_first[0, 0].abs().max() > 0


def test_order_matters_to_the_lstm_and_not_to_pearl():
    observation, action, reward = episodes(1, 4)
    constant = torch.zeros_like(observation)  # so that transitions can be permuted at all
    order = torch.tensor([2, 0, 3, 1])
    pearl = PEARLEncoder(S, A, generator(), hidden=8, embedding_dim=D)

    def last(of_encoder, index):
        return of_encoder(constant, action[:, index], reward[:, index])[0, -1]

    straight = torch.arange(4)
    belief = [pearl.belief(constant, action[:, i], reward[:, i]) for i in (straight, order)]
    assert torch.allclose(belief[0].mean[0, -1], belief[1].mean[0, -1], atol=1e-6)
    assert torch.allclose(belief[0].variance[0, -1], belief[1].variance[0, -1], atol=1e-6)
    assert not torch.allclose(last(lstm(), straight), last(lstm(), order), atol=1e-4)


def test_pearl_multiplies_the_densities_of_prior_and_votes():
    """The product of Gaussian densities, evaluated on a grid and normalised."""
    pearl = PEARLEncoder(S, A, generator(), hidden=8, embedding_dim=1)
    observation, action, reward = (x.double() for x in episodes(1, 3))
    pearl.double()
    precision, weighted = pearl.votes(observation[:, :-1], action, reward, observation[:, 1:])
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    log_density = -0.5 * z**2
    for p, w in zip(precision.flatten(), weighted.flatten(), strict=True):
        log_density = log_density - 0.5 * p * (z - w / p) ** 2
    density = log_density.exp() / log_density.exp().sum()
    mean = (density * z).sum()
    belief = pearl.belief(observation, action, reward)
    assert torch.allclose(belief.mean[0, -1, 0], mean, atol=1e-6)
    variance = (density * (z - mean) ** 2).sum()
    assert torch.allclose(belief.variance[0, -1, 0], variance, atol=1e-6)
    assert belief.mean[0, 0, 0] == 0 and belief.variance[0, 0, 0] == 1  # nothing seen: the prior


def test_kl_from_standard_by_sampling():
    """100 000 draws; the tolerance is more than six standard errors."""
    belief = Gaussian(torch.tensor([0.7, -0.2]), torch.tensor([0.5, 2.0]))
    own = torch.distributions.Normal(belief.mean, belief.variance.sqrt())
    draws = belief.mean + belief.variance.sqrt() * torch.randn(100_000, 2, generator=generator())
    ratio = own.log_prob(draws) - torch.distributions.Normal(0.0, 1.0).log_prob(draws)
    assert abs(belief.kl_from_standard() - ratio.sum(1).mean()) < 0.03


@pytest.mark.parametrize("kind", [ContextEncoder, PEARLEncoder])
def test_momentum_copy_follows_without_gradient(kind):
    encoder = kind(S, A, generator(), hidden=8, embedding_dim=D)
    slow = momentum_copy(encoder)
    assert not any(p.requires_grad for p in slow.parameters())
    assert getattr(slow, "generator", None) is getattr(encoder, "generator", None)
    before = copy.deepcopy(slow)
    with torch.no_grad():
        for p in encoder.parameters():
            p += 1
    soft_update(slow, encoder, 0.05)
    for start, now in zip(before.parameters(), slow.parameters(), strict=True):
        assert torch.allclose(now, start + 0.05)  # m theta + (1 - m) theta* with theta - theta* = 1


@pytest.mark.parametrize("kind", [ContextEncoder, PEARLEncoder])
def test_weights_come_from_the_generator_alone(kind):
    torch.manual_seed(0)
    one = kind(S, A, generator(5))
    torch.manual_seed(1)
    two = kind(S, A, generator(5))
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("kind", [ContextEncoder, PEARLEncoder])
@pytest.mark.parametrize("name", ["hidden", "embedding_dim"])
def test_bad_widths_are_named(kind, name):
    with pytest.raises(ValueError, match=f"{name} is 0; give a positive"):
        kind(S, A, generator(), **{name: 0})
