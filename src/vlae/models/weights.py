"""Reads and writes the trained weights of a run as its checkpoint contains them.

A mask removes about half of the weights of a MADE. A checkpoint leaves those out: it has a masked
weight as a vector of the elements where the mask is 1, in their order. Older checkpoints have all
elements.
"""

from pathlib import Path

import torch
from torch import Tensor

from vlae.config.schema import ColourModelConfig, ModelConfig, Run
from vlae.errors import VlaeError
from vlae.models.base import Model
from vlae.models.build import build_model
from vlae.nn.weightnorm import WeightNorm
from vlae.storage import paths
from vlae.storage.read import read_safetensors
from vlae.storage.records import read_training
from vlae.storage.tensors import copy_into
from vlae.storage.write import sha256


def load_model(run: Run, device: torch.device) -> Model:
    """Return the averaged model of results/checkpoints/RUN, ready for evaluation.

    Raises VlaeError for a file that is missing, unreadable or of another model, and for a file
    that the train.json beside it does not describe.
    """
    path = paths.model(run.name)
    record = read_training(Path(), run.name, run.dataset) or {}
    recorded = record.get("checkpoint_sha256")  # old records have none
    if recorded is not None and path.exists() and sha256(path) != recorded:
        raise VlaeError(f"{path} is not the checkpoint that the train.json beside it describes")
    return read_model(run.name, run.model, path).to(device).eval()


def read_model(name: str, config: ModelConfig | ColourModelConfig, path: Path) -> Model:
    """Return the model of the run of that name, with the weights of a file.

    Raises VlaeError for a file that is missing, unreadable or of another run or model, and for
    weights that are not finite.
    """
    if not path.exists():
        raise VlaeError(f"{path} is missing; train it with `vlae train {name}`")
    try:
        tensors, about = read_safetensors(path)
    except ValueError as error:
        raise VlaeError(f"{path} is not a readable checkpoint: {error}") from error
    if about.get("run", name) != name:
        raise VlaeError(f"{path} is a checkpoint of {about['run']}, not of {name}")
    model = build_model(config)
    copy_into(dict(model.named_parameters()), unpacked(model, tensors), str(path))
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise VlaeError(f"{path} has weights that are not finite")
    return model


def packed(model: Model, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's weights by name without the elements that a mask removes."""
    masks = _masks(model)
    return {k: v[masks[k]] if k in masks else v for k, v in tensors.items()}


def unpacked(model: Model, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's weights by name with 0 for the elements that `packed` left out.

    A tensor that is no such vector is returned as it is.
    """
    result = dict(tensors)
    for name, mask in _masks(model).items():
        vector = tensors.get(name)
        if vector is not None and vector.shape == (int(mask.sum()),):
            full = vector.new_zeros(mask.shape)
            full[mask.to(vector.device)] = vector
            result[name] = full
    return result


def _masks(model: Model) -> dict[str, Tensor]:
    """Return the mask of each masked weight by the weight's name, on the CPU, as booleans.

    Weights that several layers share have no mask of their own.
    """
    return {
        f"{name}.direction": layer.mask.expand_as(layer.direction).bool().cpu()
        for name, layer in model.named_modules()
        if isinstance(layer, WeightNorm) and layer.mask is not None and layer.direction is not None
    }
