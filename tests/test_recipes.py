"""Recipes change with the meaning of code and configuration, and with nothing else."""

import dataclasses

import pytest
import torch

import vlae.nn.flow
import vlae.recipes
from miniature import small_params
from vlae.images import FIXED
from vlae.recipes import probe_recipe, rounded, run_recipes


@pytest.fixture
def runs(tmp_path):
    return small_params(tmp_path).runs


def recipes(run):
    return run_recipes(run, FIXED)


def test_the_same_code_gives_the_same_numbers_whatever_ran_before(runs):
    run = runs["static_mnist-vlae"]
    first = recipes(run)
    torch.manual_seed(123)
    torch.randn(7)
    assert recipes(run) == first


def test_the_flow_concerns_exactly_the_runs_with_a_flow(runs, monkeypatch):
    names = ["static_mnist-vlae", "static_mnist-vae_iaf", "dynamic_mnist-pixelcnn"]
    before = {name: recipes(runs[name]) for name in names}
    monkeypatch.setattr(vlae.nn.flow, "STEP_SCALE", 0.11)
    changed = [name for name in names if recipes(runs[name]) != before[name]]
    assert changed == ["static_mnist-vlae", "static_mnist-vae_iaf"]


def test_what_training_depends_on_shows_in_its_recipe(runs):
    run = runs["static_mnist-vlae"]
    before = recipes(run)["train"]
    for change in (
        {"learning_rate": 0.003},
        {"seed": 1},
        {"polyak": 0.99},
        {"betas": (0.8, 0.99)},
    ):
        other = dataclasses.replace(run, training=dataclasses.replace(run.training, **change))
        assert recipes(other)["train"] != before, change
    longer = dataclasses.replace(run, training=dataclasses.replace(run.training, epochs=99))
    assert recipes(longer)["train"] == before


def test_how_it_is_evaluated_does_not_touch_training(runs):
    run = runs["static_mnist-vlae"]
    other = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, seed=5))
    a, b = recipes(run), recipes(other)
    assert a["train"] == b["train"]
    assert a["evaluate"] != b["evaluate"] and a["sample"] != b["sample"]


def test_rounding_keeps_seven_significant_digits():
    assert rounded(123456.7891) == 123456.8
    assert rounded([-0.000012345678, 0.0, 5, "x"]) == [-0.00001234568, 0.0, 5, "x"]
    assert rounded({"a": 1.00000004}) == {"a": 1.0}


def test_what_a_probe_depends_on_shows_in_its_recipe(runs, monkeypatch):
    run = runs["static_mnist-vae_iaf"]
    before = probe_recipe(run)
    assert probe_recipe(run) == before
    monkeypatch.setattr("vlae.evaluation.probe.ENTROPY_DRAWS", 3)
    assert probe_recipe(run)["numbers"]["entropy"] != before["numbers"]["entropy"]
    monkeypatch.setattr("vlae.evaluation.probe.RIDGE", 0.1)
    assert probe_recipe(run)["numbers"]["regressed"] != before["numbers"]["regressed"]


def test_recipes_of_unchanged_settings_are_kept(tmp_path, monkeypatch):
    """What is written with `keep` is what is written without, and only changes are computed."""
    monkeypatch.chdir(tmp_path)
    params, computed = small_params(tmp_path), []
    names = ("static_mnist-vlae", "dynamic_mnist-pixelcnn")
    params = dataclasses.replace(
        params,
        datasets={name: params.datasets[name] for name in ("static_mnist", "dynamic_mnist")},
        runs={name: params.runs[name] for name in names},
        labels={},
        classifiers={},
        codelengths={},
        lossy={},
        probes={names[0]: params.probes[names[0]]},
    )

    def written(params, keep):
        vlae.recipes.write_recipes(params, keep)
        folder = tmp_path / "results/recipes"
        return {path.name: path.read_text() for path in folder.glob("*.json")}

    def counted(run, kind):
        computed.append(run.name)
        return run_recipes(run, kind)

    before = written(params, keep=False)
    monkeypatch.setattr(vlae.recipes, "run_recipes", counted)
    assert written(params, keep=True) == before and computed == []
    run = params.runs[names[0]]
    faster = dataclasses.replace(run, training=dataclasses.replace(run.training, seed=7))
    changed = dataclasses.replace(params, runs=params.runs | {run.name: faster})
    kept = written(changed, keep=True)
    assert computed == [run.name] and kept != before
    assert kept == written(changed, keep=False)
    # Bits instead of grey values: no run on the data set is kept, whatever its settings.
    grey = params.datasets["dynamic_mnist"] | {"binarization": "fixed"}
    other = dataclasses.replace(params, datasets=params.datasets | {"dynamic_mnist": grey})
    written(params, keep=False)
    computed.clear()
    written(other, keep=True)
    assert computed == [names[1]]
