"""The project with a single small run, to be disturbed while it is trained."""

import json
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from miniature import small_params
from pipeline import MIRROR, Workflow, copy_tree, generate_files
from vlae.storage.write import sha256

RUN = "static_mnist-vlae"
MODEL = f"results/checkpoints/{RUN}/model.safetensors"


def new_project(
    folder: Path,
    mirror: Path | str,
    training: dict,
    evaluation: dict,
    real: str | None = None,
) -> Workflow:
    """A commit of the project with a single run of a tiny network, on the data of `mirror`: the
    real ones, or small files that are written there (pipeline.generate_files)."""
    copy_tree(folder)
    small_params(folder, training, evaluation)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["runs"] = {RUN: tree["runs"][RUN]}
    tree["refined"] = {}
    tree["datasets"] = {"static_mnist": tree["datasets"]["static_mnist"]}
    tree.update(classifiers={}, codelengths={}, labels={}, lossy={}, probes={})
    if mirror != MIRROR:
        generate_files(mirror, tree, real)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    workflow = Workflow(folder, mirror)
    workflow.do("git", "init", "--quiet")
    workflow.commit("the project")
    return workflow


def prepared_project(folder: Path, epochs: int) -> Workflow:
    """On generated data, which are there; the run is not trained."""
    training = {"epochs": epochs, "batch_size": 8}
    workflow = new_project(folder / "project", folder / "mirror", training, {})
    workflow.do("snakemake", "--cores", "2", "data/static_mnist.npz")
    return workflow


def undisturbed_weights(prepared: Workflow, folder: Path, threads: int = 0) -> str:
    """SHA-256 of the weights of a training that nothing disturbed, in a copy of the project.

    threads: their number, if it is not that of the tests. Without the core it changes rounding.
    """
    workflow = prepared.copy_to(folder)
    if threads:
        workflow.env |= {"OMP_NUM_THREADS": str(threads)}
    workflow.do("vlae", "train", RUN)
    return sha256(workflow.folder / MODEL)


def history(workflow: Workflow) -> list[dict]:
    """What steps each start of the trainer did up to its last save, of the newest state."""
    states = list((workflow.folder / "scratch" / RUN).glob("state-*.safetensors"))
    if not states:
        return []
    with open(max(states, key=lambda path: path.stat().st_mtime_ns), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["vlae"])["history"]


def trainer(workflow: Workflow) -> psutil.Process:
    """The process that trains at the moment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended meanwhile
            here = process.cwd() == str(workflow.folder)
            if here and process.cmdline()[1:5] == ["-m", "vlae", "train", RUN]:
                return process
    raise AssertionError("no trainer is running")
