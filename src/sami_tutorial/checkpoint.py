"""Files that are either whole or absent: weights in safetensors, numbers in JSON, no pickle.

``sami_tutorial.train`` keeps its runs in them; chapter 3 reads stored policies from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be read."""


def save_checkpoint(path: Path, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Writes both into one file under a temporary name, then renames it.

    A kill at any moment leaves the previous checkpoint or the new one, never half of one.
    """
    temporary = path.with_suffix(".tmp")
    # safetensors wants every tensor contiguous and in memory of its own.
    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(own, temporary, metadata={"counters": json.dumps(counters)})
    temporary.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and counters that :func:`save_checkpoint` wrote.

    Raises:
        CheckpointError: if the file is damaged or was not written by this library.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors, json.loads(metadata["counters"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is damaged or foreign ({error}); delete it to start again"
        ) from error


def policy_bytes(policy: nn.Module, config: str) -> bytes:
    """The weights of a finished policy as a small safetensors file that carries its config."""
    weights = {name: value.detach().contiguous() for name, value in policy.state_dict().items()}
    return save(weights, metadata={"config": config})


def read_policy(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights, as :func:`policy_bytes` wrote them.

    Raises:
        CheckpointError: if the file is damaged or was not written by this library.
    """
    try:
        weights = load(content)
        header_size = int.from_bytes(content[:8], "little")  # the format's first field
        header = json.loads(content[8 : 8 + header_size])
        return json.loads(header["__metadata__"]["config"]), weights
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"the stored policy is damaged or foreign ({error})") from error
