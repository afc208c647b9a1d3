"""A small classifier of colour images, which shows whether decompressions keep the object.

It is trained on the original training images only, and on the CPU, so that the weights are the
same each time on the same machine. The paper has no such model: it only measures.
"""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vlae.config.schema import ClassifierConfig, as_dict
from vlae.data.batches import training_images
from vlae.data.dataset import Dataset
from vlae.data.formats.cifar import CLASSES
from vlae.errors import VlaeError
from vlae.hardware import describe
from vlae.images import scaled
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.read import read_json, read_safetensors
from vlae.storage.records import check_record
from vlae.storage.tensors import copy_into
from vlae.storage.write import sha256, write_atomically, write_json

MAPS = (24, 48, 96)
AT_ONCE = 250  # images classified together
TEST = ("test_labels", "test_predictions")  # stored beside the weights, uint8 (n_test,)
RECORD = {"data_sha256": str, "checkpoint_sha256": str, "epochs": int, "n_test": int}
RECORD |= {"accuracy": float, "accuracy_se": float}


class Classifier(nn.Sequential):
    """Maps images (B, 3, H, W) in [-1, 1] to logits of the classes (B, 10)."""

    def __init__(self) -> None:
        layers, before = [], 3
        for maps in MAPS:
            layers += [
                nn.Conv2d(before, maps, 3, padding=1, bias=False),
                nn.BatchNorm2d(maps),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            before = maps
        output = nn.Linear(before, CLASSES)
        nn.init.zeros_(output.bias)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), output)


def train_classifier(
    config: ClassifierConfig, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Train a classifier on images, uint8 (N, 3, H, W), with labels (N,).

    The optimizer is Adam; its learning rate falls to zero along a cosine. Images are mirrored at
    random.
    """
    model = Classifier().to(dtype=dtype).to(memory_format=torch.channels_last)
    random = generator(config.seed, "classifier weights")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # He et al.'s initialisation; gains stay 1, biases 0
                std = math.sqrt(2 / weight[0].numel())
                weight.copy_(std * torch.randn(weight.shape, generator=random))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    in_epoch = -(-len(images) // config.batch_size)
    steps = config.epochs * in_epoch
    for step in tqdm(range(steps), unit="step", disable=None):
        epoch, batch = divmod(step, in_epoch)
        if batch == 0:
            random = generator(config.seed, "classifier order", epoch)
            visits = torch.randperm(len(images), generator=random)
        chosen = visits[batch * config.batch_size :][: config.batch_size]
        x = scaled(images[chosen]).to(dtype)
        mirrored = torch.rand((len(x), 1, 1, 1), generator=random) < 0.5
        x = torch.where(mirrored, x.flip(-1), x).contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels[chosen].long()).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the most probable class, uint8 (N,), of images, uint8 (N, 3, H, W)."""
    dtype = next(model.parameters()).dtype
    pieces = [
        model(scaled(torch.from_numpy(images[start : start + AT_ONCE])).to(dtype)).argmax(1)
        for start in range(0, len(images), AT_ONCE)
    ]
    return torch.cat(pieces).numpy().astype(np.uint8)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the fraction of correct predictions (N,), and its standard error."""
    share = float((predictions == labels).mean())
    return share, math.sqrt(share * (1 - share) / len(labels))


def write_classifier(config: ClassifierConfig, dataset: Dataset) -> dict:
    """Train a classifier on the training and validation images; return its record.

    Writes results/classifiers/DATASET.json, the record, and DATASET.safetensors: the weights, and
    labels and predictions of the test images. Raises VlaeError for a data set without labels.
    """
    if not dataset.labels:
        raise VlaeError(
            f"{dataset.name} has no labels to train a classifier; remove it from classifiers"
        )
    images = training_images(dataset, "train+valid")
    labels = np.concatenate([dataset.labels["train"], dataset.labels["valid"]])
    model = train_classifier(config, images, torch.from_numpy(labels))
    # In double precision, as decompressions are classified: rounding could decide a tie.
    predictions = classify(model.double(), dataset.test)
    share, error = accuracy(predictions, dataset.labels["test"])
    tensors = {name: value.contiguous() for name, value in model.float().state_dict().items()}
    of_test = (dataset.labels["test"], predictions)
    tensors |= {name: torch.from_numpy(values) for name, values in zip(TEST, of_test, strict=True)}
    path, about = paths.classifier(dataset.name), {"dataset": dataset.name}
    write_atomically(path, lambda partial: save_file(tensors, partial, about))
    record = {
        "dataset": dataset.name,
        "accuracy": share,
        "accuracy_se": error,
        "n_test": len(dataset.test),
        "images": len(images),
        **as_dict(config),
        "data_sha256": dataset.sha256,
        "checkpoint_sha256": sha256(path),
        "hardware": describe(torch.device("cpu")),
    }
    write_json(path.with_suffix(".json"), record)
    return record


def read_classifier(
    root: Path, dataset: str
) -> tuple[dict, Classifier, dict[str, np.ndarray]] | None:
    """Return the record, the model in double precision, and the arrays TEST of a classifier.

    Returns None if there is no trained classifier. Raises VlaeError if its files cannot be used.
    """
    path = Path(root, paths.classifier(dataset))
    about = path.with_suffix(".json")
    if not about.exists() and not path.exists():
        return None
    record = check_record(about, read_json(about), {"dataset": dataset}, RECORD)
    try:
        tensors, _ = read_safetensors(path)
    except ValueError as error:
        raise VlaeError(f"{path} cannot be read: {error}") from None
    if sha256(path) != record["checkpoint_sha256"]:
        raise VlaeError(f"{path} is not the classifier that {about.name} describes")
    test = {name: tensors.pop(name) for name in TEST if name in tensors}
    shape = (record["n_test"],)
    for name in TEST:
        if name not in test or test[name].dtype != torch.uint8 or test[name].shape != shape:
            raise VlaeError(f"{path}: {name} must be uint8, one for each of {shape[0]} images")
    model = Classifier()
    copy_into(model.state_dict(), tensors, str(path))
    return record, model.double().eval(), {name: test[name].numpy() for name in TEST}
