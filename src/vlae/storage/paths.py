"""The paths of all files, relative to the project's directory."""

import os
from pathlib import Path

# The files of a checkpoint: weights, record and learning curve.
MODEL, RECORD, CURVE = CHECKPOINT_FILES = ("model.safetensors", "train.json", "curve.csv")
# Folders in scratch/RUN that may hold a checkpoint to continue from.
BY_HAND, RECORDED = "published", "recorded"


def scratch(run: str) -> Path:
    """Return the folder of a run's training states and evaluation blocks.

    VLAE_SCRATCH replaces `scratch`, for example by a folder on a cluster's large file system.
    """
    return Path(os.environ.get("VLAE_SCRATCH", "scratch")) / run


def dataset(name: str) -> Path:
    """Return the path of a prepared data set."""
    return Path("data") / f"{name}.npz"


def labels(name: str) -> Path:
    """Return the path of a data set's prepared labels."""
    return Path("data/labels") / f"{name}.npz"


def checkpoint(run: str) -> Path:
    """Return the folder of a training's results."""
    return Path("results/checkpoints") / run


def model(run: str) -> Path:
    """Return the path of a run's averaged weights."""
    return checkpoint(run) / MODEL


def evaluation(run: str) -> Path:
    """Return the path of an evaluation without suffix: RUN.json has means, RUN.npz each image."""
    return Path("results/evaluations") / run


def samples(run: str) -> Path:
    """Return the path of a run's originals, decompressions and samples."""
    return Path("results/samples") / f"{run}.npz"


def classifier(dataset: str) -> Path:
    """Return the path of a data set's classifier; its record is the .json file beside it."""
    return Path("results/classifiers") / f"{dataset}.safetensors"


def codelength(run: str) -> Path:
    """Return the path of the record of a run's code length."""
    return Path("results/codelengths") / f"{run}.json"


def lossy(run: str) -> Path:
    """Return the path of the record of a run's lossy file."""
    return Path("results/lossy") / f"{run}.json"


def lossy_images(run: str) -> Path:
    """Return the path of the images that a run's lossy file gives back."""
    return Path("results/lossy") / f"{run}.npz"


def probe(name: str) -> Path:
    """Return the path of the record of a run's probes, or of a data set's pixels'."""
    return Path("results/probes") / f"{name}.json"


def recipe(run: str, step: str) -> Path:
    """Return the path of a recipe; `run` may also name a data set.

    step: train, evaluate, sample, codelength, lossy or probe for a run; data, labels, classifier
    or probe_pixels for a data set.
    """
    return Path("results/recipes") / f"{run}.{step}.json"
