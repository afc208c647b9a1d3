"""Handles tensors by name, as files of weights and training states contain them."""

import torch
from torch import Tensor

from vlae.errors import VlaeError


def with_prefix(prefix: str, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names PREFIX/NAME."""
    return {f"{prefix}/{name}": tensor for name, tensor in named.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with PREFIX/, under names without it."""
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(prefix + "/")}


@torch.no_grad()
def copy_into(targets: dict[str, Tensor], sources: dict[str, Tensor], what: str) -> None:
    """Copy tensors by name, in place.

    Raises VlaeError, naming `what` the sources are, if a name, shape or type does not fit.
    """
    if targets.keys() != sources.keys():
        unmatched = sorted(targets.keys() ^ sources.keys())
        raise VlaeError(
            f"{what}: tensors missing or not part of this model: {', '.join(unmatched[:5])}"
        )
    for name, target in targets.items():
        source = sources[name]
        if target.shape != source.shape:
            shapes = f"{tuple(source.shape)} instead of {tuple(target.shape)}"
            raise VlaeError(f"{what}: tensor {name} has shape {shapes}")
        if target.dtype != source.dtype:
            raise VlaeError(f"{what}: tensor {name} is {source.dtype} instead of {target.dtype}")
        target.copy_(sources[name])
