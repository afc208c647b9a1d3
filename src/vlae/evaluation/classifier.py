"""A small classifier of colour images: what a decompression still shows of an object is judged
by whether it is recognised.

Trained on the original training images and nothing else, on the CPU, so that the same machine
trains the same weights. It is a measuring device, not one of the paper's models.
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
AT_ONCE = 250  # images judged together
TEST = ("test_labels", "test_predictions")  # beside the weights, uint8 (n_test,)
RECORD = {"data_sha256": str, "checkpoint_sha256": str, "epochs": int, "n_test": int}
RECORD |= {"accuracy": float, "accuracy_se": float}


class Classifier(nn.Sequential):
    """Images (B, 3, H, W) in [-1, 1] -> logits of the classes (B, 10)."""

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
    """Fit images uint8 (N, 3, H, W) with labels (N,) by Adam, whose learning rate falls to zero
    along a cosine; every image is seen as it is or mirrored."""
    model = Classifier().to(dtype=dtype).to(memory_format=torch.channels_last)
    random = generator(config.seed, "classifier weights")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # He et al.'s scale; gains are one, biases nought
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
    """uint8 (N, 3, H, W) -> the likeliest class of each, uint8 (N,)."""
    dtype = next(model.parameters()).dtype
    pieces = [
        model(scaled(torch.from_numpy(images[start : start + AT_ONCE])).to(dtype)).argmax(1)
        for start in range(0, len(images), AT_ONCE)
    ]
    return torch.cat(pieces).numpy().astype(np.uint8)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The share of right ones, and its standard error over the images."""
    share = float((predictions == labels).mean())
    return share, math.sqrt(share * (1 - share) / len(labels))


def write_classifier(config: ClassifierConfig, dataset: Dataset) -> dict:
    """Train on training and validation images; results/classifiers/DATASET.safetensors, with
    labels and predictions of the test images beside the weights, and DATASET.json, returned."""
    if not dataset.labels:
        raise VlaeError(
            f"{dataset.name} has no labels for a classifier; remove it from classifiers"
        )
    images = training_images(dataset, "train+valid")
    labels = np.concatenate([dataset.labels["train"], dataset.labels["valid"]])
    model = train_classifier(config, images, torch.from_numpy(labels))
    # As the decompressions will be judged: rounding could turn a tie.
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
    """The record, the model in double precision, and labels and predictions of the test images
    (TEST); None where none is trained. VlaeError where what is there cannot be used."""
    path = Path(root, paths.classifier(dataset))
    about = path.with_suffix(".json")
    if not about.exists() and not path.exists():
        return None
    record = check_record(about, read_json(about), {"dataset": dataset}, RECORD)
    try:
        tensors, _ = read_safetensors(path)
    except ValueError as error:
        raise VlaeError(f"{path} is no readable classifier: {error}") from None
    if sha256(path) != record["checkpoint_sha256"]:
        raise VlaeError(f"{path} is not the classifier that {about.name} beside it describes")
    test = {name: tensors.pop(name) for name in TEST if name in tensors}
    shape = (record["n_test"],)
    for name in TEST:
        if name not in test or test[name].dtype != torch.uint8 or test[name].shape != shape:
            raise VlaeError(f"{path}: {name} must be uint8, one for each of {shape[0]} images")
    model = Classifier()
    copy_into(model.state_dict(), tensors, str(path))
    return record, model.double().eval(), {name: test[name].numpy() for name in TEST}
