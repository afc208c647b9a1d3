"""Small models for the coder, one of each kind, whose weights are a fixed pattern of numbers."""

from dataclasses import replace

import torch

from vlae.config.load import load_params
from vlae.models.vlae import VLAE

KINDS = ["af", "iaf", "gaussian", "factorized", "no code"]


def small_vlae(kind: str) -> VLAE:
    """A model whose single-precision weights depend on their place and nothing else."""
    whole = load_params().run("static_mnist-vlae").model
    flow = replace(whole.prior, steps=2, hidden=12)
    decoder = replace(
        whole.decoder,
        kind="factorized" if kind == "factorized" else "pixelcnn",
        filters=4,
        maps=2,
        first_kernel=5,
        masked_blocks=1,
        pointwise_blocks=1,
    )
    config = replace(
        whole,
        latent_dim=0 if kind == "no code" else 6,
        trunk_maps=(4, 4, 4),
        trunk_hidden=16,
        prior=flow if kind == "af" else replace(flow, flow="none"),
        posterior=replace(flow, flow="iaf") if kind == "iaf" else whole.posterior,
        decoder=decoder,
    )
    model = VLAE(config)
    with torch.no_grad():
        for place, (name, values) in enumerate(sorted(model.named_parameters())):
            index = torch.arange(values.numel(), dtype=torch.float64) + 97 * place
            pattern = (index * index * 31 + index * 17) % 251 / 251 - 0.5
            centre = 0.9 if "gain" in name else 0.0
            values.copy_((centre + 0.5 * pattern).view(values.shape))
    return model.eval()
