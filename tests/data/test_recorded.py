"""Prepared data are compared with what dvc.lock records of them, whoever put them there."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from miniature import made_up_arrays, small_params
from vlae.cli import main
from vlae.data.fetch import data_recipe
from vlae.data.recorded import load_recorded
from vlae.errors import VlaeError
from vlae.storage.write import write_npz

NAME = "static_mnist"
PREPARED = Path("data", f"{NAME}.npz")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def params(project):
    """A project whose dvc.lock records the data set that is there."""
    params = small_params(project)
    write_npz(PREPARED, **made_up_arrays("fixed"))
    recipe = Path("results", "recipes", f"{NAME}.data.json")
    recipe.parent.mkdir(parents=True)
    recipe.write_text(json.dumps(data_recipe(NAME, params.datasets[NAME]), indent=1) + "\n")
    stage = {
        "cmd": f"python -m vlae fetch {NAME}",
        "deps": [{"path": str(recipe), "hash": "md5", "md5": md5(recipe)}],
        "outs": [{"path": str(PREPARED), "hash": "md5", "md5": md5(PREPARED)}],
    }
    lock = {"schema": "2.0", "stages": {f"fetch@{NAME}": stage}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    return params


def change_a_pixel() -> None:
    arrays = made_up_arrays("fixed")
    arrays["test"][3, 5, 7] ^= 1
    write_npz(PREPARED, **arrays)


def test_what_is_recorded_is_loaded(params):
    assert np.array_equal(
        load_recorded(NAME, params.datasets[NAME]).test, made_up_arrays("fixed")["test"]
    )


def test_another_data_set_is_refused(params):
    change_a_pixel()
    with pytest.raises(VlaeError, match=rf"^{PREPARED} is not the data set that dvc.lock records"):
        load_recorded(NAME, params.datasets[NAME])


@pytest.mark.parametrize("step", ["train", "evaluate", "sample"])
def test_no_step_uses_it(params, capsys, step):
    change_a_pixel()
    assert main([step, "static_mnist-vlae"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"run `vlae fetch {NAME}`" in said
    assert not Path("scratch").exists() and not Path("results", "checkpoints").exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec["splits"].update(train=49_000, valid=11_000),
        lambda spec: spec["files"]["train"].update(sha256="0" * 64),
        lambda spec: spec.update(binarization="dynamic"),
    ],
)
def test_nothing_is_recorded_of_other_settings(params, edit):
    """Made by hand after params.yaml was edited."""
    change_a_pixel()
    edit(params.datasets[NAME])
    assert load_recorded(NAME, params.datasets[NAME])


def test_nothing_is_recorded_of_other_code(params):
    change_a_pixel()
    recipe = Path("results", "recipes", f"{NAME}.data.json")
    recipe.write_text(recipe.read_text().replace('"sha256"', '"sha256 "'))
    assert load_recorded(NAME, params.datasets[NAME])


@pytest.mark.parametrize(
    "lock", ["", "[]", "stages: {fetch@static_mnist: {}}", "<<<<<<< HEAD", "{"]
)
def test_a_lock_that_says_nothing(params, lock):
    Path("dvc.lock").write_text(lock)
    assert load_recorded(NAME, params.datasets[NAME])


def test_the_comparison_is_quick(params):
    """On the real lock and 55 MB it takes a fraction of a second."""
    write_npz(PREPARED, **made_up_arrays("fixed", train=50_000))
    start = time.monotonic()
    with pytest.raises(VlaeError, match="is not the data set"):
        load_recorded(NAME, params.datasets[NAME])
    assert time.monotonic() - start < 10
