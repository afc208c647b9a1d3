"""The pixels that masked convolutions see, from their kernels alone."""

from collections.abc import Iterable

Offset = tuple[int, int]  # of a pixel from the one that sees it: rows down, columns right


def causal_taps(kernel: int, own_pixel: bool) -> list[Offset]:
    """The taps of a masked kernel: pixels at or before its own in raster order.

    Type A leaves the pixel itself out, type B (`own_pixel`) keeps it.
    """
    half = kernel // 2
    above = [(row, column) for row in range(-half, 0) for column in range(-half, half + 1)]
    left = [(0, column) for column in range(-half, 1 if own_pixel else 0)]
    return above + left


def reach(kernels: Iterable[tuple[int, bool]]) -> set[Offset]:
    """All pixels that the output of masked convolutions, one after the other, depends on; of
    each (kernel, own_pixel)."""
    seen = {(0, 0)}
    for kernel, own_pixel in kernels:
        taps = causal_taps(kernel, own_pixel)
        seen = {(row + i, column + j) for row, column in seen for i, j in taps}
    return seen


def decoder_kernels(
    first_kernel: int, masked_blocks: int, last_masked: bool
) -> list[tuple[int, bool]]:
    """(kernel, own_pixel) of the masked convolutions of a PixelCNN decoder (vlae.nn.pixelcnn)."""
    return [(first_kernel, False)] + [(3, True)] * (2 * masked_blocks + last_masked)
