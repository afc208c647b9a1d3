"""What a training step sees of the stored images."""

from dataclasses import replace

import pytest
import torch

from miniature import made_up_arrays, small_params
from vlae.data.batches import mirrored
from vlae.images import KINDS
from vlae.randomness import generator
from vlae.recipes import run_recipes
from vlae.training.step import draw

RUN = "static_mnist-vlae"


@pytest.fixture
def training(tmp_path):
    return small_params(tmp_path).run(RUN).training


def test_a_mirrored_image_has_its_columns_reversed():
    x = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4).float()
    found = mirrored(x, torch.tensor([0.5, 0.49]))
    assert torch.equal(found[0], x[0])
    assert found[1, 2, 1].tolist() == x[1, 2, 1].tolist()[::-1]
    assert torch.equal(mirrored(found, torch.tensor([0.5, 0.49])), x)
    assert mirrored(x, None) is x


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.binarization)
def test_half_of_the_images_are_mirrored_and_nothing_else_changes(training, kind):
    """The bits and the noise are those of a training without it."""
    images = torch.from_numpy(made_up_arrays(kind.binarization, train=256)["train"])
    plain, noise, _ = draw(images, kind, training, 6, generator(0, "step", 3))
    flipping = replace(training, augment="flip")
    x, same_noise, _ = draw(images, kind, flipping, 6, generator(0, "step", 3))
    assert torch.equal(noise, same_noise)
    as_it_is = (x == plain).flatten(1).all(1)
    other_way = (x == plain.flip(-1)).flatten(1).all(1)
    assert (as_it_is | other_way).all()
    # Binomial with 256 tosses: a standard deviation of 8.
    assert abs(int((other_way & ~as_it_is).sum()) - 128) < 5 * 8
    again, _, _ = draw(images, kind, flipping, 6, generator(0, "step", 3))
    assert torch.equal(x, again)


def test_it_shows_in_the_recipe_and_not_where_it_is_off(tmp_path):
    run = small_params(tmp_path).run(RUN)
    flipping = replace(run, training=replace(run.training, augment="flip"))
    plain, mirror = (run_recipes(one, KINDS[0])["train"] for one in (run, flipping))
    assert plain != mirror
