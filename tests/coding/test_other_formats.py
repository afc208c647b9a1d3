"""The formats that the coder is compared with."""

import numpy as np
import pytest

from miniature import made_up_arrays
from vlae.coding.other_formats import EACH, TOGETHER, Format, formats, measure

IMAGES = made_up_arrays("fixed", 1, 1, 130)["test"]


@pytest.mark.parametrize("format", list(formats()), ids=lambda f: f"{f.name} of {f.of}")
def test_without_loss(format):
    found = measure(format, IMAGES)
    assert 0 < found["bits_per_image"] < 2000
    assert found["bits_per_image"] == 8 * found["bytes"] / len(IMAGES)


@pytest.mark.parametrize("of", [EACH, TOGETHER])
def test_a_format_that_changes_a_pixel_is_noticed(of):
    def decode(content):
        shape = (28, 28) if of == EACH else (56, 2800)
        pixels = np.frombuffer(content, bool).reshape(shape).copy()
        pixels[3, 3] ^= True
        return pixels

    lossy = Format("lossy", of, "1", lambda pixels: pixels.tobytes(), decode)
    with pytest.raises(ValueError, match="lossy changed an image"):
        measure(lossy, IMAGES)
