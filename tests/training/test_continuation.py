"""Training that goes on from a published checkpoint: what it begins with, what it refuses, and
that it is bit-identical however often it was interrupted."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_train import (
    RUN,
    prepare,
    run_training,
    states,
    train_and_kill,
)

from miniature import made_up_arrays, small_params
from processes import Command
from vlae.cli import main
from vlae.config.load import load_params
from vlae.data.batches import as_input, permutation, training_images
from vlae.data.dataset import load
from vlae.models.base import latent_noise
from vlae.models.weights import read_model
from vlae.randomness import generator
from vlae.storage.write import sha256, write_npz
from vlae.training.step import training_step
from vlae.training.train_state import new_train_state

COLOUR = "cifar10-vlae_4x2"


@pytest.fixture
def published(project):
    """A project with the results of three epochs, and no training state."""
    assert run_training(prepare(project, {"epochs": 3}))
    shutil.rmtree(project / "scratch")
    return project


def results(folder, run=RUN):
    return folder / "results" / "checkpoints" / run


def weights_of(folder, run=RUN) -> dict[str, torch.Tensor]:
    config = load_params(folder / "params.yaml").run(run).model
    model = read_model(run, config, results(folder, run) / "model.safetensors")
    return {name: weight.detach() for name, weight in model.named_parameters()}


def record_of(folder, run=RUN) -> dict:
    return json.loads((results(folder, run) / "train.json").read_text())


def test_every_stretch_is_listed(published):
    first = (results(published) / "model.safetensors").read_bytes()
    curve = (results(published) / "curve.csv").read_text()
    old = record_of(published)
    assert run_training(small_params(published, {"epochs": 5, "decay_epochs": 1}))
    record = record_of(published)
    told = ("from_epoch", "to_epoch", "decay_epochs", "from_checkpoint")
    assert [tuple(stretch[key] for key in told) for stretch in record["stretches"]] == [
        (0, 3, 0, None),
        (3, 5, 1, old["checkpoint_sha256"]),
    ]
    assert record["stretches"][0] == old["stretches"][0]
    assert all(stretch["hardware"] and stretch["seconds"] > 0 for stretch in record["stretches"])
    assert (record["epochs"], record["steps"], record["images_seen"]) == (5, 50, 400)
    assert record["seconds"] == pytest.approx(sum(s["seconds"] for s in record["stretches"]))
    assert (results(published) / "curve.csv").read_text().startswith(curve)
    assert record["checkpoint_sha256"] == sha256(results(published) / "model.safetensors")
    assert (results(published) / "model.safetensors").read_bytes() != first


@pytest.mark.parametrize("name", [RUN, COLOUR])
def test_it_begins_with_the_averaged_weights_and_no_moments(project, name):
    """The epoch after, step by step and by hand."""
    run_training(prepare(project, {"epochs": 3}), name)
    weights = weights_of(project, name)
    gamma = [line.split(",") for line in (results(project, name) / "curve.csv").open()]
    shutil.rmtree(project / "scratch")
    params = small_params(project, {"epochs": 4})
    run_training(params, name)
    after = weights_of(project, name)

    run, device = params.runs[name], torch.device("cpu")
    dataset = load(run.dataset, params.image_kind(run.dataset))
    images = training_images(dataset, run.training.split)
    state = new_train_state(run, images, dataset.kind, device)
    with torch.no_grad():
        for key, weight in state.weights.items():
            weight.copy_(weights[key])
            state.average[key].copy_(weights[key])
    if state.free_bits is not None:
        state.free_bits.values[0] = float(gamma[-1][gamma[0].index("gamma\n")])
    indices = permutation(run.training.seed, 3, len(images))
    for step in range(30, 40):
        at = indices[8 * (step - 30) : 8 * (step - 29)]
        noise = generator(run.training.seed, "step", step, "cpu")
        x = as_input(images[at], dataset.kind, noise)
        z = latent_noise(run.model.latent_dim, x, noise)
        training_step(state, x, z, "float32")
        state.after_step(step + 1)
    assert after.keys() == state.average.keys()
    assert all(torch.equal(after[key], average) for key, average in state.average.items())


def test_killed_in_a_stretch_and_in_its_decay_it_is_bit_identical(project):
    assert run_training(prepare(project, {"epochs": 2}))
    begun = project / "begun"
    shutil.copytree(project / "results", begun)
    small_params(project, {"epochs": 6, "decay_epochs": 2})

    def afresh():
        shutil.rmtree(project / "scratch", ignore_errors=True)
        shutil.rmtree(project / "results")
        shutil.copytree(begun, project / "results")

    afresh()
    assert Command(project, "train", RUN).wait() == 0
    expected = (results(project) / "model.safetensors").read_bytes()
    record = record_of(project)
    assert len(record["stretches"]) == 2
    afresh()
    train_and_kill(project, RUN, 3)
    assert (results(project) / "model.safetensors").read_bytes() == expected
    again = record_of(project)
    assert again["final"] == record["final"]
    told = ("from_checkpoint", "from_epoch", "to_epoch", "decay_epochs")
    for ours, theirs in zip(again["stretches"], record["stretches"], strict=True):
        assert [ours[key] for key in told] == [theirs[key] for key in told]


def test_the_state_before_a_decay_serves_a_continued_training_too(published):
    kept = published / "kept"
    shutil.copytree(published / "results", kept)
    longer = {"epochs": 7, "decay_epochs": 2}
    assert run_training(small_params(published, longer))
    at_once = (results(published) / "model.safetensors").read_bytes()
    shutil.rmtree(published / "scratch")
    shutil.rmtree(published / "results")
    shutil.copytree(kept, published / "results")
    assert run_training(small_params(published, {"epochs": 5, "decay_epochs": 2}))
    assert run_training(small_params(published, longer))
    assert (results(published) / "model.safetensors").read_bytes() == at_once
    stretches = record_of(published)["stretches"]
    assert [(s["from_epoch"], s["to_epoch"]) for s in stretches] == [(0, 3), (3, 7)]


def test_a_budget_that_is_reached_is_taken_over_as_it_is(published, capfd):
    handed_on = published / "scratch" / RUN / "published"
    shutil.copytree(results(published), handed_on)
    before = {path.name: path.read_bytes() for path in handed_on.iterdir()}
    shutil.rmtree(published / "results")  # as DVC does before a stage runs
    assert run_training(small_params(published, {"epochs": 3}))
    assert {p.name: p.read_bytes() for p in results(published).iterdir()} == before
    assert "has all 3 epochs; no training needed" in capfd.readouterr().err
    assert not states(published)


def test_from_scratch_nothing_is_taken(published, monkeypatch):
    longer = {"epochs": 5}
    assert run_training(small_params(published, longer), from_scratch=True)
    record = record_of(published)
    assert [s["from_checkpoint"] for s in record["stretches"]] == [None]
    at_once = (results(published) / "model.safetensors").read_bytes()
    # By the command and its variable.
    for arguments, variable in ((["--from-scratch"], ""), ([], "1")):
        shutil.rmtree(published / "scratch")
        monkeypatch.setenv("VLAE_FROM_SCRATCH", variable)
        small_params(published, {"epochs": 5})
        assert main(["train", RUN, "--precision", "float32", *arguments]) == 0
        assert (results(published) / "model.safetensors").read_bytes() == at_once


def other_rate(folder):
    return {"learning_rate": 0.01}, "it was trained with another learning_rate"


def other_images(folder):
    arrays = made_up_arrays("fixed")
    arrays["train"] = 1 - arrays["train"]
    write_npz(folder / "data" / "static_mnist.npz", **arrays)
    return {}, "it was trained on other data"


def other_code(folder):
    recipe = folder / "results" / "recipes" / f"{RUN}.train.json"
    recipe.parent.mkdir(parents=True)
    recipe.write_text('{"numbers": [1, 2, 3]}')
    return {}, "it was trained with another model or code, or does not record which"


def other_weights(folder):
    path = results(folder) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))
    return {}, "model.safetensors is not the file that train.json describes"


def no_curve(folder):
    (results(folder) / "curve.csv").write_text("epoch,step\n1,x\n")
    return {}, "curve.csv is not a learning curve"


def too_long(folder):
    return {"epochs": 5, "decay_epochs": 3}, "it has 3 epochs, but epochs 5 with decay_epochs 3"


@pytest.mark.parametrize(
    "reason", [other_rate, other_images, other_code, other_weights, no_curve, too_long]
)
def test_one_that_it_cannot_go_on_from_is_named_and_left_alone(published, capfd, reason):
    handed_on = published / "scratch" / RUN / "published"
    changes, said = reason(published)
    shutil.copytree(results(published), handed_on)
    before = {path.name: path.read_bytes() for path in handed_on.iterdir()}
    assert run_training(small_params(published, {"epochs": 5} | changes))
    stderr = capfd.readouterr().err
    assert f"{RUN}: cannot continue from scratch/{RUN}/published: {said}" in stderr
    assert len(record_of(published)["stretches"]) == 1 and record_of(published)["epochs"] == 5
    assert {path.name: path.read_bytes() for path in handed_on.iterdir()} == before


def test_the_same_images_in_another_file_are_the_same_data(published):
    """Another test set, say: what identifies a training is what it trains on."""
    arrays = made_up_arrays("fixed", test=60)
    before = record_of(published)
    write_npz(published / "data" / "static_mnist.npz", **arrays)
    assert np.array_equal(arrays["train"], made_up_arrays("fixed")["train"])
    assert run_training(small_params(published, {"epochs": 4}))
    record = record_of(published)
    assert len(record["stretches"]) == 2
    assert record["data_sha256"] != before["data_sha256"]
    assert record["training_sha256"] == before["training_sha256"]


def test_of_two_checkpoints_the_further_one(published):
    handed_on = published / "scratch" / RUN / "published"
    assert run_training(small_params(published, {"epochs": 4}))
    shutil.rmtree(published / "scratch")
    shutil.copytree(results(published), handed_on)
    shutil.rmtree(published / "results")
    prepared = small_params(published, {"epochs": 3})
    assert run_training(prepared, from_scratch=True)  # three epochs in results/
    for path in states(published):
        path.unlink()
    assert run_training(small_params(published, {"epochs": 6}))
    assert record_of(published)["stretches"][-1]["from_epoch"] == 4
