"""Reads and checks recorded results: training records, curves, evaluations, samples.

Unless its docstring says otherwise, a reader returns None if nothing has been recorded yet (the
run is not trained). It raises VlaeError, naming the file, if the record cannot be used.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vlae.errors import VlaeError
from vlae.images import recorded_kind
from vlae.storage import paths
from vlae.storage.read import MIB, read_json, read_npz, read_text, shown

LARGEST, LONGEST = 2**53, 1000  # limits of a number and of a text in a record
MOST_ARRAYS = 64 * MIB  # limit of a file of arrays, unpacked

# Keys that the tables and figures need, with their types; records have more keys.
TRAINING = {"epochs": int, "hardware": str, "split": str}
EVALUATION = {
    "nll": float,
    "nll_se": float,
    "kl": float,
    "kl_se": float,
    "bits_per_dim": float,
    "importance_samples": int,
    "exact": bool,
    "n_test": int,
    "epochs": int,
    "hardware": str,
    "config": dict,
}
# Keys of a second level of importance sampling; null without one, absent in old records.
DEEP = {"images": int, "importance_samples": int, "difference": float, "difference_se": float}
# Whether the weights can be trusted (vlae.evaluation.pareto); null where the likelihood is exact
# or samples are too few, absent in older records.
PARETO = {"samples": int, "k_median": float, "k_most": float, "failing": float}
# Keys of an estimate with fewer samples; old records have no such estimates.
AGAINST_K = {"k": int, "nll": float, "se": float}
# Arrays in RUN.npz with a value per test image; files have more arrays.
PER_IMAGE = ("index", "log_likelihood", "kl")
CURVE_READ = ("epoch", "elbo", "kl", "valid_elbo", "valid_kl")


def training_file(run: str) -> Path:
    """Return the path of a training's record, relative to the project's directory."""
    return paths.checkpoint(run) / "train.json"


def curve_file(run: str) -> Path:
    """Return the path of a learning curve, relative to the project's directory."""
    return paths.checkpoint(run) / "curve.csv"


def evaluation_file(run: str) -> Path:
    """Return the path of an evaluation's record, relative to the project's directory."""
    return paths.evaluation(run).with_name(f"{run}.json")


def images_file(run: str) -> Path:
    """Return the path of an evaluation's values per test image, relative likewise."""
    return paths.evaluation(run).with_name(f"{run}.npz")


def read_training(root: Path, run: str, dataset: str) -> dict | None:
    """Return the train.json of `run`, which must have been trained on `dataset`."""
    return _record(root, training_file(run), run, dataset, TRAINING)


def epochs_before(training: dict) -> int | None:
    """Return the epochs of the run whose weights a training began with; None: random weights."""
    return training["start"]["epochs"] if training.get("start") else None


def read_evaluation(root: Path, run: str, dataset: str) -> dict | None:
    """Return the evaluation of `run` on `dataset`; nll, kl and their errors are nats per image."""
    record = _record(root, evaluation_file(run), run, dataset, EVALUATION)
    draws = [] if record is None else record.get("draws", [])
    if not _is(draws, list) or not all(_is(d, dict) and _is(d.get("nll"), float) for d in draws):
        raise VlaeError(
            f"{Path(root, evaluation_file(run))}: 'draws' must be a list with nll each"
        )
    deep = None if record is None else record.get("deep")
    if deep is not None and not (
        _is(deep, dict) and all(_is(deep.get(key), kind) for key, kind in DEEP.items())
    ):
        raise VlaeError(
            f"{Path(root, evaluation_file(run))}: 'deep' must be null or hold {', '.join(DEEP)}"
        )
    pareto = None if record is None else record.get("pareto")
    if pareto is not None and not (
        _is(pareto, dict) and all(_is(pareto.get(key), kind) for key, kind in PARETO.items())
    ):
        path = Path(root, evaluation_file(run))
        raise VlaeError(f"{path}: 'pareto' must be null or hold {', '.join(PARETO)}")
    curve = [] if record is None else record.get("curve", [])
    if not _is(curve, list) or not all(
        _is(point, dict) and all(_is(point.get(key), kind) for key, kind in AGAINST_K.items())
        for point in curve
    ):
        raise VlaeError(
            f"{Path(root, evaluation_file(run))}: 'curve' must be a list of {', '.join(AGAINST_K)}"
        )
    return record


def read_results(root: Path, run: str, dataset: str) -> tuple[dict | None, dict | None]:
    """Return the training and the evaluation of `run`; each may be None.

    Raises VlaeError also for an evaluation without a training.
    """
    training = read_training(root, run, dataset)
    evaluation = read_evaluation(root, run, dataset)
    if training is None and evaluation is not None:
        raise VlaeError(f"{evaluation_file(run)}: {training_file(run)}, its training, is missing")
    return training, evaluation


def read_per_image(
    root: Path, evaluation: dict, more: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return the values per test image of an evaluation, given its record.

    index, log_likelihood and kl, each (n_test,); the latter two are nats, estimated with the
    samples of the first level. `more`: names of further ones, which are absent in old records
    and need not be finite.
    Raises VlaeError if the file is missing, because the two are recorded together.
    """
    run, shape = evaluation["run"], (evaluation["n_test"],)
    path = Path(root, images_file(run))
    if not path.exists():
        raise VlaeError(
            f"{evaluation_file(run)}: {images_file(run)}, recorded with it, is missing"
        )
    images = read_arrays(path, PER_IMAGE, "the values of each image", more)
    for name, array in images.items():
        if array.shape != shape or array.dtype.kind not in "iuf":
            raise VlaeError(f"{path}: {name} must be one number for each of {shape[0]} images")
        if name in PER_IMAGE and not np.isfinite(array).all():
            raise VlaeError(f"{path}: {name} must be finite")
    return images


def read_curve(root: Path, run: str) -> dict[str, np.ndarray] | None:
    """Return epoch, elbo, kl, valid_elbo and valid_kl of a learning curve, each (epochs,).

    Values are nats per image; valid_* are NaN if no images were held out for validation.
    """
    path = Path(root, curve_file(run))
    if not path.exists():
        return None
    text = read_text(path)
    try:
        rows = list(csv.DictReader(text.splitlines()))
        if not rows:
            raise ValueError("it has no epoch")
        if any(None in row for row in rows):  # DictReader's key for cells without a heading
            raise ValueError("a row is longer than the heading")
        curve = {key: np.array([float(row[key] or "nan") for row in rows]) for key in CURVE_READ}
        if not all(np.isfinite(curve[key]).all() for key in ("epoch", "elbo", "kl")):
            raise ValueError("epoch, elbo and kl must be finite")
        return curve
    except KeyError as error:
        raise VlaeError(f"{path}: no column {error}") from None
    except (TypeError, ValueError, csv.Error) as error:
        raise VlaeError(f"{path}: not a learning curve: {error}") from None


def read_samples(root: Path, run: str) -> dict[str, np.ndarray] | None:
    """Return the images of `run`: n originals, n decompressions and m samples.

    Binary images are uint8 (n, 28, 28) of 0 and 1, colour images uint8 (n, 3, 32, 32) of 0 to
    255; a file has only one kind. decompressions[i] was drawn from the code of originals[i].
    """
    path = Path(root, paths.samples(run))
    if not path.exists():
        return None
    images = read_arrays(path, ("originals", "decompressions", "samples"), "a file of samples")
    for name, array in images.items():
        kind = recorded_kind(array.shape[1:])
        if kind is None or array.dtype != np.uint8 or array.max(initial=0) > kind.largest:
            raise VlaeError(
                f"{path}: {name} must be uint8, (n, 28, 28) of 0 and 1 or (n, 3, 32, 32)"
            )
    if len({array.shape[1:] for array in images.values()}) > 1:
        raise VlaeError(f"{path}: binary and colour images in one file")
    if images["originals"].shape != images["decompressions"].shape:
        raise VlaeError(f"{path}: not one decompression for each original")
    return images


def read_originals(root: Path, run: str) -> dict[int, np.ndarray]:
    """Return the recorded originals, uint8 as in read_samples, by their index in the test set.

    Empty for a run that is not sampled or has no latent code.
    """
    images = read_samples(root, run)
    if images is None:
        return {}
    index = read_index(root, run, len(images["originals"]))
    return dict(zip(index.tolist(), images["originals"], strict=True))


def read_index(root: Path, run: str, originals: int) -> np.ndarray:
    """Return the indices of the recorded originals in the test set, integers (originals,)."""
    path = Path(root, paths.samples(run))
    index = read_arrays(path, ("originals_index",), "a file of samples")["originals_index"]
    if index.shape != (originals,) or index.dtype.kind not in "iu":
        raise VlaeError(f"{path}: not one originals_index for each original")
    return index


def read_arrays(
    path: Path, names: tuple[str, ...], what: str, more: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return the arrays `names`, and those of `more` that there are, of an npz file.

    Raises VlaeError, which says that the file is not `what`, for any other file.
    """
    try:
        with open(path, "rb") as file:
            arrays = read_npz(file, names + more, MOST_ARRAYS)
    except OSError as error:
        raise VlaeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise VlaeError(f"{path}: not {what}: {error}") from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise VlaeError(f"{path}: not {what}: no {', '.join(missing)}")
    return arrays


def _record(root: Path, file: Path, run: str, dataset: str, fields: dict) -> dict | None:
    path = Path(root, file)
    if not path.exists():
        return None
    return check_record(path, read_json(path), {"run": run, "dataset": dataset}, fields)


def check_record(path: Path, record: object, of: dict[str, str], fields: dict[str, type]) -> dict:
    """Return `record`, read from `path`, if it has the values `of` and `fields` of these types.

    Raises VlaeError, naming the file and the key, otherwise.
    """
    if not isinstance(record, dict):
        raise VlaeError(f"{path}: must hold one JSON object")
    for key, kind in (dict.fromkeys(of, str) | fields).items():
        if key not in record:
            raise VlaeError(f"{path}: no {key!r}")
        if not _is(record[key], kind):
            raise VlaeError(f"{path}: {key!r} must be {kind.__name__}, is {shown(record[key])}")
    for key, expected in of.items():
        if record[key] != expected:
            raise VlaeError(f"{path}: is a record of {key} {shown(record[key])}, not {expected!r}")
    return record


def _is(value: Any, kind: type) -> bool:
    """Return True if a JSON value has this type and is not too large to be drawn.

    A float may be written as an integer, but must not be NaN. Text is one printable line.
    """
    if kind is float:
        return type(value) in (int, float) and -LARGEST < value < LARGEST
    if kind is int:
        return type(value) is int and -LARGEST < value < LARGEST
    if kind is str:
        return type(value) is str and value.isprintable() and len(value) <= LONGEST
    return type(value) is kind


def estimator(evaluation: dict) -> str:
    """Return the name of a recorded log-likelihood's estimator (docs/evaluation.md).

    It is exact, IS-64 (importance sampling with 64 samples), or IS-64/4096 if a subset of the
    images has more samples.
    """
    if evaluation["exact"]:
        return "exact"
    deep = evaluation.get("deep")
    more = f"/{deep['importance_samples']}" if deep else ""
    return f"IS-{evaluation['importance_samples']}{more}"
