"""MADE: a masked network whose output i depends only on inputs before i (Germain et al. 2015)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlae.nn.containers import ModuleList
from vlae.nn.elu import elu
from vlae.nn.weightnorm import Linear

ACTIVATIONS = {"relu": torch.relu, "elu": elu}


class MADE(nn.Module):
    """(B, dim), context (B, context_dim) or None -> `outputs` tensors (B, dim).

    Hidden units are divided into one contiguous block per variable: block i sees inputs 0 to i,
    output i sees blocks before i (openai/iaf). `layers` counts weight layers. The context is not
    masked and enters the first hidden layer.

    >>> made = MADE(dim=3, hidden=6, layers=2)
    >>> of = torch.autograd.functional.jacobian(lambda z: made(z)[0], torch.ones(1, 3))[0, :, 0]
    >>> bool((of.triu() == 0).all())  # output i depends on no input from i on
    True
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        layers: int,
        outputs: int = 1,
        context_dim: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.dim, self.outputs = dim, outputs
        self.activation = ACTIVATIONS[activation]
        inputs = torch.arange(dim)
        blocks = torch.arange(hidden) * dim // hidden
        self.ends = torch.searchsorted(blocks, inputs, right=True).tolist()  # of each block
        degrees = [inputs] + [blocks] * (layers - 1)
        self.hidden = ModuleList(
            Linear(len(a), len(b), mask=(b[:, None] >= a[None, :]).float())
            for a, b in pairwise(degrees)
        )
        last = (inputs[:, None] > blocks[None, :]).float().repeat(outputs, 1)
        self.output = Linear(hidden, outputs * dim, mask=last)
        self.context = Linear(context_dim, hidden) if context_dim else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """z (B, dim), context (B, context_dim) or None -> `outputs` tensors (B, dim)."""
        h = z
        for i, layer in enumerate(self.hidden):
            h = layer(h)
            if i == 0 and self.context is not None:
                h = h + self.context(context)
            h = self.activation(h)
        return self.output(h).chunk(self.outputs, 1)

    def one_by_one(self, context: Tensor | None, like: Tensor) -> "OneByOne":
        """Return an evaluator, variable by variable, for a code that is being sampled."""
        return OneByOne(self, context, like)


class OneByOne:
    """Evaluates output i of a MADE from inputs before i, for i = 0, 1, …

    All outputs together cost one forward pass: each hidden unit is computed once, as soon as its
    last input is known. `like`: a tensor (B, dim) with the dtype and device to use.
    """

    def __init__(self, made: MADE, context: Tensor | None, like: Tensor) -> None:
        self.made = made
        layers = [*made.hidden, made.output]
        self.weights = [layer.weight() for layer in layers]
        biases = [layer.bias.expand(len(like), -1) for layer in layers]
        if made.context is not None:
            biases[0] = biases[0] + made.context(context)
        self.biases = biases
        self.inputs = [torch.zeros_like(like)]
        self.inputs += [like.new_zeros(len(like), layer.bias.numel()) for layer in made.hidden]

    def outputs(self, i: int) -> list[Tensor]:
        """Return the parameters of variable i, one (B,) each; call `set` for 0 to i - 1 first."""
        seen = self.made.ends[i - 1] if i else 0
        weight, bias, h = self.weights[-1], self.biases[-1], self.inputs[-1][:, :seen]
        rows = range(i, len(weight), self.made.dim)
        return [h @ weight[row, :seen] + bias[:, row] for row in rows]

    def set(self, i: int, value: Tensor) -> None:
        """Set variable i to `value` (B,)."""
        self.inputs[0][:, i] = value
        start, end = (self.made.ends[i - 1] if i else 0), self.made.ends[i]
        if start == end:
            return
        seen = i + 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer == len(self.made.hidden):
                break
            before = self.inputs[layer][:, :seen] @ weight[start:end, :seen].T
            h = self.made.activation(before + bias[:, start:end])
            self.inputs[layer + 1][:, start:end] = h
            seen = end
