"""SAC with a context encoder: the policy acts on (s_t, c_t), and the critic's loss trains c.

    repeat:
        sample episodes (or windows) from the replay, and the trajectories of the contrast
        c_t  <- psi(s_0:t, a_0:t-1, r_0:t-1)            with gradient
        c*_t <- psi*(the same)                          without
        critics, psi   minimise the SAC critic loss at (s_t, c_t), its target at (s_t+1, c*_t+1),
                       plus alpha times the contrastive loss
        actor          minimise the SAC actor loss at (s_t, c_t), c_t held fixed
        temperature    as in SAC
        target Q', psi* follow by exponential moving averages

Source: arXiv 2406.04815, section 4 and algorithm in the appendix. Built in chapter 4, *A context
encoder*; the contrastive term in chapter 6, *CCM*, and chapter 8, *SaNCE*; windows, and the
contrast's own optimiser step, in chapter 10, *Making it fast*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sami_tutorial.checks import keep_integers
from sami_tutorial.contrastive import bce_contrast, info_nce, sance
from sami_tutorial.encoder import ContextEncoder, Encoder, Memory, PEARLEncoder, momentum_copy
from sami_tutorial.nets import Standardize, per_member, soft_update
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import SAC, SACConfig, Transitions
from sami_tutorial.sampling import ContrastiveBatch, HeldOut


@dataclass(frozen=True)
class ContextConfig:
    """Settings of the encoder and of its contrastive loss.

    Args:
        episodes: whole episodes that each update encodes, its transitions being drawn from them; or
            windows, all of whose transitions it uses.
        window: steps of a window, a divisor of the horizon; 0 means whole episodes. A window begins
            with the memory that the encoder had there when acting.
        hidden: width of the encoder's LSTM (of its hidden layers, for PEARL's).
        embedding_dim: D, the width of c.
        momentum: m of Eq. 13, the step of psi* towards psi.
        contrast_weight: alpha, what the contrastive loss weighs beside the critic's; 1 where the
            contrast takes a step of its own.
        contrast_batch: queries, positives and negatives per contrast; K = contrast_batch + 1.
        contrast_every: updates from one contrast to the next.
        contrast_rate: learning rate of an optimiser step that the contrast takes on its own, behind
            the critic's; 0 adds the two losses up for one step, as the paper writes it.
        contrast_phase: which windows are compared, ``"matched"`` (at the same time of their
            episodes) or ``"free"``.
        contrast_start: how windows of the contrast begin: ``"stored"``, with the encoder's memory,
            or ``"zero"``, as if an episode began, so that only the window itself tells them apart.
        temperature: beta of the similarity exp(q . k / beta).
        loss: ``"softmax"``, the paper's Eq. 1 and 3, or ``"bce"``, the official code's sigmoid
            variant.
        skill_weight: of the skill-aware contrast: ``"min"``, ``"max"`` or ``"none"`` as in
            :func:`sami_tutorial.contrastive.sance`, or ``"return_gap"``, the official code's
            difference of mean rewards per step, cut to [0, 1].
        fraction: of a task's trajectories that count as good, and as bad.
        same_task: ``"context"`` or ``"worker"``, see
            :func:`sami_tutorial.sampling.contrastive_batch`.
        shuffle_returns: the control in which good and bad mean nothing.
        kl_weight: of KL(belief || prior) in PEARL's loss.
    """

    episodes: int = 32
    window: int = 0
    hidden: int = 64
    embedding_dim: int = 6
    momentum: float = 0.05
    contrast_weight: float = 1.0
    contrast_batch: int = 12
    contrast_every: int = 1
    contrast_rate: float = 0.0
    contrast_phase: str = "matched"
    contrast_start: str = "stored"
    temperature: float = 0.1
    loss: str = "softmax"
    skill_weight: str = "min"
    fraction: float = 0.5
    same_task: str = "context"
    shuffle_returns: bool = False
    kl_weight: float = 0.1

    def __post_init__(self) -> None:
        keep_integers(self, "episodes", "hidden", "embedding_dim", "contrast_batch")
        keep_integers(self, "contrast_every")
        keep_integers(self, "window", least=0)
        for name in ("contrast_weight", "contrast_rate", "kl_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if self.contrast_rate > 0 and self.contrast_weight != 1:
            raise ValueError(
                f"contrast_weight is {self.contrast_weight}, but with contrast_rate "
                f"{self.contrast_rate} the contrast takes an optimiser step of its own, beside "
                "which nothing is weighed; set contrast_weight 1, or contrast_rate 0; for no "
                "contrast choose the method 'tesac'"
            )
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}; give a number in (0, 1]")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")
        if not 0 < self.fraction <= 0.5:
            raise ValueError(f"fraction is {self.fraction}; give a number in (0, 0.5]")
        for name, known in {
            "loss": ("softmax", "bce"),
            "skill_weight": ("min", "max", "none", "return_gap"),
            "same_task": ("context", "worker"),
            "contrast_phase": ("matched", "free"),
            "contrast_start": ("stored", "zero"),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {known}")
        if self.loss == "bce" and self.skill_weight in ("min", "max"):
            raise ValueError(
                f"skill_weight is {self.skill_weight!r}, which the loss 'bce' does not know; "
                "choose 'return_gap' or 'none'"
            )


class EpisodeMemory:
    """The embedding of each running episode, brought up to date step by step.

    Args:
        encoder: what embeds.
        action_dim: A.
    """

    embedding: Tensor  # (N, D), c_t of each environment
    before: Memory  # what the encoder carried before it saw s_t

    def __init__(self, encoder: Encoder, action_dim: int):
        self.encoder = encoder
        self.action_dim = action_dim

    def begin(self, observation: Tensor) -> None:
        """A new episode starts in every environment: (N, S)."""
        num_envs = len(observation)
        self._memory = self.encoder.initial_memory(num_envs)
        no_action = observation.new_zeros(num_envs, self.action_dim)
        self.observe(no_action, observation.new_zeros(num_envs), observation)

    @torch.inference_mode()
    def observe(self, action: Tensor, reward: Tensor, observation: Tensor) -> None:
        """The outcome of a step: a_{t-1} (N, A), r_{t-1} (N,), s_t (N, S)."""
        self.before = self._memory
        self.embedding, self._memory = self.encoder.step(observation, action, reward, self._memory)

    def append_to(self, observation: Tensor) -> Tensor:
        """What the policy sees: (N, S) -> (N, S+D)."""
        return torch.cat([observation, self.embedding], dim=-1)


class ContextSAC(SAC):
    """SAC on (s, c), with the encoder that makes c.

    Args:
        observation_dim, action_dim: S and A, of the environment.
        config: settings of SAC.
        context: settings of the encoder and the contrast.
        encoder_class: the kind of encoder.
        contrast: ``"ccm"``, ``"satesac"``, ``"saccm"`` or None.
        train_encoder: False freezes the encoder as it was initialised.
        seed: of the initial weights and of all noise.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: SACConfig | None = None,
        context: ContextConfig | None = None,
        encoder_class: type[ContextEncoder] | type[PEARLEncoder] = ContextEncoder,
        contrast: str | None = None,
        train_encoder: bool = True,
        seed: int = 0,
    ):
        context = context or ContextConfig()
        super().__init__(observation_dim + context.embedding_dim, action_dim, config, seed)
        self.standardize = Standardize(observation_dim)  # of s alone; c has no fixed scale
        self.context = context
        self.contrast = contrast
        self.encoder = encoder_class(
            observation_dim, action_dim, self.generator, context.hidden, context.embedding_dim
        )
        self.momentum_encoder = momentum_copy(self.encoder)
        if train_encoder:  # whatever lowers the critic's loss may also move the encoder
            encoder_parameters = list(self.encoder.parameters())
            self.optimizers["critic"].add_param_group({"params": encoder_parameters})
            if contrast is not None and context.contrast_rate > 0:
                self.optimizers["contrast"] = torch.optim.Adam(
                    encoder_parameters, lr=context.contrast_rate, fused=True
                )
        else:
            self.encoder.requires_grad_(False)
        self.memory = EpisodeMemory(self.encoder, action_dim)

    def begin(self, observation: np.ndarray) -> None:
        self.memory.begin(self.seen_now(observation))

    def observe(self, action: np.ndarray, reward: np.ndarray, observation: np.ndarray) -> None:
        self.memory.observe(self.tensor(action), self.tensor(reward), self.seen_now(observation))

    def act(self, observation: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """Actions in [-1, 1] from the observation and the episode so far: (N, S) -> (N, A)."""
        seen = self.memory.append_to(self.seen_now(observation))
        return self.actor.act(seen, self.generator, deterministic)

    def policy(self) -> nn.ModuleDict:
        return nn.ModuleDict({**super().policy(), "encoder": self.encoder})

    def update(  # type: ignore[override]  # whole episodes instead of transitions
        self,
        episodes: Episodes,
        batch_size: int,
        contrast: ContrastiveBatch | None = None,
        imitation: float = 0.0,
    ) -> dict[str, Tensor]:
        """One step of every optimiser. Returns what to log, left as tensors."""
        episodes = self.seen(episodes)
        batch = self.transitions(episodes, batch_size)
        critic_loss, metrics = self.critic_loss(batch)
        encoder_loss, encoder_metrics = self.encoder_loss(episodes, contrast)
        self.step("critic", critic_loss + encoder_loss)
        if contrast is not None and "contrast" in self.optimizers:
            contrastive_loss = self.contrastive_loss(contrast)
            encoder_metrics["contrastive_loss"] = contrastive_loss.detach()
            self.step("contrast", contrastive_loss)

        seen = batch.observation.detach()
        actor_loss, log_prob = self.actor_loss(seen)
        if batch.shown is not None:
            actor_loss = actor_loss + imitation * self.unlikeness(seen, batch.shown)
        self.step("actor", actor_loss)

        temperature_loss = self.temperature_loss(log_prob)
        self.step("temperature", temperature_loss)

        self.update_target()
        soft_update(self.momentum_encoder, self.encoder, self.context.momentum)
        return (
            metrics
            | encoder_metrics
            | {
                "critic_loss": critic_loss.detach(),
                "actor_loss": actor_loss.detach(),
                "entropy": -log_prob.mean(dim=-1),
                "temperature": self.temperature,
            }
        )

    def seen(self, episodes: Episodes) -> Episodes:
        """The episodes with observations as the networks see them."""
        return episodes._replace(observation=self.standardize(episodes.observation))

    def transitions(self, episodes: Episodes, batch_size: int) -> Transitions:
        """Steps of the episodes, each seen with its context.

        Of whole episodes ``batch_size`` steps are drawn, of windows all are taken. The context of a
        step, c_t, carries the gradient; that of the step after it, c*_{t+1}, comes from psi* and
        does not.
        """
        inputs = episodes.observation, episodes.action, episodes.reward, episodes.start
        c = self.encoder(*inputs)  # (E, T+1, D)
        with torch.no_grad():
            target_c = self.momentum_encoder(*inputs)
        observation = torch.cat([episodes.observation, c], dim=-1)  # (E, T+1, S+D)
        next_observation = torch.cat([episodes.observation, target_c], dim=-1)
        batch = Transitions(
            observation=observation[..., :-1, :].flatten(-3, -2),  # (E*T, S+D)
            action=episodes.action.flatten(-3, -2),
            reward=episodes.reward.flatten(-2),
            next_observation=next_observation[..., 1:, :].flatten(-3, -2),
            terminated=episodes.terminated.flatten(-2),
            shown=None if episodes.shown is None else episodes.shown.flatten(-3, -2),
        )
        if episodes.start is not None:
            return batch

        def drawn(generator: torch.Generator, mask: Tensor) -> Tensor:
            # Only steps that were taken are drawn, so nothing of the padding enters a loss.
            taken = mask.flatten().nonzero().squeeze(-1)
            chosen = torch.randint(len(taken), (batch_size,), generator=generator)
            return taken[chosen.to(taken.device)]

        index = per_member(drawn, self.generator, episodes.mask)  # (B,)
        return Transitions(
            **{
                name: x.take_along_dim(
                    index if x.ndim == index.ndim else index.unsqueeze(-1), index.ndim - 1
                )
                for name, x in batch._asdict().items()
                if x is not None
            }
        )

    def encoder_loss(
        self, episodes: Episodes, contrast: ContrastiveBatch | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What trains the encoder together with the critic's loss, weighted; and what to log."""
        loss = torch.zeros(())
        metrics = {}
        if contrast is not None and "contrast" not in self.optimizers:
            contrastive_loss = self.contrastive_loss(contrast)
            metrics["contrastive_loss"] = contrastive_loss.detach()
            loss = loss + self.context.contrast_weight * contrastive_loss
        if isinstance(self.encoder, PEARLEncoder):
            belief = self.encoder.belief(episodes.observation, episodes.action, episodes.reward)
            kl = per_member(
                lambda _, each, mask: each[:, 1:][mask].mean(),
                self.generator,
                belief.kl_from_standard(),
                episodes.mask,
            )
            metrics["kl"] = kl.detach()
            loss = loss + self.context.kl_weight * kl
        return loss, metrics

    def contrastive_loss(self, batch: ContrastiveBatch) -> Tensor:
        """The method's contrast, between embeddings after the same number of steps.

        Of whole episodes that number is drawn anew for each update, from 1 to all: c must be good
        for the policy at any time, and trajectories cut at different times would tell each other
        apart by their length. Windows are read to their end.
        """
        horizon = batch.query.reward.shape[-1]

        def drawn(generator: torch.Generator) -> Tensor:
            return torch.randint(1, horizon + 1, (), generator=generator)

        steps = None
        if batch.query.start is None:
            steps = per_member(drawn, self.generator)
        elif self.context.contrast_start == "zero":
            batch = batch.without_start()
        query = self.embed(self.encoder, batch.query, steps)  # (P, D)
        with torch.no_grad():
            positive = self.embed(self.momentum_encoder, batch.positive, steps)  # (P, D)
            negatives = self.embed(self.momentum_encoder, batch.negatives, steps)  # (N, D)

        def contrast(_: torch.Generator, *keys_and_gap: Tensor) -> Tensor:
            return self.contrast_of_keys(*keys_and_gap)

        return per_member(contrast, self.generator, query, positive, negatives, batch.reward_gap)

    def embed(self, encoder: nn.Module, episodes: Episodes, steps: Tensor | None) -> Tensor:
        """c after that many steps, () or one number for each member, or after all: (E, D)."""
        longest = episodes.reward.shape[-1] if steps is None else int(steps.max())
        c = encoder(
            self.standardize(episodes.observation[..., : longest + 1, :]),
            episodes.action[..., :longest, :],
            episodes.reward[..., :longest],
            episodes.start,
        )  # (E, longest+1, D)
        if steps is None:
            return c[..., -1, :]
        index = steps.reshape(*steps.shape, *[1] * (c.ndim - steps.ndim))
        return c.take_along_dim(index.to(c.device), dim=-2).squeeze(-2)

    def contrast_of_keys(
        self, query: Tensor, positive: Tensor, negatives: Tensor, reward_gap: Tensor
    ) -> Tensor:
        """The loss that the settings name: (P, D), (P, D), (N, D), () -> ()."""
        settings = self.context
        keys = query, positive, negatives, settings.temperature
        skill_aware = self.contrast != "ccm"
        if skill_aware and settings.loss == "softmax" and settings.skill_weight != "return_gap":
            return sance(*keys, weight=settings.skill_weight)
        loss = bce_contrast(*keys) if settings.loss == "bce" else info_nce(*keys)
        if skill_aware and settings.skill_weight == "return_gap":
            loss = loss * reward_gap.clamp(0, 1)
        return loss

    @torch.no_grad()
    def held_out_accuracy(self, batch: HeldOut) -> Tensor:
        """How often the positive is the key most similar to its query; by chance 1 / (N + 1).

        Every embedding begins as when acting, whatever the settings of the contrast say.
        """
        query = self.embed(self.encoder, batch.query, None)  # (Q, D)
        positive = self.embed(self.momentum_encoder, batch.positive, None)  # (Q, D)
        negatives = self.embed(self.momentum_encoder, batch.negatives, None)  # (Q * N, D)
        negatives = negatives.unflatten(0, (len(query), -1))  # (Q, N, D)
        to_positive = (query * positive).sum(dim=-1)  # (Q,)
        to_negatives = (negatives @ query.unsqueeze(-1)).squeeze(-1)  # (Q, N)
        return (to_positive > to_negatives.max(dim=-1).values).float().mean()

    def gradient_ratio(
        self, episodes: Episodes, batch_size: int, contrast: ContrastiveBatch
    ) -> Tensor:
        """Length of the critic's gradient on the encoder over that of the weighted contrast's.

        Infinite where the contrast is solved so well that nothing of its gradient is left. Draws no
        random numbers of the training: asking changes nothing.
        """
        state = self.generator.get_state()
        critic_loss, _ = self.critic_loss(self.transitions(self.seen(episodes), batch_size))
        contrastive_loss = self.context.contrast_weight * self.contrastive_loss(contrast)
        self.generator.set_state(state)
        parameters = list(self.encoder.parameters())
        lengths = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).norm()
            for loss in (critic_loss, contrastive_loss)
        ]
        return lengths[0] / lengths[1]
