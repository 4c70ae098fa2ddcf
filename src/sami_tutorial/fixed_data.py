"""Fixed data, to see what an objective alone makes an encoder learn.

In reinforcement learning the agent's skill decides which trajectories there are, and the objective
decides what is learned from them: two causes, one effect. With scripted trials
(:func:`sami_tutorial.two_trials.play`) the data can be set by hand and held fixed. This module adds
what chapter 11 varies and measures:

* :func:`play_skilled`: data as an agent would leave them that already chooses well;
* :func:`blind`: an encoder that does not see, say, the fingers;
* :func:`contrast_game`: how well embeddings play a contrast on trials that no update has seen.

Built in chapter 11, *What each objective learns*.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sami_tutorial.contrastive import info_nce
from sami_tutorial.envs import Context
from sami_tutorial.envs.cube_physics import OBSERVATION
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.two_trials import ContrastSampler, EncoderConfig, Trials, play

SENSES = (*OBSERVATION, "action", "reward")
"""What an encoder sees of a step."""


def play_skilled(
    contexts: list[Context], trials: int, *, distractors: int, seed: int, right_share: float
) -> Trials:
    """Trials of an agent that uses the right skill in a share of its first trials.

    Where one skill works, ``right_share`` of a task's first trials use it; where both work, one
    half uses either. :func:`~sami_tutorial.two_trials.play` with a share of its own for each task.

    Args:
        contexts: the C tasks.
        trials: M, episodes in each.
        distractors: the option of the environment.
        seed: of the starts of all trials.
        right_share: share of first trials with the skill that works, rounded to whole trials.

    Raises:
        ValueError: if there is nothing to play, or the share leaves a skill without a trial.
    """
    push_share = {"push": right_share, "pick": 1 - right_share}
    works = [str(optimal_skill(each["friction"], each["mass"])) for each in contexts]
    kinds = sorted(set(works))
    members = [[i for i, name in enumerate(works) if name == kind] for kind in kinds]
    parts = [
        play(
            [contexts[i] for i in chosen],
            trials,
            distractors=distractors,
            seed=seed + len(contexts) * trials * number,
            push_share=push_share.get(kind, 0.5),
        )
        for number, (kind, chosen) in enumerate(zip(kinds, members, strict=True))
    ]
    back = torch.tensor([i for chosen in members for i in chosen]).argsort()
    return Trials(*(torch.cat(each)[back] for each in zip(*parts, strict=True)))


def blind(trials: Trials, senses: Iterable[str]) -> Trials:
    """The same trials as an encoder sees them that lacks some senses: those are zero throughout.

    Returns, successes and skills stay what they were.

    Raises:
        ValueError: for a sense that is not one of :data:`SENSES`.
    """
    observation, seen = trials.observation.clone(), {}
    for sense in senses:
        if sense not in SENSES:
            raise ValueError(f"senses holds {sense!r}; choose from {SENSES}")
        if sense in OBSERVATION:
            observation[..., OBSERVATION.index(sense)] = 0
        else:
            seen[sense] = torch.zeros_like(getattr(trials, sense))
    return trials._replace(observation=observation, **seen)


class Game(NamedTuple):
    """How embeddings play a contrast; chance is an accuracy of 1 / K and a loss of about log K."""

    accuracy: float  # share of queries whose positive is the most similar of its K keys
    loss: float  # of InfoNCE, nats


def contrast_game(
    features: Tensor,
    trials: Trials,
    objective: str,
    num_samples: int,
    generator: torch.Generator,
    *,
    queries: int = 8,
    draws: int = 4,
    temperature: float = 0.1,
) -> Game:
    """Lets embeddings play the contrast of an objective, whichever they were trained for.

    Similarities are cosines, and one encoder embeds queries and keys. A tie (to 1e-6, what single
    precision resolves) is settled by chance.

    Args:
        features: an embedding for every trial, (C, M, D).
        trials: the trials, which no update should have seen.
        objective: ``"ccm"``, ``"satesac"`` or ``"saccm"``: who is a positive, who a negative.
        num_samples: K.
        generator: draws queries and keys.
        queries: queries in every task.
        draws: how often all tasks have their turn.
        temperature: of the loss; it does not touch the accuracy.

    Raises:
        ValueError: if features and trials do not fit, or for an impossible setting.
    """
    if features.shape[:2] != trials.skill.shape:
        raise ValueError(
            f"features has shape {tuple(features.shape)}; give one vector for each of the "
            f"{tuple(trials.skill.shape)} trials"
        )
    config = EncoderConfig(objective, num_samples, tasks=len(features), queries=queries)
    sampler = ContrastSampler(trials, config, generator)
    flat = F.normalize(features.flatten(0, 1).float(), dim=-1)
    hits, losses = [], []
    for _ in range(draws):
        contrast = sampler.draw()
        query, positive = flat[contrast.query], flat[contrast.positive]  # (C, P, D)
        negatives = flat[contrast.negatives]  # (C, N, D)
        to_positive = (query * positive).sum(dim=-1, keepdim=True)  # (C, P, 1)
        to_negatives = query @ negatives.mT  # (C, P, N)
        near = torch.isclose(to_negatives, to_positive, rtol=0, atol=1e-6)
        beaten = ((to_negatives > to_positive) & ~near).any(dim=-1)
        hits.append(torch.where(beaten, 0.0, 1 / (1 + near.sum(dim=-1))).mean())
        losses.append(
            info_nce(
                query.flatten(0, 1),
                positive.flatten(0, 1),
                negatives.repeat_interleave(queries, dim=0),
                temperature,
            )
        )
    return Game(torch.stack(hits).mean().item(), torch.stack(losses).mean().item())
