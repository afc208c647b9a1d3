"""Hand-made results of runs, laid out under a root as training and evaluation record them."""

import json
import math
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from miniature import PROJECT
from vlae.config.load import load_params
from vlae.images import COLOUR, FIXED

REAL = load_params(PROJECT / "params.yaml")


def params(*runs: str, repetitions: dict[str, list[str]] | None = None) -> SimpleNamespace:
    """The part of Params that tables and figures use; a run's name begins with its data set."""
    training = {
        "learning_rate": 0.002,
        "batch_size": 64,
        "decay_epochs": 0,
        "optimizer": "adamax",
        "polyak": 0.998,
        "split": "train+valid",
    }
    repeats = {again: run for run, names in (repetitions or {}).items() for again in names}
    return SimpleNamespace(
        runs={
            run: SimpleNamespace(
                name=run,
                dataset=run.partition("-")[0],
                repeats=repeats.get(run),
                comparison="",
                start=None,
                training=SimpleNamespace(**training),
                model=REAL.runs.get(run, REAL.runs["static_mnist-vlae"]).model,
            )
            for run in (*runs, *repeats)
        },
        classifiers={"cifar10": None},
        codelengths={},
        labels={},
        probes={},
        lossy={},
        image_kind=lambda dataset: COLOUR if dataset.startswith("cifar10") else FIXED,
        why_not_trained=lambda run: "its file is lost" if run.startswith("omniglot-") else "",
        repetitions=lambda run: (repetitions or {}).get(run, []),
    )


def write_training(root: Path, run: str, **changes) -> Path:
    record = {
        "run": run,
        "dataset": run.partition("-")[0],
        "epochs": 30,
        "hardware": "2 cores of AMD EPYC",
        "split": "train+valid",
    }
    return _write_json(root / "results" / "checkpoints" / run / "train.json", record | changes)


def write_evaluation(root: Path, run: str, nll: float = 80.5, **changes) -> Path:
    record = {
        "run": run,
        "dataset": run.partition("-")[0],
        "nll": nll,
        "nll_se": 0.2345,
        "kl": 12.125,
        "kl_se": 0.05,
        "elbo": -nll - 1.5,
        "elbo_se": 0.25,
        "bits_per_dim": nll / 784 / math.log(2),
        "importance_samples": 64,
        "exact": False,
        "n_test": 10000,
        "epochs": 30,
        "hardware": "2 cores of AMD EPYC",
        "config": {"importance_samples": 64, "images": 0},
    }
    return _write_json(root / "results" / "evaluations" / f"{run}.json", record | changes)


def write_per_image(root: Path, run: str, log_likelihood, kl=None, **changes) -> Path:
    """The values of each test image, beside the record of write_evaluation."""
    log_likelihood = np.asarray(log_likelihood, np.float32)
    arrays = {
        "index": np.arange(len(log_likelihood), dtype=np.int32),
        "log_likelihood": log_likelihood,
        "kl": np.zeros_like(log_likelihood) if kl is None else np.asarray(kl, np.float32),
    }
    path = root / "results" / "evaluations" / f"{run}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays | changes))
    return path


def write_probe(root: Path, run: str, entropy: float = -12.0, **changes) -> Path:
    """What is recorded of a code of eight variables; the entropy is in nats."""
    record = {
        "run": run,
        "posterior_entropy": entropy,
        "posterior_entropy_se": 0.125,
        "latent_dim": 8,
        "n_test": 10000,
        "checkpoint_sha256": "c" * 64,
        "data_sha256": "d" * 64,
    }
    return _write_json(root / "results" / "probes" / f"{run}.json", record | changes)


def write_curve(root: Path, run: str, elbo, kl, valid_elbo=None) -> Path:
    path = root / "results" / "checkpoints" / run / "curve.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["epoch,step,seconds,images_per_second,loss,elbo,kl,valid_elbo,valid_kl"]
    for i, (bound, divergence) in enumerate(zip(elbo, kl, strict=True)):
        valid = "," if valid_elbo is None else f"{valid_elbo[i]},{divergence}"
        lines.append(f"{i + 1},{10 * i + 10},1.5,900,{-bound},{bound},{divergence},{valid}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_samples(
    root: Path, run: str, n: int = 100, **changes: np.ndarray
) -> dict[str, np.ndarray]:
    """Noise: every image of every run is different, so that a misplaced one is noticed."""
    random = np.random.default_rng(zlib.crc32(run.encode()))
    values, shape = (256, (3, 32, 32)) if run.startswith("cifar10") else (2, (28, 28))
    images = {
        name: random.integers(0, values, (n, *shape), dtype=np.uint8)
        for name in ("originals", "decompressions", "samples")
    } | changes
    path = root / "results" / "samples" / f"{run}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, originals_index=3 * np.arange(n), sample_seed=0, **images)
    return images


def write_classifier(root: Path, images: int = 400, **changes):
    """An untrained one; labels and predictions of the test images, which agree on even ones."""
    import torch
    from safetensors.torch import save_file

    from vlae.evaluation.classifier import Classifier
    from vlae.storage import paths
    from vlae.storage.write import sha256

    torch.manual_seed(0)
    model = Classifier()
    labels = (np.arange(images) % 10).astype(np.uint8)
    predictions = np.where(np.arange(images) % 2, (labels + 1) % 10, labels).astype(np.uint8)
    path = root / paths.classifier("cifar10")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    tensors |= {
        "test_labels": torch.from_numpy(labels),
        "test_predictions": torch.from_numpy(predictions),
    }
    save_file(tensors, path)
    record = {
        "dataset": "cifar10",
        "accuracy": 0.5,
        "accuracy_se": 0.025,
        "n_test": images,
        "epochs": 5,
        "data_sha256": "d" * 64,
        "checkpoint_sha256": sha256(path),
    }
    path.with_suffix(".json").write_text(json.dumps(record | changes))
    return model.double().eval()


def _write_json(path: Path, record: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path
