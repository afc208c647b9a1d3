"""The C++ core between the convolutions of the colour model, against float64 and PyTorch."""

import copy

import pytest
import torch
from test_native import CLOSE, error, gradients
from torch.nn import functional as F

from miniature import SMALL_COLOUR_VLAE
from vlae.config.schema import ColourModelConfig
from vlae.hardware import autocast
from vlae.images import scaled
from vlae.models.colour_vlae import ColourVLAE
from vlae.nn.concat_elu import concat_elu, gated
from vlae.nn.elu import elu
from vlae.nn.local_pixelcnn import WINDOWS, LocalPixelCNN
from vlae.nn.weightnorm import Conv2d, Linear, data_dependent_initialisation

CPU = torch.device("cpu")


def allowed(mode, b, more):
    """The difference from b that rounding explains: to bfloat16, relative to the number's size;
    to single precision, that of an exponential function, which is at most 1."""
    if mode.precision == "float32":
        return 2**-17 * (b.abs() + 1 + more)
    return 2**-8 * (b.abs() + more)


def features(channels, layout="channels_last", images=2, height=5, width=6):
    """bfloat16 numbers between about -12 and 12, zeros among them, with a gradient."""
    x = 4 * torch.randn(images, channels, height, width)
    x[0, 0, :2] = 0
    x = x.to(torch.bfloat16)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "cut out":
        x = F.pad(x, (1, 2))[..., 1:-2]
    return x.requires_grad_()


def results(function, inputs, dtype, precision):
    """What the function gives of the inputs, and its inputs' gradients where all of it is given
    another weight."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
    with autocast(CPU, precision):
        y = function(*inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16)
    return [y, *torch.autograd.grad((y * weights.to(y.dtype)).sum(), inputs)]


def assert_rounded(function, inputs, of_slopes, mode):
    """Each number is off by little more than one rounding, a gradient by that of the slopes,
    which come from rounded values (`of_slopes`: how many there are, none above 1)."""
    truth = results(function, inputs, torch.float64, "float32")
    ours = results(function, inputs, mode.features, mode.precision)
    for i, (a, b) in enumerate(zip(ours, truth, strict=True)):
        assert a.dtype == mode.features and a.shape == b.shape
        assert ((a.double() - b).abs() <= allowed(mode, b, 3 * of_slopes if i else 1e-3)).all()


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "cut out"])
@pytest.mark.parametrize("channels", [(1,), (16,), (37,), (5, 16, 3), (64, 64)])
@pytest.mark.parametrize("border", [(0, 0, 0, 0), (2, 1, 1, 0), (0, 3, 0, 2)])
def test_concat_elu(channels, layout, border, mode):
    torch.manual_seed(0)
    inputs = [features(c, layout) for c in channels]
    assert_rounded(lambda *parts: concat_elu(parts, border=border), inputs, 2, mode)


@pytest.mark.parametrize("channels", [1, 16, 37])
def test_concat_elu_of_a_sum(channels, mode):
    torch.manual_seed(0)
    inputs = [features(channels), features(channels, "contiguous")]
    border = (1, 1, 2, 0)
    assert_rounded(lambda x, plus: concat_elu([x], plus, border), inputs, 2, mode)


@pytest.mark.parametrize("channels", [1, 16, 37])
@pytest.mark.parametrize("plus", [False, True])
def test_gate(channels, plus, mode):
    torch.manual_seed(0)
    inputs = [features(channels), *(features(2 * channels) for _ in range(1 + plus))]
    assert_rounded(lambda x, h, *p: gated(x, h, p[0] if p else None), inputs, 4, mode)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "cut out"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 4, 4), (37, 3, 5)])
def test_elu(shape, layout, mode):
    torch.manual_seed(0)
    channels, height, width = shape
    assert_rounded(elu, [features(channels, layout, 3, height, width)], 1, mode)


def test_far_from_zero_nothing_overflows(mode):
    x = torch.tensor([-1e30, -200.0, -88.0, -1e-30, 0.0, 1e-30, 88.0, 1e30])
    x = x.view(1, 8, 1, 1).to(mode.features)
    with autocast(CPU, mode.precision):
        assert torch.equal(concat_elu([x])[:, :8], elu(x))
        torch.testing.assert_close(elu(x), F.elu(x.double()).to(mode.features))
        open_gates = gated(torch.zeros_like(x), torch.cat([torch.ones_like(x), x], 1), None)
    torch.testing.assert_close(open_gates, torch.sigmoid(x.double()).to(mode.features))


def test_what_is_not_a_number_stays_so(mode):
    """A training that diverges must be seen to."""
    x = torch.full((1, 16, 1, 1), float("nan"), dtype=mode.features)
    with autocast(CPU, mode.precision):
        assert elu(x).isnan().all() and concat_elu([x]).isnan().all()
        assert gated(x, torch.cat([x, x], 1), None).isnan().all()
        assert (
            gated(torch.zeros_like(x), torch.cat([torch.ones_like(x), x], 1), None).isnan().all()
        )


def test_number_of_threads_changes_nothing(mode):
    torch.manual_seed(0)
    inputs = [features(37, images=7, height=16, width=16) for _ in range(2)]
    threads = torch.get_num_threads()

    def run(count):
        torch.set_num_threads(count)
        try:
            return results(lambda *parts: concat_elu(parts), inputs, mode.features, mode.precision)
        finally:
            torch.set_num_threads(threads)

    assert all(torch.equal(a, b) for a, b in zip(run(1), run(2), strict=True))


@pytest.mark.parametrize("layer", [Conv2d(5, 7, 3), Conv2d(64, 32, 1), Linear(9, 4)])
def test_weight_of_a_layer_and_its_gradients(layer, mode):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.direction.normal_()
        layer.gain.uniform_(0.5, 2)
    pull = torch.randn(layer.direction.shape).to(torch.bfloat16)

    def made(layer, precision):
        with autocast(CPU, precision):
            weight = layer.weight()
        # Where all weights of a unit pull alike, the gradient of v is the small rest of numbers.
        (weight * pull.to(weight.dtype)).sum().backward()
        return weight, layer.direction.grad, layer.gain.grad

    truth = made(copy.deepcopy(layer).double(), "float32")
    weight, direction, gain = made(layer, mode.precision)
    assert weight.dtype == mode.features
    rounding = 2**-8 if mode.precision == "bfloat16" else 2**-20
    assert ((weight - truth[0]).abs() <= rounding * truth[0].abs()).all()
    torch.testing.assert_close(direction.double(), truth[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gain.double(), truth[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
def test_nothing_outside_the_window_is_seen(window, mode):
    """Bit by bit, in the core's precision: as in test_local_pixelcnn, where it is float64."""
    torch.manual_seed(0)
    decoder = LocalPixelCNN(window, False, 2, 5, 3, 2).to(memory_format=torch.channels_last)
    x, maps = scaled(torch.randint(0, 256, (1, 3, 12, 12))).float(), torch.randn(1, 3, 12, 12)

    def of(x):
        with torch.no_grad(), autocast(CPU, mode.precision):
            return decoder.features(x, maps)

    with data_dependent_initialisation(decoder):
        before = of(x)
    other = x.clone()
    other[..., 5, 6] *= -0.9
    changed = (of(x) != of(other)).any(1)[0].nonzero().tolist()
    assert before.dtype == mode.features
    truth = copy.deepcopy(decoder).double()
    seen = truth.features(x.double(), maps.double()) != truth.features(
        other.double(), maps.double()
    )
    assert changed == seen.any(1)[0].nonzero().tolist() and changed


@pytest.mark.parametrize("trunk", ["resnet", "densenet"])
def test_gradients_of_the_model_are_as_close_to_double_precision_as_pytorch_s(
    trunk, without_core, mode
):
    """In the middle of five small models: in one of them a gradient may all but vanish, and what
    is left of it is rounding."""
    theirs, ours = [], []
    for seed in range(5):
        torch.manual_seed(seed)
        model = ColourVLAE(ColourModelConfig(trunk=trunk, **SMALL_COLOUR_VLAE), 16)
        model = model.to(memory_format=torch.channels_last)
        x = scaled(torch.randint(0, 256, (6, 3, 16, 16))).float()
        noise = torch.randn(6, model.latent_dim)
        with data_dependent_initialisation(model):
            model.bound_terms(x, noise)
        truth = gradients(model, x, noise, torch.float64, "float32")
        without = without_core(gradients, model, x, noise, torch.float32, mode.precision)
        with_core = gradients(model, x, noise, torch.float32, mode.precision)
        assert any(not torch.equal(a, b) for a, b in zip(with_core, without, strict=True))
        theirs.append(error(without, truth))
        ours.append(error(with_core, truth))
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    names = ["loss", *(n for n, _ in model.named_parameters())]
    for name, mine, pytorch in zip(names, ours.median(0)[0], theirs.median(0)[0], strict=True):
        assert mine < 2 * pytorch + CLOSE[mode.precision], name
    ours, theirs = (e.square().sum(1).sqrt().median() for e in (ours, theirs))
    assert ours < (3 if mode.precision == "float32" else 1.2) * theirs
