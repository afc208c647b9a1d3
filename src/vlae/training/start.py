"""Where a training begins, if it names another run (training.start_from).

It begins with the averaged weights of results/checkpoints/RUN, which the train.json beside them
describes; see TrainState.start_from_run.
"""

from vlae.config.schema import Run
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.paths import RECORD
from vlae.storage.read import read_json
from vlae.storage.records import TRAINING, check_record
from vlae.storage.write import sha256


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
