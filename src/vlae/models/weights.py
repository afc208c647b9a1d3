"""Reads the trained weights of a run from its checkpoint."""

from pathlib import Path

import torch

from vlae.config.schema import ColourModelConfig, ModelConfig, Run
from vlae.errors import VlaeError
from vlae.models.base import Model
from vlae.models.build import build_model
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
    copy_into(dict(model.named_parameters()), tensors, str(path))
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise VlaeError(f"{path} has weights that are not finite")
    return model
