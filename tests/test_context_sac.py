"""SAC with an encoder: where gradients flow, what the target sees, what the contrast compares."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save

from sami_tutorial.agents import METHODS, FrozenPolicy, get_method
from sami_tutorial.checkpoint import CheckpointError, policy_bytes
from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.encoder import PEARLEncoder, Start
from sami_tutorial.envs import make_vec
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import SACConfig
from sami_tutorial.sampling import ContrastiveBatch
from sami_tutorial.train import Run, TrainConfig

CUBE = "sami/CubeMove-v0"
S, A, T = 5, 2, 6
SMALL = ContextConfig(hidden=8, embedding_dim=3, contrast_batch=4)


def agent_of(contrast=None, context=SMALL, **settings) -> ContextSAC:
    return ContextSAC(
        S, A, SACConfig(hidden=(8,), discount=0.9), context, contrast=contrast, seed=1, **settings
    )


def episodes(count: int, seed: int, length: int = T) -> Episodes:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(T) < torch.full((count, 1), length)
    return Episodes(
        observation=torch.randn(count, T + 1, S, generator=draw),
        action=torch.rand(count, T, A, generator=draw) * 2 - 1,
        reward=torch.randn(count, T, generator=draw),
        terminated=torch.zeros(count, T),
        mask=mask,
        context=torch.zeros(count, 1),
    )


def contrast_of(gap: float = 0.5) -> ContrastiveBatch:
    return ContrastiveBatch(episodes(4, 11), episodes(4, 12), episodes(4, 13), torch.tensor(gap))


def flat(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# --- transitions ---------------------------------------------------------------------------------


def test_transitions_pair_each_step_with_its_own_context():
    agent = agent_of()
    with torch.no_grad():
        for p in agent.momentum_encoder.parameters():
            p.mul_(0.5)  # so that psi and psi* can be told apart
    batch = episodes(3, 0)
    batch = batch._replace(shown=torch.rand(3, T, A))
    drawn = agent.transitions(batch, 400)
    c = agent.encoder(batch.observation, batch.action, batch.reward).detach()
    slow = agent.momentum_encoder(batch.observation, batch.action, batch.reward)
    found = set()
    for row in range(400):
        (e, t) = (batch.reward == drawn.reward[row]).nonzero()[0].tolist()
        found.add((e, t))
        now = torch.cat([batch.observation[e, t], c[e, t]])
        later = torch.cat([batch.observation[e, t + 1], slow[e, t + 1]])
        assert torch.allclose(drawn.observation[row], now, atol=1e-6)
        assert torch.allclose(drawn.next_observation[row], later, atol=1e-6)
        assert torch.equal(drawn.action[row], batch.action[e, t])
        assert torch.equal(drawn.shown[row], batch.shown[e, t])
    assert len(found) == 3 * T  # every step can be drawn
    assert drawn.observation.requires_grad and not drawn.next_observation.requires_grad


def test_padding_is_never_drawn_and_changes_no_loss():
    batch = episodes(3, 0, length=4)
    dirty = batch._replace(
        observation=batch.observation.clone(),
        action=batch.action.clone(),
        reward=batch.reward.clone(),
    )
    dirty.observation[:, 5:] = 1e3
    dirty.action[:, 4:] = 1e3
    dirty.reward[:, 4:] = 1e3
    clean, padded = (agent_of().update(each, 64) for each in (batch, dirty))
    assert padded.keys() == clean.keys()
    for name in clean:
        assert torch.allclose(clean[name], padded[name], atol=1e-6), name


def test_the_mean_over_drawn_steps_estimates_the_masked_mean():
    """Losses divided by the mask's sum; 20 000 draws, tolerance over five standard errors."""
    batch = episodes(8, 0)._replace(mask=torch.rand(8, T) < 0.5)
    masked_mean = (batch.reward * batch.mask).sum() / batch.mask.sum()
    drawn = agent_of().transitions(batch, 20_000)
    assert abs(drawn.reward.mean() - masked_mean) < 0.04


# --- gradients -----------------------------------------------------------------------------------


def test_the_critics_loss_moves_the_encoder_and_the_actors_does_not():
    agent = agent_of()
    batch = agent.transitions(episodes(8, 0), 64)
    start = flat(agent.encoder)
    critic_loss, _ = agent.critic_loss(batch)
    agent.step("critic", critic_loss)
    moved = flat(agent.encoder)
    assert not torch.equal(start, moved)
    fresh = agent.transitions(episodes(8, 0), 64)
    actor_loss, _ = agent.actor_loss(fresh.observation.detach())
    with pytest.raises(RuntimeError):  # c is held fixed: no path from the actor's loss to it
        torch.autograd.grad(actor_loss, list(agent.encoder.parameters()), retain_graph=True)
    agent.step("actor", actor_loss)
    assert torch.equal(flat(agent.encoder), moved)


def test_in_an_update_the_actor_is_given_c_as_a_constant():
    """No step would move the encoder anyway, but nothing may ask autograd for a way to it."""
    agent, given = agent_of("satesac"), []

    def watched(original):
        def call(observation, *rest):
            given.append(observation)
            return original(observation, *rest)

        return call

    agent.actor_loss, agent.unlikeness = watched(agent.actor_loss), watched(agent.unlikeness)
    batch = episodes(8, 0)._replace(shown=torch.zeros(8, T, A))
    agent.update(batch, 32, contrast_of(), imitation=0.5)
    assert [x.shape for x in given] == [(32, S + SMALL.embedding_dim)] * 2
    assert not any(x.requires_grad for x in given)


def test_update_is_its_parts_in_order():
    """Steps by hand, with the same random numbers, give the same weights."""
    agent = agent_of("satesac", ContextConfig(hidden=8, embedding_dim=3, contrast_weight=0.7))
    by_hand = copy.deepcopy(agent)
    by_hand.optimizers = {
        name: torch.optim.Adam(
            [
                {"params": list(p)}
                for p in (
                    [by_hand.critic.parameters(), by_hand.encoder.parameters()]
                    if name == "critic"
                    else [by_hand.actor.parameters()]
                    if name == "actor"
                    else [[by_hand.log_temperature]]
                )
            ],
            lr=agent.config.learning_rate,
            fused=True,
        )
        for name in agent.optimizers
    }
    by_hand.generator.set_state(agent.generator.get_state())
    slow, target = flat(agent.momentum_encoder), flat(agent.target)
    batch, contrast = episodes(8, 0), contrast_of()
    agent.update(batch, 32, contrast)

    steps = by_hand.transitions(batch, 32)
    q = by_hand.critic(steps.observation, steps.action)
    y = by_hand.bellman_target(steps)
    critic_loss = ((q - y) ** 2).mean(dim=1).sum()
    loss = critic_loss + 0.7 * by_hand.contrastive_loss(contrast)
    by_hand.step("critic", loss)
    actor_loss, log_prob = by_hand.actor_loss(steps.observation.detach())
    by_hand.step("actor", actor_loss)
    by_hand.step("temperature", by_hand.temperature_loss(log_prob))
    for name in ("encoder", "critic", "actor"):
        ours, theirs = flat(getattr(agent, name)), flat(getattr(by_hand, name))
        assert torch.allclose(ours, theirs, atol=1e-6), name
    assert torch.allclose(agent.log_temperature, by_hand.log_temperature)
    # psi* <- m psi + (1 - m) psi*, with the psi of after the step
    assert torch.allclose(flat(agent.momentum_encoder), 0.05 * flat(agent.encoder) + 0.95 * slow)
    # Q' <- tau Q + (1 - tau) Q', with the Q of after the step
    tau = agent.config.target_rate
    assert torch.allclose(flat(agent.target), tau * flat(agent.critic) + (1 - tau) * target)


@pytest.mark.parametrize("windowed", [False, True])
def test_imitation_moves_the_actor_alone_and_only_where_something_is_shown(windowed):
    batch = episodes(3, 0)
    if windowed:
        start = Start(torch.zeros(3, A), torch.zeros(3), (torch.zeros(3, 8), torch.zeros(3, 8)))
        batch = batch._replace(start=start)
    taught = batch._replace(shown=torch.rand(3, T, A) * 2 - 1)
    plain, none, unseen, some = (agent_of() for _ in range(4))
    plain.update(batch, 16)
    none.update(taught, 16, imitation=0.0)
    unseen.update(batch, 16, imitation=0.5)
    some.update(taught, 16, imitation=0.5)
    for agent in (none, unseen):
        assert torch.equal(flat(agent.actor), flat(plain.actor))
    assert not torch.equal(flat(some.actor), flat(plain.actor))
    for part in ("critic", "encoder"):
        assert torch.equal(flat(getattr(some, part)), flat(getattr(plain, part)))


def test_a_frozen_encoder_stays_as_it_was_born():
    agent = agent_of(train_encoder=False)
    assert not any(p.requires_grad for p in agent.encoder.parameters())  # no way back is kept
    start = flat(agent.encoder), flat(agent.critic)
    agent.update(episodes(8, 0), 64)
    assert torch.equal(flat(agent.encoder), start[0])
    assert torch.allclose(flat(agent.momentum_encoder), start[0])
    assert not torch.equal(flat(agent.critic), start[1])


# --- the contrast --------------------------------------------------------------------------------


def contrast_by_hand(agent: ContextSAC, batch: ContrastiveBatch, steps: int) -> float:
    """Every similarity in a plain loop, in double precision."""

    def embed(encoder, of: Episodes) -> np.ndarray:
        with torch.no_grad():
            c = encoder(of.observation, of.action, of.reward)[:, steps]
        return c.double().numpy()

    query = embed(agent.encoder, batch.query)
    positive = embed(agent.momentum_encoder, batch.positive)
    negatives = embed(agent.momentum_encoder, batch.negatives)
    total, distance = 0.0, 0.0
    for q, p in zip(query, positive, strict=True):
        to_positive = math.exp(q @ p / agent.context.temperature)
        to_negatives = sum(math.exp(q @ n / agent.context.temperature) for n in negatives)
        total += math.log(to_positive / (to_positive + to_negatives)) / len(query)
        distance += sum(math.dist(q, n) for n in negatives) / len(query) / len(negatives)
    if agent.contrast == "ccm":
        return -total
    if agent.context.skill_weight == "return_gap":
        return -min(max(float(batch.reward_gap), 0), 1) * total
    weight = {"min": min(distance, 1), "max": max(distance, 1), "none": 1}
    return -weight[agent.context.skill_weight] * (math.log(len(negatives) + 1) + total)


@pytest.mark.parametrize("contrast", ["ccm", "satesac", "saccm"])
@pytest.mark.parametrize("skill_weight", ["min", "max", "none", "return_gap"])
def test_contrast_against_a_loop(contrast, skill_weight):
    context = ContextConfig(hidden=8, embedding_dim=3, skill_weight=skill_weight)
    agent = agent_of(contrast, context)
    with torch.no_grad():
        for p in agent.momentum_encoder.parameters():
            p.mul_(3)
    batch = contrast_of()
    values = [contrast_by_hand(agent, batch, steps) for steps in range(1, T + 1)]
    seen = set()
    for _ in range(40):
        loss = float(agent.contrastive_loss(batch).detach())
        (nearest,) = np.argsort(np.abs(np.array(values) - loss))[:1]
        assert loss == pytest.approx(values[nearest], abs=1e-5)
        seen.add(int(nearest))
    assert seen == set(range(T))  # every length from one step to the whole episode is drawn


def test_the_contrast_moves_psi_alone():
    agent = agent_of("satesac")
    loss = agent.contrastive_loss(contrast_of())
    inputs = list(agent.encoder.parameters())
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, inputs, retain_graph=True)[:4])
    others = [*agent.critic.parameters(), *agent.actor.parameters()]
    assert all(g is None for g in torch.autograd.grad(loss, others, allow_unused=True))
    assert not any(p.requires_grad for p in agent.momentum_encoder.parameters())


def test_the_codes_weight_is_a_share_between_zero_and_one():
    context = ContextConfig(hidden=8, embedding_dim=3, loss="bce", skill_weight="return_gap")
    losses = {}
    for gap in (-5.0, 0.5, 5.0, 50.0):
        losses[gap] = float(
            agent_of("satesac", context).contrastive_loss(contrast_of(gap)).detach()
        )
    assert losses[-5.0] == 0
    assert losses[5.0] == losses[50.0] > 0
    assert losses[0.5] == pytest.approx(losses[5.0] / 2)
    always = agent_of("ccm", context)  # between tasks there is no good and bad to weigh
    assert float(always.contrastive_loss(contrast_of(-5.0)).detach()) > 0


# --- standardised observations -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sac", "oracle", "tesac", "satesac", "pearl"])
def test_standardised_agents_do_not_care_about_units(method, monkeypatch):
    """Metres or centimetres, the same weights and the same actions come out."""
    from sami_tutorial.envs import cube

    config = TrainConfig(
        CUBE,
        method=method,
        steps=1000,
        num_envs=4,
        warmup_steps=640,
        batch_size=32,
        sac=SACConfig(hidden=(8,), standardize=True),
        context=ContextConfig(episodes=4, hidden=8),
    )

    def trained():
        run = Run(config)
        for _ in run.rounds():
            pass
        return run

    plain = trained()
    observe = cube.observe
    scale = np.array([2, 4, 0.5, 8, 16], np.float32)  # powers of two: exact in floating point
    monkeypatch.setattr(cube, "observe", lambda *state: observe(*state) * scale)
    scaled = trained()
    assert torch.allclose(flat(plain.agent.actor), flat(scaled.agent.actor), atol=1e-4)
    assert torch.allclose(plain.replay.action, scaled.replay.action, atol=1e-3)
    assert not torch.equal(plain.agent.standardize.std, torch.ones(1))


def test_standardisation_is_fitted_to_the_warm_up():
    config = TrainConfig(
        CUBE, num_envs=4, steps=700, warmup_steps=640, sac=SACConfig(hidden=(8,), standardize=True)
    )
    run = Run(config)
    rounds = run.rounds()
    for _ in range(4):
        next(rounds)
    seen = run.replay.observation[:16, :40].reshape(-1, 5)
    run.update()
    assert torch.allclose(run.agent.standardize(seen).mean(0), torch.zeros(5), atol=0.05)
    assert torch.allclose(run.agent.standardize(seen).std(0), torch.ones(5), atol=0.05)
    run.updates = 0
    run.agent.standardize.std.fill_(7.0)
    run.batch()
    assert (run.agent.standardize.std == 7).all()  # to draw a batch changes no agent


# --- acting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["random", "tesac", "satesac"])
def test_acting_and_training_see_the_same_context(method):
    config = TrainConfig(
        CUBE, method=method, num_envs=3, warmup_steps=3, steps=240, context=SMALL,
        sac=SACConfig(hidden=(8,), standardize=True), update_every=1000,
    )  # fmt: skip
    run = Run(config)
    seen = []
    observe, begin = run.agent.observe, run.agent.begin

    def recorded(original):
        def call(*arguments):
            original(*arguments)
            seen.append(run.agent.memory.embedding.clone())

        return call

    run.agent.observe, run.agent.begin = recorded(observe), recorded(begin)
    next(run.rounds())
    batch = run.replay.episodes(torch.arange(3))
    with torch.no_grad():
        c = run.agent.encoder(batch.observation, batch.action, batch.reward)
    assert torch.allclose(torch.stack(seen, dim=1), c, atol=1e-6)


@pytest.mark.parametrize("name", ["tesac", "saccm", "pearl"])
def test_a_stored_policy_remembers_like_its_agent(name):
    config = TrainConfig(CUBE, method=name, context=SMALL, sac=SACConfig(hidden=(8, 6)))
    agent = get_method(name).make_agent(S, A, config.sac, config.context, seed=3)
    agent.standardize.fit(torch.randn(50, S) * 3 + 1)
    policy = FrozenPolicy(policy_bytes(agent.policy(), config.to_json()))
    env = make_vec(CUBE, 4)
    actions = []
    for each in (agent, policy.agent):
        each.generator.manual_seed(0)
    for each in (agent, policy):
        observation, _ = env.reset(seed=0)
        each.begin(observation)
        taken = []
        for _ in range(10):
            taken.append(each.act(observation))
            observation, reward, *_ = env.step(taken[-1])
            each.observe(taken[-1], reward, observation)
        actions.append(np.stack(taken))
    assert np.array_equal(*actions)


def test_a_foreign_policy_file_is_refused():
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        FrozenPolicy(b"not a policy")


@pytest.mark.parametrize("missing", ["encoder.head.weight", "standardize.mean", "actor"])
def test_a_policy_without_some_of_its_weights_is_refused(missing):
    config = TrainConfig(CUBE, method="tesac", context=SMALL, sac=SACConfig(hidden=(8,)))
    agent = get_method("tesac").make_agent(S, A, config.sac, config.context, seed=3)
    weights = agent.policy().state_dict()
    rest = {name: each for name, each in weights.items() if not name.startswith(missing)}
    assert len(rest) < len(weights)
    content = save(rest, metadata={"config": config.to_json()})
    with pytest.raises(CheckpointError, match=missing):
        FrozenPolicy(content)
    foreign = save({**weights, "critic.bias": torch.zeros(1)}, {"config": config.to_json()})
    with pytest.raises(CheckpointError, match=r"has \['critic.bias'\]"):
        FrozenPolicy(foreign)


def test_methods_differ_only_by_composition():
    for name, method in METHODS.items():
        agent = method.make_agent(S, A, SACConfig(hidden=(8,)), SMALL, 0)
        assert isinstance(agent, ContextSAC) == (name not in ("sac", "oracle"))
        if isinstance(agent, ContextSAC):
            expected = name if name in ("ccm", "satesac", "saccm") else None
            assert agent.contrast == expected
            in_optimizer = len(agent.optimizers["critic"].param_groups) == 2
            assert in_optimizer == (name != "random")
            assert isinstance(agent.encoder, PEARLEncoder) == (name == "pearl")


def test_pearls_belief_is_drawn_to_the_prior():
    context = ContextConfig(hidden=8, embedding_dim=3, kl_weight=0.5)
    agent = agent_of(context=context, encoder_class=PEARLEncoder)
    batch = episodes(4, 0, length=4)
    loss, metrics = agent.encoder_loss(batch, None)
    belief = agent.encoder.belief(batch.observation, batch.action, batch.reward)
    kl = belief.kl_from_standard().detach()
    by_hand = [float(kl[e, t]) for e in range(4) for t in range(1, 5)]
    assert float(metrics["kl"]) == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(0.5 * np.mean(by_hand), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("episodes", 0),
        ("hidden", 0),
        ("contrast_batch", -1),
        ("episodes", 1.5),
        ("contrast_weight", -0.1),
        ("contrast_weight", math.nan),
        ("kl_weight", math.inf),
        ("momentum", 0),
        ("temperature", 0),
        ("temperature", math.nan),
        ("fraction", 0.7),
        ("loss", "hinge"),
        ("skill_weight", "mean"),
        ("same_task", "seed"),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        ContextConfig(**{name: value})


def test_the_sigmoid_loss_has_no_distance_weight():
    with pytest.raises(ValueError, match="skill_weight is 'min'"):
        ContextConfig(loss="bce")
