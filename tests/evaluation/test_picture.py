"""Pictures have every image at its place, and nothing by hand gets into results/."""

import numpy as np
import pytest
import torch
from PIL import Image

from miniature import small_params, write_data
from vlae.cli import main
from vlae.errors import VlaeError
from vlae.evaluation.picture import GAP, WIDEST, save_grid

GREY = round(255 * 0.5)


def cells(path, size):
    """The images in a picture by row and column, uint8 (size, size, 3), and grey elsewhere."""
    pixels = np.asarray(Image.open(path).convert("RGB")).copy()
    step = size + GAP
    rows, columns = ((length - GAP) // step for length in pixels.shape[:2])
    found = {}
    for row in range(rows):
        for column in range(columns):
            at = np.s_[
                GAP + row * step : (row + 1) * step, GAP + column * step : (column + 1) * step
            ]
            found[row, column] = pixels[at].copy()
            pixels[at] = GREY
    assert (abs(pixels.astype(int) - GREY) <= 1).all()
    return found


def bits(count, seed):
    return np.random.default_rng(seed).integers(0, 2, (count, 28, 28), np.uint8)


def same(cell, image):
    """A cell of a picture shows an image of 0 and 1, or of 0 to 255 in three colours."""
    if image.ndim == 2:
        return (cell == 255 * image[:, :, None]).all()
    return (cell == image.transpose(1, 2, 0)).all()


@pytest.mark.parametrize("form", [(784,), (28, 28), (1, 28, 28)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_one_group_is_a_square_in_reading_order(tmp_path, form, kind):
    images = bits(9, 0)
    save_grid(tmp_path / "a.png", images.reshape(9, *form).astype(kind))
    found = cells(tmp_path / "a.png", 28)
    assert set(found) == {(row, column) for row in range(3) for column in range(3)}
    assert all(same(found[divmod(i, 3)], images[i]) for i in range(9))


@pytest.mark.parametrize("whole", [True, False])
def test_colours_are_those_of_the_image(tmp_path, whole):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    given = torch.from_numpy(images)
    save_grid(tmp_path / "a.png", given if whole else given.double() / 255)
    found = cells(tmp_path / "a.png", 32)
    assert all(same(found[divmod(i, 2)], images[i]) for i in range(4))


@pytest.mark.parametrize("count", [3, WIDEST, WIDEST + 3])
def test_the_same_images_of_several_groups_stand_below_each_other(tmp_path, count):
    groups = [bits(count, seed) for seed in range(3)]
    save_grid(
        tmp_path / "a.png", groups[0].reshape(count, 784), torch.tensor(groups[1]), groups[2]
    )
    found = cells(tmp_path / "a.png", 28)
    for number, group in enumerate(groups):
        for i, image in enumerate(group):
            line, column = divmod(i, WIDEST)
            assert same(found.pop((3 * line + number, column)), image)
    assert all((abs(cell.astype(int) - GREY) <= 1).all() for cell in found.values())  # no image


@pytest.mark.parametrize(
    "groups",
    [
        (),
        (np.zeros((0, 784)),),
        (np.zeros((2, 783)),),
        (np.zeros((2, 2, 28, 28)),),
        (np.zeros((2, 784)), np.zeros((3, 784))),
        (np.zeros((2, 784)), np.zeros((2, 3, 32, 32))),
        (np.full((2, 784), -1.0),),
        (np.full((2, 784), np.nan),),
        (np.full((2, 3, 32, 32), 1.5),),
    ],
)
def test_other_arrays_and_paths_are_refused_and_nothing_is_written(tmp_path, groups):
    with pytest.raises(ValueError):
        save_grid(tmp_path / "a.png", *groups)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json"])
def test_a_picture_is_a_png(tmp_path, name):
    with pytest.raises(VlaeError, match=r"must end in \.png"):
        save_grid(tmp_path / name, bits(4, 0))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder, small_params(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in ("static_mnist-vlae", "cifar10-vlae_4x2"):
            assert main(["train", run]) == 0
        assert main(["evaluate", "static_mnist-vlae"]) == 0
    return folder


def contents(folder):
    return {
        str(path): path.read_bytes()
        for part in ("results", "scratch")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("run", "size"), [("static_mnist-vlae", 28), ("cifar10-vlae_4x2", 32)])
def test_samples_by_hand_go_to_a_picture_and_nowhere_else(
    trained, monkeypatch, tmp_path, capsys, run, size
):
    monkeypatch.chdir(trained)
    before, pictures = contents(trained), []
    for i, options in enumerate((["-n", "5"], ["-n", "5", "--seed", "0"], ["--seed", "1"])):
        picture = tmp_path / f"{i}.png"
        assert main(["sample", run, *options, "--out", str(picture)]) == 0
        assert f"{picture}; nothing recorded" in capsys.readouterr().out
        pictures.append(picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()  # 0 is the run's own seed
    assert len(cells(pictures[0], size)) == 6 and len(cells(pictures[2], size)) == 64
    assert contents(trained) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "RUN", "-n", "5"], "-n and --seed need --out"),
        (["sample", "RUN", "--seed", "0"], "-n and --seed need --out"),
        (["sample", "RUN", "--out", "results/a.png"], "results/ is only for results"),
        (["sample", "RUN", "--out", "scratch/../results/x/a.png"], "results/ is only for results"),
        (["sample", "RUN", "--out", "scratch"], "is a folder"),
        (["sample", "RUN", "--out", "a.gif"], "must end in .png"),
        (
            ["evaluate", "RUN", "--out", "results/evaluations/x.json"],
            "results/ is only for results",
        ),
        (["evaluate", "RUN", "--out", "a.json", "--shard", "1/2"], "use --out without --shard"),
    ],
)
def test_what_is_recorded_is_out_of_reach(trained, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(trained)
    before = contents(trained)
    assert main([argument.replace("RUN", "static_mnist-vlae") for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert contents(trained) == before and not list(trained.glob("a.*"))
