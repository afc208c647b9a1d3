"""Shapes, channels and weights of the CIFAR-10 trunks, and their initialisation."""

import pytest
import torch

from vlae.nn.colour_trunk import (
    ColourDecoder,
    ColourEncoder,
    DenseBlock,
    growth,
    stage_channels,
)
from vlae.nn.resnet import ResidualBlock
from vlae.nn.weightnorm import WeightNorm, data_dependent_initialisation

WIDTHS = (48, 96, 96)


def weights(module):
    return sum(p.numel() for p in module.parameters())


def conv(inputs, outputs, kernel=3):
    """Weights, gains and biases of a convolution."""
    return inputs * outputs * kernel**2 + 2 * outputs


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
def test_shapes_at_each_size(kind):
    encoder, decoder = ColourEncoder(kind, WIDTHS, 32), ColourDecoder(kind, WIDTHS, 16)
    shapes = []
    for network in (encoder, decoder):
        for stage in network.stages:
            stage.register_forward_hook(lambda m, x, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 32, 8, 8)
        maps = decoder(torch.randn(2, 16, 8, 8))
    assert maps.shape == (2, decoder.channels, 32, 32)
    small, large = (48, 96) if kind == "resnet" else (51, 99)
    there = [(small, 32, 32), (large, 16, 16), (large, 8, 8)]
    assert shapes == there + there[::-1]


def test_the_resnet_is_the_papers_list():
    encoder = ColourEncoder("resnet", WIDTHS, 32)
    assert [len(stage) for stage in encoder.stages] == [2, 2, 3]
    assert all(isinstance(b, ResidualBlock) for stage in encoder.stages for b in stage)
    blocks = 4 * conv(48, 48) + (4 + 6) * conv(96, 96)
    between = conv(48, 96) + conv(96, 96)
    assert weights(encoder) == conv(3, 48) + blocks + between + conv(96, 32, 1)
    decoder = ColourDecoder("resnet", WIDTHS, 16)
    assert [len(stage) for stage in decoder.stages] == [3, 2, 2]
    assert weights(decoder) == conv(16, 96, 1) + blocks + conv(96, 96) + conv(96, 48)


def test_a_dense_block_ends_slightly_above_the_resnet():
    for width in (48, 96):
        first, last = stage_channels("densenet", width)
        assert first == width // 2 and width < last <= width + 3
        assert last - 3 < width + 1  # with one map less a step it would not be above
    assert growth(48) == 9 and growth(96) == 17
    with pytest.raises(ValueError, match="resnet or densenet, not 'vgg'"):
        stage_channels("vgg", 48)


def test_dense_steps_see_all_features_before_them():
    torch.manual_seed(0)
    block = DenseBlock(4, 2).double()
    x = torch.randn(1, 4, 5, 5).double()
    out = block(x)
    assert out.shape == (1, 10, 5, 5) and torch.equal(out[:, :4], x)
    assert [step.direction.shape[1] for step in block.steps] == [4, 6, 8]
    expected = x
    for step in block.steps:
        new = torch.nn.functional.conv2d(
            torch.nn.functional.elu(expected), step.weight(), step.bias, padding=1
        )
        expected = torch.cat([expected, new], 1)
    assert torch.allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["resnet", "densenet"])
def test_data_dependent_initialisation_gives_unit_variance(kind):
    torch.manual_seed(0)
    encoder = ColourEncoder(kind, (6, 12, 12), 4).double()
    decoder = ColourDecoder(kind, (6, 12, 12), 4).double()
    x = torch.randn(8, 3, 16, 16).double()
    both = torch.nn.Sequential(encoder, decoder)
    with data_dependent_initialisation(both):
        both(x)
    outputs = {}
    for layer in both.modules():
        if isinstance(layer, WeightNorm):
            layer.register_forward_hook(lambda m, _, out: outputs.setdefault(m, out))
    with torch.no_grad():
        both(x)
    assert len(outputs) == sum(isinstance(m, WeightNorm) for m in both.modules())
    for output in outputs.values():
        assert torch.allclose(output.mean((0, 2, 3)), torch.zeros(()).double(), atol=1e-7)
        variance = output.var((0, 2, 3), correction=0)
        assert torch.allclose(variance, torch.ones(()).double(), rtol=1e-6)
