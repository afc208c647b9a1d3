"""Computes the receptive field of masked convolutions from their kernels alone."""

from collections.abc import Iterable

Offset = tuple[int, int]  # (rows down, columns right) from a pixel to one that it sees


def causal_taps(kernel: int, own_pixel: bool) -> list[Offset]:
    """Return the taps of a masked kernel: the earlier pixels in raster order.

    Type A excludes the pixel itself, type B (`own_pixel`) includes it.
    """
    half = kernel // 2
    above = [(row, column) for row in range(-half, 0) for column in range(-half, half + 1)]
    left = [(0, column) for column in range(-half, 1 if own_pixel else 0)]
    return above + left


def reach(kernels: Iterable[tuple[int, bool]]) -> set[Offset]:
    """Return all pixels that the output of a stack of masked convolutions depends on.

    kernels: (kernel, own_pixel) of each convolution.
    """
    seen = {(0, 0)}
    for kernel, own_pixel in kernels:
        taps = causal_taps(kernel, own_pixel)
        seen = {(row + i, column + j) for row, column in seen for i, j in taps}
    return seen


def decoder_kernels(
    first_kernel: int, masked_blocks: int, last_masked: bool
) -> list[tuple[int, bool]]:
    """Return (kernel, own_pixel) of each masked convolution in a decoder (vlae.nn.pixelcnn)."""
    return [(first_kernel, False)] + [(3, True)] * (2 * masked_blocks + last_masked)
