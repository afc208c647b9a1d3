"""ResNet encoder and decoder trunk of the binary-image models (Kingma et al. 2016, appendix B).

The encoder has three residual blocks of stride 2 with `maps` feature maps, a residual block of
stride 1 between them, and one fully connected layer. The decoder mirrors it with transposed
convolutions. The images are 28x28: 28 - 14 - 7 - 4 and back.
"""

from torch import Tensor, nn

from vlae.native.network import Kind, Operation, core_of
from vlae.nn.containers import ModuleList, Sequential
from vlae.nn.elu import elu
from vlae.nn.weightnorm import Conv2d, ConvTranspose2d, Linear, WeightNorm

BRANCH_SCALE = 0.1  # factor of a residual branch (openai/iaf)
SIDES = (28, 14, 7, 4)  # height and width of the image and after each stage
OUTPUT_EXTRA = (0, 1, 1)  # 4 -> 7, 7 -> 14, 14 -> 28


class ResidualBlock(nn.Module):
    """x' + 0.1 conv(elu(conv(elu(x)))).

    x' is x, or a strided or transposed convolution of x where the shape changes. `resize` is None
    (same shape), "down" (stride 2) or "up" (transposed, stride 2).
    """

    shortcut: nn.Identity | Conv2d | ConvTranspose2d
    first: Conv2d | ConvTranspose2d

    def __init__(
        self, inputs: int, outputs: int, resize: str | None = None, extra: int = 0
    ) -> None:
        super().__init__()
        self.resize, self.channels = resize, (inputs, outputs)
        if resize is None:
            self.shortcut = nn.Identity()
            self.first = Conv2d(inputs, outputs, 3)
        elif resize == "down":
            self.shortcut = Conv2d(inputs, outputs, 3, stride=2)
            self.first = Conv2d(inputs, outputs, 3, stride=2)
        else:
            self.shortcut = ConvTranspose2d(inputs, outputs, extra)
            self.first = ConvTranspose2d(inputs, outputs, extra)
        self.second = Conv2d(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'), with H and W kept, halved or doubled by `resize`."""
        branch = self.second(elu(self.first(elu(x))))
        return self.shortcut(x).add(branch, alpha=BRANCH_SCALE)

    def operation(self, side_in: int, side_out: int) -> Operation:
        """Describe this block to the C++ core."""
        layers: tuple[WeightNorm, ...] = (self.first, self.second)
        if isinstance(self.shortcut, WeightNorm):
            layers = (self.shortcut, *layers)
        return Operation(
            {None: Kind.BLOCK, "down": Kind.DOWN, "up": Kind.UP}[self.resize],
            self.channels,
            (side_in, side_out),
            tuple((layer, layer.own_direction()) for layer in layers),
            scale=BRANCH_SCALE,
        )


class Encoder(nn.Module):
    """Binary images (B, 1, 28, 28) -> features (B, hidden)."""

    def __init__(self, maps: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        blocks: list[ResidualBlock] = []
        for i, (inputs, outputs) in enumerate(zip((1, *maps), maps, strict=False)):
            blocks.append(ResidualBlock(inputs, outputs, "down"))
            if i < len(maps) - 1:
                blocks.append(ResidualBlock(outputs, outputs))
        self.blocks = Sequential(*blocks)
        self.dense = Linear(maps[-1] * 4 * 4, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> (B, hidden)."""
        core = core_of(self, x)
        if core is None:
            h = elu(self.blocks(x))
        else:
            h = core(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return elu(self.dense(h.flatten(1)))

    def operations(self) -> list[Operation]:
        """Describe everything before the fully connected layer to the C++ core."""
        maps = self.blocks[-1].channels[1]
        return [*_operations(self.blocks, SIDES), Operation(Kind.ELU, (maps, maps), (4, 4))]


class Decoder(nn.Module):
    """Latent codes (B, latent_dim) -> feature maps (B, outputs, 28, 28)."""

    def __init__(self, latent_dim: int, maps: tuple[int, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        maps = tuple(reversed(maps))
        self.first_maps = maps[0]
        self.dense = ModuleList([Linear(latent_dim, hidden), Linear(hidden, maps[0] * 4 * 4)])
        blocks: list[ResidualBlock] = []
        for i, (inputs, maps_out) in enumerate(zip((maps[0], *maps), maps, strict=False)):
            blocks.append(ResidualBlock(inputs, maps_out, "up", OUTPUT_EXTRA[i]))
            if i < len(maps) - 1:
                blocks.append(ResidualBlock(maps_out, maps_out))
        self.blocks = Sequential(*blocks)
        self.output = Conv2d(maps[-1], outputs, 3)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> feature maps (B, outputs, 28, 28)."""
        h = elu(self.dense[1](elu(self.dense[0](z))))
        h = h.view(-1, 4, 4, self.first_maps)
        core = core_of(self, h)
        if core is not None:
            return core(h).permute(0, 3, 1, 2)
        return self.output(elu(self.blocks(h.permute(0, 3, 1, 2))))

    def operations(self) -> list[Operation]:
        """Describe everything after the fully connected layers to the C++ core."""
        layer = self.output
        channels = (self.blocks[-1].channels[1], layer.gain.numel())
        return [
            *_operations(self.blocks, SIDES[::-1]),
            Operation(Kind.ELU_CONV, channels, (28, 28), ((layer, layer.own_direction()),)),
        ]


def _operations(blocks: "Sequential[ResidualBlock]", sides: tuple[int, ...]) -> list[Operation]:
    stage, result = 0, []
    for block in blocks:
        before = sides[stage]
        stage += block.resize is not None
        result.append(block.operation(before, sides[stage]))
    return result
