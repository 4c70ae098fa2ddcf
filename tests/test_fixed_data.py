"""Data set by hand and games on held-out trials: against plain loops and cases solved on paper."""

import math

import numpy as np
import pytest
import torch

from sami_tutorial.envs.cube_physics import OBSERVATION
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.fixed_data import SENSES, blind, contrast_game, play_skilled
from sami_tutorial.sampling import split_by_return
from sami_tutorial.two_trials import PICK, ContrastSampler, EncoderConfig, draw_tasks, play


@pytest.fixture(scope="module")
def contexts():
    return draw_tasks(["train"], 2, np.random.default_rng(0), draws=1)


@pytest.fixture(scope="module")
def trials(contexts):
    return play(contexts, 8, distractors=2, seed=5)


# ---------------------------------------------------------------------- data


def test_a_skilled_agent_uses_the_right_skill_in_its_share_of_every_task(contexts):
    skilled = play_skilled(contexts, 10, distractors=2, seed=0, right_share=0.8)
    works = [str(optimal_skill(each["friction"], each["mass"])) for each in contexts]
    picks = {"push": 2, "pick": 8, "both": 5}
    assert (skilled.skill == PICK).sum(dim=1).tolist() == [picks[name] for name in works]
    vectors = torch.tensor([list(each.values()) for each in contexts])
    assert torch.allclose(skilled.context, vectors)  # tasks in the order in which they were given
    possible = torch.tensor([[w in ("push", "both"), w in ("pick", "both")] for w in works])
    assert torch.equal(skilled.success, possible.gather(1, skilled.skill))
    starts = skilled.observation[:, :, 0, 0].flatten()
    assert len(starts.unique()) == len(starts)  # no two trials have the same start


def test_an_even_share_is_plain_play(contexts):
    pushes = [c for c in contexts if str(optimal_skill(c["friction"], c["mass"])) == "push"]
    for ours, plain in zip(
        play_skilled(pushes, 6, distractors=2, seed=3, right_share=0.5),
        play(pushes, 6, distractors=2, seed=3),
        strict=True,
    ):
        assert torch.equal(ours, plain)


def test_who_is_blind_sees_zeros_there_and_everything_else(trials):
    seen = blind(trials, ("closure", "action"))
    column = OBSERVATION.index("closure")
    assert (seen.observation[..., column] == 0).all() and (seen.action == 0).all()
    others = [i for i in range(len(OBSERVATION)) if i != column]
    assert torch.equal(seen.observation[..., others], trials.observation[..., others])
    for name in set(trials._fields) - {"observation", "action"}:
        assert torch.equal(getattr(seen, name), getattr(trials, name))
    assert trials.action.abs().max() > 0  # the given trials are untouched
    assert trials.observation[..., column].max() == 1
    with pytest.raises(ValueError, match=r"senses holds 'finger'.*closure"):
        blind(trials, ("finger",))
    assert set(SENSES) == {*OBSERVATION, "action", "reward"}


# ---------------------------------------------------------------------- games


@pytest.mark.parametrize("objective", ["ccm", "satesac", "saccm"])
@pytest.mark.parametrize("k", [2, 5])
def test_a_game_is_what_plain_loops_count(trials, objective, k):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(15, 8, 3)))
    game = contrast_game(
        features, trials, objective, k, torch.Generator().manual_seed(7), queries=3, draws=2,
        temperature=0.4,
    )  # fmt: skip
    config = EncoderConfig(objective, k, tasks=15, queries=3)
    sampler = ContrastSampler(trials, config, torch.Generator().manual_seed(7))
    flat = features.reshape(-1, 3).numpy()
    hits, losses = [], []
    for contrast in (sampler.draw(), sampler.draw()):
        for queries, positives, negatives in zip(*contrast, strict=True):
            for q, p in zip(queries.tolist(), positives.tolist(), strict=True):
                cosines = [
                    flat[q] @ flat[i] / np.linalg.norm(flat[q]) / np.linalg.norm(flat[i])
                    for i in [p, *negatives.tolist()]
                ]
                tied = sum(abs(c - cosines[0]) < 1e-6 for c in cosines)
                hits.append(max(cosines[1:]) - cosines[0] < 1e-6 and 1 / tied)
                weights = [math.exp(c / 0.4) for c in cosines]
                losses.append(-math.log(weights[0] / sum(weights)))
    assert game.accuracy == pytest.approx(np.mean(hits), abs=1e-6)
    assert game.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_who_knows_nothing_is_right_once_in_k(trials):
    for k in (2, 4, 64):
        game = contrast_game(
            torch.ones(15, 8, 3), trials, "ccm", k, torch.Generator().manual_seed(0)
        )
        assert game.accuracy == pytest.approx(1 / k)
        assert game.loss == pytest.approx(math.log(k), abs=1e-5)


def test_who_knows_the_answer_wins_his_own_game_only(trials):
    number = torch.eye(15)[:, None].expand(-1, 8, -1)  # which task: InfoNCE's question
    good = torch.zeros(15, 8, 2)  # how it went: SaNCE's
    for i, row in enumerate(trials.returns):
        better, worse = split_by_return(row)
        good[i, better, 0], good[i, worse, 1] = 1, 1

    def accuracy(features, objective):
        return contrast_game(
            features, trials, objective, 4, torch.Generator().manual_seed(0)
        ).accuracy

    assert accuracy(number, "ccm") == 1
    assert accuracy(good, "satesac") == accuracy(good, "saccm") == 1
    assert accuracy(number, "satesac") == pytest.approx(1 / 4)
    # Knowing the outcome only: with 3 of the 7 others the query shares it, and then ties with
    # those of three negatives that do, too; else it wins only where nothing is alike, by luck.
    alike = sum(math.comb(3, n) / 8 / (1 + n) for n in range(4))
    expected = 3 / 7 * alike + 4 / 7 * (1 / 8) * (1 / 4)
    assert accuracy(good, "ccm") == pytest.approx(expected, abs=0.06)  # 480 queries: 3 sigma


def test_bad_arguments_are_rejected_by_name(contexts, trials):
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"features has shape \(15, 7, 3\)"):
        contrast_game(torch.zeros(15, 7, 3), trials, "ccm", 4, generator)
    with pytest.raises(ValueError, match="objective is 'sac'"):
        contrast_game(torch.zeros(15, 8, 3), trials, "sac", 4, generator)
    with pytest.raises(ValueError, match="num_samples is 1"):
        contrast_game(torch.zeros(15, 8, 3), trials, "ccm", 1, generator)
    with pytest.raises(ValueError, match="push_share"):
        play_skilled(contexts, 4, distractors=2, seed=0, right_share=1.0)
