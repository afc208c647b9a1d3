"""Colour images are drawn with the probabilities that the whole network gives them, whatever the
order; each feature is computed once."""

from collections import Counter

import pytest
import torch
from test_local_pixelcnn import decoder, red_mass

from vlae.images import scaled, unscaled
from vlae.nn.local_pixelcnn import WINDOWS
from vlae.nn.local_pixelcnn_sampling import GatedBlockAtPixels, draw_images
from vlae.nn.logistic_mixture import draw_component, draw_value
from vlae.nn.wavefront import wavefront


def raster(side):
    return [torch.tensor([[r], [c]]) for r in range(side) for c in range(side)]


def drawing(window, side, dtype=torch.float64, images=2, **changes):
    """A decoder, its conditioning maps (None if it has none), and noise."""
    model = decoder(window, **changes).to(dtype)
    conditioning = changes.get("conditioning", 0)
    torch.manual_seed(3)
    maps = torch.randn(images, conditioning, side, side).to(dtype) if conditioning else None
    return model, maps, torch.rand(images, 4, side, side).to(dtype)


@torch.no_grad()
def drawn_at_once(model, x, maps, uniform):
    """The inverse of the distribution functions at `uniform`, those of finished images x."""
    features = model.features(x, maps)
    logits, *red = model.head.first(features)
    component = draw_component(logits, uniform[:, 0]).unsqueeze(1)
    places = [red, *(model.head.next(features, x[:, :before]) for before in (1, 2))]
    colours = []
    for noise, place in zip(uniform[:, 1:].unbind(1), places, strict=True):
        mean, log_scale = (part.gather(1, component).squeeze(1) for part in place)
        colours.append(draw_value(mean, log_scale, noise))
    return torch.stack(colours, 1)


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize(("blocks", "conditioning"), [(1, 0), (1, 3), (2, 0), (4, 2)])
@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_pixels_are_drawn_with_the_parameters_of_the_likelihood(
    window, grayscale, blocks, conditioning, side
):
    """Pixel after pixel there is one image only of which this holds: the whole network, run once
    for each pixel, draws the same."""
    model, maps, uniform = drawing(
        window, side, grayscale=grayscale, blocks=blocks, conditioning=conditioning
    )
    x = draw_images(model, maps, uniform)
    assert torch.equal(unscaled(x), unscaled(drawn_at_once(model, x, maps, uniform)))
    assert len(x.unique()) > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [1, 2, 9])
@pytest.mark.parametrize("window", WINDOWS)
def test_wavefront_equals_raster_order_bit_for_bit(window, side, dtype):
    for grayscale in (False, True):
        model, maps, uniform = drawing(window, side, dtype, grayscale=grayscale, conditioning=2)
        together = draw_images(model, maps, uniform)
        assert torch.equal(together, draw_images(model, maps, uniform, raster(side)))
        assert torch.equal(together, scaled(unscaled(together).to(dtype)))


def test_an_image_does_not_depend_on_those_drawn_with_it():
    model, maps, uniform = drawing("7x4", 9, images=11, conditioning=2)
    together = draw_images(model, maps, uniform)
    assert torch.equal(together[:3], draw_images(model, maps[:3], uniform[:3]))
    assert torch.equal(together[10:], draw_images(model, maps[10:], uniform[10:]))


@pytest.mark.parametrize("in_raster_order", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_each_feature_is_computed_once(window, in_raster_order, monkeypatch):
    side, model = 6, decoder(window, blocks=3)
    groups = raster(side) if in_raster_order else wavefront(model.context_pixels(), side)
    computed = Counter()
    features_of = GatedBlockAtPixels.__call__

    def counted(block, x, *rest):
        computed[block] += len(x)
        return features_of(block, x, *rest)

    monkeypatch.setattr(GatedBlockAtPixels, "__call__", counted)
    draw_images(model, None, torch.rand(8, 4, side, side).double(), groups)
    assert len(computed) == 3 * (model.depth.vertical + model.depth.horizontal)
    assert set(computed.values()) == {8 * side**2}


@torch.no_grad()
def test_samples_follow_the_likelihood():
    """The first pixel's red: its frequencies over evenly spaced noise are its probabilities."""
    model = decoder("4x2", blocks=1, mixtures=1)
    count = 4096
    uniform = torch.full((count, 4, 1, 1), 0.5).double()
    uniform[:, 1, 0, 0] = (torch.arange(count) + 0.5) / count
    x = draw_images(model, None, uniform)
    values = unscaled(x[:, 0, 0, 0]).long()
    frequencies = torch.bincount(values, minlength=256) / count
    mass = red_mass(model, scaled(torch.arange(256).double()))
    assert torch.allclose(frequencies.double(), mass, atol=2 / count)
