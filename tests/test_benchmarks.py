"""The benchmark's baseline computes what it is compared with, and counts are right."""

import pytest
import torch

from benchmarks import colour
from benchmarks import run as bench
from benchmarks.baseline import baseline_of, baseline_operations
from benchmarks.measure import Times, ratio
from benchmarks.training_speed import multiply_adds
from miniature import PROJECT, small_params
from vlae.config.load import load_params
from vlae.models.objective import objective
from vlae.models.vlae import VLAE
from vlae.nn.weightnorm import data_dependent_initialisation

RUNS = ("static_mnist-vlae", "static_mnist-vlae_iaf_relu", "dynamic_mnist-pixelcnn")


def model_of(name: str) -> tuple[VLAE, torch.Tensor, torch.Tensor | None]:
    run = load_params(PROJECT / "params.yaml").run(name)
    torch.manual_seed(0)
    x = (torch.rand(4, 1, 28, 28) > 0.5).double()
    noise = torch.randn(4, run.model.latent_dim).double() if run.model.latent_dim else None
    model = VLAE(run.model).double()
    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)
    return model, x, noise


@pytest.mark.parametrize("name", RUNS)
def test_the_usual_form_is_the_same_function(name):
    model, x, noise = model_of(name)
    usual = baseline_of(model)
    with baseline_operations():
        theirs, _ = objective(usual, x, noise, 0.0)
        theirs.backward()
    ours, _ = objective(model, x, noise, 0.0)
    ours.backward()
    torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-9)
    gains = dict(usual.named_parameters())
    for key, weight in model.named_parameters():
        if key.endswith("gain"):
            torch.testing.assert_close(gains[key].grad, weight.grad, rtol=1e-7, atol=1e-9)


def test_multiply_adds_are_counted_by_hand():
    model, _, _ = model_of("dynamic_mnist-pixelcnn")
    window = 3 * 7 + 3  # taps of the first layer, type A: none at the pixel itself
    masked = 12 * 12 * 12 * 5  # twelve 3x3 convolutions of type B, five taps left
    pointwise = 8 * 12 * 12
    assert multiply_adds(model) == 784 * (12 * window + masked + pointwise + 12)


def test_memory_kept_for_the_backward_pass_grows_with_the_batch_alone(tmp_path):
    """By the same bytes for every image; and one convolution's share is what it is by hand."""
    run = small_params(tmp_path).runs["cifar10-vlae_4x2"]
    device = torch.device("cpu")
    kept = [colour.Step(run, batch, device, "float32").kept() for batch in (2, 4, 6)]
    assert kept[2] - kept[1] == pytest.approx(kept[1] - kept[0], rel=1e-3)
    # At least each ELU's output at full resolution: 4 maps of 32 x 32 single-precision numbers.
    assert kept[1] - kept[0] > 2 * 4 * 32 * 32 * 4


def test_ratios_are_of_neighbouring_runs():
    found = ratio(Times((4.0, 6.0, 80.0)), Times((2.0, 2.0, 20.0)), slow_work=1, fast_work=2)
    assert (found["ratio"], found["ratio_min"], found["ratio_max"]) == (6.0, 4.0, 8.0)


def test_what_is_measured_of_training_and_likelihood(tmp_path):
    """The functions of `make bench` themselves, on a small network and once."""
    run = small_params(tmp_path).runs["static_mnist-vlae"]
    found = bench.training({run.name: run}, repeats=1)[run.name]
    assert found["batch"] == run.training.batch_size
    assert found["megamacs_per_image"] > 0 and found["ratio"] > 0
    assert found["images_per_second"] > 0 < found["baseline_images_per_second"]
    assert bench.likelihood(run, repeats=1)["equal_k"]["ratio"] > 0
