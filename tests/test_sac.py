"""The points of soft actor-critic that are easily got wrong, one test each."""

import copy
import math

import numpy as np
import pytest
import torch

from sami_tutorial.nets import MLP, Actor, Critic, Linear, tanh_gaussian_log_prob
from sami_tutorial.sac import SAC, SACConfig, Transitions

S, A, B = 5, 3, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_agent(**changes) -> SAC:
    return SAC(S, A, SACConfig(hidden=(16, 16), **changes), seed=0)


def make_batch(seed: int = 1, size: int = B) -> Transitions:
    g = generator(seed)
    return Transitions(
        observation=torch.randn(size, S, generator=g),
        action=torch.rand(size, A, generator=g) * 2 - 1,
        reward=torch.randn(size, generator=g),
        next_observation=torch.randn(size, S, generator=g),
        terminated=(torch.rand(size, generator=g) < 0.5).float(),
    )


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


# --- 1. bootstrap through truncation, never through termination -------------------------------


def learned_value(terminated_at_limit: bool, discount: float = 0.8) -> float:
    """Q after training on a one-state task with reward 1 whose episodes are cut after one step."""
    # With a temperature this small there is no entropy bonus, and the plain value is known.
    config = SACConfig((32,), learning_rate=1e-2, discount=discount, target_rate=0.2,
                       initial_temperature=1e-9)  # fmt: skip
    agent = SAC(1, 1, config)
    g = generator()
    for _ in range(400):
        agent.update(
            Transitions(
                observation=torch.ones(32, 1),
                action=torch.rand(32, 1, generator=g) * 2 - 1,
                reward=torch.ones(32),
                next_observation=torch.ones(32, 1),
                terminated=torch.full((32,), float(terminated_at_limit)),
            )
        )
    with torch.no_grad():
        return float(agent.critic(torch.ones(1, 1), torch.zeros(1, 1)).mean())


def test_value_of_an_endless_task_cut_by_a_time_limit():
    assert learned_value(terminated_at_limit=False) == pytest.approx(1 / (1 - 0.8), rel=0.05)


def test_the_same_task_called_terminated_is_worth_one_reward():
    assert learned_value(terminated_at_limit=True) == pytest.approx(1.0, rel=0.05)


def test_bellman_target_by_hand():
    agent, batch = make_agent(discount=0.9), make_batch()
    state = agent.generator.get_state()
    target = agent.bellman_target(batch)

    agent.generator.set_state(state)  # replay the same noise
    with torch.no_grad():
        mean, log_std = agent.actor(batch.next_observation)
    noise = torch.empty(B, A).normal_(generator=agent.generator)
    expected = []
    for i in range(B):
        u = [float(mean[i, j] + log_std[i, j].exp() * noise[i, j]) for j in range(A)]
        action = torch.tensor([[math.tanh(x) for x in u]])
        log_pi = sum(
            -0.5 * float(noise[i, j]) ** 2
            - float(log_std[i, j])
            - 0.5 * math.log(2 * math.pi)
            - math.log(1 - math.tanh(u[j]) ** 2)
            for j in range(A)
        )
        q = [float(agent.target(batch.next_observation[i : i + 1], action)[k, 0]) for k in range(2)]
        value = min(q) - 0.2 * log_pi
        expected.append(float(batch.reward[i]) + (0.0 if batch.terminated[i] else 0.9 * value))
    assert target.tolist() == pytest.approx(expected, abs=1e-4)
    assert 0 < batch.terminated.sum() < B  # both kinds were in the batch


def test_the_target_uses_the_target_critics():
    agent, batch = make_agent(), make_batch()
    state = agent.generator.get_state()
    before = agent.bellman_target(batch)
    with torch.no_grad():
        for parameter in agent.critic.parameters():
            parameter.add_(1.0)
    agent.generator.set_state(state)
    assert torch.equal(before, agent.bellman_target(batch))


# --- 3. and 4. the tanh-Gaussian -----------------------------------------------------------------


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5)])
def test_log_prob_integrates_to_one(mean: float, log_std: float):
    pre_tanh = torch.linspace(-12, 12, 100_001, dtype=torch.float64)[:, None]
    action = torch.tanh(pre_tanh).squeeze(-1)
    log_prob = tanh_gaussian_log_prob(
        pre_tanh, torch.full_like(pre_tanh, mean), torch.full_like(pre_tanh, log_std)
    )
    assert float(torch.trapezoid(log_prob.exp(), action)) == pytest.approx(1.0, abs=1e-6)


def test_log_prob_of_a_saturated_action_is_finite_and_right():
    pre_tanh = torch.tensor([[30.0]])
    log_prob = tanh_gaussian_log_prob(pre_tanh, torch.tensor([[30.0]]), torch.tensor([[0.0]]))
    # log(1 - tanh(30)^2) = 2 (log 2 - 30) up to terms of order exp(-60).
    assert float(log_prob) == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 30))


def test_log_prob_of_two_dimensions_is_the_sum():
    u, mean, log_std = torch.randn(3, 4, 2, generator=generator())
    both = tanh_gaussian_log_prob(u, mean, log_std)
    one = tanh_gaussian_log_prob(u[:, :1], mean[:, :1], log_std[:, :1])
    two = tanh_gaussian_log_prob(u[:, 1:], mean[:, 1:], log_std[:, 1:])
    assert both.shape == (4,)
    assert torch.allclose(both, one + two)


def test_log_std_stays_in_range_and_keeps_its_gradient():
    actor = Actor(S, A, (8,), generator())
    with torch.no_grad():
        actor.mlp.layers[-1].bias[..., A:] = 3.0  # well inside the region a hard clamp would cut
    _, log_std = actor(torch.zeros(1, S))
    log_std.sum().backward()
    assert (-5 < log_std).all() and (log_std < 2).all()
    assert (actor.mlp.layers[-1].bias.grad[..., A:] != 0).all()


def test_sampled_actions_have_the_density_they_claim():
    actor, observation = Actor(1, 1, (8,), generator()), torch.zeros(200_000, 1)
    with torch.no_grad():
        actor.mlp.layers[-1].bias[..., 1] = 0.45  # a standard deviation of about 1
        action, log_prob = actor.sample(observation, generator(3))
        # E[1 / pi(a)] over the samples is the length of the interval (-1, 1).
        inside = action.abs().squeeze(-1) < 0.9
        assert float((inside / log_prob.exp()).mean()) == pytest.approx(1.8, rel=0.02)


# --- 5. entropy and shapes -----------------------------------------------------------------------


def test_target_entropy_is_minus_the_number_of_action_dimensions():
    assert make_agent().target_entropy == -3.0
    assert make_agent(target_entropy=-0.5).target_entropy == -0.5


@pytest.mark.parametrize(("entropy_gap", "direction"), [(1.0, -1), (-1.0, 1)])
def test_temperature_falls_when_the_entropy_is_above_its_target(entropy_gap, direction):
    agent = make_agent()
    log_prob = torch.full((B,), -(agent.target_entropy + entropy_gap))
    before = float(agent.temperature)
    agent.step("temperature", agent.temperature_loss(log_prob))
    assert math.copysign(1, float(agent.temperature) - before) == direction


def test_shapes():
    agent, batch = make_agent(), make_batch()
    assert agent.critic(batch.observation, batch.action).shape == (2, B)
    assert agent.bellman_target(batch).shape == (B,)
    assert agent.actor_loss(batch.observation)[1].shape == (B,)
    assert all(value.shape == () for value in agent.update(batch).values())
    assert agent.act(np.zeros((4, S), np.float32)).shape == (4, A)


def test_critic_loss_is_the_mean_of_each_critics_squared_error():
    agent, batch = make_agent(), make_batch()
    state = agent.generator.get_state()
    loss, _ = agent.critic_loss(batch)
    agent.generator.set_state(state)
    y, q = agent.bellman_target(batch), agent.critic(batch.observation, batch.action).detach()
    expected = sum(sum((float(q[k, i]) - float(y[i])) ** 2 for i in range(B)) / B for k in range(2))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


# --- gradient flow -------------------------------------------------------------------------------


def test_each_step_moves_its_own_parameters_only():
    agent, batch = make_agent(), make_batch()
    parts = {"critic": agent.critic, "actor": agent.actor, "target": agent.target}
    losses = {
        "critic": lambda: agent.critic_loss(batch)[0],
        "actor": lambda: agent.actor_loss(batch.observation)[0],
        "temperature": lambda: agent.temperature_loss(agent.actor_loss(batch.observation)[1]),
    }
    for name, loss in losses.items():
        before = {part: weights(module) for part, module in parts.items()}
        temperature = agent.log_temperature.item()
        agent.step(name, loss())
        moved = {p for p, m in parts.items() if not torch.equal(before[p], weights(m))}
        if agent.log_temperature.item() != temperature:
            moved.add("temperature")
        assert moved == {name}


def test_a_step_does_not_depend_on_how_the_gradient_lies_in_memory():
    """Where the input asks for a gradient, too, the first layer's comes with other strides."""
    plain = SAC(4, 2, SACConfig(hidden=(8,)), seed=0)
    traced = SAC(4, 2, SACConfig(hidden=(8,)), seed=0)
    draw = torch.Generator().manual_seed(1)
    observation, action = torch.randn(16, 4, generator=draw), torch.rand(16, 2, generator=draw)
    plain.step("critic", (plain.critic(observation, action) ** 2).sum())
    traced.step("critic", (traced.critic(observation.requires_grad_(), action) ** 2).sum())
    for one, other in zip(plain.critic.parameters(), traced.critic.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_actor_loss_prefers_better_actions():
    """With Q(s, a) = sum(a) and no entropy bonus the policy moves towards a = 1."""
    agent, batch = make_agent(), make_batch(size=64)
    with torch.no_grad():
        agent.log_temperature.fill_(-20.0)
    agent.critic.forward = lambda obs, action: action.sum(-1).expand(2, -1)  # type: ignore
    for _ in range(200):
        agent.step("actor", agent.actor_loss(batch.observation)[0])
    assert agent.act(batch.observation.numpy(), deterministic=True).min() > 0.9


def test_actor_loss_uses_the_smaller_q():
    agent, batch = make_agent(), make_batch()
    bonus = torch.tensor([[0.0], [5.0]])
    agent.critic.forward = lambda obs, action: bonus.expand(2, len(obs))  # type: ignore
    loss, log_prob = agent.actor_loss(batch.observation)
    assert float(loss.detach()) == pytest.approx(0.2 * float(log_prob.mean()), rel=1e-5)


def test_imitation_outweighs_the_critic_if_it_is_to():
    agent, batch = make_agent(learning_rate=3e-3), make_batch(size=64)
    wanted = torch.linspace(-0.5, 0.5, A)
    batch = batch._replace(shown=wanted.expand(64, A))
    agent.critic.forward = lambda obs, action: action.sum(-1).expand(2, -1)  # type: ignore
    with torch.no_grad():
        agent.log_temperature.fill_(-20.0)
    found = {}
    for weight in (0.0, 1.0, 100.0):
        for _ in range(300):
            loss = agent.actor_loss(batch.observation)[0]
            loss = loss + weight * agent.unlikeness(batch.observation, batch.shown)
            agent.step("actor", loss)
        own = torch.as_tensor(agent.act(batch.observation.numpy(), deterministic=True))
        found[weight] = own.mean(dim=0)
    assert (found[0.0] > 0.9).all()  # Q(s, a) = sum(a) wants 1
    assert torch.allclose(found[1.0], (wanted + 0.5).clamp(max=1), atol=0.05)  # where 1 = 2(a - w)
    assert torch.allclose(found[100.0], wanted, atol=0.05)


def test_imitation_moves_the_actor_and_none_of_it_is_sac():
    batch = make_batch()
    taught = batch._replace(shown=torch.rand(B, A) * 2 - 1)
    some, none, plain, unseen = (make_agent() for _ in range(4))
    some.update(taught, 0.5)
    none.update(taught, 0.0)
    plain.update(batch)
    unseen.update(batch, 0.5)  # nothing is shown
    assert torch.equal(weights(none.actor), weights(plain.actor))
    assert torch.equal(weights(unseen.actor), weights(plain.actor))
    assert not torch.equal(weights(some.actor), weights(plain.actor))
    assert torch.equal(weights(some.critic), weights(plain.critic))  # the critic never copies


def test_unlikeness_by_hand_and_blind_to_how_sure_the_actor_is():
    agent, batch = make_agent(), make_batch()
    shown = torch.rand(B, A) * 2 - 1
    mean = agent.act(batch.observation.numpy(), deterministic=True)
    by_hand = sum(float(mean[i, j] - shown[i, j]) ** 2 for i in range(B) for j in range(A))
    found = agent.unlikeness(batch.observation, shown)
    assert float(found.detach()) == pytest.approx(by_hand / B, rel=1e-5)
    last = agent.actor.mlp.layers[-1]
    (gradient,) = torch.autograd.grad(found, [last.weight])  # (.., 2 A): means, then spreads
    means, spreads = gradient.chunk(2, dim=gradient.shape.index(2 * A))
    assert means.abs().sum() > 0 and spreads.abs().sum() == 0


def test_target_critics_move_by_tau():
    agent, batch = make_agent(target_rate=0.25), make_batch()
    before = weights(agent.target)
    agent.update(batch)
    expected = before + 0.25 * (weights(agent.critic) - before)
    assert torch.allclose(weights(agent.target), expected, atol=1e-6)


# --- reproducibility, ensemble, errors ------------------------------------------------------------


def test_same_seed_same_weights_and_another_seed_others():
    def trained(seed: int) -> torch.Tensor:
        agent = SAC(S, A, SACConfig(hidden=(16,)), seed)
        for k in range(5):
            agent.update(make_batch(k))
        return weights(agent)

    global_state = torch.get_rng_state()
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert torch.equal(global_state, torch.get_rng_state())  # the global generator is not touched


def test_ensemble_equals_separate_networks():
    critic = Critic(S, A, (16, 16), generator())
    batch = make_batch()
    together = critic(batch.observation, batch.action)
    for k in range(2):
        alone = copy.deepcopy(critic.q)
        for layer in alone.layers:
            layer.weight = torch.nn.Parameter(layer.weight[k])
            layer.bias = torch.nn.Parameter(layer.bias[k])
        x = torch.cat([batch.observation, batch.action], dim=-1)
        assert torch.allclose(together[k], alone(x).squeeze(-1), atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_linear_equals_pytorchs():
    ours = Linear(4, 2, generator())
    theirs = torch.nn.Linear(4, 2)
    theirs.load_state_dict({"weight": ours.weight.data.T, "bias": ours.bias.data[0]})
    x = torch.randn(6, 4, generator=generator(1))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_mlp_has_no_activation_after_the_last_layer():
    mlp = MLP((S, 8, 1), generator())
    assert (mlp(torch.randn(500, S, generator=generator(1))) < 0).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", ()),
        ("hidden", 256),
        ("hidden", (8, 0)),
        ("hidden", (8.0,)),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("target_entropy", math.nan),
        ("discount", 1.0),
        ("target_rate", 0.0),
        ("initial_temperature", -1.0),
        ("initial_temperature", math.inf),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        SACConfig(**{name: value})
