"""The learning rate of each step, against PyTorch's own scheduler; weights before a decay do not
depend on it."""

import shutil
from dataclasses import replace

import pytest
import torch
from test_train import RUN, prepare, run_training
from torch.optim.lr_scheduler import LinearLR

from miniature import small_params
from vlae.storage.read import read_safetensors
from vlae.training.optimizer import OPTIMIZERS
from vlae.training.schedule import Schedule

STEPS = 10  # of an epoch: 80 images in batches of 8


@pytest.mark.parametrize(("epochs", "decay"), [(3, 0), (3, 1), (3, 3), (60, 12)])
def test_constant_then_linear_to_zero(epochs, decay):
    schedule = Schedule(7, epochs, decay)
    factors = [schedule.factor(step) for step in range(schedule.last_step)]
    assert len(factors) == 7 * epochs and schedule.decay_from == 7 * (epochs - decay)
    assert set(factors[: schedule.decay_from]) <= {1.0}
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = LinearLR(optimizer, 1.0, 0.0, total_iters=max(1, 7 * decay))
    for factor in factors[schedule.decay_from :]:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()
    # Together the steps of a decay are worth half as many, and half a step.
    assert sum(factors[schedule.decay_from :]) == pytest.approx((7 * decay + (decay > 0)) / 2)


def test_the_rate_of_every_step(project, monkeypatch):
    rates = []
    update = torch.optim.Adamax.step
    adamax = OPTIMIZERS["adamax"]

    def noted(optimizer, *arguments):
        rates.append(float(optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(
        torch.optim.Adamax, "step", lambda self, *a, **k: (noted(self), update(self, *a, **k))[1]
    )
    fused = replace(adamax, fused=lambda *a: (noted(*a), adamax.fused(*a))[1])
    monkeypatch.setitem(OPTIMIZERS, "adamax", fused)
    assert run_training(prepare(project, {"epochs": 4, "decay_epochs": 2, "learning_rate": 0.004}))
    falling = [0.004 * (20 - i) / 20 for i in range(20)]
    assert rates == pytest.approx([0.004] * 20 + falling)


def tensors_of(folder, before_decay: bool) -> dict[str, torch.Tensor]:
    found = (folder / "scratch" / RUN).glob("state-*.safetensors")
    (path,) = (path for path in found if ("before-decay" in path.name) == before_decay)
    return read_safetensors(path)[0]


def test_up_to_the_decay_the_training_is_one_without(project):
    assert run_training(prepare(project, {"epochs": 3}))
    constant = tensors_of(project, False)
    shutil.rmtree(project / "scratch")
    shutil.rmtree(project / "results")
    assert run_training(small_params(project, {"epochs": 5, "decay_epochs": 2}))
    kept, decayed = tensors_of(project, True), tensors_of(project, False)
    assert kept.keys() == constant.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in constant.items())
    assert not all(torch.equal(decayed[name], tensor) for name, tensor in constant.items())


def test_more_epochs_decay_anew_from_before_the_decay(project):
    def weights():
        return (project / f"results/checkpoints/{RUN}/model.safetensors").read_bytes()

    assert run_training(prepare(project, {"epochs": 5, "decay_epochs": 2}))
    at_once = {}
    for epochs, decay in ((5, 2), (7, 3), (7, 0)):
        shutil.rmtree(project / "scratch")
        shutil.rmtree(project / "results")
        assert run_training(small_params(project, {"epochs": epochs, "decay_epochs": decay}))
        at_once[epochs, decay] = weights()
    assert len(set(at_once.values())) == 3
    shutil.rmtree(project / "scratch")
    for budget, expected in at_once.items():  # one after the other
        training = dict(zip(("epochs", "decay_epochs"), budget, strict=True))
        assert run_training(small_params(project, training), from_scratch=True)
        assert weights() == expected
