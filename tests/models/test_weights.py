"""A checkpoint leaves out the weights that a mask removes, and nothing else."""

import pytest
import torch

from vlae.config.load import load_params
from vlae.models.build import build_model
from vlae.models.weights import packed, read_model, unpacked
from vlae.storage.write import write_safetensors

RUNS = ["static_mnist-vlae", "static_mnist-vae_iaf", "cifar10-narrow_7x4"]


@pytest.fixture(params=RUNS)
def model(request):
    torch.manual_seed(1)
    return build_model(load_params().run(request.param).model)


def weights_of(model):
    return {name: weight.detach() for name, weight in model.named_parameters()}


def masks_of(model):
    """The masks by the names of their weights, found by another way than `packed` does."""
    masks = dict(model.named_buffers())
    return {
        name: masks[name.replace(".direction", ".mask")]
        for name, _ in model.named_parameters()
        if name.replace(".direction", ".mask") in masks
    }


def test_packing_leaves_out_exactly_the_masked_elements(model):
    weights, masks = weights_of(model), masks_of(model)
    files = packed(model, weights)
    assert masks and files.keys() == weights.keys()
    for name, weight in weights.items():
        if name in masks:
            kept = masks[name].broadcast_to(weight.shape) == 1
            assert torch.equal(files[name], weight[kept])
        else:
            assert files[name] is weight


def test_unpacking_restores_every_element_that_a_mask_leaves(model):
    weights, masks = weights_of(model), masks_of(model)
    restored = unpacked(model, packed(model, weights))
    for name, weight in weights.items():
        assert torch.equal(restored[name], weight * masks.get(name, 1))


def test_a_checkpoint_that_has_all_elements_stays_as_it_is(model):
    weights = weights_of(model)
    assert all(v is weights[k] for k, v in unpacked(model, weights).items())


def test_a_model_computes_the_same_from_either_file(tmp_path):
    """The bound is equal bit for bit."""
    run = load_params().run("static_mnist-vlae")
    torch.manual_seed(2)
    model = build_model(run.model).eval()
    x = (torch.rand(5, 1, 28, 28) < 0.2).float()
    noise = torch.randn(5, run.model.latent_dim)
    weights = {name: weight.contiguous() for name, weight in weights_of(model).items()}
    for path, tensors in (("all", weights), ("packed", packed(model, weights))):
        write_safetensors(tmp_path / path, tensors, {"run": run.name})
    sizes = [(tmp_path / path).stat().st_size for path in ("all", "packed")]
    assert sizes[1] < 0.7 * sizes[0]
    with torch.no_grad():
        bounds = [
            read_model(run.name, run.model, tmp_path / path).bound_terms(x, noise)
            for path in ("all", "packed")
        ]
    assert all(torch.equal(a, b) for a, b in zip(*bounds, strict=True))
