"""Each kind of images has all that a kind needs, in every table that is keyed by kinds."""

import math

import pytest
import torch

from vlae.config.load import PARTS, SETTINGS
from vlae.data.batches import as_input, as_stored
from vlae.evaluation.likelihood import ROWS
from vlae.evaluation.sample import DECOMPRESSED
from vlae.images import COLOUR, DYNAMIC, FIXED, KINDS, image_kind, recorded_kind, scaled, unscaled
from vlae.models.build import MODELS
from vlae.training.validation import BATCH

NAMES = {kind.name for kind in KINDS}


def test_every_table_has_every_kind():
    for table in (SETTINGS, ROWS, DECOMPRESSED, BATCH):
        assert table.keys() == NAMES
    for name, settings in SETTINGS.items():
        assert tuple(settings) == PARTS
        assert MODELS[settings["model"]].kind == name


def test_a_block_of_params_names_its_kind():
    assert image_kind({"kind": "binary", "binarization": "fixed"}) is FIXED
    assert image_kind({"kind": "binary", "binarization": "dynamic"}) is DYNAMIC
    assert image_kind({"kind": "colour"}) is COLOUR


def test_recorded_images_are_bits_or_colours():
    assert recorded_kind((28, 28)) is FIXED
    assert recorded_kind((3, 32, 32)) is COLOUR
    assert recorded_kind((32, 32)) is None


def test_the_loss_of_a_model_that_knows_nothing():
    assert FIXED.uniform_loss == DYNAMIC.uniform_loss == pytest.approx(784 * math.log(2))
    assert COLOUR.uniform_loss == pytest.approx(3072 * math.log(256))
    assert COLOUR.uniform_loss * COLOUR.unit.per_nat == pytest.approx(8)  # bits/dim
    assert FIXED.uniform_loss * FIXED.unit.per_nat == FIXED.uniform_loss


@pytest.mark.parametrize("kind", [FIXED, COLOUR], ids=lambda kind: kind.name)
def test_what_is_stored_comes_back(kind):
    high = kind.largest + 1
    images = torch.randint(0, high, (4, *kind.shape), dtype=torch.uint8)
    assert torch.equal(as_stored(as_input(images, kind, torch.Generator())), images)


def test_all_256_numbers_come_back():
    numbers = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(unscaled(scaled(numbers)), numbers)
    assert scaled(numbers)[[0, 255]].tolist() == [-1, 1]
