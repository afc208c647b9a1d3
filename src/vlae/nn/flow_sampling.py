"""Draws many codes from an autoregressive prior, as fast as the processor multiplies matrices."""

import torch
from torch import Tensor

from vlae.nn.flow import STEP_SCALE, AutoregressiveFlow
from vlae.nn.made import MADE

BLOCK = 16  # variables whose earlier inputs enter by one product


@torch.no_grad()
def generate_many(flow: AutoregressiveFlow, u: Tensor) -> Tensor:
    """Map noise (B, dim) to codes z (B, dim), as `flow.generate` does without a context.

    Each hidden unit is computed once, as there. Here variables are rows, and the products with
    what lies before a block of variables are done for the whole block. For thousands of codes
    this is several times as fast; the results differ by rounding. Raises ValueError for a flow
    that scales.
    """
    if flow.scale:
        raise ValueError("only flows that shift are supported")
    rows = u.T.contiguous()
    for step, made in reversed(list(enumerate(flow.steps))):
        rows = _invert_step(made, rows)
        rows = rows.flip(0) if step else rows
    return rows.T.contiguous()


def _invert_step(made: MADE, u: Tensor) -> Tensor:
    """Invert one shift: u (dim, B) -> z (dim, B)."""
    z = torch.empty_like(u)
    weights = [layer.weight() for layer in made.hidden]
    biases = [layer.bias[:, None] for layer in made.hidden]
    last, last_bias = STEP_SCALE * made.output.weight(), STEP_SCALE * made.output.bias[:, None]
    inputs = [z, *(u.new_empty(len(weight), u.shape[1]) for weight in weights)]
    ends = [0, *made.ends]  # hidden units ends[i] to ends[i + 1] see variables up to i
    for begin in range(0, made.dim, BLOCK):
        end = min(begin + BLOCK, made.dim)
        first, stop = ends[begin], ends[end]
        before = [begin] + [first] * (len(weights) - 1)
        sums = [
            torch.addmm(bias[first:stop], weight[first:stop, :seen], values[:seen])
            for weight, bias, values, seen in zip(weights, biases, inputs, before, strict=False)
        ]
        shifts = torch.addmm(last_bias[begin:end], last[begin:end, :first], inputs[-1][:first])
        for i in range(begin, end):
            start, to = ends[i], ends[i + 1]
            here = slice(start, to)
            shift = last[i : i + 1, first:start] @ inputs[-1][first:start]
            z[i] = u[i] + shifts[i - begin] + shift[0]
            seen_from, seen_to = begin, i + 1
            for layer, (weight, sum_before) in enumerate(zip(weights, sums, strict=True)):
                inside = weight[here, seen_from:seen_to] @ inputs[layer][seen_from:seen_to]
                inside += sum_before[start - first : to - first]
                inputs[layer + 1][here] = made.activation(inside)
                seen_from, seen_to = first, to
    return z
