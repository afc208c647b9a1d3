"""Gives a model more filters in its decoder without changing what it computes.

This is Net2WiderNet (Chen et al. 2016, arXiv:1511.05641) with new units instead of copied ones.
The units that the narrow model has keep their weights and give weight 0 to the new units. So the
wide model computes the same function, until training changes these zeros. The new units are those
of a model that begins with random weights.
"""

import torch
from torch import Tensor

from vlae.models.base import Model


@torch.no_grad()
def widened(narrow: dict[str, Tensor], wide: Model) -> dict[str, Tensor]:
    """Return weights of the wide model, by name, with which it computes what the narrow one does.

    narrow: the weights of a model that has the same layers, with as many units or fewer. Units
    are the first dimension of each weight that differs, inputs the second. wide: an initialised
    model; it is not changed.
    """
    result = dict(narrow)
    for name, new in wide.named_parameters():
        old = narrow.get(name)
        if old is not None and old.dim() == new.dim() and old.shape != new.shape:
            weight = new.detach().clone()
            weight[: old.shape[0]] = 0
            weight[tuple(slice(size) for size in old.shape)] = old
            result[name] = weight
    return result
