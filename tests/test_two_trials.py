"""The two-trial test: its data against single environments, its parts against plain references."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from sami_tutorial import two_trials
from sami_tutorial.encoder import ContextEncoder, momentum_copy
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.two_trials import (
    EXPERTS,
    PICK,
    PUSH,
    ContrastSampler,
    EncoderConfig,
    choose_skills,
    draw_tasks,
    embed,
    play,
    success_rate,
    train_encoder,
)


@pytest.fixture(scope="module")
def contexts():
    return draw_tasks(["train"], 2, np.random.default_rng(0), draws=2)


@pytest.fixture(scope="module")
def trials(contexts):
    return play(contexts, 6, distractors=2, seed=5)


def tiny(**settings):
    return EncoderConfig(**({"updates": 3, "tasks": 3, "queries": 2, "hidden": 8} | settings))


# ---------------------------------------------------------------------- data


def test_tasks_come_with_their_own_distractors():
    tasks = draw_tasks(["train", "moderate"], 3, np.random.default_rng(0), draws=4)
    assert len(tasks) == 4 * (15 + 12)
    assert len({tuple(each.values()) for each in tasks}) == len(tasks)
    assert len({(each["mass"], each["friction"]) for each in tasks}) == 27
    assert len(draw_tasks(["train"], 0, np.random.default_rng(0), draws=4)) == 15
    single = draw_tasks(["extreme"], 0, np.random.default_rng(0), one_skill=True)
    assert {str(optimal_skill(c["friction"], c["mass"])) for c in single} == {"push", "pick"}
    assert len(single) == 14


def test_trials_are_what_single_environments_play(contexts, trials):
    rng = np.random.default_rng(1)
    for task, each in zip(rng.integers(30, size=8), rng.integers(6, size=8), strict=True):
        for second in (PUSH, PICK):
            env = gym.make("sami/CubeMove-v0", distractors=2, trials=2)
            seed = 5 + int(task) * 6 + int(each)
            observation, _ = env.reset(seed=seed, options={"context": contexts[task]})
            skill, rewards = int(trials.skill[task, each]), []
            for t in range(80):
                if t <= 40:
                    assert np.array_equal(observation, trials.observation[task, each, t])
                action = EXPERTS[skill if t < 40 else second](observation)
                if t < 40:
                    assert np.array_equal(action, trials.action[task, each, t])
                observation, reward, _, _, info = env.step(action)
                rewards.append(reward)
            assert np.allclose(rewards[:40], trials.reward[task, each])
            assert sum(rewards[:40]) == pytest.approx(trials.returns[task, each].item(), abs=1e-4)
            later = trials.next_returns[task, each, second].item()
            assert sum(rewards[40:]) == pytest.approx(later, abs=1e-4)
            happened = [trials.success[task, each].item()]
            happened.append(trials.next_success[task, each, second].item())
            assert info["trial_success"].tolist() == happened


def test_skills_are_balanced_in_every_task_and_succeed_where_the_closed_form_says(contexts, trials):
    assert (trials.skill.sum(dim=1) == 3).all()
    works = [str(optimal_skill(c["friction"], c["mass"])) for c in contexts]
    possible = torch.tensor([[w in ("push", "both"), w in ("pick", "both")] for w in works])
    assert torch.equal(trials.next_success, possible[:, None].expand(-1, 6, -1))
    assert torch.equal(trials.success, possible.gather(1, trials.skill))
    mostly = play(contexts[:2], 10, distractors=2, seed=0, push_share=0.9)
    assert ((mostly.skill == PUSH).sum(dim=1) == 9).all()


def test_a_moved_camera_shifts_positions_alike_within_a_task_and_nothing_else(trials):
    moved = two_trials.move_camera(trials, 0.5, np.random.default_rng(0))
    shift = moved.observation - trials.observation
    assert (shift[..., :4] == 0).all()
    offset = shift[:, :1, :1, 4]
    assert torch.allclose(shift[..., 4], offset.expand_as(shift[..., 4]), atol=1e-6)
    assert len(offset.unique()) == 30 and -0.5 < offset.min() < -0.3 and 0.3 < offset.max() < 0.5
    for name in set(trials._fields) - {"observation"}:
        assert torch.equal(getattr(moved, name), getattr(trials, name))
    with pytest.raises(ValueError, match=r"spread is -0\.1"):
        two_trials.move_camera(trials, -0.1, np.random.default_rng(0))


# ---------------------------------------------------------------------- contrasts


@pytest.mark.parametrize("objective", ["ccm", "satesac", "saccm"])
def test_every_part_is_played_by_whom_it_should_and_by_all_of_them(trials, objective):
    config = tiny(objective=objective, num_samples=5, tasks=7, queries=3)
    sampler = ContrastSampler(trials, config, torch.Generator().manual_seed(0))
    order = (
        trials.returns.argsort(dim=1, descending=True, stable=True) + 6 * torch.arange(30)[:, None]
    )
    good = [set(row.tolist()) for row in order[:, :3]]
    bad = [set(row.tolist()) for row in order[:, 3:]]
    every = [g | b for g, b in zip(good, bad, strict=True)]
    seen: dict[str, set] = {"query": set(), "positive": set(), "negatives": set()}
    own, draws = 0, 0
    for _ in range(300):
        contrast = sampler.draw()
        assert contrast.query.shape == contrast.positive.shape == (7, 3)
        assert contrast.negatives.shape == (7, 4)
        task = contrast.query[:, 0] // 6
        assert len(task.unique()) == 7
        assert (contrast.query // 6 == task[:, None]).all()
        assert (contrast.positive // 6 == task[:, None]).all()
        assert (contrast.query != contrast.positive).all()
        same = contrast.negatives // 6 == task[:, None]
        own, draws = own + int(same.sum()), draws + same.numel()
        for name, values in contrast._asdict().items():
            seen[name] |= set(values.flatten().tolist())
    if objective == "ccm":
        assert own == 0
    elif objective == "satesac":
        assert own == draws
    else:  # any task: a share of 1/30 of 8400, sigma 0.002
        assert own / draws == pytest.approx(1 / 30, abs=0.008)
    pool, others = (every, every) if objective == "ccm" else (good, bad)
    # 300 draws of 21 queries among at most 180: none is left out but for chance exp(-35).
    assert seen["query"] == seen["positive"] == set().union(*pool)
    assert seen["negatives"] == set().union(*others)


def test_both_ways_gives_the_bad_their_turn(trials):
    config = tiny(both_ways=True, tasks=7, queries=3)
    sampler = ContrastSampler(trials, config, torch.Generator().manual_seed(0))
    good = set(sampler.alike.flatten().tolist())
    turns = []
    for _ in range(60):
        contrast = sampler.draw()
        task = contrast.query[:, :1] // 6
        for part in contrast:
            assert (part // 6 == task).all()
        sides = [torch.tensor([[int(i) in good for i in row] for row in part]) for part in contrast]
        assert torch.equal(sides[0].all(dim=1), sides[0].any(dim=1))  # all queries on one side,
        assert torch.equal(sides[1].all(dim=1), sides[0][:, 0])  # positives on the same,
        assert torch.equal(~sides[2].any(dim=1), sides[0][:, 0])  # negatives on the other
        assert (contrast.query != contrast.positive).all()
        turns += sides[0][:, 0].tolist()
    assert 0.4 < np.mean(turns) < 0.6  # 420 coins: 4 sigma are 0.1


def test_shuffled_returns_make_good_and_bad_meaningless(trials):
    """With ranks by chance the good are as good as the bad, here within 4 sigma over 30 tasks."""
    honest, shuffled = (
        ContrastSampler(trials, tiny(shuffle_returns=s), torch.Generator().manual_seed(0))
        for s in (False, True)
    )
    returns = trials.returns.flatten()
    gap = [(returns[s.alike] - returns[s.others]).mean(dim=1) for s in (honest, shuffled)]
    assert (gap[0] > 0).all()
    assert abs(gap[1].mean()) < 4 * gap[1].std() / math.sqrt(30)
    for sampler in (honest, shuffled):
        assert not set(sampler.alike.flatten().tolist()) & set(sampler.others.flatten().tolist())


def reference_loss(encoder, key_encoder, trials, contrast, config):
    """The contrast in plain loops: a query, its positive, and the negatives of its task."""

    def c(by, trial):
        task, each = divmod(int(trial), trials.skill.shape[1])
        parts = (trials.observation, trials.action, trials.reward)
        return by(*(x[task, each][None] for x in parts))[0, -1].double()

    def similarity(a, b):
        norm = a.norm() * b.norm() if config.normalize else 1
        return (a @ b / norm / config.temperature).item()

    tasks = []
    for queries, positives, negatives in zip(*contrast, strict=True):
        values, distances = [], []
        for query, positive in zip(queries, positives, strict=True):
            q, k = c(encoder, query), c(key_encoder, positive)
            others = [c(key_encoder, n) for n in negatives]
            plus = math.exp(similarity(q, k))
            total = plus + sum(math.exp(similarity(q, n)) for n in others)
            values.append(math.log(config.num_samples * plus / total))
            distances += [(q - n).norm().item() for n in others]
        weight = min(np.mean(distances), 1) if config.weight == "min" else 1
        tasks.append(-weight * np.mean(values))
    return np.mean(tasks)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "ccm", "normalize": True},
        {"objective": "ccm", "normalize": False, "temperature": 0.3},
        {"objective": "satesac", "normalize": True, "weight": "none"},
        {"objective": "satesac", "normalize": False, "weight": "min"},
        {"objective": "saccm", "normalize": True, "weight": "min", "num_samples": 2},
    ],
)
def test_the_loss_equals_plain_loops_and_reaches_the_encoder_only(trials, settings):
    config = tiny(**settings)
    generator = torch.Generator().manual_seed(2)
    encoder = ContextEncoder(5, 2, generator, hidden=8)
    key_encoder = momentum_copy(ContextEncoder(5, 2, generator, hidden=8))
    contrast = ContrastSampler(trials, config, generator).draw()
    loss = two_trials._contrastive_loss(encoder, key_encoder, trials, contrast, config)
    with torch.no_grad():
        expected = reference_loss(encoder, key_encoder, trials, contrast, config)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert all(p.grad is None for p in key_encoder.parameters())


# ---------------------------------------------------------------------- regressions


def test_the_critic_regresses_the_discounted_rest_of_the_trial(trials):
    """A head that answers zero has the mean squared target for a loss: a sum by hand."""

    class Zero(torch.nn.Module):
        def forward(self, x):
            assert x.shape == (2, 40, 5 + 2 + 6)
            return x[..., :1] * 0

    encoder = ContextEncoder(5, 2, torch.Generator().manual_seed(0), hidden=8)
    chosen = torch.tensor([0, 7])
    loss = two_trials._critic_loss(encoder, Zero(), trials, chosen)
    targets = [
        sum(0.95**k * trials.reward[task, each, t + k].item() for k in range(40 - t))
        for task, each in ((0, 0), (1, 1))
        for t in range(40)
    ]
    assert loss.item() == pytest.approx(np.mean(np.square(targets)), rel=1e-5)


def test_the_outlook_is_the_return_under_the_skill_it_is_told(trials):
    class Zero(torch.nn.Module):
        def forward(self, x):
            self.skills = x[:, :2]
            return x[:, :1] * 0

    head, chosen = Zero(), torch.tensor([0, 1, 8, 9])
    encoder = ContextEncoder(5, 2, torch.Generator().manual_seed(0), hidden=8)
    loss = two_trials._outlook_loss(encoder, head, trials, chosen)
    second = head.skills.argmax(dim=1)
    assert second.tolist() == [0, 1, 0, 1]
    returns = trials.next_returns.flatten(0, 1)[chosen, second]
    assert loss.item() == pytest.approx((returns**2).mean().item(), rel=1e-5)


@pytest.mark.parametrize("objective", ["critic", "outlook"])
def test_a_regression_learns(trials, objective):
    _, losses = train_encoder(trials, tiny(objective=objective, updates=40, queries=8), 0)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


# ---------------------------------------------------------------------- training


def test_an_encoder_without_updates_is_the_one_that_was_drawn(trials):
    encoder, losses = train_encoder(trials, tiny(updates=0), 3)
    drawn = ContextEncoder(5, 2, torch.Generator().manual_seed(3), hidden=8)
    assert losses == []
    assert torch.equal(embed(encoder, trials), embed(drawn, trials))


def test_a_seed_makes_an_encoder_and_watch_sees_every_update(trials):
    seen = []
    runs = [train_encoder(trials, tiny(), seed, lambda _, n: seen.append(n)) for seed in (1, 1, 2)]
    assert seen == [1, 2, 3] * 3
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert torch.equal(embed(runs[0][0], trials), embed(runs[1][0], trials))


def test_the_embedding_is_that_of_the_trial_at_the_next_start(trials):
    encoder = ContextEncoder(5, 2, torch.Generator().manual_seed(0), hidden=8)
    c = encoder(trials.observation[3, 1:2], trials.action[3, 1:2], trials.reward[3, 1:2])
    assert torch.allclose(embed(encoder, trials)[3, 1], c[0, 40], atol=1e-6)


def test_a_contrast_learns_what_it_is_asked():
    """Eight tasks whose number is written into the observation, loudly: InfoNCE must read it."""
    tasks = draw_tasks(["train"], 0, np.random.default_rng(0))[:8]
    trials = play(tasks, 4, distractors=0, seed=0)
    number = torch.tensor([[(i >> bit & 1) * 2.0 - 1 for bit in range(3)] for i in range(8)])
    trials.observation[..., :3] = number[:, None, None]
    config = EncoderConfig(objective="ccm", updates=60, hidden=16)
    encoder, losses = train_encoder(trials, config, 0)
    assert losses[0] > -0.7  # the best is -log 4 = -1.39
    assert np.mean(losses[-10:]) < -1.2
    c = torch.nn.functional.normalize(embed(encoder, trials), dim=-1)  # (8, 4, D)
    similarity = torch.einsum("imd,jnd->ijmn", c, c).mean(dim=(2, 3))
    assert (similarity.argmax(dim=1) == torch.arange(8)).all()


# ---------------------------------------------------------------------- the decision


def test_choices_equal_a_search_in_plain_loops(trials):
    rng = np.random.default_rng(0)
    known = torch.from_numpy(rng.normal(size=(30, 6, 3)) * [1, 10, 0.1])
    new = torch.from_numpy(rng.normal(size=(4, 2, 3)) * [1, 10, 0.1])
    flat = known.reshape(-1, 3).numpy()
    scale = flat.std(axis=0, ddof=1)
    chosen = choose_skills(known, trials, new, neighbors=7)
    for i, j in np.ndindex(4, 2):
        distance = [np.linalg.norm((new[i, j].numpy() - row) / scale) for row in flat]
        earned = np.zeros(2)
        for neighbor in np.argsort(distance)[:7]:
            task = neighbor // 6
            for s in (PUSH, PICK):
                earned[s] += trials.returns[task][trials.skill[task] == s].mean().item()
        assert chosen[i, j] == earned.argmax()


def test_who_knows_the_task_succeeds_and_who_knows_nothing_does_not(contexts):
    rng = np.random.default_rng(0)
    train = play(contexts, 4, distractors=2, seed=0)
    tasks = draw_tasks(["moderate"], 2, rng, draws=2, one_skill=True)
    test = play(tasks, 4, distractors=2, seed=900)

    def what_works(some):
        names = [str(optimal_skill(each["friction"], each["mass"])) for each in some]
        code = torch.tensor([[name == "push", name == "pick"] for name in names])
        return code[:, None].expand(-1, 4, 2).double()

    known, new = what_works(contexts), what_works(tasks)
    assert success_rate(test, choose_skills(known, train, new, 5)) == 1
    nothing = torch.zeros(len(contexts), 4, 2), torch.zeros(len(tasks), 4, 2)
    assert success_rate(test, choose_skills(nothing[0], train, nothing[1], 5)) == 0.5
    # The next start tells nothing either: with 64 trials 4 sigma are 0.25.
    starts = train.observation[:, :, 40], test.observation[:, :, 40]
    assert abs(success_rate(test, choose_skills(starts[0], train, starts[1], 5)) - 0.5) < 0.25


def test_success_rate_by_hand(trials):
    pushing = success_rate(trials, torch.zeros(30, 6, dtype=torch.int64))
    assert pushing == pytest.approx(trials.next_success[..., PUSH].double().mean().item())
    assert pushing == pytest.approx(2 / 3)
    best = trials.next_success.long().argmax(dim=-1)
    assert success_rate(trials, best) == 1


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"objective": "tesac"}, "objective is 'tesac'.*satesac"),
        ({"num_samples": 1}, "num_samples is 1"),
        ({"updates": -1}, "updates is -1"),
        ({"tasks": 0}, "tasks is 0"),
        ({"queries": 0}, "queries is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"both_ways": True, "objective": "ccm"}, "both_ways is set, but objective is 'ccm'"),
        ({"weight": "mni"}, "weight is 'mni'"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"sigmoid": True, "weight": "max"}, "weight is 'max', which the sigmoid loss"),
    ],
)
def test_bad_settings_are_rejected_by_name(settings, named):
    with pytest.raises(ValueError, match=named):
        EncoderConfig(**settings)


def test_bad_arguments_are_rejected_by_name(contexts, trials):
    with pytest.raises(ValueError, match="contexts has 0 entries"):
        play([], 4, distractors=2, seed=0)
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(ValueError, match="push_share"):
            play(contexts[:1], 4, distractors=2, seed=0, push_share=share)
    with pytest.raises(ValueError, match="1 is good"):
        play_two = play(contexts[:3], 2, distractors=2, seed=0)
        train_encoder(play_two, tiny(), 0)
    with pytest.raises(ValueError, match="trials holds one task"):
        train_encoder(play(contexts[:1], 4, distractors=2, seed=0), tiny(objective="ccm"), 0)
    known = torch.zeros(30, 6, 3)
    with pytest.raises(ValueError, match=r"known has shape \(30, 5, 3\)"):
        choose_skills(known[:, 1:], trials, known)
    with pytest.raises(ValueError, match=r"new \(30, 6, 2\)"):
        choose_skills(known, trials, known[..., 1:])
    for neighbors in (0, 181):
        with pytest.raises(ValueError, match=f"neighbors is {neighbors}"):
            choose_skills(known, trials, known, neighbors=neighbors)
