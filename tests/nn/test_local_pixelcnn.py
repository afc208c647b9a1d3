"""The windows of the colour decoder are exact, nothing leaks, and its likelihood adds up to 1."""

import pytest
import torch

from vlae.images import scaled
from vlae.nn.local_pixelcnn import GREY, WINDOWS, LocalPixelCNN
from vlae.nn.logistic_mixture import bin_log_mass
from vlae.nn.wavefront import wavefront
from vlae.nn.weightnorm import WeightNorm, data_dependent_initialisation

SIDE = 13

# Columns seen in the rows above, rows above, columns to the left: section 4.4 and appendix B.
STATED = {
    "4x2": (range(-2, 2), 2, 2, 10, 94),
    "5x3": (range(-2, 3), 3, 2, 17, 125),
    "7x4": (range(-3, 4), 4, 3, 31, 156),
}


def stated(window):
    columns, rows, left, count, _ = STATED[window]
    pixels = {(-r, c) for r in range(1, rows + 1) for c in columns}
    pixels |= {(0, -c) for c in range(1, left + 1)}
    assert len(pixels) == count
    return pixels


def decoder(window, grayscale=False, blocks=2, maps=5, conditioning=0, mixtures=3):
    torch.manual_seed(0)
    model = LocalPixelCNN(window, grayscale, blocks, maps, conditioning, mixtures).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def images(batch=1, side=SIDE):
    torch.manual_seed(1)
    return scaled(torch.randint(0, 256, (batch, 3, side, side)).double())


def gradient(model, pixel, maps=None):
    """Of a random combination of all features at `pixel`: (3, H, W)."""
    x = images().requires_grad_()
    at = model.features(x, maps)[0, :, pixel[0], pixel[1]]
    return torch.autograd.grad((at * torch.randn_like(at)).sum(), x)[0][0]


def seen(gradient, pixel):
    """Offsets of the pixels with a gradient in any channel, and whether all channels have it."""
    any_channel, all_channels = (gradient != 0).any(0), (gradient != 0).all(0)
    assert torch.equal(any_channel, all_channels)
    return {(r - pixel[0], c - pixel[1]) for r, c in any_channel.nonzero().tolist()}


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("blocks", [1, 4])
def test_gradient_reaches_exactly_the_window(window, grayscale, blocks):
    model = decoder(window, grayscale, blocks)
    assert model.context_pixels() == stated(window)
    assert seen(gradient(model, (6, 6)), (6, 6)) == stated(window)


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_end_at_the_border(window):
    model = decoder(window)
    for pixel in ((0, 0), (0, SIDE - 1), (SIDE - 1, SIDE - 1), (1, 0), (5, SIDE - 2)):
        inside = {
            (r, c)
            for r, c in stated(window)
            if 0 <= pixel[0] + r < SIDE and 0 <= pixel[1] + c < SIDE
        }
        assert seen(gradient(model, pixel), pixel) == inside


def test_a_grayscale_context_is_its_luma_only():
    model = decoder("7x4", grayscale=True)
    slope = gradient(model, (6, 6))
    luma = slope.sum(0)
    for channel, share in zip(slope, GREY, strict=True):
        assert torch.allclose(channel, share * luma, atol=1e-12)
    x = images()
    shifted = x + 0.3 * torch.tensor([1.0, -GREY[0] / GREY[1], 0.0]).view(1, 3, 1, 1).double()
    assert torch.allclose(model.features(x, None), model.features(shifted, None), atol=1e-10)


@pytest.mark.parametrize("grayscale", [False, True])
def test_colours_follow_one_another(grayscale):
    """A pixel's own colours reach the parameters of those behind them and no others."""
    model = decoder("4x2", grayscale)
    x = images().requires_grad_()
    features = model.features(x, None)
    logits, *red = model.head.first(features)
    green, blue = model.head.next(features, x[:, :1]), model.head.next(features, x[:, :2])
    expected = [(logits, 0), (red[0], 0), (red[1], 0)]
    expected += [(part, 1) for part in green] + [(part, 2) for part in blue]
    for part, colours in expected:
        (slope,) = torch.autograd.grad(part[0, :, 6, 6].square().sum(), x, retain_graph=True)
        own = (slope[0, :, 6, 6] != 0).tolist()
        assert own == [i < colours for i in range(3)]


def test_conditioning_maps_reach_their_pixel_in_every_block():
    model = decoder("5x3", blocks=2, conditioning=4)
    torch.manual_seed(2)
    maps = torch.randn(1, 4, SIDE, SIDE).double().requires_grad_()
    features = model.features(images(), maps)
    for block in range(2):
        at = features[0, 5 * block : 5 * block + 5, 6, 6].square().sum()
        (slope,) = torch.autograd.grad(at, maps, retain_graph=True)
        assert (slope[0, :, 6, 6] != 0).all()
    assert seen(gradient(model, (6, 6), maps.detach()), (6, 6)) == stated("5x3")


def test_blocks_are_conditioned_on_those_before_them():
    """What the first streams compute changes the features of the second, and not the reverse."""
    model = decoder("7x4", blocks=2)
    x = images()
    before = model.features(x, None)
    with torch.no_grad():
        model.streams[0].first_vertical.bias.add_(1)
    after = model.features(x, None)
    assert not torch.allclose(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    with torch.no_grad():
        model.streams[1].first_vertical.bias.add_(1)
    assert torch.equal(after[:, :5], model.features(x, None)[:, :5])


def red_mass(model, values):
    """p(red) of the only pixel of an image, for scaled values (N,): (N,)."""
    features = model.features(torch.zeros(1, 3, 1, 1).double(), None)
    logits, mean, log_scale = model.head.first(features)
    mass = bin_log_mass(values.view(-1, 1, 1, 1), mean, log_scale.clamp(min=-7.0))
    return (torch.log_softmax(logits, 1) + mass).exp().sum(1).flatten()


@torch.no_grad()
def test_the_likelihood_of_a_pixel_is_a_distribution():
    """Summed over all values of green and blue it leaves p(red), whose sum is 1."""
    model = decoder("4x2", blocks=1, maps=2, mixtures=2)
    values = scaled(torch.arange(256).double())
    assert red_mass(model, values).sum().item() == pytest.approx(1, abs=1e-12)
    green_and_blue = torch.cartesian_prod(values, values)
    for red in values[[0, 100]]:
        x = torch.cat([red.expand(65536, 1), green_and_blue], 1)[:, :, None, None]
        total = model.log_likelihood(x, None).exp().sum().item()
        assert total == pytest.approx(red_mass(model, red).item(), rel=1e-9)


@pytest.mark.parametrize("window", WINDOWS)
def test_steps_of_the_wavefront(window):
    groups = wavefront(decoder(window).context_pixels(), 32)
    assert len(groups) == STATED[window][4]
    assert sum(g.shape[1] for g in groups) == 1024


def test_data_dependent_initialisation_gives_unit_variance():
    torch.manual_seed(0)
    model = LocalPixelCNN("7x4", False, 2, 6, 3, 4).double()
    x, maps = images(8), torch.randn(8, 3, SIDE, SIDE).double()
    with data_dependent_initialisation(model):
        model.log_likelihood(x, maps)
    outputs = {}
    for layer in model.modules():
        if isinstance(layer, WeightNorm):
            layer.register_forward_hook(lambda m, _, out: outputs.setdefault(m, out))
    with torch.no_grad():
        model.log_likelihood(x, maps)
    assert len(outputs) == sum(isinstance(m, WeightNorm) for m in model.modules())
    for output in outputs.values():
        assert torch.allclose(output.mean((0, 2, 3)), torch.zeros(()).double(), atol=1e-7)
        variance = output.var((0, 2, 3), correction=0)
        assert torch.allclose(variance, torch.ones(()).double(), rtol=1e-6)
