"""Every optimizer of the table trains as PyTorch's own does, saves all of its state, and the C++
step stands in for the one that it implements and for no other."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from miniature import small_params, write_data
from vlae.config.schema import TrainingConfig
from vlae.data.dataset import load
from vlae.images import FIXED
from vlae.training.optimizer import OPTIMIZERS, new_optimizer, optimizer_tensors, step_and_average
from vlae.training.schedule import DECAYS, Schedule
from vlae.training.train import train

RUN = "static_mnist-vlae"


def choices(name: str) -> tuple[str, ...]:
    (one,) = (one for one in fields(TrainingConfig) if one.name == name)
    return one.metadata["choices"]


def test_what_params_yaml_may_name_is_there():
    assert choices("optimizer") == tuple(OPTIMIZERS)
    assert choices("decay") == tuple(DECAYS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_all_of_its_state(tmp_path, name):
    training = replace(small_params(tmp_path).run(RUN).training, optimizer=name)
    weight = torch.nn.Parameter(torch.ones(3))
    begun, stepped = (new_optimizer([weight], training) for _ in range(2))
    weight.grad = torch.ones(3)
    stepped.step()
    assert set(stepped.state[weight]) == {"step", *OPTIMIZERS[name].moments}
    assert not any(tensor.any() for tensor in optimizer_tensors(begun, training))
    made = begun.state[weight]
    assert made.keys() == stepped.state[weight].keys()
    assert all(made[key].shape == stepped.state[weight][key].shape for key in made)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_pytorch(tmp_path, name, precision):
    """On each machine the same optimizer, whether the C++ core is there or not."""
    training = replace(small_params(tmp_path).run(RUN).training, optimizer=name)
    random = torch.Generator().manual_seed(0)
    start = torch.randn((5, 4), generator=random)
    weight, reference = (torch.nn.Parameter(start.clone()) for _ in range(2))
    average = [start.clone()]
    optimizer = new_optimizer([weight], training)
    theirs = OPTIMIZERS[name].build([reference], training.learning_rate, training.betas)
    for _ in range(10):
        weight.grad = torch.randn((5, 4), generator=random)
        reference.grad = weight.grad.clone()
        step_and_average(optimizer, average, training, precision)
        theirs.step()
    torch.testing.assert_close(weight, reference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_adam_goes_on_bit_identically(tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    run = small_params(tmp_path, {"epochs": 3, "optimizer": "adam"}).run(RUN)
    write_data(tmp_path, small_params(tmp_path, {"epochs": 3, "optimizer": "adam"}))
    dataset, path = load("static_mnist", FIXED), tmp_path / f"results/checkpoints/{RUN}"
    monkeypatch.setenv("VLAE_SCRATCH", "undisturbed")
    assert train(run, dataset, "cpu", precision)
    expected = load_file(path / "model.safetensors")
    monkeypatch.setenv("VLAE_SCRATCH", "stopped")
    shorter = replace(run, training=replace(run.training, epochs=1))
    assert train(shorter, dataset, "cpu", precision)
    assert train(run, dataset, "cpu", precision)
    found = load_file(path / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("decay", DECAYS)
def test_every_decay_falls_from_the_rate_to_zero(decay):
    schedule = Schedule(steps_per_epoch=10, epochs=6, decay_epochs=4, decay=decay)
    factors = [schedule.factor(step) for step in range(schedule.last_step + 1)]
    assert factors[:21] == [1.0] * 21 and factors[-1] == 0
    assert all(a >= b for a, b in pairwise(factors))


def test_the_cosine_is_pytorchs():
    schedule = Schedule(steps_per_epoch=10, epochs=6, decay_epochs=4, decay="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(20, 60):
        assert schedule.factor(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
