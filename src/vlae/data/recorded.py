"""Reads a prepared data set and compares it with the recorded one.

The record is the MD5 in dvc.lock, which is part of the repository. DVC itself is not needed.
"""

from vlae.data.dataset import Dataset, load
from vlae.data.fetch import pins
from vlae.errors import VlaeError
from vlae.images import image_kind
from vlae.storage import paths
from vlae.storage.dvc_lock import LOCK, md5, read_stages
from vlae.storage.read import read_json


def load_recorded(name: str, spec: dict) -> Dataset:
    """Read the prepared data set `name`; `spec` is its block in params.yaml.

    Raises VlaeError like vlae.data.dataset.load, and also if dvc.lock records another data set for
    the same files, splits and code.
    """
    dataset = load(name, image_kind(spec))
    recorded = _recorded_md5(name, spec)
    if recorded is None:
        return dataset
    path = paths.dataset(name)
    found = md5(path)
    if found != recorded:
        raise VlaeError(
            f"{path} is not the data set that {LOCK} records (its MD5 is {found}, not "
            f"{recorded}); run `vlae fetch {name}` to prepare it again"
        )
    return dataset


def _recorded_md5(name: str, spec: dict) -> str | None:
    """Return the MD5 of the prepared file in dvc.lock.

    Returns None if nothing is recorded for these files, splits and code.
    """
    recipe = paths.recipe(name, "data")
    try:
        content, stage = read_json(recipe), read_stages(LOCK)[f"fetch@{name}"]
        (made_from,), (made,) = stage["deps"], stage["outs"]
        same_code = made_from["md5"] == md5(recipe)
        same_files = all(content.get(key) == value for key, value in pins(spec).items())
        return str(made["md5"]) if same_code and same_files else None
    except (VlaeError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None
