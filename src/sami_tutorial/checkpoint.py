"""Files that are either whole or absent: weights in safetensors, numbers in JSON, no pickle.

``sami_tutorial.train`` keeps its runs in them; chapter 3 reads stored policies from them.

A run keeps its newest checkpoint and the one before. A kill or a full disk while saving leaves at
least one of them whole, and when the newest was damaged later, the one before takes its place: a
minute of training is lost and not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written."""


class CheckpointWarning(UserWarning):
    """The newest checkpoint cannot be used, the one before it can."""


class Checkpoint(NamedTuple):
    """What was saved, and the file it was read from."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]
    path: Path


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before ``path`` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_checkpoint(path: Path) -> bool:
    """Whether ``path`` or the checkpoint before it is there."""
    return path.exists() or previous_checkpoint(path).exists()


def save_checkpoint(
    path: Path, tensors: dict[str, Tensor], counters: dict[str, Any], config: str
) -> None:
    """Writes a new checkpoint and keeps the one before.

    The file is complete under a temporary name before anything is renamed, so a kill at any moment
    leaves the old checkpoint or the new one, never half of one.

    Args:
        path: of the newest checkpoint.
        tensors: arrays of any shape and type.
        counters: what JSON can hold.
        config: of the run that the checkpoint belongs to.

    Raises:
        CheckpointError: if it cannot be written, say because the disk is full; the one at ``path``
            is untouched then.
    """
    temporary = path.with_suffix(".tmp")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"config": config, "counters": json.dumps(counters)}
    metadata["digest"] = _digest(whole, metadata)
    try:
        save_file(whole, temporary, metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the data reach the disk before the names change
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be written ({error}); make room and start the same "
            "command again: it goes on from the last checkpoint that was written"
        ) from error
    if path.exists():
        path.replace(previous_checkpoint(path))
    temporary.replace(path)


def load_checkpoint(path: Path, config: str) -> Checkpoint:
    """The newest checkpoint of a run, or the one before it with a :class:`CheckpointWarning`.

    Args:
        path: as given to :func:`save_checkpoint`.
        config: as given to :func:`save_checkpoint`; a checkpoint of another run is refused.

    Raises:
        CheckpointError: if neither can be used.
    """
    try:
        return _read(path, config)
    except CheckpointError as newest:
        try:
            older = _read(previous_checkpoint(path), config)
        except CheckpointError as error:
            if not previous_checkpoint(path).exists():
                raise CheckpointError(
                    f"{newest}, and there is none before it; delete it to start again"
                ) from error
            raise CheckpointError(
                f"{newest}, nor is the one before it of use: {error}; delete both to start again"
            ) from error
        if path.exists():  # else a kill came between the two renames, and nothing is wrong
            warnings.warn(
                f"{newest}; the one before it is used instead", CheckpointWarning, stacklevel=2
            )
        return older


def _read(path: Path, config: str) -> Checkpoint:
    """One file, if it is whole and belongs to that config."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata.pop("digest") != _digest(tensors, metadata):
            raise CheckpointError(f"checkpoint {str(path)!r} is damaged (its digest differs)")
        if metadata["config"] != config:
            raise CheckpointError(f"checkpoint {str(path)!r} is foreign (of another config)")
        return Checkpoint(tensors, json.loads(metadata["counters"]), path)
    except (SafetensorError, KeyError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is damaged or foreign ({error})"
        ) from error


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """A hash of everything in the file: safetensors has no checksum of its own."""
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def policy_bytes(policy: nn.Module, config: str) -> bytes:
    """The weights of a finished policy as a small safetensors file that carries its config."""
    weights = {n: value.detach().cpu().contiguous() for n, value in policy.state_dict().items()}
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
