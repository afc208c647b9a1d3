"""Small runs and made-up data for the tests: the real code, a few seconds of it."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from vlae.config.load import load_params
from vlae.config.schema import Params, Run
from vlae.images import image_kind
from vlae.storage.write import write_npz

PROJECT = Path(__file__).resolve().parents[2]

SMALL = {
    "latent_dim": 6,
    "trunk_maps": [4, 4, 4],
    "trunk_hidden": 16,
    "prior": {"steps": 2, "hidden": 12},
    "posterior": {"steps": 2, "hidden": 12},
    "decoder": {"filters": 4, "maps": 2},
}

SMALL_COLOUR = {
    "widths": [6, 6, 6],
    "latent_maps": 2,
    "flow_steps": 2,
    "flow_maps": 4,
    "blocks": 2,
    "maps": 4,
    "mixtures": 2,
}


# The configuration of a colour model, whole.
SMALL_COLOUR_VLAE = {
    "widths": (6, 12, 12),
    "latent_maps": 2,
    "flow_steps": 2,
    "flow_maps": 8,
    "flow_layers": 2,
    "flow_scale": False,
    "window": "5x3",
    "grayscale": False,
    "blocks": 2,
    "maps": 6,
    "mixtures": 3,
}


def merge(base: dict, changes: dict) -> dict:
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


@cache
def params_of_the_project() -> tuple[dict, dict[str, Run]]:
    """What its params.yaml says, and its runs; read once."""
    path = PROJECT / "params.yaml"
    return yaml.safe_load(path.read_text()), load_params(path).runs


def small_params(
    folder: Path, training: dict | None = None, evaluation: dict | None = None
) -> Params:
    """params.yaml with tiny networks, one epoch, 20 samples and 50 for a few images; written
    to `folder` and read."""
    tree, real = params_of_the_project()
    tree = copy.deepcopy(tree)
    small = {
        "training": {"epochs": 1, "batch_size": 8, "init_images": 16, **(training or {})},
        "evaluation": {
            "importance_samples": 20,
            "images": 0,
            "deep_images": 12,
            "deep_samples": 50,
            **(evaluation or {}),
        },
    }
    few = {"evaluation": {"importance_samples": 3, "images": 8, "deep_images": 3}}
    colour = merge(small, few) | {"model": SMALL_COLOUR}
    binary = small | {"model": SMALL}
    tree["defaults"] = merge(tree["defaults"], {"binary": binary, "colour": colour})
    for run in tree["runs"].values():
        if "repeats" in run:
            continue
        # What makes the run itself is kept; its sizes are the small ones.
        if tree["datasets"][run["dataset"]]["kind"] == "colour":
            kept = {"trunk", "window", "grayscale"}
            run["model"] = {key: value for key, value in run["model"].items() if key in kept}
        elif run["model"].get("latent_dim") != 0:
            kept = {"flow", "kind"}
            run["model"] = {
                part: {key: value for key, value in block.items() if key in kept}
                for part, block in run["model"].items()
                if isinstance(block, dict)
            }
        run |= {"training": {}, "evaluation": {}}
    for name, run in tree["refined"].items():
        begun = run["training"]["start_from"]
        run["model"] = copy.deepcopy(tree["runs"][begun]["model"])
        if real[name].model.decoder.filters > real[begun].model.decoder.filters:
            run["model"].setdefault("decoder", {})["filters"] = 6
        kept = {"start_from", "bound_samples", "bound_gradient", "free_bits"}
        run["training"] = {key: value for key, value in run["training"].items() if key in kept}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_params(path)


def made_up_arrays(binarization: str, train: int = 64, valid: int = 16, test: int = 40) -> dict:
    """Blobs at random places: something to learn, in a second. Noise for colour images."""
    random = np.random.default_rng(0)
    if binarization == "none":
        counts = {"train": train, "valid": valid, "test": test}
        images = {s: random.integers(0, 256, (n, 3, 32, 32), np.uint8) for s, n in counts.items()}
        return images | {f"{s}_labels": np.zeros(n, np.uint8) for s, n in counts.items()}
    arrays = {}
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        centre = random.uniform(8, 20, (2, count, 1, 1))
        rows, columns = np.mgrid[:28, :28]
        distance = np.hypot(rows - centre[0], columns - centre[1])
        grey = np.clip(255 - 30 * distance, 0, 255)
        arrays[split] = (grey > 120 if binarization == "fixed" else grey).astype(np.uint8)
    return arrays


def write_data(folder: Path, params: Params) -> None:
    for name, spec in params.datasets.items():
        write_npz(folder / "data" / f"{name}.npz", **made_up_arrays(image_kind(spec).binarization))
