"""The nonlinearity and the gate of PixelCNN++ (Salimans et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vlae.native import elementwise
from vlae.native.network import active
from vlae.nn.elu import elu


def concat_elu(
    parts: Sequence[Tensor],
    plus: Tensor | None = None,
    border: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Tensor:
    """ELU of the parts side by side, and of their negatives behind: twice the channels.

    parts: (B, C_i, ...), of images (B, C_i, H, W) where there is a border. `plus`, of the shape
    of the only part, is added first. `border`: columns and rows of zeros around the result
    (left, right, top, bottom).
    """
    if parts[0].dim() == 4 and active(parts[0]):
        return elementwise.concat_elu(parts, plus, border)
    x = torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
    if plus is not None:
        x = x + plus
    y = elu(torch.cat([x, -x], 1))
    return F.pad(y, border) if any(border) else y


def gated(x: Tensor, h: Tensor, plus: Tensor | None) -> Tensor:
    """x + value sigmoid(gate), value and gate being the halves of h + plus: (B, C, H, W) and
    twice (B, 2C, H, W) -> (B, C, H, W)."""
    if active(x):
        return elementwise.gated(x, h, plus)
    value, gate = (h if plus is None else h + plus).chunk(2, 1)
    return x + value * torch.sigmoid(gate)
