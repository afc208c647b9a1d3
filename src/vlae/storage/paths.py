"""Paths of all files, relative to the directory of the project."""

import os
from pathlib import Path

# The files of a checkpoint: weights, record and learning curve.
MODEL, RECORD, CURVE = CHECKPOINT_FILES = ("model.safetensors", "train.json", "curve.csv")
# Folders in scratch/RUN that may hold a checkpoint to go on from.
BY_HAND, RECORDED = "published", "recorded"


def scratch(run: str) -> Path:
    """Training states and evaluation blocks of a run; VLAE_SCRATCH moves the whole folder,
    for example to a cluster's large file system."""
    return Path(os.environ.get("VLAE_SCRATCH", "scratch")) / run


def dataset(name: str) -> Path:
    """The prepared data set."""
    return Path("data") / f"{name}.npz"


def checkpoint(run: str) -> Path:
    """The folder of a training's results."""
    return Path("results/checkpoints") / run


def model(run: str) -> Path:
    """The averaged weights of a run."""
    return checkpoint(run) / MODEL


def evaluation(run: str) -> Path:
    """Without suffix: RUN.json holds the means, RUN.npz the values of each image."""
    return Path("results/evaluations") / run


def samples(run: str) -> Path:
    """Recorded originals, decompressions and samples of a run."""
    return Path("results/samples") / f"{run}.npz"


def classifier(dataset: str) -> Path:
    """The weights of a data set's classifier; its record lies beside them, .json."""
    return Path("results/classifiers") / f"{dataset}.safetensors"


def recipe(run: str, step: str) -> Path:
    """`step` is train, evaluate, sample or, for a data set, data or classifier."""
    return Path("results/recipes") / f"{run}.{step}.json"
