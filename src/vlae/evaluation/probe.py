"""Probes a run's code: what simple classifiers and regressions find in it.

The features are fitted on training images and chosen on validation images. All numbers are of test
images. Probes of the pixels, and of their principal components, show what the images themselves
tell. scikit-learn computes all fits.

A probe of the code at the posterior's mean sees variables that carry almost no information,
because the mean has no noise. A probe of a drawn code sees what the decoder sees. Both are
recorded.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.config.schema import EvaluationConfig, ProbeConfig, Run, as_dict
from vlae.data.batches import as_input
from vlae.data.dataset import SPLITS, Dataset
from vlae.data.labels import load_labels
from vlae.errors import VlaeError
from vlae.evaluation.classifier import accuracy
from vlae.evaluation.evaluate import test_input
from vlae.evaluation.strokes import slant, thickness
from vlae.hardware import describe
from vlae.models.base import Model
from vlae.models.weights import load_model
from vlae.randomness import generator
from vlae.revision import revision
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import read_training
from vlae.storage.write import sha256, write_json

MOST = {"train": 20_000, "valid": 5_000}  # first images of a split that are used; test: all
NEIGHBOURS = (1, 5, 15)  # numbers of neighbours to choose from
# L2 penalties to choose from, beside the mean loss of an image.
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
RIDGE = 1e-4  # L2 penalty of the regressions, likewise
ENTROPY_DRAWS = 4  # samples of each test image, for the entropy of an IAF
AT_ONCE = 500  # images encoded together
TARGETS = {"thickness": thickness, "slant": slant}

Splits = dict[str, np.ndarray]  # train, valid and test


@dataclass(frozen=True)
class Labelled:
    """Images as network input, (N, 1, 28, 28), and labels, uint8 (N,), of each split."""

    x: dict[str, Tensor]
    labels: Splits

    @property
    def pixels(self) -> Splits:
        """The images as float64 (N, 784)."""
        return {split: x.flatten(1).double().numpy() for split, x in self.x.items()}


def labelled(dataset: Dataset, config: EvaluationConfig) -> Labelled:
    """Return the images to probe. With dynamic binarization, the bits are one fixed draw.

    The test images are those of the evaluation. The others are drawn with the seed
    config.binarization_seed for the purposes "probe train" and "probe valid".
    Raises VlaeError unless there is a label for each image.
    """
    seed, labels = config.binarization_seed, load_labels(dataset.name)
    x = {}
    for split in SPLITS:
        images = getattr(dataset, split)
        if len(labels[split]) != len(images):
            raise VlaeError(
                f"{paths.labels(dataset.name)}: {len(labels[split]):,} labels for "
                f"{len(images):,} images of {split}; run `vlae labels {dataset.name}` again"
            )
        if split in MOST:
            part = torch.from_numpy(images[: MOST[split]])
            x[split] = as_input(part, dataset.kind, generator(seed, f"probe {split}"))
    x["test"] = test_input(dataset, config, seed)
    return Labelled(x, {split: labels[split][: len(x[split])] for split in SPLITS})


@torch.no_grad()
def codes(model: Model, x: Tensor, random: torch.Generator | None = None) -> np.ndarray:
    """Return the codes of images, float64 (N, latent_dim): at the posterior's mean, or drawn.

    The mean is that of the Gaussian, noise 0; an IAF transforms it.
    """
    pieces = []
    for part in x.split(AT_ONCE):
        noise = torch.zeros((len(part), model.latent_dim), dtype=x.dtype)
        if random is not None:
            noise = torch.randn(noise.shape, generator=random).to(x.dtype)
        pieces.append(model.sample_posterior(model.encode(part), noise)[0])
    return torch.cat(pieces).double().numpy()


@torch.no_grad()
def posterior_entropy(model: Model, x: Tensor, seed: int) -> np.ndarray:
    """Return the differential entropy of q(z|x) for each image, nats, float64 (N,).

    It is exact for a Gaussian. For an IAF it is the mean of -log q(z|x) over ENTROPY_DRAWS
    samples.
    """
    random = generator(seed, "probe entropy")
    pieces = []
    for part in x.split(AT_ONCE):
        posterior = model.encode(part)
        if posterior.context is None:
            of_normal = 0.5 * model.latent_dim * math.log(2 * math.pi * math.e)
            pieces.append(posterior.log_std.double().sum(-1) + of_normal)
            continue
        noise = torch.randn((ENTROPY_DRAWS, len(part), model.latent_dim), generator=random)
        log_q = [model.sample_posterior(posterior, each.to(x.dtype))[1].double() for each in noise]
        pieces.append(-torch.stack(log_q).mean(0))
    return torch.cat(pieces).numpy()


def classified(features: Splits, labels: Splits) -> dict:
    """Return the test accuracies of a linear classifier and of nearest neighbours.

    features: float64 (N, D) of each split; labels: uint8 (N,). The linear classifier is a
    multinomial logistic regression on standardised features; neighbours are found by Euclidean
    distance. The penalty and the number of neighbours are those with the best accuracy on the
    validation images; among equals, the first.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(labels["train"])
    tried: dict[str, dict] = {
        "linear": {
            penalty: make_pipeline(
                StandardScaler(),
                LogisticRegression(C=1 / (penalty * count), max_iter=500, tol=1e-3),
            )
            for penalty in PENALTIES
        },
        "neighbours": {
            k: KNeighborsClassifier(k, algorithm="brute") for k in NEIGHBOURS if k <= count
        },
    }
    found: dict = {}
    for method, models in tried.items():
        scores = {}
        for setting, model in models.items():
            model.fit(features["train"], labels["train"])
            scores[setting] = (model.predict(features["valid"]) == labels["valid"]).mean()
        best = max(scores, key=lambda setting: scores[setting])
        share, error = accuracy(models[best].predict(features["test"]), labels["test"])
        found |= {method: share, f"{method}_se": error, f"{method}_setting": best}
    return found


def regressed(features: Splits, targets: Splits) -> tuple[float, float]:
    """Return R^2 of a ridge regression on the test images, and its standard error.

    features: float64 (N, D) of each split, which are standardised; targets: float64 (N,). R^2 is
    1 - (mean squared error) / (variance). The error is that of a ratio of two means.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = make_pipeline(StandardScaler(), Ridge(RIDGE * len(targets["train"])))
    ridge.fit(features["train"], targets["train"])
    test = targets["test"]
    wrong = (ridge.predict(features["test"]) - test) ** 2
    spread = (test - test.mean()) ** 2
    if not spread.mean() > 0:
        return 0.0, 0.0  # nothing to explain
    share = float(wrong.mean() / spread.mean())
    scatter = (wrong - share * spread).std(ddof=1) / spread.mean()
    return 1 - share, float(scatter / math.sqrt(len(test)))


def probed(features: Splits, data: Labelled) -> dict:
    """Return all probes of features, float64 (N, D) of each split, as in the record."""
    found = classified(features, data.labels)
    for name, measure in TARGETS.items():
        targets = {split: measure(x[:, 0].to(torch.uint8).numpy()) for split, x in data.x.items()}
        share, error = regressed(features, targets)
        found |= {f"{name}_r2": share, f"{name}_r2_se": error}
    return found


def components(pixels: Splits, count: int) -> Splits:
    """Return the first `count` principal components of the pixels, fitted on training images."""
    from sklearn.decomposition import PCA

    pca = PCA(min(count, len(pixels["train"])), svd_solver="covariance_eigh")
    pca.fit(pixels["train"])
    return {split: pca.transform(values) for split, values in pixels.items()}


def probes_of(model: Model, data: Labelled, seed: int) -> dict:
    """Return the probes of a model's code, of a drawn code and of principal components."""
    random = generator(seed, "probe code")
    return {
        "latent_dim": model.latent_dim,
        "code": probed({split: codes(model, x) for split, x in data.x.items()}, data),
        "drawn": probed({split: codes(model, x, random) for split, x in data.x.items()}, data),
        "pca": probed(components(data.pixels, model.latent_dim), data),
    }


def write_probe(run: Run, config: ProbeConfig, dataset: Dataset) -> dict:
    """Probe a run's code, on one thread; write results/probes/RUN.json and return it."""
    torch.set_num_threads(1)
    dataset.check_trained_on(read_training(Path(), run.name, run.dataset) or {})
    model, seed = load_model(run, torch.device("cpu")), run.evaluation.seed
    data = labelled(dataset, run.evaluation)
    mean, error = mean_and_error(posterior_entropy(model, data.x["test"], seed))
    record = {
        "run": run.name,
        **as_dict(config),
        "posterior_entropy": mean,
        "posterior_entropy_se": error,
        **probes_of(model, data, seed),
        **_about(dataset, data, seed),
        "checkpoint_sha256": sha256(paths.model(run.name)),
    }
    write_json(paths.probe(run.name), record)
    return record


def write_pixel_probe(dataset: Dataset, config: EvaluationConfig) -> dict:
    """Probe the pixels of a data set; write results/probes/DATASET.json and return it."""
    torch.set_num_threads(1)
    data = labelled(dataset, config)
    counts = np.bincount(data.labels["test"])
    record = {
        "dataset": dataset.name,
        "pixels": classified(data.pixels, data.labels),
        "most_frequent": float(counts.max() / counts.sum()),
        **_about(dataset, data, config.seed),
    }
    write_json(paths.probe(dataset.name), record)
    return record


def _about(dataset: Dataset, data: Labelled, seed: int) -> dict:
    """Return what every record of probes says of its data and its machine."""
    return {
        "n_train": len(data.labels["train"]),
        "n_valid": len(data.labels["valid"]),
        "n_test": len(data.labels["test"]),
        "all_training_images": len(dataset.train),
        "seed": seed,
        "hardware": describe(torch.device("cpu")),
        "git_revision": revision(),
        "data_sha256": dataset.sha256,
        "labels_sha256": sha256(paths.labels(dataset.name)),
    }
