"""The project in miniature: the real Snakefile, DVC and package on small files."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from miniature import PROJECT, made_up_arrays, small_params
from vlae.data.formats import cifar
from vlae.images import image_kind

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
    """Images (N, 28, 28), or labels (N,)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"".join(n.to_bytes(4, "big") for n in (0x800 + images.ndim, *images.shape))
    path.write_bytes(header + images.tobytes())


def write_cifar(path: Path, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    train = np.split(arrays["train"], cifar.BATCHES)
    names = (*cifar.TRAIN_MEMBERS, cifar.TEST_MEMBER)
    parts = (cifar.records(part, np.arange(len(part)) % 10) for part in (*train, arrays["test"]))
    cifar.write_tar(path, dict(zip(names, parts, strict=True)))


def generate_files(mirror: Path, tree: dict, real: str | None = None) -> None:
    """Small files in the formats of the data sets, and their sums in the blocks of params; of
    MNIST the first images of the files in the folder `real`, if one is given."""
    for name, spec in tree["datasets"].items():
        if spec["kind"] == "colour":
            arrays = made_up_arrays("none", train=30, valid=10, test=16)
        elif real and spec["format"] in ("amat", "idx"):
            arrays = first_images(Path(real), spec)
        else:
            arrays = made_up_arrays(image_kind(spec).binarization, train=96, valid=32, test=128)
        spec["splits"] = {split: len(arrays[split]) for split in ("train", "valid", "test")}
        if "valid" not in spec["files"]:
            arrays["train"] = np.concatenate([arrays["train"], arrays["valid"]])
        for split, entry in spec["files"].items():
            path = mirror / entry["path"]
            if spec["format"] == "cifar10_tar":
                write_cifar(path, arrays)
            else:
                {"amat": write_amat, "idx": write_idx}[spec["format"]](path, arrays[split])
            note_content(entry, path)
        if name in tree["labels"]:
            generate_labels(mirror, name, tree["labels"][name]["files"], arrays)


def note_content(entry: dict, path: Path) -> None:
    content = path.read_bytes()
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    entry["urls"] = []  # the mirror or nothing


def generate_labels(mirror: Path, name: str, files: dict, arrays: dict) -> None:
    """Made-up labels. Binary images are in another order than the grey ones, from which they are
    known: 0 and 255 give the same bits whenever they are drawn."""
    train = arrays["train"]
    if len(files) == 4:  # with grey images, which data sets of binary ones need
        train = np.concatenate([train, arrays["valid"]])
    for part, images in (("train", train), ("test", arrays["test"])):
        files[f"labels_{part}"]["made"] = np.arange(len(images), dtype=np.uint8) % 10
        if len(files) == 4:
            files[f"grey_{part}"]["made"] = 255 * images[::-1]
    for key, entry in files.items():
        entry["path"] = f"{name}/{key}"
        write_idx(mirror / entry["path"], entry.pop("made"))
        note_content(entry, mirror / entry["path"])


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
        with gzip.open(f"{path}.gz") as file:
            pixels = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    else:
        pixels = np.loadtxt(f"{path}.gz", np.uint8, max_rows=count)
    return pixels.reshape(count, 28, 28)


def write_params(folder: Path, mirror: Path, runs: Sequence[str]) -> None:
    """Some of the runs with tiny networks, and `mirror` with small files of their data."""
    small_params(folder, {"batch_size": 32}, {"importance_samples": 4})
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["runs"] = {run: tree["runs"][run] for run in runs if run not in tree["refined"]}
    tree["refined"] = {run: tree["refined"][run] for run in runs if run in tree["refined"]}
    used = {run["dataset"] for run in tree["runs"].values()}
    tree["datasets"] = {name: spec for name, spec in tree["datasets"].items() if name in used}
    classifiers = tree["classifiers"].items()
    tree["classifiers"] = {name: config for name, config in classifiers if name in used}
    for section in ("codelengths", "lossy", "probes"):
        tree[section] = {
            run: config
            for run, config in tree[section].items()
            if run in tree["runs"] and config["dataset"] in tree["datasets"]
        }
    for config in tree["codelengths"].values():
        config["images"] = 8  # the first ones are unpacked one by one, pixel after pixel
    for config in tree["lossy"].values():
        config |= {"images": 8, "bits": 8}
    probed = {config["dataset"] for config in tree["probes"].values()}
    tree["labels"] = {name: block for name, block in tree["labels"].items() if name in probed}
    mirror.mkdir()
    tree["defaults"]["colour"]["training"]["batch_size"] = 8
    generate_files(mirror, tree, MIRROR)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def copy_tree(folder: Path) -> None:
    """What of this repository a workflow needs, without its results."""
    for name in TREE.split():
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target, follow_symlinks=False)


def new_workflow(folder: Path, runs: Sequence[str]) -> Workflow:
    """A commit of the project with some of its runs in miniature, in a folder below this one."""
    project = folder / "project"
    copy_tree(project)
    write_params(project, folder / "mirror", runs)
    workflow = Workflow(project, folder / "mirror")
    workflow.do("git", "init", "--quiet")
    workflow.commit("the project")
    return workflow


def row(workflow: Workflow, table: str, model: str) -> str:
    """The line of a table for one of our models."""
    lines = workflow.read(f"results/tables/{table}.md").splitlines()
    (line,) = [line for line in lines if f"**{model}**" in line]
    return line
