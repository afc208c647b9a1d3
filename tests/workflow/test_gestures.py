"""Snakemake's own gestures: what is forced runs again, -n says what will run and why, and what
takes longer than a day is not begun by the way."""

import copy
import json
import re
import shutil

import pytest
import yaml

from one_run import MODEL, RUN, history, prepared_project
from pipeline import Workflow
from scripts import script

OTHER = "static_mnist-vlae_factorized"
CALL = ("snakemake", "--cores", "2", "--set-threads", "train=1", "evaluate=1")
RECORD = f"results/checkpoints/{RUN}/train.json"
EVALUATION = f"results/evaluations/{RUN}.json"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    """The project with its single run trained, evaluated and committed; nothing is drawn."""
    workflow = prepared_project(tmp_path_factory.mktemp("gestures"), epochs=2)
    workflow.do(*CALL, "--", EVALUATION, f"results/samples/{RUN}.npz")
    workflow.commit("finished")
    return workflow


def look(workflow: Workflow, *options: str) -> str:
    return workflow.do(*CALL, "--dry-run", *options)


def ours(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("vlae: ")]


@pytest.mark.parametrize(
    ("gesture", "stages"),
    [
        pytest.param(["--forcerun", "train"], ["train"], marks=pytest.mark.slow),
        (["--force", MODEL], ["train"]),
        (["-R", "evaluate", "sample"], ["evaluate", "sample"]),
        (["-F"], ["fetch", "train", "evaluate", "sample"]),
    ],
)
def test_what_is_forced_is_planned_and_nothing_changed(finished, gesture, stages):
    before = finished.contents()
    said = look(finished, *gesture)
    for stage in stages:
        assert f"\nrule {stage}:\n" in said
    forced = [line.split()[1] for line in ours(said) if ": forced" in line]
    assert forced == sorted(stages, key=["fetch", "train", "evaluate", "sample"].index)
    assert finished.contents() == before


@pytest.mark.slow
def test_a_forced_training_begins_from_nothing_and_loses_nothing(finished, tmp_path):
    workflow = finished.copy_to(tmp_path / "copy")
    state = next((workflow.folder / "scratch" / RUN).glob("state-*.safetensors"))
    old, model, evaluated = (
        (workflow.folder / path).read_bytes() for path in (RECORD, MODEL, EVALUATION)
    )
    trained = state.read_bytes()
    md5 = locked(workflow, "train")[RECORD]
    said = workflow.do(*CALL, "--forcerun", "train")
    assert f"vlae: train {RUN}: forced, starts from scratch; about " in said
    assert state.stat().st_mtime > (state.parent / "before-again" / state.name).stat().st_mtime
    assert (state.parent / "before-again" / state.name).read_bytes() == trained
    (start,) = history(workflow)  # a single stretch, from the first step
    assert start["from_step"] == 0
    assert (workflow.folder / RECORD).read_bytes() != old  # other seconds
    assert (workflow.folder / MODEL).read_bytes() == model
    assert (workflow.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_bytes() == old
    assert locked(workflow, "train")[RECORD] != md5
    assert (workflow.folder / EVALUATION).read_bytes() == evaluated
    assert "up to date" in workflow.do("dvc", "status", f"train@{RUN}", f"evaluate@{RUN}")
    assert "Nothing to be done" in workflow.do(*CALL)


def locked(workflow: Workflow, step: str) -> dict[str, str]:
    """path -> md5 of a stage's outputs, as dvc.lock has them."""
    stages = yaml.safe_load(workflow.read("dvc.lock"))["stages"]
    return {out["path"]: out["md5"] for out in stages[f"{step}@{RUN}"]["outs"]}


def test_what_was_interrupted_goes_on_when_it_is_forced_once_more(tmp_path, monkeypatch):
    again = script("again")
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    state = tmp_path / RUN / "state-1.safetensors"
    lock, block = tmp_path / RUN / "state-1.lock", tmp_path / RUN / "evaluation" / "1.npz"
    for path in (state, lock, block):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    again.begin(f"train@{RUN}")
    assert not state.exists()
    assert lock.exists() and block.exists()
    state.write_text("half of it")
    assert again.begun(f"train@{RUN}")
    again.begin(f"train@{RUN}")
    assert state.read_text() == "half of it"
    again.mark(f"train@{RUN}").unlink()  # as its job does at the end
    again.begin(f"train@{RUN}")
    again.begin(f"evaluate@{RUN}")
    assert not state.exists() and not block.exists()
    again.begin("fetch@static_mnist")


def test_a_forced_result_without_a_copy_in_the_cache_is_kept(finished, tmp_path):
    workflow = finished.copy_to(tmp_path / "copy")
    shutil.rmtree(workflow.folder / ".dvc" / "cache")
    done = workflow.call(*CALL, "--forcerun", "train")
    assert done.returncode == 2
    *_, line = ours(done.stderr)  # behind warnings: the remote does not have it either
    assert "DVC's cache has no copy" in line
    assert (workflow.folder / MODEL).exists()


@pytest.mark.parametrize(
    ("gesture", "line"),
    [
        (["--forcerun", "trian"], "trian is forced, but it is neither a rule nor a result"),
        (["--forcerun", "params.yaml"], "params.yaml is forced, but it is neither a rule"),
        (["--forcerun", "train", "--config", "train=false"], "train is forced, but train=false"),
    ],
)
def test_a_force_that_cannot_be_is_one_line(finished, gesture, line):
    done = finished.call(*CALL, "--dry-run", *gesture)
    assert done.returncode == 2
    (said,) = ours(done.stderr)
    assert said.startswith(f"vlae: error: {line}")


def test_a_dry_run_says_what_changed_and_how_long_it_takes(finished, tmp_path):
    workflow = finished.copy_to(tmp_path / "copy")
    training = {"learning_rate": 0.001, "epochs": 9}

    def edit(tree: dict) -> None:
        tree["runs"][RUN]["training"] = training
        tree["runs"][RUN]["evaluation"] = {"importance_samples": 7}
        other = {"model": {"decoder": {"kind": "factorized"}}}
        tree["runs"][OTHER] = copy.deepcopy(tree["runs"][RUN]) | other

    workflow.edit_params(edit)
    said = look(workflow)
    *_, one, two, draw = ours(said)
    speed = r"; about .+ at the speed of "
    changed = "epochs 2 → 9, learning_rate 0.002 → 0.001"
    assert re.fullmatch(rf"vlae: train {RUN}: {changed}{speed}1 core of .+", one)
    assert re.fullmatch(rf"vlae: train {OTHER}: never trained{speed}{RUN} on .+", two)
    tables, figures = draw.removeprefix("vlae: draw tables ").split("; figures ")
    assert "claims, decoder_windows, " in tables and "figure1_static_mnist, " in figures
    assert "bookkeeping" in tables.split(", ") and "bookkeeping" in figures.split(", ")
    assert said.endswith(f"{draw}\n")
    assert "reason:" not in said and "rule figure:" not in said
    assert len(said.splitlines()) < 100
    verbose = look(workflow, "--verbose")
    assert "reason:" in verbose and "rule figure:" in verbose


def test_a_dry_run_tells_settings_from_code(finished, tmp_path):
    workflow = finished.copy_to(tmp_path / "copy")
    workflow.edit_params(lambda tree: tree["runs"][RUN].update(evaluation={"deep_samples": 60}))
    assert ours(look(workflow))[1] == f"vlae: evaluate {RUN}: deep_samples 50 → 60"
    workflow.do("git", "checkout", "--quiet", "params.yaml")
    recipe = workflow.folder / "results" / "recipes" / f"{RUN}.evaluate.json"
    numbers = json.loads(recipe.read_text())
    numbers["numbers"]["elbo"] = [0.0]
    recipe.write_text(json.dumps(numbers))
    assert f"vlae: evaluate {RUN}: the code of its evaluation changed" in ours(look(workflow))


@pytest.fixture(scope="module")
def with_a_long_one(finished, tmp_path_factory) -> Workflow:
    """A run more, which takes longer than a day."""
    workflow = finished.copy_to(tmp_path_factory.mktemp("long") / "copy")

    def edit(tree: dict) -> None:
        tree["runs"][OTHER] = copy.deepcopy(tree["runs"][RUN]) | {
            "training": {"epochs": 9_000_000}
        }

    workflow.edit_params(edit)
    return workflow


def test_what_takes_longer_than_a_day_is_left_out(with_a_long_one):
    said = look(with_a_long_one)
    (line,) = [line for line in ours(said) if "left out" in line]
    assert f"{OTHER} (about " in line and " days)" in line
    assert f"--config runs='{OTHER}' computes" in line
    assert "rule train:" not in said


@pytest.mark.parametrize(
    "asked",
    [
        [f"results/evaluations/{OTHER}.json"],
        pytest.param(["--config", f"runs={OTHER}"], marks=pytest.mark.slow),
        pytest.param(["--profile", "slurm"], marks=pytest.mark.slow),
    ],
)
def test_what_takes_longer_than_a_day_is_asked_for_by_name(with_a_long_one, asked):
    said = look(with_a_long_one, *asked)
    assert "left out" not in said
    assert f"vlae: train {OTHER}: never trained" in said
