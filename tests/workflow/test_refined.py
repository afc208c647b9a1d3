"""A run that begins with another run's weights, in the real workflow."""

import json
import shutil

import pytest

from pipeline import new_workflow, row

BASE, PLUS = "static_mnist-vlae", "static_mnist-vlae_plus"
MODEL = "VLAE+ (ours): decoder widened from 12 to 32 filters"
TABLE = "table1_static_mnist"
WANTED = (f"results/tables/{TABLE}.md", f"results/samples/{PLUS}.npz")  # not every drawing


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workflow = new_workflow(tmp_path_factory.mktemp("refined"), (BASE, PLUS))
    # Named alone, it brings the run that it begins with.
    said = workflow.snakemake(*WANTED, "--config", f"runs={PLUS}")
    assert f"vlae: train {PLUS}: never trained" in said
    assert workflow.trained() == {BASE, PLUS}
    workflow.commit("trained")
    return workflow


def test_the_base_is_trained_first_and_both_are_recorded(trained):
    record, base = (
        json.loads(trained.read(f"results/checkpoints/{run}/train.json")) for run in (PLUS, BASE)
    )
    assert record["start"] == {
        "run": BASE,
        "epochs": base["epochs"],
        "checkpoint_sha256": base["checkpoint_sha256"],
    }
    steps = [f"{step}_refined@{PLUS}" for step in ("train", "evaluate", "sample")]
    assert "up to date" in trained.do("dvc", "status", f"train@{BASE}", *steps)
    recipe = json.loads(trained.read(f"results/recipes/{PLUS}.train.json"))
    of_base = json.loads(trained.read(f"results/recipes/{BASE}.train.json"))
    assert recipe["configuration"]["start"] == of_base["configuration"]
    assert recipe["numbers"]["start"] == of_base["numbers"]
    line = row(trained, TABLE, MODEL)
    assert "79.03" in line and f"after the {base['epochs']} of {BASE}" in line


def test_nothing_is_done_twice_and_a_clone_takes_both_from_the_remote(trained, tmp_path):
    trained.snakemake(*WANTED)
    assert trained.trained() == set()
    trained.do("dvc", "push", "-q")
    trained.commit("published")
    clone = trained.clone_to(tmp_path / "clone", trained.env["VLAE_DATA_MIRROR"])
    clone.snakemake(*WANTED, "--config", "train=false")
    assert clone.trained() == set() and row(clone, TABLE, MODEL)


@pytest.mark.slow
def test_what_a_command_by_hand_puts_in_place_is_no_file_of_the_users_own(trained, tmp_path):
    """Snakemake refuses to replace files of which DVC's cache has no copy."""
    trained.do("dvc", "push", "-q")
    trained.commit("published")
    clone = trained.clone_to(tmp_path / "clone", trained.env["VLAE_DATA_MIRROR"])
    assert "evaluated" in clone.do("python", "-m", "vlae", "list")
    assert clone.do("dvc", "data", "status", "--unchanged").count("results/checkpoints/") == 6
    clone.snakemake("--dry-run")
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    clone.snakemake("--dry-run")
    clone.snakemake(*WANTED, "--config", "train=false")
    assert clone.trained() == set() and row(clone, TABLE, MODEL)
    (clone.folder / f"results/evaluations/{PLUS}.json").write_text("my own")
    assert "not as dvc.lock records" in clone.call("snakemake", "-n").stderr


@pytest.mark.slow
def test_a_change_of_the_refined_run_leaves_the_base(trained, tmp_path):
    workflow = trained.copy_to(tmp_path / "copy")
    workflow.edit_params(lambda tree: tree["refined"][PLUS]["training"].update(seed=5))
    said = workflow.snakemake(*WANTED)
    assert workflow.trained() == {PLUS} and f"vlae: train {PLUS}: seed 0 → 5" in said


def test_a_change_of_the_base_concerns_both(trained, tmp_path):
    workflow = trained.copy_to(tmp_path / "copy")
    before = workflow.read(f"results/recipes/{PLUS}.train.json")
    first = json.loads(workflow.read(f"results/checkpoints/{PLUS}/train.json"))
    workflow.edit_params(lambda tree: tree["runs"][BASE]["training"].update(learning_rate=0.01))
    said = workflow.snakemake(*WANTED)
    assert f"vlae: train {PLUS}: the run that it begins with is trained again" in said
    assert workflow.trained() == {BASE, PLUS}
    assert workflow.read(f"results/recipes/{PLUS}.train.json") != before
    record = json.loads(workflow.read(f"results/checkpoints/{PLUS}/train.json"))
    assert record["start"]["checkpoint_sha256"] != first["start"]["checkpoint_sha256"]
    assert len(record["stretches"]) == 1
