"""What docs/data.md says of data of one's own: its blocks go through the whole pipeline."""

import hashlib
import re
import struct

import numpy as np
import pytest
import yaml
from PIL import Image

from miniature import PROJECT, made_up_arrays
from pipeline import Workflow, new_workflow
from vlae.data.formats import torchvision_sets
from vlae.data.formats.idx import IDX_MAGIC, write_idx
from vlae.storage.write import sha256

RUNS = ["fashion-vlae", "photographs-vlae", "letters-vlae"]
WANTED = [
    "results/figures/learning_curves.png",
    *(f"results/evaluations/{run}.json" for run in RUNS),
    *(f"results/samples/{run}.npz" for run in RUNS),
]
COUNTS = {"train": 64, "valid": 16, "test": 40}


def documented() -> list[dict]:
    text = (PROJECT / "docs" / "data.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def write_fashion(workflow: Workflow) -> None:
    """A few images in the files of FashionMNIST, and their checksums in the place of
    torchvision's."""
    arrays, sums = made_up_arrays("dynamic", **COUNTS), {}
    mirror = workflow.folder.parent / "mirror" / "FashionMNIST"
    mirror.mkdir()
    train = np.concatenate([arrays["train"], arrays["valid"]])
    for key, images in (("train", train), ("test", arrays["test"])):
        file = torchvision_sets.KEYS[key]
        write_idx(mirror / file, images)
        sums[file] = hashlib.md5((mirror / file).read_bytes()).hexdigest()
    source = "src/vlae/data/formats/torchvision_sets.py"
    workflow.replace(source, "sums = dict(known.resources)", f"sums = {sums}")


def write_photographs(workflow: Workflow) -> None:
    random = np.random.default_rng(0)
    folder = workflow.folder / "pictures"
    folder.mkdir()
    for number in range(sum(COUNTS.values())):
        size = random.integers(20, 50, 2)
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def write_letters(workflow: Workflow) -> dict:
    """Files of idx's layout at the mirror; returns their checksums and sizes by split."""
    arrays = made_up_arrays("dynamic", **COUNTS)
    arrays["train"] = np.concatenate([arrays["train"], arrays["valid"]])
    pins = {}
    for split in ("train", "test"):
        path = workflow.folder.parent / "mirror" / "letters" / f"{split}.idx"
        path.parent.mkdir(exist_ok=True)
        header = struct.pack(">4i", IDX_MAGIC, len(arrays[split]), 28, 28)
        path.write_bytes(header + arrays[split].tobytes())
        pins[split] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    return pins


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Workflow:
    """The project with nothing but the data sets and runs of docs/data.md, after one call."""
    workflow = new_workflow(tmp_path_factory.mktemp("own"), ())
    write_fashion(workflow)
    write_photographs(workflow)
    letters = write_letters(workflow)

    def add(tree: dict) -> None:
        for block in documented():
            tree["datasets"] |= block["datasets"]
            tree["runs"] |= block["runs"]
        for spec in tree["datasets"].values():
            spec["splits"] = dict(COUNTS)
        for split, entry in tree["datasets"]["letters"]["files"].items():
            entry |= letters[split]
        for run in tree["runs"].values():
            run["training"] = {}  # the short ones of the miniature

    workflow.edit_params(add)
    workflow.snakemake(*WANTED)
    return workflow


def test_every_block_of_the_documentation_is_a_run(own):
    runs = [run for block in documented() for run in block["runs"]]
    assert runs == RUNS
    assert own.trained() == set(runs)
    for run in runs:
        assert (own.folder / f"results/evaluations/{run}.json").exists()
        assert (own.folder / f"results/samples/{run}.npz").exists()
    assert (own.folder / "results/figures/learning_curves.png").exists()


def test_a_second_call_computes_nothing(own):
    said = own.snakemake("--dry-run")
    (line,) = [line for line in said.splitlines() if line.startswith("vlae: ")]
    assert line.startswith("vlae: draw ") and "learning_curves" not in line
