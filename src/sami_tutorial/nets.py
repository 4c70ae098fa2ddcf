"""The networks: an MLP, an ensemble of critics, a tanh-Gaussian actor, an LSTM.

``Linear`` may hold several layers at once along a leading axis, so that an ensemble costs one
batched matrix product instead of a Python loop. A whole population of agents is one more such axis,
in front of all others: nothing here counts its axes from the front
(:mod:`sami_tutorial.population`). All initial weights and all noise come from the generator that
the caller passes.

Sources: Haarnoja et al., *Soft Actor-Critic Algorithms and Applications* (arXiv 1812.05905),
appendix C for the squashed Gaussian. Built in chapter 2, *Soft actor-critic from scratch*.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator, or one for each member of a population."""


def per_member(function: Callable[..., Tensor], generator: Generators, *tensors: Tensor) -> Tensor:
    """``function(generator, *tensors)``; in a population each member's own, stacked in front."""
    if isinstance(generator, torch.Generator):
        return function(generator, *tensors)
    return torch.stack([function(*each) for each in zip(generator, *tensors, strict=True)])


def normal(generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers in the shape of a tensor, and where it is.

    They are drawn where the generator is, on the processor: the same numbers on every device.
    """
    return (
        torch.empty_like(like, device=generator.device).normal_(generator=generator).to(like.device)
    )


class Linear(nn.Module):
    """x -> x W + b, once or for ``lead`` independent layers: (..., B, in) -> (*lead, B, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        generator: torch.Generator,
        lead: tuple[int, ...] = (),
    ):
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # PyTorch's default for nn.Linear

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.weight = uniform(*lead, in_features, out_features)
        self.bias = uniform(*lead, 1, out_features)  # the 1 broadcasts over the batch

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class MLP(nn.Module):
    """Linear layers with ReLU between them; ``sizes`` runs from the input to the output width."""

    def __init__(
        self, sizes: Sequence[int], generator: torch.Generator, lead: tuple[int, ...] = ()
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            Linear(n_in, n_out, generator, lead) for n_in, n_out in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class LSTM(nn.LSTM):
    """PyTorch's LSTM, one layer, that also runs as a population.

    Where the weights have a leading axis, it applies P independent ones to their own sequences,
    x (P, E, T, in) -> (P, E, T, H), one after the other: PyTorch's LSTM is a single operation for
    all times, and chapter 10 measures that P of them are faster than T batched products.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, in_features: int, hidden: int):
        super().__init__(in_features, hidden, batch_first=True)

    def forward(  # type: ignore[override]  # a memory without PyTorch's axis of layers
        self, x: Tensor, memory: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Hidden states (E, T, H), and the memory (h, c) behind the last step, each (E, H).

        Args:
            x: (E, T, in).
            memory: before the first step; None is zero.
        """
        if self.weight_ih_l0.ndim == 2:
            layers = None if memory is None else (memory[0][None], memory[1][None])
            output, (hidden, cell) = super().forward(x, layers)
            return output, (hidden[0], cell[0])

        if memory is None:
            memory = x.new_zeros(2, *x.shape[:-2], self.hidden_size).unbind()
        weights = [each.unbind() for each in self.parameters()]
        settings = (True, 1, 0.0, self.training, False, True)  # biases, one layer, batch first
        members = [
            torch.lstm(sequence, (hidden[None], cell[None]), own, *settings)
            for sequence, hidden, cell, *own in zip(x, *memory, *weights, strict=True)
        ]
        output, hidden, cell = (torch.stack(each) for each in zip(*members, strict=True))
        return output, (hidden.squeeze(1), cell.squeeze(1))


class Standardize(nn.Module):
    """x -> (x - mean) / std for each column; changes nothing before :meth:`fit`."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, x: Tensor) -> None:
        """Takes mean and standard deviation from (N, dim); a constant column keeps its scale."""
        std = x.std(dim=0)
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        lead, dim = self.mean.shape[:-1], self.mean.shape[-1]
        shape = (*lead, *[1] * (x.ndim - self.mean.ndim), dim)
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Critic(nn.Module):
    """``ensemble`` independent soft Q-functions: (B, S), (B, A) -> (ensemble, B)."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        ensemble: int = 2,
    ):
        super().__init__()
        self.q = MLP((observation_dim + action_dim, *hidden, 1), generator, lead=(ensemble,))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([observation, action], dim=-1).unsqueeze(-3)  # (1, B, S+A), for all alike
        return self.q(x).squeeze(-1)


class Actor(nn.Module):
    """The policy: a Gaussian pushed through tanh, so that actions stay in (-1, 1)."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
    ):
        super().__init__()
        self.mlp = MLP((observation_dim, *hidden, 2 * action_dim), generator)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh: (B, S) -> (B, A), (B, A)."""
        mean, raw = self.mlp(observation).chunk(2, dim=-1)
        # A hard clamp would stop the gradient outside the range; tanh only flattens it.
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1)
        return mean, log_std

    def sample(self, observation: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        """An action and its log-probability, differentiable in the parameters: (B, A), (B,)."""
        mean, log_std = self(observation)
        noise = per_member(normal, generator, mean)
        pre_tanh = mean + log_std.exp() * noise
        return torch.tanh(pre_tanh), tanh_gaussian_log_prob(pre_tanh, mean, log_std)

    def mode(self, observation: Tensor) -> Tensor:
        """The deterministic action tanh(mean): (B, S) -> (B, A)."""
        return torch.tanh(self(observation)[0])

    @torch.inference_mode()
    def act(
        self, observation: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> np.ndarray:
        """Actions in [-1, 1] for a batch of observations, outside training: (N, S) -> (N, A)."""
        action = self.mode(observation) if deterministic else self.sample(observation, generator)[0]
        return action.cpu().numpy()


def tanh_gaussian_log_prob(pre_tanh: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), u ~ N(mean, exp(log_std)^2), in nats: (B, A) x 3 -> (B,).

    The change of variables subtracts log(1 - tanh(u)^2). It is evaluated at u as
    2 (log 2 - u - softplus(-2u)), which stays finite where tanh(u) rounds to 1.
    """
    gaussian = (
        -0.5 * ((pre_tanh - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    )
    squash = 2 * (math.log(2) - pre_tanh - F.softplus(-2 * pre_tanh))
    return (gaussian - squash).sum(dim=-1)


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- target + rate (source - target): an exponential moving average of the weights."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
