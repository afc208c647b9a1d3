"""The flow over latent maps inverts, its order is strict, its log-determinant is autograd's."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from vlae.nn.latent_pixelcnn import LatentFlow, LatentPixelCNN
from vlae.nn.weightnorm import data_dependent_initialisation

MAPS, SIDE = 3, 4
SHAPE = (MAPS, SIDE, SIDE)
# Number after number: pixel by pixel, and map by map within a pixel.
ORDER = torch.arange(MAPS * SIDE * SIDE).view(SIDE, SIDE, MAPS).permute(2, 0, 1).flatten()


def flow(steps=6, scale=False, hidden=8, layers=2):
    """A flow whose steps are far from the identity."""
    torch.manual_seed(0)
    made = LatentFlow(MAPS, steps, hidden, layers, scale).double()
    with data_dependent_initialisation(made):
        made.normalise(torch.randn(32, *SHAPE).double())
    with torch.no_grad():
        for step in made.steps:
            step.output.gain.mul_(3.0 if scale else 8.0)
    return made


def matrix_of(function):
    """The Jacobian of a map of (1, maps, H, W), its rows and columns in the order of numbers."""
    torch.manual_seed(1)
    z = torch.randn(1, *SHAPE).double()
    square = jacobian(function, z).reshape(ORDER.numel(), ORDER.numel())
    ordered = torch.empty_like(square)
    ordered[ORDER[:, None], ORDER[None, :]] = square
    return ordered, z


@pytest.mark.parametrize("scale", [False, True])
def test_generation_inverts_normalisation(scale):
    made = flow(scale=scale)
    z = torch.randn(2, *SHAPE).double()
    noise, _ = made.normalise(z)
    assert (noise - z).abs().max() > 0.1
    assert torch.allclose(made.generate(noise), z, atol=1e-10)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize(("hidden", "layers"), [(8, 2), (2, 1), (7, 3)])
def test_generation_in_a_wavefront_is_generation_one_by_one(scale, hidden, layers):
    """Sequentially by definition: a number is made when all before it in raster order are, with
    the shift and scale that the whole network gives it."""
    made = flow(steps=1, scale=scale, hidden=hidden, layers=layers)
    noise = torch.randn(2, *SHAPE).double()
    z = torch.zeros_like(noise)
    with torch.no_grad():
        for r in range(SIDE):
            for c in range(SIDE):
                for k in range(MAPS):
                    shift, *log_scale = (0.1 * part for part in made.steps[0](z))
                    value = noise[:, k, r, c]
                    if scale:
                        value = value * log_scale[0][:, k, r, c].exp()
                    z[:, k, r, c] = value + shift[:, k, r, c]
    assert (z - noise).abs().max() > 0.1
    assert torch.allclose(made.generate(noise), z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [False, True])
def test_log_determinant_is_that_of_the_jacobian(scale):
    made = flow(scale=scale)
    matrix, z = matrix_of(lambda z: made.normalise(z)[0])
    _, log_det = made.normalise(z)
    assert math.isclose(torch.linalg.slogdet(matrix)[1].item(), log_det.item(), abs_tol=1e-10)
    assert (log_det == 0).all() == (not scale)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_number_depends_on_numbers_before_it_only(layers):
    torch.manual_seed(0)
    network = LatentPixelCNN(MAPS, 12, layers, 1).double()
    matrix, _ = matrix_of(lambda z: network(z)[0])
    below = torch.tril(torch.ones_like(matrix), -1).bool()
    assert (matrix[~below] == 0).all()
    # And on all of those: of its own pixel, and of the pixels of its window.
    window = network.context_pixels() | {(0, 0)}
    for place in range(SIDE * SIDE):
        r, c = divmod(place, SIDE)
        for other in range(place + 1):
            r2, c2 = divmod(other, SIDE)
            block = matrix[place * MAPS : (place + 1) * MAPS, other * MAPS : (other + 1) * MAPS]
            if place == other:
                block = block[torch.tril(torch.ones_like(block), -1).bool()]
            assert (block != 0).all() == ((r2 - r, c2 - c) in window)


def test_every_other_step_has_the_reversed_order():
    """A step alone, the others made the identity, has a triangular Jacobian: lower, or upper
    where its order is the reversed one; all of them together have neither."""

    def silent(*which):
        again = flow(steps=3)
        with torch.no_grad():
            for i in which:
                again.steps[i].output.gain.zero_()
                again.steps[i].output.bias.zero_()
        matrix, _ = matrix_of(lambda z: again.normalise(z)[0])
        return matrix.tril(-1).any().item(), matrix.triu(1).any().item()

    assert silent(1, 2) == (True, False)
    assert silent(0, 1) == (True, False)
    assert silent(0, 2) == (False, True)
    assert silent() == (True, True)


def test_parameters_of_the_papers_prior_are_those_worked_out_by_hand():
    """Six flows over 16 maps, two hidden layers of 128 (appendix B); kernels cropped to 2 x 3."""
    made = LatentFlow(16, 6, 128, 2)
    step = 6 * (16 * 128 + 128 * 128 + 128 * 16) + 2 * (128 + 128 + 16)
    assert sum(p.numel() for p in made.parameters()) == 6 * step
    with torch.no_grad():
        noise, log_det = made.normalise(torch.randn(2, 16, 8, 8))
    assert noise.shape == (2, 16, 8, 8) and log_det.tolist() == [0, 0]
