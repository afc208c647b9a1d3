"""MADE: a masked network whose output i depends on inputs before i only (Germain et al. 2015)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlae.nn.elu import elu
from vlae.nn.weightnorm import Linear

ACTIVATIONS = {"relu": torch.relu, "elu": elu}


class MADE(nn.Module):
    """(B, dim), context (B, context_dim) or None -> `outputs` tensors (B, dim).

    Hidden units stand in contiguous blocks, one for each variable: block i sees inputs
    up to i, output i sees blocks before i (openai/iaf). `layers` counts weight layers.
    The context, which is not masked, enters the first hidden layer.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        layers: int,
        outputs: int = 1,
        context_dim: int = 0,
        activation: str = "relu",
    ):
        super().__init__()
        self.outputs = outputs
        self.activation = ACTIVATIONS[activation]
        inputs = torch.arange(dim)
        blocks = torch.arange(hidden) * dim // hidden
        degrees = [inputs] + [blocks] * (layers - 1)
        self.hidden = nn.ModuleList(
            Linear(len(a), len(b), mask=(b[:, None] >= a[None, :]).float())
            for a, b in pairwise(degrees)
        )
        last = (inputs[:, None] > blocks[None, :]).float().repeat(outputs, 1)
        self.output = Linear(hidden, outputs * dim, mask=last)
        self.context = Linear(context_dim, hidden) if context_dim else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        h = z
        for i, layer in enumerate(self.hidden):
            h = layer(h)
            if i == 0 and self.context is not None:
                h = h + self.context(context)
            h = self.activation(h)
        return self.output(h).chunk(self.outputs, 1)
