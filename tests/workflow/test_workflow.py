"""The whole pipeline in miniature: the real Snakefile, DVC and package, from download to tables.

Four small runs, two of them with a flow and one on colour images. Data are small files in the
real formats: the first images of the real MNIST where VLAE_DATA_MIRROR says where to find it,
generated ones otherwise.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml

from miniature import PROJECT
from pipeline import COLOUR_RUN, FLOW_RUNS, RUNS, Workflow, row

# Targets of tests that look at results rather than at drawings.
MODELS = [f"results/checkpoints/{run}/model.safetensors" for run in RUNS]
STEPS = ("train", "evaluate", "sample", "codelength")
TABLE1 = "results/tables/table1_static_mnist.md"
TABLE2 = "results/tables/table2_dynamic_mnist.md"


def faster(tree: dict) -> None:
    tree["defaults"]["binary"]["training"]["learning_rate"] = 0.01


def test_everything_is_made_from_download_to_figures(built):
    made = built.contents()
    for run in RUNS:
        assert f"results/checkpoints/{run}/model.safetensors" in made
        assert f"results/evaluations/{run}.json" in made
        assert f"results/samples/{run}.npz" in made
    for run in ("static_mnist-vlae", "dynamic_mnist-pixelcnn"):
        record = json.loads(built.read(f"results/codelengths/{run}.json"))
        assert record["n_test"] and record["git_revision"] and len(record["others"]) == 9
        assert f"| {run} " in built.read("results/tables/codelengths.md")
    assert json.loads(built.read("results/lossy/static_mnist-vlae.json"))["n_test"] == 8
    assert "results/lossy/static_mnist-vlae.npz" in made
    probed = json.loads(built.read("results/probes/static_mnist-vlae.json"))
    pixels = json.loads(built.read("results/probes/static_mnist.json"))
    assert probed["labels_sha256"] == pixels["labels_sha256"]
    assert "| static_mnist-vlae " in built.read("results/tables/downstream.md")
    assert "results/figures/figure1_static_mnist.png" in made
    assert "not trained" not in row(built, "table5_cifar10", "VLAE, receptive field 4x2")
    lines = built.read("results/tables/cifar10_kept.md").splitlines()
    (kept,) = [line for line in lines if COLOUR_RUN in line]
    assert kept.count(" %") == 2  # recognised by the classifier, originals and decompressions
    assert "not trained" not in row(built, "table1_static_mnist", "VLAE")
    assert "not trained" in row(built, "table1_static_mnist", "AF VAE")  # not among these runs


def test_data_sets_are_not_published(built):
    published = {p.stat().st_size for p in (built.folder / "artifacts").rglob("*") if p.is_file()}
    assert not published & {p.stat().st_size for p in (built.folder / "data").glob("*.npz")}


def test_a_second_call_has_nothing_to_do(built):
    before = built.contents()
    assert "Nothing to be done" in built.snakemake()
    assert built.contents() == before


def test_a_clone_without_data_draws_everything_and_runs_nothing(built, tmp_path):
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    before = clone.contents()
    clone.do("snakemake", "--dry-run", "--cores", "2")
    assert clone.contents() == before
    clone.snakemake()
    assert not (clone.folder / "data").exists()
    assert not (clone.folder / "scratch").exists()
    assert not clone.trained()
    # Every table and figure comes out as it was committed, to the byte.
    assert clone.do("git", "status", "--porcelain") == ""
    assert "Nothing to be done" in clone.snakemake("--config", "train=false")


def test_dvc_by_hand_in_a_clone(built, tmp_path):
    """Its own commands, before `snakemake` has been called there."""
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    clone.do("dvc", "pull")
    made = clone.contents()
    for run in RUNS:
        assert f"results/checkpoints/{run}/model.safetensors" in made
    assert not (clone.folder / "data").exists()
    done = clone.call("dvc", "metrics", "show")
    assert done.returncode == 0 and done.stderr == ""
    shown = done.stdout.splitlines()
    assert len(shown) == 1 + len(RUNS) and max(map(len, shown)) < 120
    assert "nll_se" in shown[0]
    assert clone.call("dvc", "plots", "show").stderr == ""
    plots = (clone.folder / "dvc_plots" / "index.html").read_text()
    assert all(f"results/curves/{run}.csv" in plots for run in RUNS)
    assert clone.do("dvc", "data", "status") == "No changes.\n"
    assert clone.do("git", "status", "--porcelain") == ""


def test_runs_that_are_not_trained_are_no_error_for_dvc(built, tmp_path):
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    new = "static_mnist-vae_af"
    clone.edit_params(lambda tree: tree["runs"].update({new: {**tree["runs"][RUNS[0]]}}))
    (clone.folder / "results" / "evaluations").mkdir(parents=True)
    mine = clone.folder / "results" / "evaluations" / f"{new}.json"
    mine.write_text("{}")  # not recorded: not DVC's to remove
    assert "WARNING" not in clone.do("dvc", "pull")
    model = clone.folder / "results" / "checkpoints" / RUNS[0] / "model.safetensors"
    assert model.exists() and mine.read_text() == "{}"
    assert clone.do("dvc", "pull") == "Everything is up to date.\n"
    for command in (("metrics", "show"), ("plots", "show"), ("metrics", "diff")):
        done = clone.call("dvc", *command)
        assert (done.returncode, done.stderr) == (0, ""), command
    clone.do("dvc", "exp", "show", "--only-changed")
    boxes = re.findall(r"\| (\S+) \|", clone.do("dvc", "dag", "--collapse-foreach-matrix"))
    stages = yaml.safe_load((clone.folder / "dvc.yaml").read_text())["stages"]
    assert len(boxes) == len(set(boxes)) and {"recipes", "train"} < set(boxes) <= set(stages)
    # What is recorded and cannot be had is an error still.
    content = model.read_bytes()
    model.unlink()
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    (lost,) = (
        p for p in clone.folder.glob("artifacts/**/*") if p.is_file() and p.read_bytes() == content
    )
    lost.unlink()
    done = clone.call("dvc", "pull")
    assert done.returncode == 1 and str(model.relative_to(clone.folder)) in done.stderr
    assert new not in done.stderr


def test_the_files_alone_without_git_draw(built, tmp_path):
    """A ZIP or an archive: `git archive` makes them."""
    built.do("git", "archive", "--output", str(tmp_path / "it.tar"), "HEAD")
    (tmp_path / "files").mkdir()
    unpack = ["tar", "-xf", tmp_path / "it.tar", "-C", tmp_path / "files"]
    subprocess.run(unpack, check=True)
    files = Workflow(tmp_path / "files", "/nowhere")
    drawn = (TABLE1, TABLE2, "results/figures/learning_curves.png")
    for path in drawn:
        (files.folder / path).unlink()
    assert "there is no git repository here" in files.do("snakemake", "-n", "--cores", "2")
    said = files.snakemake(*drawn, "--config", "train=false")
    assert "there is no git repository here" not in said
    for path in drawn:
        assert (files.folder / path).read_bytes() == (built.folder / path).read_bytes(), path
    files.do("dvc", "pull", "-q")  # as in a clone


def test_a_data_set_fetched_by_hand_is_in_nobody_s_way(built, tmp_path):
    clone = built.clone_to(tmp_path / "clone", mirror=built.env["VLAE_DATA_MIRROR"])
    clone.do("vlae", "fetch", "static_mnist")
    before = (clone.folder / "data/static_mnist.npz").read_bytes()
    clone.snakemake(*MODELS, TABLE1, "--config", "train=false")
    clone.snakemake(*MODELS, TABLE1)
    assert not clone.trained()
    assert (clone.folder / "data/static_mnist.npz").read_bytes() == before
    assert clone.do("git", "status", "--porcelain") == ""


def a_number_typed_in(path: Path) -> None:
    """The last digit of the first number that a reader sees."""
    text = path.read_text()
    at = re.search(r"\d(?= \|)", text).start()
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


def conflict_markers(path: Path) -> None:
    text = path.read_text()
    path.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")


def another_picture(path: Path) -> None:
    shutil.copyfile(path.with_name("nll_against_k.png"), path)


def bytes_of(workflow: Workflow) -> dict[str, bytes]:
    return {name: content for name, (_, content) in workflow.contents().items()}


DISTURBED = {
    "results/tables/table1_static_mnist.md": a_number_typed_in,
    "results/tables/claims.csv": conflict_markers,
    "results/figures/learning_curves.png": another_picture,
    "results/drawn/tables/table2_dynamic_mnist.json": conflict_markers,
}


@pytest.mark.slow
@pytest.mark.parametrize("newer", [0, 1])
def test_what_is_drawn_is_what_is_recorded_whatever_the_times_say(built, tmp_path, newer):
    """Every second one has a new time, the others have that of what was drawn."""
    workflow = built.copy_to(tmp_path / "copy")
    workflow.snakemake()  # what was copied has other times
    before = bytes_of(workflow)
    for number, (name, disturb) in enumerate(DISTURBED.items()):
        path = workflow.folder / name
        times = path.stat()
        disturb(path)
        if number % 2 != newer:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = workflow.snakemake("--dry-run")
    for name in ("tables/table1_static_mnist", "tables/claims", "figures/learning_curves"):
        assert name in said
    workflow.snakemake("--config", "train=false")
    assert bytes_of(workflow) == before
    assert "Nothing to be done" in workflow.snakemake()


def test_one_learning_rate_retrains_one_run_for_everybody_and_back_is_free(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    run = "dynamic_mnist-pixelcnn"
    results = f"results/samples/{run}.npz", f"results/codelengths/{run}.json"
    wanted = (*MODELS, TABLE2, *results)
    models = {r: workflow.folder / model for r, model in zip(RUNS, MODELS, strict=True)}
    before = {r: model.read_bytes() for r, model in models.items()}
    clone = workflow.clone_to(tmp_path / "clone", mirror="/nowhere")
    clone.do("dvc", "pull", "-q", *(f"{step}@{run}" for step in STEPS))

    workflow.edit_params(lambda tree: tree["runs"][run].update(training={"learning_rate": 0.01}))
    workflow.snakemake(*wanted)
    assert workflow.trained() == {run}
    assert {r for r, model in models.items() if model.read_bytes() != before[r]} == {run}

    workflow.do("dvc", "push", "-q", "--run-cache")
    workflow.commit("learns faster")
    clone.do("git", "pull", "--quiet")
    assert "not recorded" not in clone.snakemake(*wanted, "--config", "train=false")
    model = f"results/checkpoints/{run}/model.safetensors"
    assert (clone.folder / model).read_bytes() == (workflow.folder / model).read_bytes()
    assert clone.do("git", "status", "--porcelain") == ""

    workflow.do("git", "revert", "--no-edit", "--no-commit", "HEAD")
    workflow.do("git", "checkout", "--quiet", "HEAD", "dvc.lock")  # only the parameters go back
    workflow.snakemake(*wanted)
    assert not workflow.trained()
    assert {r: model.read_bytes() for r, model in models.items()} == before
    assert workflow.do("git", "diff", "--stat", "HEAD~", "--", ".", ":!artifacts") == ""


@pytest.mark.slow
def test_a_clone_goes_on_from_what_is_published(built, tmp_path):
    """A longer budget where there is no training state, here and where another machine trained."""
    run = FLOW_RUNS[0]
    files = Path("results", "checkpoints", run)
    longer = {"epochs": 3, "decay_epochs": 1}
    old = json.loads(built.read(files / "train.json"))
    clone, other = (
        built.clone_to(tmp_path / name, built.env["VLAE_DATA_MIRROR"]) for name in ("one", "two")
    )
    for each in (clone, other):
        each.edit_params(lambda tree: tree["runs"][run].update(training=longer))
    clone.snakemake(*MODELS, TABLE1)
    assert clone.trained() == {run}
    new = json.loads(clone.read(files / "train.json"))
    assert [s["to_epoch"] for s in new["stretches"]] == [1, 3]
    assert new["stretches"][1]["from_checkpoint"] == old["checkpoint_sha256"]
    assert " in 2 stretches" in row(clone, "table1_static_mnist", "VLAE")
    assert "up to date" in clone.do("dvc", "status", f"train@{run}")
    assert "Nothing to be done" in clone.snakemake(*MODELS, TABLE1)
    # The weights alone are carried to the other: it finds that there is nothing left to train.
    shutil.copytree(clone.folder / files, other.folder / "scratch" / run / "published")
    other.snakemake(str(files / "model.safetensors"))
    assert not other.trained()
    said = other.read(f"results/logs/train/{run}.log")
    assert f"scratch/{run}/published has all 3 epochs; no training needed" in said
    for name in ("model.safetensors", "train.json", "curve.csv"):
        assert (other.folder / files / name).read_bytes() == (
            clone.folder / files / name
        ).read_bytes()


def test_a_comment_retrains_nothing(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.replace("src/vlae/nn/flow.py", "\nimport ", "\n# a comment\nimport ")
    assert "not recorded" not in workflow.snakemake()
    assert not workflow.trained()
    changed = workflow.do("git", "status", "--porcelain").split()
    assert changed == ["M", "dvc.lock", "M", "src/vlae/nn/flow.py"]


def test_other_arithmetic_of_the_flow_concerns_the_runs_with_a_flow(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.replace("src/vlae/nn/flow.py", "STEP_SCALE = 0.1", "STEP_SCALE = 0.2")
    said = workflow.snakemake(TABLE1, TABLE2, "--config", "train=false")
    (line,) = [line for line in said.splitlines() if "not recorded" in line]
    assert {run for run in RUNS if f"train {run}" in line} == {*FLOW_RUNS, COLOUR_RUN}
    # What is not of this code is not drawn; the other run still is.
    assert "not trained" in row(workflow, "table1_static_mnist", "VLAE")
    assert "not trained" not in row(workflow, "table2_dynamic_mnist", "Unconditional decoder")


def test_a_corrupted_result_is_one_clear_line(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    path = "results/checkpoints/static_mnist-vlae/model.safetensors"
    good = (workflow.folder / path).read_bytes()
    (workflow.folder / path).write_bytes(b"garbage")
    done = workflow.call("snakemake", "--cores", "2")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"vlae: error: {path}: not as dvc.lock records; `dvc checkout -f {path}` replaces it"
    ]
    workflow.do("dvc", "checkout", "-q", "-f", path)
    assert (workflow.folder / path).read_bytes() == good


def test_many_changed_results_are_one_short_line(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    results = workflow.folder / "results"
    files = [*results.glob("checkpoints/*/*"), *results.glob("evaluations/*")]
    for path in files:
        path.unlink()  # a link to DVC's cache, which is left as it is
        path.write_bytes(b"garbage")
    done = workflow.call("snakemake", "--dry-run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.count("results/") == 5 and f" and {len(files) - 5} more: " in line
    assert {path.read_bytes() for path in files} == {b"garbage"}
    workflow.do("dvc", "checkout", "-q", "-f")
    assert b"garbage" not in {path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda tree: tree["defaults"]["binary"]["training"].update(epochs="many"), "epochs"),
        (lambda tree: tree["runs"][RUNS[0]].update(learning_rate=1.0), "learning_rate"),
    ],
)
def test_bad_params_stop_everything_with_one_line(built, tmp_path, edit, line):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.edit_params(edit)
    done = workflow.call("snakemake", "--cores", "2")
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith("vlae: error: params.yaml: ")
    assert line in said


def test_only_the_runs_that_were_named_are_computed(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.edit_params(
        lambda tree: tree["defaults"]["binary"]["training"].update(learning_rate=0.01)
    )
    said = workflow.snakemake(TABLE1, TABLE2, "--config", f"runs=dynamic_* {COLOUR_RUN}")
    assert workflow.trained() == {"dynamic_mnist-pixelcnn"}
    assert "not recorded" in said and "static_mnist-vlae" in said
    assert "not trained" in row(workflow, "table1_static_mnist", "VLAE")  # as with train=false
    assert "not trained" not in row(workflow, "table2_dynamic_mnist", "Unconditional decoder")
    done = workflow.call("snakemake", "--cores", "2", "--config", "runs=dynamc_*")
    assert done.returncode == 2
    assert done.stderr == "vlae: error: --config: runs: no run in params.yaml matches 'dynamc_*'\n"


def test_an_unknown_config_key_is_one_line(built):
    done = built.call("snakemake", "--cores", "2", "--config", "trian=false")
    assert done.returncode == 2
    assert (
        done.stderr == "vlae: error: --config: unknown key 'trian'; known: runs, shards, train\n"
    )


def test_on_a_cluster_the_trainer_knows_its_time_limit(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.edit_params(
        lambda tree: tree["defaults"]["binary"]["training"].update(learning_rate=0.01)
    )
    jobs = workflow.do("snakemake", "-n", "-p", "--profile", "slurm", "--config", "shards=3")
    assert "export VLAE_MINUTES=718; python workflow/scripts/dvc_patched.py" in jobs
    assert f"vlae evaluate {RUNS[0]} --shard 3/3" in jobs
    assert "VLAE_MINUTES" not in workflow.do("snakemake", "-n", "-p", "--cores", "2")


def without_stage(workflow: Workflow, stage: str) -> str:
    """dvc.lock as if the stage had never run."""
    lock = yaml.safe_load(workflow.read("dvc.lock"))
    del lock["stages"][stage]
    return yaml.safe_dump(lock, sort_keys=False)


@pytest.mark.slow
def test_an_evaluation_scattered_into_shards_is_the_same(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    run = FLOW_RUNS[0]
    whole = json.loads(workflow.read(f"results/evaluations/{run}.json"))
    shutil.rmtree(workflow.folder / "scratch")
    for kept in (".dvc/cache/runs", "artifacts/runs"):  # else it is found there
        shutil.rmtree(workflow.folder / kept)
    (workflow.folder / "dvc.lock").write_text(without_stage(workflow, f"evaluate@{run}"))
    workflow.snakemake("--config", "shards=2")
    logs = workflow.folder / "results" / "logs" / "evaluate"
    assert {log.name for log in logs.iterdir()} >= {f"{run}.{i}-of-2.log" for i in (1, 2)}
    gathered = json.loads(workflow.read(f"results/evaluations/{run}.json"))
    # PyTorch's sums depend on the number of threads, those of the core do not.
    for record in (gathered, whole):
        record |= {"seconds": 0, "hardware": ""}
    assert gathered.keys() == whole.keys()
    for key, value in whole.items():
        if isinstance(value, float):
            assert gathered[key] == pytest.approx(value, rel=1e-9), key
        elif key != "curve":
            assert gathered[key] == value, key
    for ours, theirs in zip(gathered["curve"], whole["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
def test_a_bucket_as_the_remote(built, tmp_path):
    """The two lines of the README against a real server of S3's interface."""
    from moto.server import ThreadedMotoServer

    workflow = built.copy_to(tmp_path / "copy")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        requests.put(f"{address}/BUCKET", timeout=10).raise_for_status()
        workflow.env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        for line in re.findall(
            r"^    (dvc remote .*)$", (PROJECT / "README.md").read_text(), re.M
        ):
            workflow.do(*line.split())
        workflow.do("dvc", "remote", "modify", "s3", "endpointurl", address)
        workflow.do("dvc", "push", "-q", "--run-cache")
        workflow.commit("a bucket")
        clone = workflow.clone_to(tmp_path / "clone", mirror="/nowhere")
        clone.env = workflow.env | {"VLAE_DATA_MIRROR": "/nowhere"}
        shutil.rmtree(clone.folder / "artifacts")
        clone.snakemake()
        assert not clone.trained()
        assert (clone.folder / "results" / "evaluations" / f"{RUNS[0]}.json").exists()
    finally:
        server.stop()
    # Without the remote, a clone says so in one line and does not fail.
    other = workflow.clone_to(tmp_path / "other", mirror="/nowhere")
    other.env = workflow.env
    said = other.snakemake("--config", "train=false")
    assert "vlae: warning: the remote could not be read completely" in said
    assert "Traceback" not in said
