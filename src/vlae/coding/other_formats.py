"""Image and data formats that the coder is compared with: without loss, and as small as can be."""

import io
import lzma
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from vlae.images import BINARY_IMAGE

SIDE = BINARY_IMAGE[0]  # pixels
EACH, TOGETHER, PACKED = "each image a file", "all images in one picture", "packed bits"


@dataclass(frozen=True)
class Format:
    """A format with its strongest settings.

    of: EACH, TOGETHER or PACKED, which `encode` takes: an image, a picture of them, bytes.
    """

    name: str
    of: str
    version: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def formats() -> Iterator[Format]:
    """Yield all formats; imports what they need."""
    import PIL
    import pillow_jxl  # noqa: F401 - teaches Pillow the format
    import zstandard

    pillow = f"Pillow {PIL.__version__}"
    jxl = f"libjxl, pillow-jxl-plugin {version('pillow-jxl-plugin')}"
    for of in (EACH, TOGETHER):
        yield Format("PNG", of, pillow, _save("PNG", optimize=True), _open)
        yield Format(
            "WebP", of, pillow, _save("WEBP", lossless=True, quality=100, method=6), _open
        )
        yield Format("JPEG XL", of, jxl, _save("JXL", lossless=True, effort=9), _open)
    yield Format("zlib", PACKED, zlib.ZLIB_RUNTIME_VERSION, _zlib, zlib.decompress)
    compressor = zstandard.ZstdCompressor(level=22)
    zstd = f"zstandard {zstandard.__version__}"
    yield Format(
        "zstd", PACKED, zstd, compressor.compress, zstandard.ZstdDecompressor().decompress
    )
    yield Format("xz", PACKED, "liblzma", _xz, lzma.decompress)


def measure(format: Format, images: np.ndarray) -> dict:
    """Compress uint8 images (N, 28, 28) of 0 and 1, and unpack them.

    Returns bytes, bits an image, and images a second both ways. Raises ValueError if what comes
    out is not what went in.
    """
    inputs: list = {
        EACH: lambda: list(images.astype(bool)),
        TOGETHER: lambda: [_mosaic(images)],
        PACKED: lambda: [np.packbits(images).tobytes()],
    }[format.of]()
    started = time.perf_counter()
    packed = [format.encode(value) for value in inputs]
    encoded = time.perf_counter()
    for value, content in zip(inputs, packed, strict=True):
        back = format.decode(content)
        if not (back == value if isinstance(value, bytes) else np.array_equal(back, value)):
            raise ValueError(f"{format.name} changed an image")
    decoded = time.perf_counter()
    size = sum(map(len, packed))
    return {
        "format": format.name,
        "of": format.of,
        "version": format.version,
        "bytes": size,
        "bits_per_image": 8 * size / len(images),
        "encode_images_per_second": len(images) / (encoded - started),
        "decode_images_per_second": len(images) / (decoded - encoded),
    }


def smallest(images: np.ndarray, shown: np.ndarray) -> list[dict]:
    """Compress uint8 images (N, 28, 28) of 0 and 1 with loss, as small as each format can.

    Returns for each format: its name and version; the bytes an image needs as a file of its own
    and in one picture of all images, `bytes_each` and `bytes_together`; of this picture, the
    fraction of pixels that are wrong when its grey values are rounded, `pixel_error`, and the
    images with the numbers `shown` (n,), `back`, grey uint8 (n, 28, 28).
    """
    import pillow_jxl  # noqa: F401 - teaches Pillow the format

    picture, results = _mosaic(images), []
    for name, encode, library in (
        ("JPEG XL", _save("JXL", quality=0, effort=9), "pillow-jxl-plugin"),
        ("WebP", _save("WEBP", quality=0, method=6), "pillow"),
    ):
        together = encode(picture)
        grey = _open_grey(together)
        columns = picture.shape[1] // SIDE
        corners = [(SIDE * (i // columns), SIDE * (i % columns)) for i in shown]
        results.append(
            {
                "format": name,
                "version": f"{library} {version(library)}",
                "bytes_each": sum(len(encode(image)) for image in images.astype(bool))
                / len(images),
                "bytes_together": len(together) / len(images),
                "pixel_error": float(((grey > 127) != picture).mean()),
                "back": np.stack([grey[y : y + SIDE, x : x + SIDE] for y, x in corners]),
            }
        )
    return results


def _save(name: str, **options: object) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        from PIL import Image

        file = io.BytesIO()
        image = Image.fromarray(pixels)
        image = image if name == "PNG" else image.convert("RGB" if name == "WEBP" else "L")
        image.save(file, format=name, **options)
        return file.getvalue()

    return encode


def _open(content: bytes) -> np.ndarray:
    return _open_grey(content) > 127


def _open_grey(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("L"))


def _zlib(content: bytes) -> bytes:
    return zlib.compress(content, 9)


def _xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _mosaic(images: np.ndarray) -> np.ndarray:
    """Arrange images in rows of 100, or in one row if they are fewer: one picture, bool."""
    columns = min(100, len(images))
    rows = -(-len(images) // columns)
    padded = np.zeros((rows * columns, *images.shape[1:]), bool)
    padded[: len(images)] = images
    height, width = images.shape[1:]
    tiles = padded.reshape(rows, columns, height, width)
    return tiles.swapaxes(1, 2).reshape(rows * height, columns * width)
