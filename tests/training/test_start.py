"""A training that begins with another run's weights: what it takes, records and refuses."""

import json
import shutil

import pytest
import torch
from test_train import prepare, run_training, train_and_kill

from miniature import small_params
from processes import Command
from vlae.config.load import load_params
from vlae.data.batches import as_input, permutation, training_images
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.models.base import latent_noise
from vlae.models.build import build_model
from vlae.models.objective import negative_bound
from vlae.models.weights import read_model
from vlae.randomness import generator
from vlae.storage.write import sha256
from vlae.training.saved_state import state_path
from vlae.training.step import training_step
from vlae.training.train_state import new_train_state

RUN, PLUS = "omniglot-vlae_tuned", "omniglot-vlae_plus"  # with the bound of 8 samples
NARROW, WIDE = "static_mnist-vlae", "static_mnist-vlae_plus"  # with more filters


def results(folder, name=PLUS):
    return folder / "results" / "checkpoints" / name


def weights_of(folder, name=PLUS):
    run = load_params(folder / "params.yaml").run(name)
    model = read_model(name, run.model, results(folder, name) / "model.safetensors")
    return {key: weight.detach() for key, weight in model.named_parameters()}


def record_of(folder, name=PLUS):
    return json.loads((results(folder, name) / "train.json").read_text())


@pytest.fixture
def begun(project):
    """A project whose base has three epochs."""
    run_training(prepare(project, {"epochs": 3}), RUN)
    return project


def test_it_takes_the_averaged_weights_and_no_moments(begun):
    """Two epochs by hand: the K-sample bound, from the base's weights, decaying all the way."""
    before = weights_of(begun, RUN)
    params = small_params(begun, {"epochs": 2, "decay_epochs": 2})
    run = params.runs[PLUS]
    assert run_training(params, PLUS)
    dataset = load(run.dataset, params.image_kind(run.dataset))
    images = training_images(dataset, run.training.split)
    state = new_train_state(run, images, dataset.kind, torch.device("cpu"))
    with torch.no_grad():
        for key, weight in state.weights.items():
            weight.copy_(before[key])
            state.average[key].copy_(before[key])
    losses = torch.zeros(2, 3, dtype=torch.float64)
    for step in range(20):
        epoch, within = divmod(step, 10)
        indices = permutation(run.training.seed, epoch, len(images))
        state.optimizer.param_groups[0]["lr"] = run.training.learning_rate * (20 - step) / 20
        random = generator(run.training.seed, "step", step, "cpu")
        x = as_input(images[indices[8 * within : 8 * within + 8]], dataset.kind, random)
        noise = latent_noise(run.model.latent_dim, x, random, 8)
        uniform = torch.rand(8, generator=random)
        losses[epoch] += training_step(state, x, noise, "float32", uniform=uniform)
    after = weights_of(begun)
    assert after.keys() == state.average.keys()
    assert all(torch.equal(after[key], average) for key, average in state.average.items())
    # The curve has the bound as loss, and ELBO and KL as means over the samples.
    lines = (results(begun) / "curve.csv").read_text().splitlines()
    for line, (loss, reconstruction, kl) in zip(lines[1:], (losses / 10).tolist(), strict=True):
        row = dict(zip(lines[0].split(","), line.split(","), strict=True))
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-5)
        assert float(row["elbo"]) == pytest.approx(-reconstruction - kl, rel=1e-5)
        assert float(row["kl"]) == pytest.approx(kl, rel=1e-4)
        assert float(row["loss"]) < -float(row["elbo"])


def test_the_record_says_where_it_began(begun):
    assert run_training(small_params(begun, {"epochs": 1}), PLUS)
    record = record_of(begun)
    model = results(begun, RUN) / "model.safetensors"
    assert record["start"] == {"run": RUN, "epochs": 3, "checkpoint_sha256": sha256(model)}
    assert (record["epochs"], record["steps"]) == (1, 10)
    assert record["config"]["training"]["start_from"] == RUN
    training = record["config"]["training"]
    assert (training["bound_samples"], training["bound_gradient"]) == (8, "drawn")
    base = record_of(begun, RUN)
    assert "start" not in base and "bound_samples" not in base["config"]["training"]


@pytest.mark.slow
def test_killed_at_random_moments_the_weights_are_bit_identical(begun):
    small_params(begun, {"epochs": 6, "decay_epochs": 6})
    assert Command(begun, "train", PLUS).wait() == 0
    expected = (results(begun) / "model.safetensors").read_bytes()
    shutil.rmtree(results(begun))
    shutil.rmtree(begun / "scratch" / PLUS)
    train_and_kill(begun, PLUS, 3)
    assert (results(begun) / "model.safetensors").read_bytes() == expected


def test_another_base_is_another_training(begun):
    params = small_params(begun, {"epochs": 2})
    assert run_training(params, PLUS)
    run = params.runs[PLUS]
    data = load(run.dataset, params.image_kind(run.dataset)).training_sha256
    first, state = record_of(begun), state_path(run, data)
    assert state.exists()
    assert run_training(small_params(begun, {"epochs": 4}), RUN)  # the base is trained further
    assert run_training(small_params(begun, {"epochs": 2}), PLUS)
    second = record_of(begun)
    assert second["start"]["epochs"] == 4 and state_path(run, data) != state
    assert second["checkpoint_sha256"] != first["checkpoint_sha256"]
    assert len(second["stretches"]) == 1  # it does not continue the published checkpoint


def test_more_epochs_continue_its_own_checkpoint(begun):
    assert run_training(small_params(begun, {"epochs": 1}), PLUS)
    shutil.rmtree(begun / "scratch")
    assert run_training(small_params(begun, {"epochs": 2}), PLUS)
    record = record_of(begun)
    assert [stretch["to_epoch"] for stretch in record["stretches"]] == [1, 2]
    assert record["start"]["epochs"] == 3


def test_without_the_base_one_line_says_what_to_do(begun):
    params = small_params(begun, {"epochs": 1})
    shutil.rmtree(results(begun, RUN))
    with pytest.raises(VlaeError, match=f"begins with the weights of {RUN}, but .*vlae train"):
        run_training(params, PLUS)


def test_a_damaged_base_is_refused(begun):
    params = small_params(begun, {"epochs": 1})
    model = results(begun, RUN) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(VlaeError, match="is not the checkpoint that the train"):
        run_training(params, PLUS)
    assert not results(begun).exists()


def test_a_wider_decoder_computes_the_same_before_its_first_step(project):
    params = prepare(project)
    run_training(params, NARROW)
    run, base = params.runs[WIDE], params.runs[NARROW]
    assert (run.model.decoder.filters, base.model.decoder.filters) == (6, 4)
    dataset = load(run.dataset, params.image_kind(run.dataset))
    images = training_images(dataset, run.training.split)
    state = new_train_state(run, images, dataset.kind, torch.device("cpu"))
    state.start_from_run(base)
    assert all(torch.equal(state.average[name], w) for name, w in state.weights.items())
    narrow = build_model(base.model)
    narrow.load_state_dict(weights_of(project, NARROW))
    random = generator(0, "test", 0, "cpu")
    x = as_input(images, dataset.kind, random)
    noise = latent_noise(run.model.latent_dim, x, random)
    with torch.no_grad():
        for ours, theirs in zip(
            state.model.bound_terms(x, noise), narrow.bound_terms(x, noise), strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_killed_while_the_wider_decoder_trains_the_weights_are_bit_identical(project):
    prepare(project, {"epochs": 4})
    for name in (NARROW, WIDE):
        assert Command(project, "train", name).wait() == 0
    expected = (results(project, WIDE) / "model.safetensors").read_bytes()
    assert record_of(project, WIDE)["start"]["run"] == NARROW
    shutil.rmtree(results(project, WIDE))
    shutil.rmtree(project / "scratch" / WIDE)
    train_and_kill(project, WIDE, 3)
    assert (results(project, WIDE) / "model.safetensors").read_bytes() == expected


def test_a_higher_bound_is_learned(begun):
    """What it is for: the K-sample bound of the training images rises."""
    params = small_params(begun, {"epochs": 8, "decay_epochs": 8, "polyak": 0.9})
    run = params.runs[PLUS]
    assert run_training(params, PLUS)
    dataset = load(run.dataset, params.image_kind(run.dataset))
    images = training_images(dataset, run.training.split)
    random = generator(0, "test", 0, "cpu")
    x = as_input(images, dataset.kind, random)
    noise = latent_noise(run.model.latent_dim, x, random, 8)
    model, bounds = build_model(run.model), []
    for name in (RUN, PLUS):
        model.load_state_dict(weights_of(begun, name))
        with torch.no_grad():
            bounds.append(-negative_bound(model, x, noise)[2].item())
    assert bounds[1] > bounds[0] + 1
