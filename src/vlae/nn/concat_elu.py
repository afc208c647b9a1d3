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
    """Return elu of the concatenated parts, followed by elu of their negatives.

    parts: (B, C_i, ...) -> (B, 2 sum C_i, ...). `plus` is added first; it needs a single part and
    has that part's shape. `border`: columns and rows of zeros to add around the result (left,
    right, top, bottom); the parts are then images (B, C_i, H, W).
    """
    if parts[0].dim() == 4 and active(parts[0]):
        return elementwise.concat_elu(parts, plus, border)
    x = torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
    if plus is not None:
        x = x + plus
    y = elu(torch.cat([x, -x], 1))
    return F.pad(y, border) if any(border) else y


def gated(x: Tensor, h: Tensor, plus: Tensor | None) -> Tensor:
    """Return x + value sigmoid(gate); value and gate are the halves of h + plus.

    x (B, C, H, W), h and plus (B, 2C, H, W) -> (B, C, H, W).
    """
    if active(x):
        return elementwise.gated(x, h, plus)
    value, gate = (h if plus is None else h + plus).chunk(2, 1)
    return x + value * torch.sigmoid(gate)
