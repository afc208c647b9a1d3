"""A run on colour images, from training with soft free bits to its samples, in miniature."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from miniature import small_params, write_data
from vlae.config.load import load_params
from vlae.data.batches import as_input
from vlae.data.dataset import load
from vlae.evaluation.evaluate import evaluate
from vlae.evaluation.sample import write_samples
from vlae.images import COLOUR, scaled, unscaled
from vlae.models.build import build_model
from vlae.models.colour_vlae import ColourVLAE
from vlae.models.objective import objective
from vlae.models.vlae import VLAE
from vlae.models.weights import load_model
from vlae.nn.weightnorm import data_dependent_initialisation
from vlae.training.free_bits import RunningGamma
from vlae.training.train import train

RUN = "cifar10-vlae_5x3"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colour")
    params = small_params(folder, {"epochs": 3, "split": "train"})
    write_data(folder, params)
    run = params.runs[RUN]
    dataset = load(run.dataset, COLOUR, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("VLAE_SCRATCH", raising=False)
        assert train(run, dataset, precision="float32")
    return folder, run, dataset


@pytest.fixture
def here(trained, monkeypatch):
    """The run and its data set, in their folder."""
    folder, run, dataset = trained
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    return run, dataset


def test_a_run_has_the_model_that_its_data_set_asks_for(tmp_path):
    params = small_params(tmp_path)
    assert isinstance(build_model(params.runs[RUN].model), ColourVLAE)
    assert isinstance(build_model(params.runs["static_mnist-vlae"].model), VLAE)


def test_the_code_has_as_many_numbers_as_the_params_say():
    for name, run in load_params("params.yaml").runs.items():
        if name.startswith("cifar10"):
            assert build_model(run.model).latent_dim == run.model.latent_dim


def test_the_input_is_the_values_scaled_and_comes_back():
    values = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)
    x = as_input(values, COLOUR, torch.Generator())
    assert x.dtype == torch.float32 and (x.min(), x.max()) == (-1, 1)
    assert torch.equal(unscaled(x), values)


def test_gamma_weighs_the_kl_and_nothing_else(tmp_path):
    """The gradient is that of -E[log p(x|z)] + gamma KL, its two parts taken one by one."""
    model = build_model(small_params(tmp_path).runs[RUN].model, 8).double()
    x = scaled(torch.randint(0, 256, (4, 3, 8, 8)).double())
    noise = torch.randn(4, model.latent_dim).double()
    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)

    def gradient(loss):
        model.zero_grad()
        loss.backward()
        # The log-density of x knows nothing of some weights of the prior.
        return torch.cat(
            [torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten()
             for w in model.parameters()]
        ).clone()  # fmt: skip

    log_likelihood, kl = model.bound_terms(x, noise)
    loss, terms = objective(model, x, noise, 1e9, gamma=torch.tensor(0.25).double())
    assert math.isclose(loss.item(), (-log_likelihood.mean() + 0.25 * kl.mean()).item())
    assert math.isclose(terms[1].item(), kl.mean().item())
    likelihood_part = gradient(-model.bound_terms(x, noise)[0].mean())
    kl_part = gradient(model.bound_terms(x, noise)[1].mean())
    whole = gradient(objective(model, x, noise, 1e9, gamma=torch.tensor(0.25).double())[0])
    torch.testing.assert_close(whole, likelihood_part + 0.25 * kl_part, rtol=1e-9, atol=1e-9)


def test_gamma_moves_every_few_steps_by_their_mean_kl():
    soft = RunningGamma(10.0, 3, CPU)
    for step, (kl, gamma) in enumerate(
        [(0, 1.0), (0, 1.0), (29, 0.9), (8, 0.9), (8, 0.9), (17, 0.99), (10, 0.99), (10, 0.99),
         (11, 0.99), (99, 0.99), (99, 0.99), (99, 1.0)],
        start=1,
    ):  # fmt: skip
        soft.note(torch.tensor(float(kl)))
        soft.after(step)
        assert soft.gamma.item() == pytest.approx(gamma, rel=1e-12), step


@pytest.mark.usefixtures("here")
def test_the_record_of_the_training():
    with open(f"results/checkpoints/{RUN}/curve.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(0 < float(row["gamma"]) <= 1 for row in rows)
    assert float(rows[-1]["gamma"]) != 1 or float(rows[0]["gamma"]) != 1
    assert all(float(row["valid_elbo"]) < 0 for row in rows)
    with open(f"results/checkpoints/{RUN}/train.json") as file:
        record = json.load(file)
    assert record["config"]["model"]["window"] == "5x3" and record["core"].startswith("PyTorch")
    (state,) = (load_file(path) for path in folder_of_states())
    gamma, _ = state["soft_free_bits/values"].tolist()
    assert gamma == pytest.approx(float(rows[-1]["gamma"]), rel=1e-5)


def folder_of_states():
    from pathlib import Path

    return list(Path("scratch", RUN).glob("state-*.safetensors"))


def test_the_evaluation_is_in_bits_of_3072_numbers(here):
    run, dataset = here
    record = evaluate(run, dataset, precision="float32")
    assert record["bits_per_dim"] == pytest.approx(record["nll"] / 3072 / math.log(2))
    assert record["n_test"] == run.evaluation.images == 8
    assert record["importance_samples"] == 3 and record["deep"]["images"] == 3
    assert "draws" not in record
    # One sample each, by the model itself, bounds what three estimate.
    model = load_model(run, CPU)
    x = as_input(torch.from_numpy(dataset.test[:8]), COLOUR, torch.Generator())
    with torch.no_grad():
        log_likelihood, kl = model.bound_terms(x, torch.randn(8, model.latent_dim))
    elbo = (log_likelihood - kl).mean().item()
    assert record["elbo"] == pytest.approx(elbo, rel=0.01)


def test_shards_are_the_whole(here, monkeypatch, tmp_path):
    run, dataset = here
    monkeypatch.setattr("vlae.evaluation.blocks.BLOCK", 3)
    monkeypatch.setattr("vlae.evaluation.blocks.DEEP_BLOCK", 2)
    records = []
    for shards in ([], [(2, 2), (1, 2)]):
        monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / str(len(records))))
        for shard in shards:
            assert evaluate(run, dataset, precision="float32", shard=shard) is None
        records.append(evaluate(run, dataset, precision="float32"))
    assert records[0] == records[1]


def test_samples_have_colours_and_originals_are_test_images(here):
    run, dataset = here
    run = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, images=0))
    write_samples(run, dataset, count=4)
    with np.load(f"results/samples/{RUN}.npz") as arrays:
        images = {name: arrays[name] for name in ("originals", "decompressions", "samples")}
        index = arrays["originals_index"]
    for array in images.values():
        assert array.shape == (4, 3, 32, 32) and array.dtype == np.uint8
        assert len(np.unique(array)) > 20
    assert np.array_equal(images["originals"], dataset.test[index])
    assert not np.array_equal(images["originals"], images["decompressions"])
