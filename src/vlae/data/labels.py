"""Prepares and reads the labels of a data set's images, data/labels/NAME.npz.

They have a file of their own. So the prepared images, on which all trainings depend, stay the
same bytes.
"""

from pathlib import Path

import numpy as np

from vlae.data.dataset import SPLITS, label_name
from vlae.data.fetch import data_recipe, raw_files, reading
from vlae.data.formats.registry import LABEL_FORMATS
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_npz
from vlae.storage.write import write_npz


def labels_spec(spec: dict, block: dict) -> dict:
    """Return where the labels of a data set are, and how many: a block as in `datasets:`.

    spec: the data set's block of `datasets:`. block: its block of `labels:`. The files are those
    of both that the format of labels needs.
    """
    files = spec["files"] | block.get("files", {})
    needed = LABEL_FORMATS[spec["format"]].needed
    return spec | block | {"files": {key: files[key] for key in needed}}


def fetch_labels(
    name: str, spec: dict, block: dict, root: Path = Path("."), mirror: str | None = None
) -> Path:
    """Fetch and prepare the labels of data set `name`; return ROOT/data/labels/NAME.npz.

    spec, block: see `labels_spec`. mirror and the errors: see vlae.data.fetch.fetch.
    """
    whole = labels_spec(spec, block)
    with reading(name):
        format, raw = raw_files(name, whole, root, mirror)
        arrays = prepare_labels(name, whole | {"format": format}, raw)
    target = root / paths.labels(name)
    write_npz(target, **arrays)
    return target


def prepare_labels(name: str, spec: dict, raw: dict[str, Path]) -> dict[str, np.ndarray]:
    """Return the arrays of data/labels/NAME.npz: train_labels, valid_labels, test_labels.

    Each is uint8 (N,), in the order of the images. Raises VlaeError unless the raw files hold
    labels below spec["classes"] for exactly the images of spec["splits"].
    """
    labels = LABEL_FORMATS[spec["format"]].read(raw, spec)
    for split, values in labels.items():
        if values.max() >= spec["classes"]:
            raise VlaeError(
                f"{name}: {split} has the label {values.max()}; labels.{name}.classes says that "
                f"the largest is {spec['classes'] - 1}"
            )
    return {label_name(split): labels[split] for split in SPLITS}


def labels_recipe(name: str, spec: dict, block: dict) -> dict:
    """Return what the prepared labels depend on (see vlae.data.fetch.data_recipe)."""
    recipe = data_recipe(name, labels_spec(spec, block), LABEL_FORMATS, prepare_labels)
    del recipe["binarization"]  # concerns the images only
    return recipe | {"classes": block["classes"]}


def load_labels(name: str, root: Path = Path(".")) -> dict[str, np.ndarray]:
    """Return the prepared labels of data set `name`: split -> uint8 (N,), in the images' order.

    Raises VlaeError if the file is missing or is not a file of labels.
    """
    path, names = root / paths.labels(name), {split: label_name(split) for split in SPLITS}
    try:
        with open(path, "rb") as file:
            arrays = read_npz(file)
    except FileNotFoundError:
        raise VlaeError(f"{path} is missing; run `vlae labels {name}`") from None
    except (OSError, ValueError) as error:
        raise VlaeError(
            f"{path} cannot be used: {error}; run `vlae labels {name}` again"
        ) from None
    for key in names.values():
        if key not in arrays or arrays[key].dtype != np.uint8 or arrays[key].ndim != 1:
            raise VlaeError(f"{path}: {key} is not uint8 (N,); run `vlae labels {name}` again")
    return {split: arrays[key] for split, key in names.items()}
