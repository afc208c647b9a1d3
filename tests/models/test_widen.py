"""A decoder with more filters that begins with the weights of one with fewer."""

from dataclasses import replace

import pytest
import torch

from vlae.config.load import load_params
from vlae.models.objective import objective
from vlae.models.vlae import VLAE
from vlae.models.widen import widened
from vlae.nn.weightnorm import data_dependent_initialisation
from vlae.receptive_field import decoder_kernels, reach

SMALL = load_params().runs["static_mnist-vlae"].model
SMALL = replace(SMALL, latent_dim=6, trunk_maps=(4, 6, 6), trunk_hidden=20)
SMALL = replace(
    SMALL,
    prior=replace(SMALL.prior, hidden=16),
    decoder=replace(SMALL.decoder, tied=False, masked_blocks=2, pointwise_blocks=2),
)
DECODERS = {
    "untied": {},
    "tied": {"tied": True},
    "window A": {"first_kernel": 3, "masked_blocks": 1, "last_masked": True},
}


def initialised(filters, seed, **decoder):
    """An initialised model in double precision, images, and noise for them."""
    torch.manual_seed(seed)
    model = VLAE(replace(SMALL, decoder=replace(SMALL.decoder, filters=filters, **decoder)))
    model.double()
    x = (torch.rand(16, 1, 28, 28) < 0.2).double()
    noise = torch.randn(16, SMALL.latent_dim).double()
    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)
    return model, x, noise


def widen(narrow, wide):
    weights = widened(dict(narrow.named_parameters()), wide)
    wide.load_state_dict(weights)
    return wide


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_the_wide_model_computes_what_the_narrow_one_does(decoder):
    narrow, x, noise = initialised(5, 0, **decoder)
    fresh = initialised(9, 1, **decoder)[0]
    before = [term.detach() for term in fresh.bound_terms(x, noise)]
    wide = widen(narrow, fresh)
    for ours, theirs, other in zip(
        wide.bound_terms(x, noise), narrow.bound_terms(x, noise), before, strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(other, theirs, rtol=0.01)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_every_weight_of_the_wide_decoder_learns(decoder):
    """The first step moves the zeros, and so gives the new units a gradient in the second."""
    narrow, x, noise = initialised(5, 0, **decoder)
    wide = widen(narrow, initialised(9, 1, **decoder)[0])
    gradients = {}
    for _ in range(2):
        loss = -sum(term.mean() for term in wide.bound_terms(x, noise))
        wide.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, weight in wide.pixelcnn.named_parameters():
                gradients[name] = weight.grad.clone()
                weight -= 1e-3 * weight.grad.sign()
    masked = wide.pixelcnn.input.mask.expand_as(gradients["input.direction"]) == 0
    for name, gradient in gradients.items():
        zero = gradient == 0
        if name == "input.direction":
            assert (zero == masked).all()
        elif name.startswith("directions"):  # the type-B mask hides the pixel to the right
            assert zero[:, :, 1, 2].all() and zero.sum() == zero[:, :, 1, 2].numel()
        else:
            assert not zero.any(), name


def test_the_window_stays():
    """A logit of the widened model depends on all pixels of the window, and on no other."""
    decoder = DECODERS["window A"]
    narrow, x, noise = initialised(5, 0, **decoder)
    wide = widen(narrow, initialised(9, 1, **decoder)[0])
    maps = wide.trunk(noise[:1]).detach()
    image = x[:1].requires_grad_()
    wide.pixelcnn(image, maps)[0, 0, 14, 14].backward()
    seen = {(r - 14, c - 14) for r, c in image.grad[0, 0].nonzero().tolist()}
    assert seen == reach(decoder_kernels(3, 1, True))


def test_the_same_number_of_filters_changes_nothing():
    narrow = initialised(5, 0)[0]
    weights = widened(dict(narrow.named_parameters()), initialised(5, 1)[0])
    assert all(weights[name] is weight for name, weight in narrow.named_parameters())


def test_what_is_no_wider_model_is_left_to_the_reader_of_weights():
    """A weight of another layer keeps its shape, so that copying it reports it."""
    narrow = dict(initialised(5, 0)[0].named_parameters())
    weights = widened(narrow | {"x": torch.zeros(3)}, initialised(9, 1)[0])
    assert weights["x"].shape == (3,)
