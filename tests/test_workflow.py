"""The whole pipeline in miniature: the real Snakefile, DVC and package, from download to tables.

Four small runs, two of them with a flow and one on colour images. Data are small files in the
real formats: the first images of the real MNIST where VLAE_DATA_MIRROR says where to find it,
generated ones otherwise.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

from miniature import PROJECT, made_up_arrays, small_params
from vlae.data.formats import cifar

FLOW_RUNS = ("static_mnist-vlae", "static_mnist-vae_iaf")
COLOUR_RUN = "cifar10-vlae_4x2"
RUNS = (*FLOW_RUNS, "dynamic_mnist-pixelcnn", COLOUR_RUN)
TREE = "Snakefile dvc.yaml environment.yml .dvcignore .gitignore .dvc/config src workflow slurm"
MIRROR = os.environ.get("VLAE_DATA_MIRROR")


class Workflow:
    """A copy of the project in a folder of its own, under git."""

    def __init__(self, folder: Path, mirror: Path | str):
        self.folder = folder
        self.env = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("GIT_", "VLAE_", "PYTEST"))
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "VLAE_DATA_MIRROR": str(mirror),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "OMP_NUM_THREADS": "1",  # threads of so small a job would wait for each other
        }
        for role in ("AUTHOR", "COMMITTER"):
            self.env |= {f"GIT_{role}_NAME": "a test", f"GIT_{role}_EMAIL": "test@example.org"}

    def call(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, capture_output=True, check=False
        )

    def do(self, *command: str) -> str:
        done = self.call(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def snakemake(self, *options: str) -> str:
        """Run the workflow; what it printed."""
        shutil.rmtree(self.folder / "results" / "logs", ignore_errors=True)
        one_core = [f"{rule}=1" for rule in ("train", "evaluate", "sample")]
        return self.do(
            "snakemake", "--cores", "2", "--show-failed-logs", *options, "--set-threads", *one_core
        )

    def commit(self, message: str) -> None:
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def copy_to(self, folder: Path) -> "Workflow":
        """All of it, cache and training states included; times are kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workflow(folder, self.env["VLAE_DATA_MIRROR"])

    def clone_to(self, folder: Path, mirror: str) -> "Workflow":
        """Only what is in git."""
        self.do("git", "clone", "--quiet", ".", str(folder))
        return Workflow(folder, mirror)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text
        (self.folder / path).write_text(text.replace(old, new, 1))

    def edit_params(self, change) -> None:
        tree = yaml.safe_load(self.read("params.yaml"))
        change(tree)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    def trained(self) -> set[str]:
        """The runs whose trainer was started by the last call of `snakemake`."""
        logs = (self.folder / "results" / "logs" / "train").glob("*.log")
        said = {log.stem: log.read_text() for log in logs if not log.match("*.history.log")}
        return {run for run, text in said.items() if " parameters, " in text}

    def contents(self) -> dict[str, tuple[int, bytes]]:
        """Time and bytes of every file, but for the notes that git, DVC and Snakemake keep."""
        notes = {".git", ".snakemake", "tmp", "__pycache__", "logs"}
        return {
            str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not notes & set(path.relative_to(self.folder).parts)
        }


def write_amat(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, images.reshape(len(images), -1), fmt="%d")


def write_idx(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"".join(n.to_bytes(4, "big") for n in (0x803, *images.shape))
    path.write_bytes(gzip.compress(header + images.tobytes(), mtime=0))


def write_cifar(path: Path, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    train = np.split(arrays["train"], cifar.BATCHES)
    names = (*cifar.TRAIN_MEMBERS, cifar.TEST_MEMBER)
    parts = (cifar.records(part, np.arange(len(part)) % 10) for part in (*train, arrays["test"]))
    cifar.write_tar(path, dict(zip(names, parts, strict=True)))


def generate_files(mirror: Path, datasets: list[dict], real: str | None = None) -> None:
    """Small files in the formats of the data sets, and their sums in the blocks of params; of
    MNIST the first images of the files in the folder `real`, if one is given."""
    for spec in datasets:
        if spec["binarization"] == "none":
            arrays = made_up_arrays("none", train=30, valid=10, test=16)
        elif real and spec["format"] in ("amat", "idx"):
            arrays = first_images(Path(real), spec)
        else:
            arrays = made_up_arrays(spec["binarization"], train=96, valid=32, test=128)
        spec["splits"] = {split: len(arrays[split]) for split in ("train", "valid", "test")}
        if "valid" not in spec["files"]:
            arrays["train"] = np.concatenate([arrays["train"], arrays["valid"]])
        for split, entry in spec["files"].items():
            path = mirror / entry["path"]
            if spec["format"] == "cifar10_tar":
                write_cifar(path, arrays)
            else:
                {"amat": write_amat, "idx": write_idx}[spec["format"]](path, arrays[split])
            content = path.read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            entry["urls"] = []  # the mirror or nothing


def first_images(real: Path, spec: dict) -> dict:
    """1,000, 100 and 100 of MNIST's real images."""

    def first(split: str, count: int) -> np.ndarray:
        return first_of_file(real / spec["files"][split]["path"], spec["format"], count)

    if "valid" in spec["files"]:
        train, valid = first("train", 1000), first("valid", 100)
    else:
        train, valid = np.split(first("train", 1100), [1000])
    return {"train": train, "valid": valid, "test": first("test", 100)}


def first_of_file(path: Path, form: str, count: int) -> np.ndarray:
    if form == "idx":
        with gzip.open(path) as file:
            pixels = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    else:
        pixels = np.loadtxt(f"{path}.gz", np.uint8, max_rows=count)
    return pixels.reshape(count, 28, 28)


def write_params(folder: Path, mirror: Path, runs: Sequence[str]) -> None:
    """Some of the runs with tiny networks, and `mirror` with small files of their data."""
    small_params(folder, {"batch_size": 32}, {"importance_samples": 4})
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["runs"] = {run: tree["runs"][run] for run in runs}
    used = {run["dataset"] for run in tree["runs"].values()}
    tree["datasets"] = {name: spec for name, spec in tree["datasets"].items() if name in used}
    classifiers = tree["classifiers"].items()
    tree["classifiers"] = {name: config for name, config in classifiers if name in used}
    mirror.mkdir()
    tree["defaults"]["colour"]["training"]["batch_size"] = 8
    generate_files(mirror, list(tree["datasets"].values()), MIRROR)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def new_workflow(folder: Path, runs: Sequence[str]) -> Workflow:
    """A commit of the project with some of its runs in miniature, in a folder below this one."""
    project = folder / "project"
    for name in TREE.split():
        source, target = PROJECT / name, project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(source, target, follow_symlinks=False)
    write_params(project, folder / "mirror", runs)
    workflow = Workflow(project, folder / "mirror")
    workflow.do("git", "init", "--quiet")
    workflow.commit("the project")
    return workflow


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Workflow:
    """The project after one complete run, its results published and committed."""
    workflow = new_workflow(tmp_path_factory.mktemp("workflow"), RUNS)
    workflow.snakemake()
    assert workflow.trained() == set(RUNS)
    workflow.do("dvc", "push", "-q", "--run-cache")
    workflow.commit("the results")
    return workflow


def row(workflow: Workflow, table: str, model: str) -> str:
    """The line of a table for one of our models."""
    lines = workflow.read(f"results/tables/{table}.md").splitlines()
    (line,) = [line for line in lines if f"**{model}**" in line]
    return line


def test_everything_is_made_from_download_to_figures(built):
    made = built.contents()
    for run in RUNS:
        assert f"results/checkpoints/{run}/model.safetensors" in made
        assert f"results/evaluations/{run}.json" in made
        assert f"results/samples/{run}.npz" in made
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


def test_one_learning_rate_retrains_one_run_for_everybody_and_back_is_free(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    run = "dynamic_mnist-pixelcnn"
    models = {r: workflow.folder / f"results/checkpoints/{r}/model.safetensors" for r in RUNS}
    before = {r: model.read_bytes() for r, model in models.items()}
    clone = workflow.clone_to(tmp_path / "clone", mirror="/nowhere")
    clone.do("dvc", "pull", "-q", *(f"{step}@{run}" for step in ("train", "evaluate", "sample")))

    workflow.edit_params(lambda tree: tree["runs"][run].update(training={"learning_rate": 0.01}))
    workflow.snakemake()
    assert workflow.trained() == {run}
    assert {r for r, model in models.items() if model.read_bytes() != before[r]} == {run}

    workflow.do("dvc", "push", "-q", "--run-cache")
    workflow.commit("learns faster")
    clone.do("git", "pull", "--quiet")
    assert "not recorded" not in clone.snakemake("--config", "train=false")
    model = f"results/checkpoints/{run}/model.safetensors"
    assert (clone.folder / model).read_bytes() == (workflow.folder / model).read_bytes()
    assert clone.do("git", "status", "--porcelain") == ""

    workflow.do("git", "revert", "--no-edit", "--no-commit", "HEAD")
    workflow.do("git", "checkout", "--quiet", "HEAD", "dvc.lock")  # only the parameters go back
    workflow.snakemake()
    assert not workflow.trained()
    assert {r: model.read_bytes() for r, model in models.items()} == before
    assert workflow.do("git", "diff", "--stat", "HEAD~", "--", ".", ":!artifacts") == ""


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
    clone.snakemake()
    assert clone.trained() == {run}
    new = json.loads(clone.read(files / "train.json"))
    assert [s["to_epoch"] for s in new["stretches"]] == [1, 3]
    assert new["stretches"][1]["from_checkpoint"] == old["checkpoint_sha256"]
    assert " in 2 stretches" in row(clone, "table1_static_mnist", "VLAE")
    assert "up to date" in clone.do("dvc", "status", f"train@{run}")
    assert "Nothing to be done" in clone.snakemake()
    # The weights alone are carried to the other: it finds that there is nothing left to train.
    shutil.copytree(clone.folder / files, other.folder / "scratch" / run / "published")
    other.snakemake(str(files / "model.safetensors"))
    assert not other.trained()
    said = other.read(f"results/logs/train/{run}.log")
    assert f"scratch/{run}/published has all 3 epochs: taken over" in said
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
    said = workflow.snakemake("--config", "train=false")
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
        f"vlae: error: {path}: not what dvc.lock records; `dvc checkout -f {path}` restores that"
    ]
    workflow.do("dvc", "checkout", "-q", "-f", path)
    assert (workflow.folder / path).read_bytes() == good


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda tree: tree["defaults"]["training"].update(epochs="many"), "epochs"),
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
    workflow.edit_params(lambda tree: tree["defaults"]["training"].update(learning_rate=0.01))
    said = workflow.snakemake("--config", f"runs=dynamic_* {COLOUR_RUN}")
    assert workflow.trained() == {"dynamic_mnist-pixelcnn"}
    assert "not recorded" in said and "static_mnist-vlae" in said
    assert "not trained" in row(workflow, "table1_static_mnist", "VLAE")  # as with train=false
    assert "not trained" not in row(workflow, "table2_dynamic_mnist", "Unconditional decoder")
    done = workflow.call("snakemake", "--cores", "2", "--config", "runs=dynamc_*")
    assert done.returncode == 2
    assert (
        done.stderr == "vlae: error: --config: runs: no run in params.yaml is called 'dynamc_*'\n"
    )


def test_an_unknown_config_key_is_one_line(built):
    done = built.call("snakemake", "--cores", "2", "--config", "trian=false")
    assert done.returncode == 2
    assert (
        done.stderr == "vlae: error: --config: unknown key 'trian'; known: runs, shards, train\n"
    )


def test_on_a_cluster_the_trainer_knows_its_time_limit(built, tmp_path):
    workflow = built.copy_to(tmp_path / "copy")
    workflow.edit_params(lambda tree: tree["defaults"]["training"].update(learning_rate=0.01))
    jobs = workflow.do("snakemake", "-n", "-p", "--profile", "slurm", "--config", "shards=3")
    assert "export VLAE_MINUTES=718; python workflow/scripts/quick_dvc.py" in jobs
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
    shutil.rmtree(workflow.folder / ".dvc" / "cache" / "runs")
    (workflow.folder / "dvc.lock").write_text(without_stage(workflow, f"evaluate@{run}"))
    workflow.snakemake("--config", "shards=2")
    logs = workflow.folder / "results" / "logs" / "evaluate"
    assert {log.name for log in logs.iterdir()} >= {f"{run}.{i}-of-2.log" for i in (1, 2)}
    gathered = json.loads(workflow.read(f"results/evaluations/{run}.json"))
    assert gathered | {"seconds": 0} == whole | {"seconds": 0}


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
