"""A population: several agents that differ by their seed only, updated at once.

The parameters of all members are laid side by side along a leading axis, and one agent with these
stacked parameters takes the update of all of them: the same code, in batched matrix products that
keep the processor busy where a single small network does not. Each member's own parameters become
views of the stack. So a member acts, is stored and is evaluated as if it were alone, and the
state of its optimisers stays its own.

    members' weights   W_1 (in, out) .. W_P (in, out)
    stack              W (P, in, out), W_p = W[p]
    one product        x W: (P, B, in) (P, in, out) -> (P, B, out)

Source of the idea: Lu et al., *Discovered Policy Optimisation* (NeurIPS 2022), whose PureJaxRL
trains many agents by one vectorised map. Built in chapter 10, *Making it fast*.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sami_tutorial.sac import SAC


def stack_agents(members: Sequence[SAC], stacked: SAC) -> SAC:
    """Makes ``stacked`` the agent of all members.

    Args:
        members: agents that differ in their seed only. Their parameters become views.
        stacked: an agent like them, whose own parameters are replaced.

    Returns:
        ``stacked``: its ``update`` takes batches with a leading axis (:func:`stack`), leaves each
        member as its own update would, up to rounding, and returns metrics of shape (P,).
    """
    whole: dict[int, nn.Parameter] = {}  # by the identity of the first member's parameter
    for name, own in list(stacked.named_parameters()):
        parts = [member.get_parameter(name) for member in members]
        parameter = nn.Parameter(_lay_side_by_side(parts), own.requires_grad)
        _replace(stacked, name, parameter)
        whole[id(parts[0])] = parameter
    for name, _ in list(stacked.named_buffers()):
        _replace(stacked, name, _lay_side_by_side([member.get_buffer(name) for member in members]))
    for module in stacked.modules():
        if hasattr(module, "generator"):
            module.generator = [member.generator for member in members]  # type: ignore[assignment]
    stacked.optimizers = {
        name: _Together(whole, [member.optimizers[name] for member in members])  # type: ignore[misc]
        for name in members[0].optimizers
    }
    return stacked


def _lay_side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """The stack of some tensors, of which they become views."""
    whole = torch.stack([part.detach() for part in parts])
    for part, view in zip(parts, whole, strict=True):
        part.data = view
    return whole


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, tensor)


class _Together:
    """The members' optimisers of one name, stepping as one on slices of the stacked gradients."""

    def __init__(self, whole: dict[int, nn.Parameter], members: list[torch.optim.Adam]):
        parts = [_parameters(member) for member in members]
        self.param_groups = [{"params": [whole[id(part)] for part in parts[0]]}]
        # Per parameter of the stack, its slices; one Adam over all of them pays its overhead once.
        self.slices = list(zip(*parts, strict=True))
        self.adam = type(members[0])(itertools.chain(*parts), **members[0].defaults)
        for member, own in zip(members, parts, strict=True):
            for part in own:
                self.adam.state[part] = member.state[part]  # one and the same dictionary

    def step(self) -> None:
        for parameter, parts in zip(self.param_groups[0]["params"], self.slices, strict=True):
            assert parameter.grad is not None
            for part, gradient in zip(parts, parameter.grad, strict=True):
                part.grad = gradient
        self.adam.step()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def stack(parts: Sequence[Any]) -> Any:
    """Batches of the members side by side: tensors are stacked, in tuples one by one.

    What is no tensor (None, a number) is the same for all members.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.stack(list(parts))
    if isinstance(first, tuple):
        fields = [stack(each) for each in zip(*parts, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    return first
