"""Writes the results of a finished training to results/checkpoints/RUN."""

from vlae.config.schema import Run, as_dict
from vlae.data.dataset import Dataset
from vlae.models.weights import packed
from vlae.revision import UNKNOWN, named, revision
from vlae.storage import paths
from vlae.storage.paths import CURVE, MODEL, RECORD
from vlae.storage.write import sha256, write_json, write_safetensors, write_text
from vlae.training.identity import recipe_sha256
from vlae.training.progress import COLUMNS
from vlae.training.saved_state import SavedState
from vlae.training.train_state import TrainState


def write_results(
    run: Run,
    dataset: Dataset,
    saved: SavedState,
    state: TrainState,
    steps_per_epoch: int,
    start: dict | None = None,
) -> None:
    """Write results/checkpoints/RUN: averaged weights, learning curve and train.json.

    `state` is the training after the last step, and `saved` what is saved of it. start: the other
    run whose weights it began with (vlae.training.start).
    """
    folder = paths.checkpoint(run.name)
    average = {name: tensor.detach().cpu() for name, tensor in state.average.items()}
    tensors = {k: v.contiguous() for k, v in packed(state.model, average).items()}
    about = {"run": run.name}  # a single entry: safetensors writes several in random order
    write_safetensors(folder / MODEL, tensors, about)
    columns = [*COLUMNS, "gamma"] if "gamma" in saved.curve[-1] else COLUMNS
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(key)) for key in columns) for row in saved.curve]
    write_text(folder / CURVE, "\n".join(lines) + "\n")
    last, stretches = saved.curve[-1], _stretches(saved, steps_per_epoch)

    def of_all(key: str) -> str:
        return ", ".join(dict.fromkeys(part[key] for part in stretches))

    write_json(
        folder / RECORD,
        {
            "run": run.name,
            "dataset": run.dataset,
            "epochs": saved.step // steps_per_epoch,
            **({} if start is None else {"start": start}),
            "steps": saved.step,
            "images_seen": saved.step * run.training.batch_size,
            "seconds": round(sum(part["seconds"] for part in stretches), 1),
            "device": stretches[-1]["device"],
            "hardware": of_all("hardware"),
            "precision": of_all("precision"),
            "core": of_all("core"),
            "torch": of_all("torch"),
            "git_revision": stretches[-1]["git_revision"],
            "stretches": stretches,
            "data_sha256": dataset.sha256,
            "training_sha256": dataset.training_sha256,
            "recipe_sha256": recipe_sha256(run),
            "checkpoint_sha256": sha256(folder / MODEL),
            "seed": run.training.seed,
            "split": run.training.split,
            "parameters": sum(tensor.numel() for tensor in average.values()),
            "final": {
                "loss": last["loss"],
                "elbo": last["elbo"],
                "kl": last["kl"],
                "reconstruction": -last["elbo"] - last["kl"],
            },
            "config": {"model": as_dict(run.model), "training": as_dict(run.training)},
        },
    )


def _stretches(saved: SavedState, steps_per_epoch: int) -> list[dict]:
    """Return the stretches of the training for train.json: where each began, on what hardware."""
    worked = [part for part in saved.history if part["to_step"] > part["from_step"]]
    worked = worked or saved.history[-1:]
    if saved.schedule is None:
        raise ValueError("a state without a schedule has no results")
    start = saved.start or {"checkpoint_sha256": None, "stretches": []}
    names = ("device", "hardware", "precision", "core", "torch")
    told = {k: ", ".join(dict.fromkeys(p.get(k, "PyTorch") for p in worked)) for k in names}
    this = {
        "from_checkpoint": start["checkpoint_sha256"],
        "from_epoch": saved.first_step // steps_per_epoch,
        "to_epoch": saved.step // steps_per_epoch,
        "decay_epochs": saved.schedule["decay_epochs"],
        "seconds": round(sum(part["seconds"] for part in worked), 1),
        **told,
        "git_revision": ", ".join(dict.fromkeys(map(_revision, worked))),
    }
    return [*start["stretches"], this]


def _revision(part: dict) -> str:
    """Return the revision that did a part of the training, as it was noted when that began; a
    state of before that was noted has the present one."""
    noted = part.get("git_revision")
    if noted is None:
        return revision()
    return named() or noted if noted.startswith(UNKNOWN) else noted


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
