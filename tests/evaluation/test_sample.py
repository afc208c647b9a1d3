"""Sampling in a wavefront is sampling in raster order, and follows the model's probabilities."""

import numpy as np
import pytest
import torch

import vlae.evaluation.sample
from miniature import small_params, write_data
from vlae.data.dataset import load
from vlae.evaluation.sample import DECOMPRESSED, decompress, draw_samples, write_samples
from vlae.models.build import build_model
from vlae.models.vlae import VLAE
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.pixelcnn_sampling import draw_pixels
from vlae.nn.wavefront import wavefront
from vlae.training.train import train


class DecoderOnly:
    """As much of a model as pixels need."""

    def __init__(self, first_kernel, masked_blocks, maps=0, last_masked=False):
        torch.manual_seed(0)
        self.pixelcnn = PixelCNN(maps, 4, first_kernel, masked_blocks, 1, False, last_masked)
        with torch.no_grad():
            for parameter in self.pixelcnn.parameters():
                parameter.copy_(torch.randn_like(parameter))

    def logits(self, x, maps):
        return self.pixelcnn(x, maps)


@torch.no_grad()
def in_raster_order(model, maps, uniform):
    """Pixel after pixel, the whole network each time: what a wavefront must equal."""
    x = torch.zeros_like(uniform)
    for row in range(28):
        for column in range(28):
            p = torch.sigmoid(model.logits(x, maps)[:, 0, row, column])
            x[:, 0, row, column] = (uniform[:, 0, row, column] < p).to(x.dtype)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("first_kernel", "masked_blocks", "last_masked", "maps", "steps"),
    [(3, 1, False, 0, 82), (7, 1, False, 2, 136), (5, 0, False, 1, 109), (3, 2, True, 1, 82)],
)
def test_wavefront_equals_raster_order_bit_for_bit(
    first_kernel, masked_blocks, last_masked, maps, steps, dtype
):
    model = DecoderOnly(first_kernel, masked_blocks, maps, last_masked)
    model.pixelcnn.to(dtype)
    groups = wavefront(model.pixelcnn.context_pixels(), 28)
    assert len(groups) == steps
    drawn = torch.cat(groups, 1)
    assert sorted(map(tuple, drawn.T.tolist())) == [(r, c) for r in range(28) for c in range(28)]
    uniform = torch.rand((2, 1, 28, 28), dtype=dtype)
    given = torch.randn((2, maps, 28, 28), dtype=dtype) if maps else None
    with torch.no_grad():
        fast = draw_pixels(model.pixelcnn, given, uniform)
    assert torch.equal(fast, in_raster_order(model, given, uniform))
    assert 0.02 < fast.mean() < 0.98


def test_each_pixel_is_drawn_with_the_probability_that_the_likelihood_gives_it():
    """x is on exactly where u < p(x_i = 1 | x_<i), all at once for the finished image."""
    model = DecoderOnly(7, 2)
    uniform = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        x = draw_pixels(model.pixelcnn, None, uniform)
        probability = torch.sigmoid(model.logits(x, None))
    assert torch.equal(x, (uniform < probability).float())


@pytest.mark.parametrize(
    "name", ["static_mnist-vlae", "static_mnist-vae_iaf", "dynamic_mnist-pixelcnn"]
)
def test_samples_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    write_data(tmp_path, params)
    run = params.runs[name]
    dataset = load(run.dataset, params.image_kind(run.dataset))
    train(run, dataset, precision="float32")
    write_samples(run, dataset, count=9)
    path = tmp_path / f"results/samples/{name}.npz"
    first = path.read_bytes()
    with np.load(path) as arrays:
        latent = run.model.latent_dim > 0
        assert arrays["samples"].shape == (9, 28, 28)
        assert arrays["originals"].shape == arrays["decompressions"].shape
        assert len(arrays["originals"]) == (9 if latent else 0)
        for key in ("originals", "decompressions", "samples"):
            assert arrays[key].dtype == np.uint8 and set(np.unique(arrays[key])) <= {0, 1}
        if latent:
            index = arrays["originals_index"]
            assert index[0] == 0 and index[-1] == len(dataset.test) - 1
            assert (arrays["originals"] == dataset.test[index]).all()
    write_samples(run, dataset, count=9)
    assert path.read_bytes() == first


def test_code_of_an_af_prior_has_the_density_that_the_prior_says(tmp_path):
    """Samples of z, taken back through the flow, are the noise they were made from."""
    model = VLAE(small_params(tmp_path).runs["static_mnist-vlae"].model).double()
    noise = torch.randn(50, 6, dtype=torch.float64)
    z = model.sample_prior(noise)
    back, _ = model.prior_flow.normalise(z)
    assert torch.allclose(back, noise, atol=1e-10)


def test_decompression_is_sampled_and_follows_its_seed(tmp_path):
    torch.manual_seed(0)
    model = VLAE(small_params(tmp_path).runs["static_mnist-vlae"].model)
    x = (torch.rand(4, 1, 28, 28) < 0.2).float()
    a, b, again = (decompress(model, x, seed) for seed in (0, 1, 0))
    assert torch.equal(a, again) and not torch.equal(a, b)
    first, second = (draw_samples(model, 3, seed, torch.device("cpu")) for seed in (0, 1))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_decompressions_do_not_depend_on_how_many_are_drawn_at_once(tmp_path, monkeypatch):
    for name in ("static_mnist-vlae", "cifar10-vlae_4x2"):
        torch.manual_seed(0)
        config = small_params(tmp_path).runs[name].model
        model = build_model(config, 8 if name.startswith("cifar") else None).double()
        x = (
            torch.rand((5, 3, 8, 8) if name.startswith("cifar") else (5, 1, 28, 28))
            .double()
            .round()
        )
        whole = decompress(model, x, seed=3)
        monkeypatch.setattr(vlae.evaluation.sample, "AT_ONCE", 2)
        assert torch.allclose(decompress(model, x, seed=3), whole)
        monkeypatch.undo()
        assert not torch.equal(decompress(model, x, seed=4), whole)


def test_more_colour_images_are_decompressed_than_shown(tmp_path):
    runs = small_params(tmp_path).runs
    numbers = {name: DECOMPRESSED[build_model(runs[name].model).kind] for name in runs}
    assert numbers["static_mnist-vlae"] == 100
    assert numbers["cifar10-vlae_4x2"] == numbers["cifar10-narrow_4x2"] == 500
