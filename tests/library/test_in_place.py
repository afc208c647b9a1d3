"""Commands called by hand in a fresh clone, whose recorded results are in artifacts/ alone."""

import filecmp
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import vlae
from miniature import PROJECT
from vlae.cli import WORKFLOW, main
from vlae.errors import BAD_INPUT
from vlae.storage.dvc_lock import md5, read_stages

RUN = "static_mnist-vlae"
CHECKPOINT, EVALUATION = f"results/checkpoints/{RUN}", f"results/evaluations/{RUN}.json"


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A fresh clone, as the current folder; its dvc.lock has this run only."""
    for name in (".dvc/config", "params.yaml", "results/cards", "results/recipes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, tmp_path / name)
    stages = {k: v for k, v in read_stages(PROJECT / "dvc.lock").items() if k.endswith(f"@{RUN}")}
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    (tmp_path / "artifacts").symlink_to(PROJECT / "artifacts")
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_STAGE", WORKFLOW):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def recorded(path: str) -> str:
    stages = read_stages(Path("dvc.lock")).values()
    return next(o["md5"] for s in stages for o in s.get("outs", ()) if o["path"] == path)


def test_the_list_has_what_the_library_has(clone, capsys):
    before = vlae.runs(clone).loc[RUN]
    assert main(["list"]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith(f"{RUN} "))
    assert f" {before.nll:.2f} " in line
    pd.testing.assert_series_equal(vlae.runs(clone).loc[RUN], before)
    assert md5(Path(EVALUATION)) == recorded(EVALUATION)


def test_the_summaries_of_a_fresh_clone_are_those_in_git(clone):
    """They were removed once: a run without results in place has no card."""
    assert main(["summaries"]) == 0
    card = f"results/cards/{RUN}.md"
    assert filecmp.cmp(card, PROJECT / card, shallow=False)


def test_a_picture_needs_the_weights_alone(clone):
    assert main(["sample", RUN, "--out", "new.png", "-n", "2"]) == 0
    assert Path("new.png").exists()
    weights = f"{CHECKPOINT}/model.safetensors"
    assert md5(Path(weights)) == recorded(weights)
    assert not Path(EVALUATION).exists()


def test_an_old_evaluation_does_not_come_to_other_weights(clone, capsys):
    Path(CHECKPOINT).mkdir(parents=True)
    for name in ("train.json", "curve.csv", "model.safetensors"):
        Path(CHECKPOINT, name).write_text("of another training")
    assert main(["list"]) == 0
    assert not Path(EVALUATION).exists()
    assert Path(CHECKPOINT, "curve.csv").read_text() == "of another training"


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_no_result_of_other_settings_is_put_in_place(clone, step):
    Path(f"results/recipes/{RUN}.{step}.json").write_text("{}")
    assert main(["list"]) == 0
    assert not Path(EVALUATION).exists()
    assert Path(CHECKPOINT).exists() == (step == "evaluate")


def test_what_cannot_be_had_is_named_and_nothing_is_removed(clone, capsys):
    Path("artifacts").unlink()
    picture = ["sample", RUN, "--out", "a.png"]
    for command in (["list"], ["summaries"], ["table", "headline"], picture):
        assert main(command) == BAD_INPUT
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        assert said.endswith("recorded, but not on this machine; `dvc pull` fetches them")
    assert {p.name for p in Path("results/cards").iterdir()} == {
        p.name for p in (PROJECT / "results/cards").iterdir()
    }
    assert not Path("results/tables").exists()


@pytest.mark.parametrize("variable", ["DVC_STAGE", WORKFLOW])
def test_the_workflow_puts_results_in_place_itself(clone, variable, monkeypatch):
    monkeypatch.setenv(variable, "x")
    assert main(["list"]) == 0
    assert not Path(CHECKPOINT).exists()


def test_a_run_that_was_trained_by_hand_can_be_loaded(clone):
    """Its weights are checked by its own record; dvc.lock does not know it."""
    assert main(["list"]) == 0
    Path("dvc.lock").write_text('{"schema": "2.0", "stages": {}}')
    assert vlae.load(RUN, home=clone).record["run"] == RUN
