"""Discretized mixture of logistics over a pixel's colours (PixelCNN++: Salimans et al. 2017).

Each component has one logistic density per channel over the real line. A value v of 0 to 255 is
scaled to x = v / 127.5 - 1 and gets the mass of its bin [x - 1/255, x + 1/255]. The bins of 0 and
255 extend to minus and plus infinity. The three channels share the mixture weights. The
parameters of green may depend on red, and those of blue on red and green; the caller decides.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vlae.images import scaled

LOG_SCALE_FLOOR = -7.0  # as in openai/pixel-cnn: nearly all the mass falls into one bin
HALF_BIN = 1 / 255
# From here on a bin is so narrow, in scales, that its mass is its width times a density. The
# exponentials of single precision end at 88.
FLAT_FROM = 20.0


def bin_log_mass(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log mass, nats, of the bin of x under a logistic density; arguments broadcast.

    x: scaled values (vlae.images.scaled). The floor is not applied to log_scale.

    >>> x = scaled(torch.arange(256))
    >>> mass = bin_log_mass(x, torch.tensor(0.3), torch.tensor(-2.0)).exp()
    >>> round(mass.sum().item(), 5)  # the bins divide the whole line
    1.0
    """
    inverse = torch.exp(-log_scale)
    upper = inverse * (x - mean + HALF_BIN)
    lower = inverse * (x - mean - HALF_BIN)
    below = F.logsigmoid(upper)  # log mass below the bin's upper end
    above = F.logsigmoid(-lower)  # log mass above its lower end
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) avoids cancellation even
    # far out in the tails. The width b - a does not depend on x. Where it is tiny, 1 - exp(a - b)
    # is the width itself, whose logarithm falls with log_scale.
    width = 2 * HALF_BIN * inverse.clamp(min=math.exp(-FLAT_FROM))
    inner = below + above + (torch.log(-torch.expm1(-width)) - F.relu(log_scale - FLAT_FROM))
    return torch.where(x < -0.999, below, torch.where(x > 0.999, above, inner))


def mixture_log_likelihood(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return log p(x) of each pixel, nats: (B, H, W).

    x: scaled images (B, 3, H, W). logits: mixture weights (B, K, H, W). means, log_scales:
    (B, 3, K, H, W); log_scales are clamped at -7. Computed in single precision or better.

    >>> x, logits = torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)
    >>> means = log_scales = torch.zeros(1, 3, 5, 2, 2)
    >>> mixture_log_likelihood(x, logits, means, log_scales).shape
    torch.Size([1, 2, 2])
    """
    full = torch.promote_types(logits.dtype, torch.float32)
    logits, means, log_scales = (t.to(full) for t in (logits, means, log_scales))
    mass = bin_log_mass(x.to(full).unsqueeze(2), means, log_scales.clamp(min=LOG_SCALE_FLOOR))
    return torch.logsumexp(F.log_softmax(logits, 1) + mass.sum(1), 1)


def draw_component(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw each pixel's mixture component: logits (B, K, ...), uniform (B, ...) -> (B, ...)."""
    below = torch.softmax(logits, 1).cumsum(1)
    return (uniform.unsqueeze(1) >= below).sum(1).clamp(max=logits.shape[1] - 1)


def draw_value(mean: Tensor, log_scale: Tensor, uniform: Tensor) -> Tensor:
    """Draw a scaled value in [-1, 1] from the discretized logistic distribution.

    The value is the inverse distribution function at `uniform` in [0, 1). All have one shape.
    """
    # Above exp(20) hardly any value is not 0 or 255: a larger scale changes nothing.
    scale = log_scale.clamp(LOG_SCALE_FLOOR, FLAT_FROM).exp()
    x = mean + scale * torch.logit(uniform, eps=torch.finfo(uniform.dtype).eps)
    return scaled(((x + 1) * 127.5).round().clamp(0, 255))
