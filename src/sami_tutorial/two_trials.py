"""The two-trial test: does the embedding of one trial say which skill to use in the next?

Reinforcement learning mixes everything: which data an agent collects, what its encoder learns from
them, what its policy makes of the embedding. This test takes the encoder alone.

1. **Data** (:func:`play`). CubeMove with ``trials=2``. In every task, scripted experts push in half
   of the first trials and pick in the other half. These trials are the whole data set.
2. **Encoder** (:func:`train_encoder`). Trained on the first trials by a contrast and nothing else,
   or by a regression, or not at all.
3. **Decision** (:func:`choose_skills`). In a task that training did not see, after one trial with a
   skill chosen by chance: which skill now? The nearest training trials in embedding space vote with
   what either skill earned in their tasks.
4. **Score** (:func:`success_rate`). The share of second trials that succeed.

The embedding is c_40: it has seen the whole first trial and the first observation of the second, in
which nothing of the first is left. Built in chapter 8, *SaNCE*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from sami_tutorial.contrastive import bce_contrast, info_nce, mi_lower_bound, sance
from sami_tutorial.encoder import ContextEncoder, momentum_copy
from sami_tutorial.envs import Context, make_vec, task_sets
from sami_tutorial.envs.cube import context_space
from sami_tutorial.envs.cube_physics import MAX_STEPS, OBSERVATION
from sami_tutorial.envs.cube_skills import optimal_skill, scripted_pick, scripted_push
from sami_tutorial.nets import MLP, soft_update
from sami_tutorial.sampling import CONTRASTS, split_by_return

ENV = "sami/CubeMove-v0"
PUSH, PICK = 0, 1
EXPERTS = (scripted_push, scripted_pick)
REGRESSIONS = ("critic", "outlook")
DISCOUNT = 0.95


class Trials(NamedTuple):
    """First trials in C tasks, M of each, and how the second trial ends with either skill."""

    observation: Tensor  # (C, M, 41, 5); the last one is already the start of the second trial
    action: Tensor  # (C, M, 40, 2)
    reward: Tensor  # (C, M, 40)
    skill: Tensor  # (C, M) of the first trial: PUSH or PICK
    returns: Tensor  # (C, M) of the first trial
    success: Tensor  # (C, M) bool, of the first trial
    next_success: Tensor  # (C, M, 2) bool, of the second trial with Push, with Pick
    next_returns: Tensor  # (C, M, 2)
    context: Tensor  # (C, F)


def draw_tasks(
    splits: Iterable[str],
    distractors: int,
    rng: np.random.Generator,
    *,
    draws: int = 4,
    one_skill: bool = False,
) -> list[Context]:
    """The tasks of some splits, each with ``draws`` sets of distractors.

    Args:
        splits: names of task sets.
        distractors: how many features vary beside mass and friction.
        rng: draws their values.
        draws: how often each pair of mass and friction comes with new ones; once without any.
        one_skill: leaves out the tasks in which both skills work.
    """
    space = context_space(distractors)
    contexts = []
    for split in splits:
        for context in task_sets(ENV).split(split):
            if one_skill and optimal_skill(context["friction"], context["mass"]) == "both":
                continue
            for _ in range(draws if distractors else 1):
                drawn = {f.name: float(rng.uniform(f.low, f.high)) for f in space.features[2:]}
                contexts.append(context | drawn)
    return contexts


def play(
    contexts: list[Context], trials: int, *, distractors: int, seed: int, push_share: float = 0.5
) -> Trials:
    """Plays ``trials`` episodes of two trials in each task, twice: with either second skill.

    Both plays share the first trial bit for bit, so that any choice of the second skill has an
    outcome that really happened.

    Args:
        contexts: the C tasks.
        trials: M, episodes in each.
        distractors: the option of the environment.
        seed: of the starts of all trials.
        push_share: share of first trials with Push, rounded to whole trials.

    Raises:
        ValueError: if there is nothing to play, or the share leaves a skill without a trial.
    """
    pushes = round(push_share * trials)
    if not contexts or not 0 < pushes < trials:
        raise ValueError(
            f"contexts has {len(contexts)} entries, and push_share {push_share} of {trials} trials "
            f"makes {pushes} with Push; give at least one task and one trial with each skill"
        )
    count = len(contexts) * trials
    first = np.tile(np.arange(trials) >= pushes, len(contexts)).astype(np.intp)
    options = {"context": [each for each in contexts for _ in range(trials)]}
    steps: list[tuple[NDArray, NDArray, NDArray]] = []  # of the first trial
    success, next_success, next_returns = np.empty(0), [], []
    for second in (PUSH, PICK):
        env = make_vec(ENV, count, distractors=distractors, trials=2)
        observation, _ = env.reset(seed=seed, options=options)
        returns = np.zeros(count)
        for t in range(2 * MAX_STEPS):
            pushing, picking = (expert(observation) for expert in EXPERTS)
            skill = first if t < MAX_STEPS else np.full(count, second)
            action = np.where(skill[:, np.newaxis] == PUSH, pushing, picking)
            before = observation
            observation, reward, _, _, info = env.step(action)
            if t >= MAX_STEPS:
                returns += reward
            elif second == PUSH:
                steps.append((before, action, reward))
            if t == MAX_STEPS - 1:
                start = observation
        success = info["final_info"]["trial_success"]  # (count, 2)
        next_success.append(success[:, 1])
        next_returns.append(returns)

    def table(values: ArrayLike) -> Tensor:
        array = np.asarray(values)
        return torch.from_numpy(array.reshape(len(contexts), trials, *array.shape[1:]).copy())

    observations, actions, rewards = (np.stack(each, axis=1) for each in zip(*steps, strict=True))
    space = context_space(distractors)
    return Trials(
        observation=table(np.concatenate([observations, start[:, np.newaxis]], axis=1)),
        action=table(actions),
        reward=table(rewards.astype(np.float32)),
        skill=table(first),
        returns=table(rewards.sum(axis=1).astype(np.float32)),
        success=table(success[:, 0]),
        next_success=table(np.stack(next_success, axis=1)),
        next_returns=table(np.stack(next_returns, axis=1).astype(np.float32)),
        context=torch.tensor(np.stack([space.vector(each) for each in contexts])).float(),
    )


def move_camera(trials: Trials, spread: float, rng: np.random.Generator) -> Trials:
    """The same trials through a camera that hangs elsewhere in every task.

    The observed position is shifted by a number drawn for each task, uniform in [-spread, spread]
    metres. It is the same in all trials of a task, plain to see, and of no use: a loud distractor.

    Raises:
        ValueError: if ``spread`` is negative.
    """
    if spread < 0:
        raise ValueError(f"spread is {spread}; give a number of metres from 0 up")
    offset = torch.from_numpy(rng.uniform(-spread, spread, len(trials.observation))).float()
    observation = trials.observation.clone()
    observation[..., OBSERVATION.index("position")] += offset[:, None, None]
    return trials._replace(observation=observation)


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder is trained on first trials.

    Args:
        objective: a contrast, ``"ccm"`` (InfoNCE), ``"satesac"`` (SaNCE) or ``"saccm"``
            (Sa+InfoNCE); or a regression from c, ``"critic"`` (the discounted return of the rest of
            the first trial, as a critic in RL) or ``"outlook"`` (the return of the second trial
            under a skill chosen by chance, that is, just what the decision needs).
        num_samples: K, one positive and K - 1 negatives.
        updates: steps of Adam; 0 leaves the encoder as it was drawn.
        tasks, queries: how many tasks per update, and queries in each. A regression takes as many
            trials as there are queries in all.
        learning_rate: of Adam.
        temperature, normalize, weight: of the contrastive loss.
        sigmoid: the official code's sigmoid loss in place of the softmax.
        fraction: of a task's trials that count as good, and as bad.
        shuffle_returns: ranks the trials of a task by chance; for SaNCE's control.
        both_ways: in half of SaNCE's tasks, drawn anew for each update, good and bad change places.
        hidden: width of the LSTM.
        target_rate: m, the step of the momentum encoder towards the encoder.
    """

    objective: str = "satesac"
    num_samples: int = 4
    updates: int = 500
    tasks: int = 12
    queries: int = 4
    learning_rate: float = 3e-3
    temperature: float = 0.1
    normalize: bool = True
    weight: str = "none"
    sigmoid: bool = False
    fraction: float = 0.5
    shuffle_returns: bool = False
    both_ways: bool = False
    hidden: int = 32
    target_rate: float = 0.05

    def __post_init__(self) -> None:
        known = (*CONTRASTS, *REGRESSIONS)
        if self.objective not in known:
            raise ValueError(f"objective is {self.objective!r}; choose one of {known}")
        if self.num_samples < 2:
            raise ValueError(f"num_samples is {self.num_samples}; give at least 2, one negative")
        if self.updates < 0:
            raise ValueError(f"updates is {self.updates}; give an integer from 0 up")
        if self.both_ways and self.objective != "satesac":
            raise ValueError(
                f"both_ways is set, but objective is {self.objective!r}; only 'satesac' has both a "
                "good and a bad part in every task"
            )
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        if self.weight not in ("min", "max", "none"):
            raise ValueError(f"weight is {self.weight!r}; choose 'min', 'max' or 'none'")
        if self.sigmoid and self.weight != "none":
            raise ValueError(
                f"weight is {self.weight!r}, which the sigmoid loss does not know; choose 'none'"
            )
        for name in ("tasks", "queries", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a positive integer")


class Contrast(NamedTuple):
    """Trials of T tasks, as indices into all C * M; a task's P queries share its N negatives."""

    query: Tensor  # (T, P)
    positive: Tensor  # (T, P)
    negatives: Tensor  # (T, N)


class ContrastSampler:
    """Draws contrasts from fixed trials; which trials may play which part is settled once.

    The roles are those of :func:`sami_tutorial.sampling.contrastive_batch`, which serves a replay
    that changes.

    Raises:
        ValueError: if some task has no two good trials, or if a contrast between tasks is given
            one task only.
    """

    def __init__(self, trials: Trials, config: EncoderConfig, generator: torch.Generator):
        tasks, each = trials.skill.shape
        self.config, self.generator = config, generator
        if config.objective == "ccm" and tasks < 2:
            raise ValueError(
                "trials holds one task, but objective 'ccm' compares tasks; play at least two"
            )
        everything = torch.arange(tasks * each).reshape(tasks, each)
        self.alike = self.others = everything  # (C, pool): a task's positives, and its negatives
        if config.objective != "ccm":
            returns = trials.returns
            if config.shuffle_returns:
                order = torch.rand(tasks, each, generator=generator).argsort(dim=1)
                returns = returns.gather(1, order)
            ends = [split_by_return(row, config.fraction) for row in returns]
            self.alike = everything.gather(1, torch.stack([good for good, _ in ends]))
            self.others = everything.gather(1, torch.stack([bad for _, bad in ends]))
        if self.alike.shape[1] < 2:
            raise ValueError(
                f"trials holds {each} of each task, of which {self.alike.shape[1]} is good; play "
                "enough for a query and a positive"
            )

    def draw(self) -> Contrast:
        config = self.config
        count, pool = self.alike.shape
        number = min(config.tasks, count)
        shape, negatives = (number, config.queries), (number, config.num_samples - 1)
        task = torch.randperm(count, generator=self.generator)[:number, None]  # (T, 1)
        query = self._integers(0, pool, shape)
        positive = (query + self._integers(1, pool, shape)) % pool  # never the query itself
        other = task.expand(negatives)
        if config.objective == "ccm":  # any task but this one
            other = (task + self._integers(1, count, negatives)) % count
        elif config.objective == "saccm":  # any task
            other = self._integers(0, count, negatives)
        chosen = self._integers(0, self.others.shape[1], negatives)
        contrast = Contrast(
            self.alike[task, query], self.alike[task, positive], self.others[other, chosen]
        )
        if not config.both_ways:
            return contrast
        turned = Contrast(
            self.others[task, query], self.others[task, positive], self.alike[other, chosen]
        )
        turn = self._integers(0, 2, (number, 1)).bool()
        return Contrast(*(torch.where(turn, a, b) for a, b in zip(turned, contrast, strict=True)))

    def _integers(self, low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)


def train_encoder(
    trials: Trials,
    config: EncoderConfig,
    seed: int,
    watch: Callable[[ContextEncoder, int], None] | None = None,
    sampler: type[ContrastSampler] = ContrastSampler,
) -> tuple[ContextEncoder, list[float]]:
    """An encoder, and its loss at every update (of a softmax contrast in nats, 0 being chance).

    Args:
        trials: the data; only the first trials are read, except by ``"outlook"``.
        config: the objective and its settings.
        seed: of the initial weights and of all draws.
        watch: called after every update with the encoder and the number of updates so far.
        sampler: draws the contrasts; a subclass may draw others.
    """
    generator = torch.Generator().manual_seed(seed)
    observation_dim, action_dim = trials.observation.shape[-1], trials.action.shape[-1]
    encoder = ContextEncoder(observation_dim, action_dim, generator, hidden=config.hidden)
    parameters = list(encoder.parameters())
    if config.objective in CONTRASTS:
        key_encoder = momentum_copy(encoder)
        contrasts = sampler(trials, config, generator)

        def loss_of_a_batch() -> Tensor:
            soft_update(key_encoder, encoder, config.target_rate)
            return _contrastive_loss(encoder, key_encoder, trials, contrasts.draw(), config)
    else:
        head_inputs = {"critic": observation_dim + action_dim, "outlook": len(EXPERTS)}
        head = MLP((encoder.embedding_dim + head_inputs[config.objective], 64, 64, 1), generator)
        parameters += head.parameters()
        loss_of = {"critic": _critic_loss, "outlook": _outlook_loss}[config.objective]

        def loss_of_a_batch() -> Tensor:
            count = trials.skill.numel()
            chosen = torch.randint(count, (config.tasks * config.queries,), generator=generator)
            return loss_of(encoder, head, trials, chosen)

    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    losses = []
    for _ in range(config.updates):
        loss = loss_of_a_batch()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        losses.append(loss.item())
        if watch is not None:
            watch(encoder, len(losses))
    return encoder, losses


def encode(encoder: torch.nn.Module, trials: Trials, chosen: Tensor | None = None) -> Tensor:
    """c_0 .. c_40 of the ``chosen`` trials (all of them by default): (B, 41, D)."""
    flat = [each.flatten(0, 1) for each in (trials.observation, trials.action, trials.reward)]
    return encoder(*(each if chosen is None else each[chosen] for each in flat))


@torch.no_grad()
def embed(encoder: torch.nn.Module, trials: Trials) -> Tensor:
    """The embedding of every first trial, at the start of the second: (C, M, D)."""
    return encode(encoder, trials)[:, -1].reshape(*trials.skill.shape, -1)


def _contrastive_loss(
    encoder: ContextEncoder,
    key_encoder: torch.nn.Module,
    trials: Trials,
    contrast: Contrast,
    config: EncoderConfig,
) -> Tensor:
    """The mean over tasks of the loss of each."""

    def embedding(by: torch.nn.Module, chosen: Tensor) -> Tensor:
        return encode(by, trials, chosen.flatten())[:, -1].unflatten(0, chosen.shape)

    queries = embedding(encoder, contrast.query)  # (T, P, D)
    with torch.no_grad():
        keys = embedding(key_encoder, torch.cat([contrast.positive, contrast.negatives], dim=1))
    count = config.queries
    positives, negatives = keys[:, :count], keys[:, count:]  # (T, P, D), (T, N, D)
    if not config.sigmoid and (config.objective == "ccm" or config.weight == "none"):
        # All tasks weigh the same, so that all queries may go into one call, each with its own set.
        loss = info_nce(
            queries.flatten(0, 1),
            positives.flatten(0, 1),
            negatives.repeat_interleave(count, dim=0),
            config.temperature,
            config.normalize,
        )
        return -mi_lower_bound(loss, config.num_samples)
    losses = []
    for query, positive, others in zip(queries, positives, negatives, strict=True):
        if config.sigmoid:
            losses.append(bce_contrast(query, positive, others, config.temperature))
        else:
            similarity = config.temperature, config.normalize
            losses.append(sance(query, positive, others, *similarity, config.weight))
    return torch.stack(losses).mean()


def _critic_loss(encoder: ContextEncoder, head: MLP, trials: Trials, chosen: Tensor) -> Tensor:
    """Squared error of Q(s_t, a_t, c_t) against the discounted return of the rest of the trial."""
    context = encode(encoder, trials, chosen)[:, :-1]  # (B, 40, D)
    observation = trials.observation.flatten(0, 1)[chosen][:, :-1]
    action, reward = trials.action.flatten(0, 1)[chosen], trials.reward.flatten(0, 1)[chosen]
    target, rest = torch.empty_like(reward), torch.zeros(len(chosen))
    for t in reversed(range(reward.shape[1])):
        rest = reward[:, t] + DISCOUNT * rest
        target[:, t] = rest
    q = head(torch.cat([observation, action, context], dim=-1)).squeeze(-1)
    return F.mse_loss(q, target)


def _outlook_loss(encoder: ContextEncoder, head: MLP, trials: Trials, chosen: Tensor) -> Tensor:
    """Squared error of the predicted return of the second trial, given the skill used there.

    Every trial has one second skill, fixed by its position, so that half of the first trials with
    either skill are followed by Push: what a log of random choices would hold.
    """
    second = (torch.arange(trials.skill.numel()) % 2)[chosen]
    context = encode(encoder, trials, chosen)[:, -1]
    skill = F.one_hot(second, len(EXPERTS)).float()
    target = trials.next_returns.flatten(0, 1)[chosen].gather(1, second[:, None])
    return F.mse_loss(head(torch.cat([skill, context], dim=-1)), target)


def choose_skills(known: Tensor, trials: Trials, new: Tensor, neighbors: int = 15) -> Tensor:
    """A skill for every new trial, by the nearest training trials.

    Every training trial stands for its task, and a task for what the trials with Push and with Pick
    earned in it on average. The nearest ``neighbors`` are averaged, and the larger return wins.
    Features are scaled to unit variance over the training trials.

    Args:
        known: features of the training trials, (C, M, D).
        trials: the training trials.
        new: features of trials in other tasks, (C', M', D).
        neighbors: how many vote.

    Returns:
        PUSH or PICK, (C', M').

    Raises:
        ValueError: if shapes do not fit, or fewer trials are known than asked for.
    """
    if known.shape[:2] != trials.skill.shape or known.shape[-1] != new.shape[-1]:
        raise ValueError(
            f"known has shape {tuple(known.shape)} and new {tuple(new.shape)}; give as many "
            f"features of a new trial as of each of the {tuple(trials.skill.shape)} training trials"
        )
    if not 1 <= neighbors <= trials.skill.numel():
        raise ValueError(
            f"neighbors is {neighbors}; give an integer from 1 to {trials.skill.numel()}"
        )
    earned = torch.stack(
        [
            (trials.returns * (trials.skill == s)).sum(dim=1) / (trials.skill == s).sum(dim=1)
            for s in (PUSH, PICK)
        ],
        dim=1,
    )  # (C, 2)
    votes = earned[:, None].expand(-1, known.shape[1], -1).flatten(0, 1)  # (C M, 2)
    a, b = known.flatten(0, 1).double(), new.flatten(0, 1).double()
    scale = a.std(dim=0).clamp(min=1e-8)
    nearest = torch.cdist(b / scale, a / scale).topk(neighbors, largest=False).indices  # (B, k)
    return votes[nearest].mean(dim=1).argmax(dim=1).reshape(new.shape[:2])


def success_rate(trials: Trials, skill: Tensor) -> float:
    """The share of second trials that succeed with these skills, (C, M)."""
    return trials.next_success.gather(2, skill[..., None]).double().mean().item()
