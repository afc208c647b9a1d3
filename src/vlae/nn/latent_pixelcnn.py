"""The prior over latent maps: autoregressive flows, each a PixelCNN (appendix B).

As in vlae.nn.flow, `normalise` maps the code to noise in one parallel pass, and the log density
of z is log N(normalise(z)) + log_det. The elements of a code are ordered as in a PixelCNN:
pixels in raster order, and the maps of a pixel one after the other (openai/iaf).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlae.nn.containers import ModuleList
from vlae.nn.elu import elu
from vlae.nn.flow import STEP_SCALE
from vlae.nn.latent_pixelcnn_sampling import NumberByNumber
from vlae.nn.pixelcnn import causal_mask
from vlae.nn.wavefront import wavefront
from vlae.nn.weightnorm import WeightNorm
from vlae.receptive_field import reach

KERNEL = 3


class MapwiseMaskedConv2d(WeightNorm):
    """Masked 3x3 convolution (B, in, H, W) -> (B, out, H, W) that also orders the channels.

    `seen`: (out, in), 1 where an output channel sees an input channel of its own pixel. It sees
    all channels of earlier pixels.
    """

    def __init__(self, seen: Tensor) -> None:
        outputs, inputs = seen.shape
        mask = causal_mask(KERNEL, own_pixel=False).repeat(outputs, inputs, 1, 1)
        mask[:, :, KERNEL // 2, KERNEL // 2] = seen
        super().__init__(tuple(mask.shape), mask=mask)

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), with the weight's cropped kernel."""
        half = KERNEL // 2
        return F.conv2d(F.pad(x, (half, half, half, 0)), weight, bias)


class LatentPixelCNN(nn.Module):
    """(B, maps, H, W) -> `outputs` tensors of that shape; each element depends on earlier ones.

    The network has `layers` hidden layers of `hidden` feature maps, divided into one contiguous
    block per latent map. Within a pixel, block i sees maps 0 to i, and output i sees the blocks
    before i.
    """

    def __init__(self, maps: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        inputs = torch.arange(maps)
        blocks = torch.arange(hidden) * maps // hidden
        # For each map i: the number of hidden features that see only maps 0 to i of their pixel.
        self.ends = [int((blocks <= i).sum()) for i in range(maps)]
        degrees = [inputs] + [blocks] * layers
        self.hidden = ModuleList(
            MapwiseMaskedConv2d((after[:, None] >= before[None, :]).float())
            for before, after in pairwise(degrees)
        )
        last = (inputs[:, None] > blocks[None, :]).float().repeat(outputs, 1)
        self.output = MapwiseMaskedConv2d(last)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """z (B, maps, H, W) -> `outputs` tensors of that shape."""
        h = z
        for layer in self.hidden:
            h = elu(layer(h))
        return self.output(h).chunk(self.outputs, 1)

    def number_by_number(self, shape: tuple[int, int, int]) -> NumberByNumber:
        """Return an evaluator, element by element, for maps of `shape` (B, H, W) being sampled."""
        return NumberByNumber([*self.hidden, self.output], self.ends, shape)

    def context_pixels(self) -> set[tuple[int, int]]:
        """Return the pixels that a pixel depends on, as offsets (rows down, columns right)."""
        return reach([(KERNEL, True)] * (len(self.hidden) + 1)) - {(0, 0)}


class LatentFlow(nn.Module):
    """`steps` autoregressive transformations of latent maps (B, maps, H, W).

    Every second step works in reversed order: last pixel and last map first. Without `scale` the
    steps only shift, and the log-determinant is 0.
    """

    def __init__(
        self, maps: int, steps: int, hidden: int, layers: int, scale: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        self.steps = ModuleList(
            LatentPixelCNN(maps, hidden, layers, 2 if scale else 1) for _ in range(steps)
        )

    def _shift_and_log_scale(
        self, step: LatentPixelCNN, z: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        parts = [STEP_SCALE * part.to(z.dtype) for part in step(z)]
        return parts[0], parts[1] if self.scale else None

    def normalise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map z (B, maps, H, W) to noise u of that shape, with log |det du/dz| (B,), nats."""
        log_det = z.new_zeros(len(z))
        for i, step in enumerate(self.steps):
            if i:
                z = z.flip(1, 2, 3)
            shift, log_scale = self._shift_and_log_scale(step, z)
            z = z - shift
            if log_scale is not None:
                z = z * torch.exp(-log_scale)
                log_det = log_det - log_scale.sum((1, 2, 3))
        return z, log_det

    @torch.no_grad()
    def generate(self, u: Tensor) -> Tensor:
        """Invert `normalise`, one element at a time: noise -> z, both (B, maps, H, H).

        Pixels are generated in a wavefront, the maps of a pixel one by one. The total cost is
        about one forward pass of each PixelCNN.
        """
        for i, step in reversed(list(enumerate(self.steps))):
            z = torch.zeros_like(u)
            network = step.number_by_number((len(u), *u.shape[2:]))
            for pixels in wavefront(step.context_pixels(), u.shape[-1]):
                rows, columns = pixels = pixels.to(u.device)
                network.begin(pixels)
                for k in range(u.shape[1]):
                    shift, *log_scale = (STEP_SCALE * network.outputs(k)).to(u.dtype).unbind(2)
                    value = u[:, k, rows, columns]
                    if self.scale:
                        value = value * log_scale[0].exp()
                    z[:, k, rows, columns] = value + shift
                    network.set(k, z[:, k, rows, columns])
                network.end()
            u = z.flip(1, 2, 3) if i else z
        return u
