"""The classifier learns, is the same twice, and is recorded with what it was made from."""

import dataclasses

import numpy as np
import pytest
import torch

from miniature import made_up_arrays, small_params
from vlae.cli import main
from vlae.config.load import load_params
from vlae.config.schema import ClassifierConfig
from vlae.data.dataset import Dataset
from vlae.evaluation.classifier import (
    accuracy,
    classify,
    read_classifier,
    train_classifier,
    write_classifier,
)
from vlae.images import COLOUR
from vlae.recipes import classifier_recipe
from vlae.storage import paths
from vlae.storage.write import write_npz

CONFIG = ClassifierConfig(epochs=4, batch_size=20, learning_rate=0.01, seed=0)


def toy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brighter colour is the class, 0 to 2."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n).astype(np.uint8)
    images = random.integers(0, 200, (n, 3, 32, 32), dtype=np.uint8)
    images[np.arange(n), labels] += 55
    return images, labels


def dataset() -> Dataset:
    splits = {"train": toy(160, 0), "valid": toy(40, 1), "test": toy(100, 2)}
    return Dataset(
        "cifar10",
        COLOUR,
        **{split: images for split, (images, _) in splits.items()},
        sha256="d" * 64,
        labels={split: labels for split, (_, labels) in splits.items()},
    )


def test_it_learns_to_distinguish_classes_and_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = write_classifier(CONFIG, dataset())
    assert made["accuracy"] > 0.9
    assert (made["images"], made["n_test"], made["seed"], made["epochs"]) == (200, 100, 0, 4)
    record, model, test = read_classifier(tmp_path, "cifar10")
    assert record == made and record["data_sha256"] == "d" * 64
    images, labels = toy(100, 2)
    np.testing.assert_array_equal(test["test_labels"], labels)
    # What is read classifies as what was written, on any machine: in double precision.
    np.testing.assert_array_equal(test["test_predictions"], classify(model, images))
    assert made["accuracy"] == accuracy(test["test_predictions"], labels)[0]
    assert read_classifier(tmp_path, "cifar100") is None


def test_the_same_seed_gives_the_same_weights_whatever_ran_before():
    images, labels = map(torch.from_numpy, toy(60, 0))
    first = train_classifier(CONFIG, images, labels).state_dict()
    torch.manual_seed(5)
    torch.randn(3)
    again = train_classifier(CONFIG, images, labels).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = dataclasses.replace(CONFIG, seed=1)
    another = train_classifier(other, images, labels).state_dict()
    assert not torch.equal(first["0.weight"], another["0.weight"])


def test_accuracy_and_its_error():
    share, error = accuracy(np.array([1, 2, 3, 3]), np.array([1, 2, 3, 4]))
    assert (share, error) == (0.75, pytest.approx((0.75 * 0.25 / 4) ** 0.5))


def test_its_recipe_changes_with_its_configuration():
    before = classifier_recipe(CONFIG)
    assert classifier_recipe(CONFIG) == before
    for change in ({"seed": 1}, {"learning_rate": 0.02}):
        assert classifier_recipe(dataclasses.replace(CONFIG, **change)) != before
    assert classifier_recipe(dataclasses.replace(CONFIG, epochs=9)) == before


def test_every_colour_data_set_has_one(request):
    params = load_params(request.config.rootpath / "params.yaml")
    assert set(params.classifiers) == {
        n for n in params.datasets if params.image_kind(n) is COLOUR
    }


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    write_npz(paths.dataset("cifar10"), **made_up_arrays("none"))
    assert main(["classifier", "cifar10"]) == 0
    assert "of 40 test images recognised" in capsys.readouterr().out
    record, _, _ = read_classifier(tmp_path, "cifar10")
    assert record["epochs"] == params.classifiers["cifar10"].epochs
    assert main(["classifier", "static_mnist"]) == 2
    said = capsys.readouterr().err
    assert "no classifier of 'static_mnist' in params.yaml; there are: cifar10" in said
