"""The decoder's window is exactly what its kernels say, and nothing leaks."""

import itertools

import pytest
import torch

from vlae.nn.pixelcnn import MaskedConv2d, PixelCNN, causal_mask

SIDE = 28


def pixelcnn(
    first_kernel=7, masked_blocks=3, tied=False, maps=0, pointwise_blocks=4, last_masked=False
):
    torch.manual_seed(0)
    model = PixelCNN(
        maps, 12, first_kernel, masked_blocks, pointwise_blocks, tied, last_masked
    ).double()
    with torch.no_grad():  # all directions at work, none zero by chance of the initialisation
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def seen_by(model, pixel, maps=None):
    """Offsets of the image pixels that the logit of `pixel` has a non-zero gradient to."""
    torch.manual_seed(1)
    x = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    logit = (model(x) if maps is None else model(x, maps))[0, 0, pixel[0], pixel[1]]
    (gradient,) = torch.autograd.grad(logit, x)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    return {
        (r - pixel[0], c - pixel[1]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    }


def test_six_plain_3x3_convolutions_see_69_pixels():
    """One type-A and five type-B 3x3 convolutions, worked out independently by composing masks."""
    reach = {(0, 0)}
    for own_pixel in [True] * 5 + [False]:
        taps = {(-1, -1), (-1, 0), (-1, 1), (0, -1)} | ({(0, 0)} if own_pixel else set())
        reach = {(r + i, c + j) for (r, c), (i, j) in itertools.product(reach, taps)}
    assert len(reach) == 69
    torch.manual_seed(0)
    layers = [MaskedConv2d(1 if i == 0 else 12, 12, 3, own_pixel=i > 0) for i in range(6)]
    assert seen_by(torch.nn.Sequential(*layers).double(), (14, 14)) == reach
    # Two residual blocks have 5 such convolutions, one more makes 6; three have 7.
    assert pixelcnn(first_kernel=3, masked_blocks=2, last_masked=True).context_pixels() == reach
    assert len(pixelcnn(first_kernel=3, masked_blocks=2).context_pixels()) == 50
    assert len(pixelcnn(first_kernel=3, masked_blocks=3).context_pixels()) == 91


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("first_kernel", "masked_blocks", "last_masked"),
    [(3, 1, False), (3, 3, False), (7, 3, False), (5, 2, False), (7, 0, False), (3, 2, True)],
)
def test_gradient_reaches_exactly_the_window(first_kernel, masked_blocks, last_masked, tied):
    model = pixelcnn(first_kernel, masked_blocks, tied, last_masked=last_masked)
    window = model.context_pixels()
    assert all(r < 0 or (r == 0 and c < 0) for r, c in window)
    assert seen_by(model, (14, 14)) == window


@pytest.mark.parametrize("pixel", [(0, 0), (0, 27), (13, 0), (27, 27), (5, 26)])
def test_no_pixel_reaches_its_own_or_an_earlier_logit(pixel):
    seen = seen_by(pixelcnn(), pixel)
    assert all(r < 0 or (r == 0 and c < 0) for r, c in seen)


def test_conditioning_maps_reach_the_pixel_they_stand_at():
    model = pixelcnn(maps=4)
    torch.manual_seed(2)
    maps = torch.randn(1, 4, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(model(x, maps)[0, 0, 14, 14], maps)
    assert (gradient[0, :, 14, 14] != 0).all()
    assert seen_by(model, (14, 14), maps.detach()) == model.context_pixels()


def test_masks_are_those_of_raster_order():
    assert causal_mask(3, own_pixel=False).tolist() == [[1, 1, 1], [1, 0, 0]]
    assert causal_mask(3, own_pixel=True).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert causal_mask(7, own_pixel=False).sum() == 24


@pytest.mark.parametrize("last_masked", [False, True])
def test_tied_convolutions_share_one_direction_and_keep_their_gains(last_masked):
    tied, untied = (pixelcnn(tied=tied, last_masked=last_masked) for tied in (True, False))
    assert len(tied.directions) == 1
    assert len(untied.directions) == 6 + last_masked
    difference = sum(p.numel() for p in untied.parameters()) - sum(
        p.numel() for p in tied.parameters()
    )
    assert difference == (5 + last_masked) * 12 * 12 * 2 * 3


@pytest.mark.parametrize(
    ("first_kernel", "masked_blocks", "last_masked"), [(3, 2, True), (3, 2, False), (7, 3, False)]
)
def test_cropped_kernels_equal_ordinary_masked_convolutions(
    first_kernel, masked_blocks, last_masked
):
    """The stack again with full square kernels and torch's own symmetric padding."""
    model = pixelcnn(first_kernel, masked_blocks, pointwise_blocks=0, last_masked=last_masked)
    x = (torch.rand(2, 1, SIDE, SIDE) < 0.3).double()

    def full(layer, h, direction=None):
        weight = layer.weight(direction)
        square = torch.zeros(*weight.shape[:2], weight.shape[3], weight.shape[3]).double()
        square[:, :, : weight.shape[2]] = weight
        return torch.nn.functional.conv2d(h, square, layer.bias, padding=layer.padding)

    elu = torch.nn.functional.elu
    h = full(model.input, x)
    for i, block in enumerate(model.masked):
        inner = full(block.first, elu(h), model.directions[2 * i])
        h = h + full(block.second, elu(inner), model.directions[2 * i + 1])
    if last_masked:
        h = full(model.last_masked, elu(h), model.directions[-1])
    assert torch.allclose(model.output(elu(h)), model(x), atol=1e-10)
