"""Windows of long episodes: where they begin, what they remember, how they are compared."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.contrastive import sance
from sami_tutorial.encoder import ContextEncoder, PEARLEncoder, Start
from sami_tutorial.replay import Replay
from sami_tutorial.sac import SACConfig
from sami_tutorial.sampling import (
    NotEnoughTrajectories,
    contrastive_batch,
    held_out_batch,
    split_by_return,
)
from sami_tutorial.train import Run, TrainConfig, train

CUBE = "sami/CubeMove-v0"
HORIZON, WINDOW = 12, 4
SMALL = ContextConfig(episodes=5, window=10, hidden=8, contrast_batch=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replay_of(tasks: list[list[int]], returns: list[list[float]], last: int = HORIZON) -> Replay:
    """Rounds of episodes; slot, time and a running number can be read from what is stored.

    Observation (slot, t), action t + 100, reward such that it sums to the return, memory (slot, t)
    and its negative. The last round has ``last`` steps.
    """
    n = len(tasks[0])
    replay = Replay(len(tasks) * n * HORIZON, n, HORIZON, 2, 1, 1, window=WINDOW, memory_dim=2)
    for number, (contexts, totals) in enumerate(zip(tasks, returns, strict=True)):
        slots = torch.arange(n) + number * n

        def state(t: int, slots: torch.Tensor = slots) -> torch.Tensor:
            return torch.stack([slots, torch.full_like(slots, t)], dim=1).float()

        replay.start_episodes(state(0).numpy(), np.array(contexts, np.float32)[:, None])
        for t in range(last if number == len(tasks) - 1 else HORIZON):
            if t % WINDOW == 0:
                replay.remember((state(t), -state(t)))
            action = np.full((n, 1), 100 + t, np.float32)
            reward = np.array(totals) / HORIZON
            replay.add(action, reward, state(t + 1).numpy(), np.zeros(n, bool))
    return replay


# --- in the replay -------------------------------------------------------------------------------


def test_a_window_is_a_piece_of_its_episode():
    replay = replay_of([[0, 1], [1, 0]], [[12.0, 24.0], [36.0, 48.0]])
    slots, number = torch.tensor([3, 0, 2]), torch.tensor([2, 0, 1])
    batch = replay.windows(slots, number)
    whole = replay.episodes(slots)
    for i, first in enumerate((8, 0, 4)):
        steps, times = slice(first, first + WINDOW), slice(first, first + WINDOW + 1)
        assert torch.equal(batch.observation[i], whole.observation[i, times])
        for name in ("action", "reward", "terminated", "mask"):
            assert torch.equal(getattr(batch, name)[i], getattr(whole, name)[i, steps])
        hidden, cell = batch.start.memory
        assert hidden[i].tolist() == [float(slots[i]), float(first)]
        assert torch.equal(cell, -hidden)
        before = (107.0, 4.0) if first == 8 else (103.0, 3.0) if first == 4 else (0.0, 0.0)
        assert (batch.start.action[i].item(), batch.start.reward[i].item()) == before


def test_only_full_windows_are_sampled_each_as_often():
    replay = replay_of([[0, 1], [1, 0]], [[1.0, 2.0], [3.0, 4.0]], last=WINDOW + 3)
    batch = replay.sample_windows(8000, generator())
    first = batch.observation[:, 0].int()
    seen, counts = first.unique(dim=0, return_counts=True)
    everything = [[slot, t] for slot in (0, 1) for t in (0, 4, 8)] + [[2, 0], [3, 0]]
    assert sorted(seen.tolist()) == sorted(everything)
    # Eight windows, 1000 draws each: five standard deviations are 148.
    assert (counts - 1000).abs().max() < 148


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    window=st.integers(1, 3),
    per_episode=st.integers(1, 3),
    capacity=st.integers(1, 40),
    data=st.data(),
)
def test_sampled_windows_never_cross_an_episode_or_the_write_head(
    num_envs, window, per_episode, capacity, data
):
    """Every number says its episode and its time: 100 times the episode, plus the time."""
    horizon = window * per_episode
    lengths = data.draw(st.lists(st.integers(1, horizon), min_size=1, max_size=8))
    replay = Replay(capacity, num_envs, horizon, 1, 1, 1, window=window, memory_dim=1)
    for number, length in enumerate(lengths):
        episode = np.arange(num_envs, dtype=np.float32)[:, None] + number * num_envs
        replay.start_episodes(100 * episode, episode)
        for t in range(length):
            now = 100 * episode + t
            if t % window == 0:
                replay.remember((torch.from_numpy(now), -torch.from_numpy(now)))
            replay.add(now + 0.25, now[:, 0] + 0.5, now + 1, np.full(num_envs, t == length - 1))
    rounds = len(replay.length) // num_envs
    ends = {
        number * num_envs + i: length
        for number, length in list(enumerate(lengths))[-rounds:]
        for i in range(num_envs)
    }
    stored = {(e, w) for e, length in ends.items() for w in range(length // window)}
    if not stored:
        with pytest.raises(ValueError, match="no full window"):
            replay.sample_windows(1, generator())
        return
    batch = replay.sample_windows(100, generator())
    assert batch.mask.all()
    for i in range(100):
        e = int(batch.context[i])
        first = int(batch.observation[i, 0]) - 100 * e
        assert first % window == 0 and (e, first // window) in stored
        times = 100.0 * e + first + torch.arange(window + 1)
        assert torch.equal(batch.observation[i, :, 0], times)
        assert torch.equal(batch.action[i, :, 0], times[:-1] + 0.25)
        assert torch.equal(batch.reward[i], times[:-1] + 0.5)
        last = [t == ends[e] - 1 for t in range(first, first + window)]
        assert batch.terminated[i].bool().tolist() == last
        before = times[0] - 1 if first else None
        assert batch.start.action[i].item() == (0 if before is None else before + 0.25)
        assert batch.start.reward[i].item() == (0 if before is None else before + 0.5)
        hidden, cell = (each[i].item() for each in batch.start.memory)
        assert hidden == times[0] and cell == -times[0]


def test_no_window_yet_and_windows_that_do_not_fit():
    replay = replay_of([[0, 1]], [[1.0, 2.0]], last=WINDOW - 1)
    with pytest.raises(ValueError, match="no full window"):
        replay.sample_windows(2, generator())
    for window in (5, -1):
        with pytest.raises(ValueError, match=f"window is {window}; give a divisor"):
            Replay(100, 2, HORIZON, 2, 1, 1, window=window)


# --- in training ---------------------------------------------------------------------------------


def run_of(method: str = "tesac", context: ContextConfig = SMALL, **changes) -> Run:
    return Run(config_of(method, context, **changes))


def config_of(method: str = "tesac", context: ContextConfig = SMALL, **changes) -> TrainConfig:
    settings = TrainConfig(
        CUBE, method=method, num_envs=12, warmup_steps=8 * 480, steps=10 * 480, update_every=8,
        context=context, sac=SACConfig(hidden=(8,)),
    )  # fmt: skip
    return replace(settings, **changes)


def test_a_window_goes_on_where_the_encoder_was_when_acting():
    run = run_of(steps=480, warmup_steps=480, update_every=1000)
    next(run.rounds())
    slots = torch.arange(12)
    whole = run.replay.episodes(slots)
    encoder = run.agent.encoder
    with torch.no_grad():
        expected = encoder(whole.observation, whole.action, whole.reward)  # (12, 41, D)
        for number in range(4):
            batch = run.replay.windows(slots, torch.full((12,), number))
            c = encoder(batch.observation, batch.action, batch.reward, batch.start)
            times = slice(10 * number, 10 * number + 11)
            torch.testing.assert_close(c, expected[:, times], atol=1e-6, rtol=1e-5)
            if number:
                forgetful = encoder(batch.observation, batch.action, batch.reward)
                assert not torch.allclose(forgetful, expected[:, times], atol=1e-3)


def test_all_steps_of_a_window_are_trained_on():
    run = run_of()
    agent = run.agent
    rounds = run.rounds()
    for _ in range(8):
        next(rounds)
    batch = run.replay.sample_windows(5, generator())
    with torch.no_grad():
        for p in agent.momentum_encoder.parameters():
            p.mul_(0.5)  # so that psi and psi* can be told apart
    batch = batch._replace(shown=torch.rand(5, 10, 2))
    steps = agent.transitions(batch, batch_size=3)
    inputs = batch.observation, batch.action, batch.reward, batch.start
    c, target = agent.encoder(*inputs), agent.momentum_encoder(*inputs)
    assert steps.reward.shape == (50,)
    assert torch.equal(steps.shown, batch.shown.reshape(50, 2))
    for e, t in ((0, 0), (2, 7), (4, 9)):
        i = 10 * e + t
        assert torch.allclose(steps.observation[i], torch.cat([batch.observation[e, t], c[e, t]]))
        after = torch.cat([batch.observation[e, t + 1], target[e, t + 1]])
        assert torch.allclose(steps.next_observation[i], after)
        assert steps.reward[i] == batch.reward[e, t]
        assert torch.equal(steps.action[i], batch.action[e, t])


def test_pearl_and_an_odd_horizon_have_no_windows():
    with pytest.raises(ValueError, match=r"context.window is 10.*'pearl' reads whole episodes"):
        config_of("pearl")
    with pytest.raises(ValueError, match="window is 7; give a divisor of the horizon, 40 steps"):
        run_of(context=replace(SMALL, window=7))
    start = Start(torch.zeros(1, 2), torch.zeros(1), ())
    with pytest.raises(ValueError, match="start is given, but PEARL"):
        PEARLEncoder(5, 2, generator())(
            torch.zeros(1, 3, 5), torch.zeros(1, 2, 2), torch.zeros(1, 2), start
        )


# --- the contrast --------------------------------------------------------------------------------

TASKS = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] * 2
RETURNS = [[float((7 * i + 3 * j) % 24) for j in range(3)] for i in range(8)]


@pytest.mark.parametrize("method", ["ccm", "satesac", "saccm"])
def test_windows_are_compared_at_the_same_time_or_at_any(method):
    replay = replay_of(TASKS, RETURNS)

    def times(phase: str, seed: int) -> set[int]:
        batch = contrastive_batch(replay, method, 6, generator(seed), phase=phase)
        return {int(t) for each in batch[:3] for t in each.observation[:, 0, 1]}

    matched = [times("matched", seed) for seed in range(20)]
    assert all(len(each) == 1 for each in matched)
    assert set.union(*matched) == {0, 4, 8}
    assert times("free", 0) == {0, 4, 8}
    with pytest.raises(ValueError, match="phase is 'any'; choose 'matched' or 'free'"):
        times("any", 0)


def test_the_gap_is_that_of_whole_episodes_per_step():
    """With one reward at all times of an episode, windows of any length tell the same gap."""
    replay = replay_of(TASKS, RETURNS)
    batch = contrastive_batch(replay, "satesac", 6, generator())
    gap = batch.query.reward.mean() - batch.negatives.reward.mean()
    assert batch.query.reward.shape == (6, WINDOW)
    assert float(batch.reward_gap) == pytest.approx(float(gap), abs=1e-5)
    context = replace(SMALL, hidden=2, embedding_dim=2, skill_weight="return_gap")
    agents = [
        ContextSAC(2, 1, SACConfig(hidden=(4,)), each, contrast="satesac", seed=1)
        for each in (context, replace(context, skill_weight="none"))
    ]
    # Small enough to be no share that is cut off at 1.
    batch = batch._replace(reward_gap=torch.tensor(0.25))
    weighted, plain = (float(each.contrastive_loss(batch).detach()) for each in agents)
    assert weighted == pytest.approx(0.25 * (math.log(7) + plain), rel=1e-4)


@pytest.mark.parametrize("method", ["ccm", "satesac", "saccm"])
def test_held_out_queries_are_new_and_their_keys_are_not(method):
    tasks, returns = [*TASKS, [0, 1, 2]], [*RETURNS, [100.0, 0.0, -100.0]]
    replay = replay_of(tasks, returns)
    task = torch.tensor(tasks).flatten()
    total = torch.tensor(returns).flatten()

    def ends(e: int) -> tuple[set[int], set[int]]:
        slots = (task[:24] == e).nonzero().squeeze(-1)
        good, bad = split_by_return(total[slots])
        return set(slots[good].tolist()), set(slots[bad].tolist())

    queries = set()
    for seed in range(20):
        batch = held_out_batch(replay, method, 5, generator(seed))
        slot = [each.observation[:, 0, 0].int() for each in batch]
        time = [each.observation[:, 0, 1].int() for each in batch]
        assert torch.equal(time[0], time[1])
        assert torch.equal(time[0].repeat_interleave(5), time[2])
        assert torch.equal(slot[2] < 24, torch.ones(len(slot[2]), dtype=torch.bool))
        for i, query in enumerate(slot[0].tolist()):
            queries.add(query)
            own = int(task[query])
            against = set(slot[2][5 * i : 5 * i + 5].tolist())
            if method == "ccm":
                assert task[slot[1][i]] == own and slot[1][i] < 24
                assert all(task[each] != own for each in against)
            else:
                assert int(slot[1][i]) in ends(own)[0]
                tasks_of_bad = [own] if method == "satesac" else [0, 1, 2]
                assert against <= set.union(*(ends(e)[1] for e in tasks_of_bad))
    # The episode of return 100 is good in its task; 0 and -100 are not.
    assert queries == ({24, 25, 26} if method == "ccm" else {24})


def test_nothing_to_hold_out():
    first = replay_of([[0, 1, 2]] * 5, [[1.0, 2.0, 3.0]] * 4 + [[0.0, 0.0, 0.0]])
    with pytest.raises(NotEnoughTrajectories, match="none of the newest episodes"):
        held_out_batch(first, "satesac", 3, generator())
    with pytest.raises(ValueError, match="method is 'tesac'"):
        held_out_batch(first, "tesac", 3, generator())


class Reader(ContextEncoder):
    """Reads its embedding from the observation."""

    def forward(self, observation, action, reward, start=None):
        return observation


@pytest.mark.parametrize(("right", "expected"), [(True, 1.0), (False, 0.0)])
def test_accuracy_by_hand(right, expected):
    replay = replay_of(TASKS, RETURNS)
    batch = held_out_batch(replay, "ccm", 4, generator())
    ahead = torch.tensor([1.0, 0.0]).expand_as(batch.query.observation)
    away = torch.zeros_like(batch.negatives.observation)
    same = ahead if right else -ahead
    batch = batch._replace(
        query=batch.query._replace(observation=ahead),
        positive=batch.positive._replace(observation=same),
        negatives=batch.negatives._replace(observation=away),
    )
    agent = ContextSAC(2, 1, SACConfig(hidden=(4,)), replace(SMALL, embedding_dim=2))
    agent.encoder = agent.momentum_encoder = Reader(2, 1, generator(), 4, 2)
    assert agent.held_out_accuracy(batch) == expected


def test_of_several_negatives_one_is_enough_to_mislead():
    replay = replay_of(TASKS, RETURNS)
    batch = held_out_batch(replay, "ccm", 4, generator())
    count = len(batch.query.reward)
    query = torch.tensor([1.0, 0.0]).expand_as(batch.query.observation)
    negative = torch.zeros_like(batch.negatives.observation)
    negative[3::4] = torch.tensor([2.0, 0.0])  # the last key of each query
    negative[3] = 0.0  # but for the first query
    batch = batch._replace(
        query=batch.query._replace(observation=query),
        positive=batch.positive._replace(observation=query),
        negatives=batch.negatives._replace(observation=negative),
    )
    agent = ContextSAC(2, 1, SACConfig(hidden=(4,)), replace(SMALL, embedding_dim=2))
    agent.encoder = agent.momentum_encoder = Reader(2, 1, generator(), 4, 2)
    assert float(agent.held_out_accuracy(batch)) == pytest.approx(1 / count)


def warmed(method: str, context: ContextConfig) -> Run:
    run = run_of(method, context)
    rounds = run.rounds()
    for _ in range(8):
        next(rounds)
    return run


def moved(run: Run, contrast) -> dict[str, bool]:
    """Which networks one update changes beyond what it changes without the contrast."""
    batch = run.sequences(generator(1))
    outcomes = []
    for each in (contrast, None):
        copy = run_of(run.config.method, run.config.context)
        copy.agent.load_state_dict(run.agent.state_dict())
        copy.agent.update(batch, 16, each)
        outcomes.append(copy.agent.state_dict())
    return {
        part: any(
            not torch.equal(outcomes[0][name], outcomes[1][name])
            for name in outcomes[0]
            if name.startswith(part)
        )
        for part in ("encoder", "momentum_encoder", "critic")
    }


def test_an_optimiser_step_of_its_own_moves_the_encoder_and_not_the_critic():
    run = warmed("satesac", replace(SMALL, contrast_rate=1e-3))
    contrast = run.contrast(generator())
    assert moved(run, contrast) == {"encoder": True, "momentum_encoder": True, "critic": False}


def test_an_optimiser_step_of_its_own_has_no_weight():
    with pytest.raises(ValueError, match=r"contrast_weight is 0.5, .* set contrast_weight 1, or"):
        replace(SMALL, contrast_rate=1e-3, contrast_weight=0.5)


def test_how_the_contrast_begins():
    run = warmed("satesac", SMALL)
    contrast = run.contrast(generator())
    stored = run.agent.contrastive_loss(contrast)
    run.agent.context = replace(SMALL, contrast_start="zero")
    zero = run.agent.contrastive_loss(contrast)
    assert stored != zero

    def end(encoder, episodes):
        return encoder(episodes.observation, episodes.action, episodes.reward)[:, -1]

    keys = (end(run.agent.momentum_encoder, each) for each in contrast[1:3])
    assert torch.allclose(zero, sance(end(run.agent.encoder, contrast.query), *keys))


def test_contrasts_come_at_their_interval():
    run = warmed("ccm", replace(SMALL, contrast_every=3))
    due = []
    for run.updates in range(7):
        due.append(run.batch()[2] is not None)
    assert due == [True, False, False, True, False, False, True]


def test_a_round_logs_the_last_contrast_that_was_due():
    # Five updates a round after the first, so that the last of a round is due in one of three.
    curve = train(config_of("ccm", replace(SMALL, contrast_every=3)), progress=False).curve
    updated = curve["critic_loss"].notna()
    assert updated.sum() >= 2
    assert curve.loc[updated, "contrastive_loss"].notna().all()


def test_the_ratio_of_the_gradients_by_hand():
    run = warmed("satesac", replace(SMALL, contrast_weight=0.25))
    batch, contrast = run.sequences(generator()), run.contrast(generator())
    state = run.agent.generator.get_state()
    ratio = run.agent.gradient_ratio(batch, 16, contrast)
    assert torch.equal(run.agent.generator.get_state(), state)

    def length(loss) -> float:
        run.agent.zero_grad()
        loss.backward()
        return sum(float((p.grad**2).sum()) for p in run.agent.encoder.parameters()) ** 0.5

    critic = length(run.agent.critic_loss(run.agent.transitions(batch, 16))[0])
    contrastive = length(0.25 * run.agent.contrastive_loss(contrast))
    assert float(ratio) == pytest.approx(critic / contrastive, rel=1e-4)


def test_diagnostics_are_logged_and_change_nothing(monkeypatch):
    settings = config_of("satesac", replace(SMALL, contrast_rate=1e-3))
    monkeypatch.setattr("sami_tutorial.train.DIAGNOSE_EVERY", 1)
    asked = train(settings, progress=False)
    assert asked.curve["gradient_ratio"].iloc[-1] > 0
    assert 0 <= asked.curve["held_out_accuracy"].dropna().iloc[-1] <= 1
    monkeypatch.setattr(Run, "diagnostics", lambda self: {})
    unasked = train(settings, progress=False)
    for name, value in asked.agent.state_dict().items():
        assert torch.equal(unasked.agent.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("window", -1, "window is -1; give an integer from 0 up"),
        ("contrast_every", 0, "contrast_every is 0; give a positive integer"),
        ("contrast_rate", -1e-3, "contrast_rate is -0.001; give a number from 0 up"),
        ("contrast_rate", float("nan"), "contrast_rate is nan; give a number from 0 up"),
        ("contrast_phase", "any", "contrast_phase is 'any'; choose one of"),
        ("contrast_start", "warm", "contrast_start is 'warm'; choose one of"),
    ],
)
def test_bad_settings_are_named(setting, value, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **{setting: value})


def test_short_rounds_share_a_diagnosis(monkeypatch):
    settings = config_of("satesac", replace(SMALL, contrast_rate=1e-3))
    monkeypatch.setattr(Run, "diagnostics", lambda self: {"asked": torch.tensor(1.0)})
    steps = train(settings, progress=False).curve["env_steps"]
    every = int(2.5 * steps[0])  # the second round does not pass it, the third does
    monkeypatch.setattr("sami_tutorial.train.DIAGNOSE_EVERY", every)
    curve = train(settings, progress=False).curve
    passed = steps // every > steps.shift(fill_value=0) // every
    assert (curve["asked"].notna() == passed).all()
    assert 2 <= passed.sum() < len(steps)
