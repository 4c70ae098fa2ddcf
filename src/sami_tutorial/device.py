"""Where the networks compute: on the processor or, by the same code, on a graphics card.

Environments, replay and random numbers stay on the processor. What an update needs is drawn there
and moved; actions come back. So a run draws the same numbers on every device, and its results
differ by rounding only.

Built in chapter 10, *Making it fast*.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def usable(device: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if PyTorch knows no such device, or cannot compute on it here.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (AssertionError, RuntimeError) as error:  # the first where PyTorch came without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device is {device!r}, but PyTorch cannot use it ({reason}); give 'cpu', or install a "
            "PyTorch and a driver that know your graphics card"
        ) from None
    return found


def move(batch: Any, device: torch.device) -> Any:
    """A batch on a device: its tensors, those in tuples too; whatever else stays what it is."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, tuple):
        parts = [move(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch
