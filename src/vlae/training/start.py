"""The weights that a training begins with, if it names another run (training.start_from).

They are the averaged weights of results/checkpoints/RUN, which the train.json beside them
describes. The optimizer's moments are zero, and the average begins with the same weights.
"""

from typing import TYPE_CHECKING

from vlae.config.schema import Run
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.paths import RECORD
from vlae.storage.read import read_json, read_safetensors
from vlae.storage.records import TRAINING, check_record
from vlae.storage.write import sha256

if TYPE_CHECKING:
    from torch import Tensor


def start_of(run: Run) -> dict | None:
    """Return where a run begins, as train.json records it; None for random weights.

    run, epochs: the other run and its epochs. checkpoint_sha256: of its model.safetensors. Raises
    VlaeError if that run has no checkpoint, or none that its train.json describes.
    """
    base = run.start
    if base is None:
        return None
    model, path = paths.model(base.name), paths.checkpoint(base.name) / RECORD
    for file in (model, path):
        if not file.exists():
            raise VlaeError(
                f"{run.name} begins with the weights of {base.name}, but {file} is missing; "
                f"`dvc pull {model}` gets it, `vlae train {base.name}` trains it"
            )
    of_run = {"run": base.name, "dataset": base.dataset}
    record = check_record(path, read_json(path), of_run, TRAINING)
    content = sha256(model)
    if record.get("checkpoint_sha256", content) != content:  # old records do not have it
        raise VlaeError(f"{model} is not the checkpoint that the train.json beside it describes")
    return {"run": base.name, "epochs": record["epochs"], "checkpoint_sha256": content}


def starting_weights(run: Run) -> "dict[str, Tensor]":
    """Return the weights by name that the run's training begins with.

    Raises VlaeError for a file that cannot be read and for weights that are not finite.
    """
    path = paths.model(run.training.start_from)
    try:
        weights, _ = read_safetensors(path)
    except (OSError, ValueError) as error:
        raise VlaeError(f"{path} is not a readable checkpoint: {error}") from error
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise VlaeError(f"{path} has weights that are not finite")
    return weights
