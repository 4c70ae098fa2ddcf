"""Context encoders: from the episode so far to an embedding c of the hidden task.

At time t an encoder has seen s_0 .. s_t, a_0 .. a_{t-1} and r_0 .. r_{t-1}: everything the agent
has, and nothing of the step it is about to take. All encoders share one interface. Called with
whole episodes they give c at every time; :meth:`initial_memory` and :meth:`step` give the same
numbers one step at a time, as acting needs them.

Sources: the recurrent encoder is psi of arXiv 2406.04815, section 3 and appendix (an LSTM and a
linear layer, c in R^6), its momentum copy psi* Eq. 13; the permutation-invariant encoder is PEARL's
(Rakelly et al., arXiv 1903.08254, section 4.1). Built in chapter 4, *A context encoder*; the
momentum copy in chapter 6, *CCM*.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sami_tutorial.nets import LSTM, MLP, Linear, normal, per_member

Memory = tuple[Tensor, ...]
"""What an encoder carries from step to step, each tensor of shape (N, width)."""


class Start(NamedTuple):
    """What an encoder knew before a sequence that begins in the middle of an episode."""

    action: Tensor  # (E, A) a_{t-1}; zero at the start of an episode
    reward: Tensor  # (E,) r_{t-1}
    memory: Memory  # as carried when acting, each (E, width)


class Encoder(Protocol):
    """What the agents ask of an encoder."""

    embedding_dim: int

    def __call__(
        self, observation: Tensor, action: Tensor, reward: Tensor, start: Start | None = None
    ) -> Tensor: ...
    def initial_memory(self, num_envs: int) -> Memory: ...
    def step(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Memory]: ...


class ContextEncoder(nn.Module):
    """LSTM over (s_t, a_{t-1}, r_{t-1}), then a linear layer to c_t.

    Args:
        observation_dim, action_dim: S and A.
        generator: draws the initial weights.
        hidden: width of the LSTM.
        embedding_dim: D, the width of c.

    Raises:
        ValueError: if a width is not positive.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        generator: torch.Generator,
        hidden: int = 64,
        embedding_dim: int = 6,
    ):
        super().__init__()
        _check_widths(hidden=hidden, embedding_dim=embedding_dim)
        self.embedding_dim = embedding_dim
        self.lstm = LSTM(observation_dim + action_dim + 1, hidden)
        bound = 1 / math.sqrt(hidden)  # PyTorch's default for nn.LSTM, but from our generator
        for parameter in self.lstm.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.head = Linear(hidden, embedding_dim, generator)

    def forward(
        self, observation: Tensor, action: Tensor, reward: Tensor, start: Start | None = None
    ) -> Tensor:
        """c_0 .. c_T of a sequence: (E, T+1, S), (E, T, A), (E, T) -> (E, T+1, D).

        Without ``start`` it begins as an episode does: from the zero state.
        """
        x = history(observation, action, reward, start)
        hidden, _ = self.lstm(x, None if start is None else start.memory)  # (E, T+1, H)
        return self.head(hidden.flatten(-3, -2)).unflatten(-2, hidden.shape[-3:-1])

    def initial_memory(self, num_envs: int) -> Memory:
        """Hidden and cell state at the start of an episode: zero."""
        zeros = self.head.weight.new_zeros(num_envs, self.lstm.hidden_size)
        return zeros, zeros

    def step(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Memory]:
        """c_t and the next memory: (N, S), (N, A), (N,) -> (N, D)."""
        x = torch.cat([observation, previous_action, previous_reward[:, None]], dim=-1)
        output, memory = self.lstm(x[:, None], memory)
        return self.head(output[:, 0]), memory


def history(
    observation: Tensor, action: Tensor, reward: Tensor, start: Start | None = None
) -> Tensor:
    """Puts (s_t, a_{t-1}, r_{t-1}) side by side; without ``start``, a_{-1} and r_{-1} are zero.

    (E, T+1, S), (E, T, A), (E, T) -> (E, T+1, S+A+1).

    Raises:
        ValueError: unless there is one observation more than there are actions.
    """
    if observation.shape[-2] != action.shape[-2] + 1:
        raise ValueError(
            f"observation holds {observation.shape[-2]} times and action {action.shape[-2]}; "
            "give one observation more than actions: s_0 .. s_T and a_0 .. a_{T-1}"
        )
    past = torch.cat([action, reward[..., None]], dim=-1)  # (E, T, A+1)
    if start is None:
        past = F.pad(past, (0, 0, 1, 0))
    else:
        before = torch.cat([start.action, start.reward[..., None]], dim=-1)  # (E, A+1)
        past = torch.cat([before.unsqueeze(-2), past], dim=-2)  # (E, T+1, A+1)
    return torch.cat([observation, past], dim=-1)


class Gaussian(NamedTuple):
    """A diagonal Gaussian belief about the task."""

    mean: Tensor  # (..., D)
    variance: Tensor  # (..., D)

    def kl_from_standard(self) -> Tensor:
        """KL(self || N(0, 1)) in nats, summed over D: (...)."""
        return 0.5 * (self.variance + self.mean**2 - 1 - self.variance.log()).sum(dim=-1)


class PEARLEncoder(nn.Module):
    """Every transition votes with a Gaussian; c is a draw from the product of all votes.

    A product does not ask for the order of its factors, so the belief is permutation-invariant. The
    standard normal prior is one of the factors: without a transition the belief is the prior.

    Args:
        observation_dim, action_dim: S and A.
        generator: draws the initial weights, and c from the belief.
        hidden: width of the two hidden layers.
        embedding_dim: D, the width of c.

    Raises:
        ValueError: if a width is not positive.
    """

    MIN_VARIANCE = 1e-4  # a single vote must not silence all others for good

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        generator: torch.Generator,
        hidden: int = 64,
        embedding_dim: int = 6,
    ):
        super().__init__()
        _check_widths(hidden=hidden, embedding_dim=embedding_dim)
        self.embedding_dim = embedding_dim
        self.generator = generator
        transition_dim = 2 * observation_dim + action_dim + 1
        self.vote = MLP((transition_dim, hidden, hidden, 2 * embedding_dim), generator)

    def votes(
        self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Precision and precision-weighted mean of each transition's Gaussian: (..., D) twice."""
        x = torch.cat([observation, action, reward[..., None], next_observation], dim=-1)
        mean, raw = self.vote(x).chunk(2, dim=-1)
        precision = 1 / (F.softplus(raw) + self.MIN_VARIANCE)
        return precision, precision * mean

    def belief(self, observation: Tensor, action: Tensor, reward: Tensor) -> Gaussian:
        """The product of the votes before each time t: (E, T+1, S), .. -> (E, T+1, D) twice."""
        transitions = (
            observation[..., :-1, :].flatten(-3, -2),  # (E*T, S)
            action.flatten(-3, -2),
            reward.flatten(-2),
            observation[..., 1:, :].flatten(-3, -2),
        )
        sums = (
            F.pad(each.unflatten(-2, reward.shape[-2:]).cumsum(dim=-2), (0, 0, 1, 0))
            for each in self.votes(*transitions)
        )  # (E, T+1, D) twice
        return _product(*sums)

    def forward(
        self, observation: Tensor, action: Tensor, reward: Tensor, start: Start | None = None
    ) -> Tensor:
        """c_0 .. c_T, drawn from the beliefs: (E, T+1, S), (E, T, A), (E, T) -> (E, T+1, D).

        Raises:
            ValueError: for a ``start``: a belief is the product over the whole episode so far.
        """
        if start is not None:
            raise ValueError(
                "start is given, but PEARL's encoder reads whole episodes; set window 0"
            )
        return self.draw(self.belief(observation, action, reward))

    def draw(self, belief: Gaussian) -> Tensor:
        """A sample, differentiable in mean and variance."""
        noise = per_member(normal, self.generator, belief.mean)
        return belief.mean + belief.variance.sqrt() * noise

    def initial_memory(self, num_envs: int) -> Memory:
        """No votes yet, and no observation to start a transition from."""
        zeros = next(self.parameters()).new_zeros(num_envs, self.embedding_dim)
        return zeros, zeros

    def step(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Memory]:
        """c_t and the next memory: (N, S), (N, A), (N,) -> (N, D)."""
        precision, weighted, *last = memory
        if last:
            vote = self.votes(last[0], previous_action, previous_reward, observation)
            precision, weighted = precision + vote[0], weighted + vote[1]
        return self.draw(_product(precision, weighted)), (precision, weighted, observation)


AnyEncoder = TypeVar("AnyEncoder", bound=nn.Module)


def _product(precision: Tensor, weighted: Tensor) -> Gaussian:
    """The Gaussian of summed precisions, times the standard normal prior."""
    variance = 1 / (1 + precision)
    return Gaussian(variance * weighted, variance)


def momentum_copy(encoder: AnyEncoder) -> AnyEncoder:
    """psi*: starts as a copy, carries no gradient, and follows by ``nets.soft_update`` (Eq. 13).

    A copy that draws random numbers draws them from the original's generator.
    """
    generator = getattr(encoder, "generator", None)
    return copy.deepcopy(encoder, {id(generator): generator}).requires_grad_(False)


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if width < 1:
            raise ValueError(f"{name} is {width}; give a positive integer")
