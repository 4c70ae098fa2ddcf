"""Soft actor-critic: the update, line by line as in the pseudocode.

    repeat:
        sample a batch of transitions (s, a, r, s')
        critics  Q_i   minimise (Q_i(s, a) - y)^2,
                       y = r + gamma (1 - terminated) V(s'),
                       V(s') = min_j Q'_j(s', a') - temperature log pi(a'|s'),  a' ~ pi(.|s')
        actor    pi    minimise temperature log pi(a|s) - min_i Q_i(s, a),  a ~ pi(.|s)
        temperature    move so that the entropy of pi meets its target
        target   Q'    <- Q' + tau (Q - Q')

Source: Haarnoja et al., arXiv 1812.05905. The temperature is their alpha; in this book alpha weighs
the contrastive loss (paper 2406.04815, section 4). Built in chapter 2.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sami_tutorial.checks import integer
from sami_tutorial.nets import Actor, Critic, Standardize, soft_update


@dataclass(frozen=True)
class SACConfig:
    """Settings of the update.

    Args:
        hidden: widths of the hidden layers of actor and critics.
        learning_rate: of all three Adam optimisers.
        discount: gamma, per environment step.
        target_rate: tau, the step of the target critics towards the critics.
        initial_temperature: weight of the entropy, in units of reward per nat.
        target_entropy: in nats; ``None`` means minus the number of action dimensions.
        standardize: whether the networks see observations that are standardised, with the mean and
            the standard deviation of the warm-up.
    """

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    discount: float = 0.99
    target_rate: float = 0.01
    initial_temperature: float = 0.2
    target_entropy: float | None = None
    standardize: bool = False

    def __post_init__(self) -> None:
        try:
            widths = tuple(integer("hidden", width) for width in self.hidden)
        except (TypeError, ValueError):
            widths = ()
        if not widths:
            raise ValueError(
                f"hidden is {self.hidden!r}; give a tuple of at least one positive width"
            )
        object.__setattr__(self, "hidden", widths)
        for name in ("learning_rate", "initial_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        if self.target_entropy is not None and not math.isfinite(self.target_entropy):
            raise ValueError(
                f"target_entropy is {self.target_entropy}; give a number of nats, or None"
            )
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount is {self.discount}; give a number in [0, 1)")
        if not 0 < self.target_rate <= 1:
            raise ValueError(f"target_rate is {self.target_rate}; give a number in (0, 1]")


class Transitions(NamedTuple):
    """A batch of transitions."""

    observation: Tensor  # (B, S)
    action: Tensor  # (B, A)
    reward: Tensor  # (B,)
    next_observation: Tensor  # (B, S)
    terminated: Tensor  # (B,) 1 where the task ended, 0 elsewhere, also at a time limit
    shown: Tensor | None = None  # (B, A) what a teacher would have done here


class SAC(nn.Module):
    """Actor, twin critics, their targets, the temperature, and the update of all of them.

    Args:
        observation_dim, action_dim: S and A.
        config: settings of the update.
        seed: of the initial weights and of all noise.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, config: SACConfig | None = None, seed: int = 0
    ):
        super().__init__()
        self.config = config = config or SACConfig()
        self.generator = torch.Generator().manual_seed(seed)
        self.standardize = Standardize(observation_dim)
        self.actor = Actor(observation_dim, action_dim, config.hidden, self.generator)
        self.critic = Critic(observation_dim, action_dim, config.hidden, self.generator)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(config.initial_temperature).log())
        self.target_entropy = (
            -float(action_dim) if config.target_entropy is None else config.target_entropy
        )

        def adam(parameters: list[nn.Parameter]) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)

        self.optimizers = {
            "critic": adam(list(self.critic.parameters())),
            "actor": adam(list(self.actor.parameters())),
            "temperature": adam([self.log_temperature]),
        }

    def begin(self, observation: np.ndarray) -> None:
        """A new episode starts everywhere; a policy without memory has nothing to clear."""

    def observe(self, action: np.ndarray, reward: np.ndarray, observation: np.ndarray) -> None:
        """The step's outcome; a policy without memory has nothing to remember."""

    def act(self, observation: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """Actions in [-1, 1] for a batch of observations: (N, S) -> (N, A)."""
        return self.actor.act(self.seen_now(observation), self.generator, deterministic)

    def seen_now(self, observation: np.ndarray) -> Tensor:
        """Observations as the networks see them, where the networks are: (N, S)."""
        return self.standardize(self.tensor(observation))

    def tensor(self, x: np.ndarray) -> Tensor:
        """An array of the environment's, where the networks are."""
        return torch.as_tensor(x, dtype=torch.float32, device=self.log_temperature.device)

    def policy(self) -> nn.ModuleDict:
        """What acting needs, and nothing else: what is stored of a finished agent."""
        return nn.ModuleDict({"actor": self.actor, "standardize": self.standardize})

    def update(self, batch: Transitions, imitation: float = 0.0) -> dict[str, Tensor]:
        """One step of every optimiser. Returns what to log, left as tensors.

        Args:
            batch: of the replay.
            imitation: weight, from 0 up, of the actor's being like a teacher beside its being good;
                without effect where the batch shows no teacher's actions.
        """
        batch = batch._replace(
            observation=self.standardize(batch.observation),
            next_observation=self.standardize(batch.next_observation),
        )
        critic_loss, metrics = self.critic_loss(batch)
        self.step("critic", critic_loss)

        actor_loss, log_prob = self.actor_loss(batch.observation)
        if batch.shown is not None:
            actor_loss = actor_loss + imitation * self.unlikeness(batch.observation, batch.shown)
        self.step("actor", actor_loss)

        temperature_loss = self.temperature_loss(log_prob)
        self.step("temperature", temperature_loss)

        self.update_target()
        return metrics | {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "entropy": -log_prob.mean(dim=-1),
            "temperature": self.temperature,
        }

    def critic_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared soft Bellman error, summed over the critics."""
        q = self.critic(batch.observation, batch.action)  # (2, B)
        y = self.bellman_target(batch)  # (B,)
        error = F.mse_loss(q, y.unsqueeze(-2).expand_as(q), reduction="none")
        loss = error.mean(dim=-1).sum(dim=-1)  # ()
        return loss, {"q": q.detach().mean(dim=(-2, -1)), "target_q": y.mean(dim=-1)}

    @torch.no_grad()
    def bellman_target(self, batch: Transitions) -> Tensor:
        """y, shape (B,). A time limit is no end of the task: only ``terminated`` stops the sum."""
        next_action, next_log_prob = self.actor.sample(batch.next_observation, self.generator)
        next_q = self.target(batch.next_observation, next_action).min(dim=-2).values  # (B,)
        next_value = next_q - self.temperature.unsqueeze(-1) * next_log_prob
        return batch.reward + self.config.discount * (1 - batch.terminated) * next_value

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """E[temperature log pi(a|s) - min_i Q_i(s, a)], and log pi (B,) for the temperature."""
        action, log_prob = self.actor.sample(observation, self.generator)
        q = self.critic(observation, action).min(dim=-2).values  # (B,)
        loss = (self.temperature.unsqueeze(-1) * log_prob - q).mean(dim=-1)  # ()
        return loss, log_prob.detach()

    def unlikeness(self, observation: Tensor, shown: Tensor) -> Tensor:
        """E|mean action - shown|^2, how far the policy is from a teacher, (B, A).

        The mean action and not a sampled one: to be like the teacher does not mean to be sure, so
        that imitation leaves the entropy alone, and with it the temperature.

        Source: Ross et al., *A Reduction of Imitation Learning and Structured Prediction to
        No-Regret Online Learning* (2011): a teacher that is asked in the states that the policy
        visits. Beside the actor's own loss: Nair et al., *Overcoming Exploration in Reinforcement
        Learning with Demonstrations* (2018), who copy only where the critic prefers what is shown.
        """
        return (self.actor.mode(observation) - shown).square().sum(dim=-1).mean(dim=-1)  # ()

    def temperature_loss(self, log_prob: Tensor) -> Tensor:
        """Its gradient lowers the temperature while the entropy lies above the target."""
        return -self.log_temperature * (log_prob + self.target_entropy).mean(dim=-1)

    @property
    def temperature(self) -> Tensor:
        """As a constant: only :meth:`temperature_loss` may move it."""
        return self.log_temperature.detach().exp()

    def step(self, name: str, loss: Tensor) -> None:
        """One gradient step of one optimiser, on its own parameters and no others.

        In a population the losses of all members are summed: none depends on another's parameters,
        so each member's gradient is the one that it would have alone.
        """
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss.sum(), parameters), strict=True
        ):
            parameter.grad = gradient.contiguous()  # fused Adam reads memory, not strides
        optimizer.step()

    def update_target(self) -> None:
        """Q' <- Q' + tau (Q - Q')."""
        soft_update(self.target, self.critic, self.config.target_rate)
