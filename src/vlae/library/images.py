"""Test images, and the check of images that a caller passes in.

Images are uint8 tensors as data sets store them: binary ones (N, 28, 28) of 0 and 1, colour ones
(N, 3, 32, 32) of 0 to 255.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vlae.config.load import image_kind, inherited_evaluation
from vlae.data import dataset as prepared
from vlae.data.batches import as_stored
from vlae.data.fetch import MIRROR_VARIABLE, fetch
from vlae.evaluation.evaluate import test_input
from vlae.images import COLOUR, FIXED, ImageKind
from vlae.library.project import find_project
from vlae.storage import paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

KINDS = {kind.name: kind for kind in (FIXED, COLOUR)}


def test_images(
    dataset: str, count: int | None = None, home: str | os.PathLike | None = None
) -> Tensor:
    """`count` test images of a data set, evenly spaced over its test set, or all of them.

    Binary ones are uint8 (N, 28, 28) of 0 and 1; grey data sets are binarized by the fixed draw
    that recorded evaluations use (seed 777). Colour ones are uint8 (N, 3, 32, 32). The data set
    is downloaded into the project `home` if it is not there yet; VLAE_DATA_MIRROR is tried first.

    Raises VlaeError for an unknown data set or one that cannot be had, ValueError for a count
    that the test set does not have.
    """
    project = find_project(home)
    spec = project.params.dataset(dataset)
    if not (project.root / paths.dataset(dataset)).exists():
        fetch(dataset, spec, project.root, os.environ.get(MIRROR_VARIABLE))
    images = prepared.load(dataset, image_kind(spec), project.root / "data")
    config = inherited_evaluation(project.params, dataset)
    x = as_stored(test_input(images, config, config.binarization_seed))
    if count is None:
        return x
    if not 1 <= count <= len(x):
        raise ValueError(
            f"count must be 1 to {len(x):,}, the test images of {dataset}; is {count}"
        )
    return x[torch.linspace(0, len(x) - 1, count).round().long()]


def check_images(images: "ArrayLike | Tensor", kind: ImageKind) -> Tensor:
    """Images as uint8 (N, *kind.shape), from a tensor or array of these or, for binary images,
    (N, 1, 28, 28), booleans, or floating-point zeros and ones.

    kind: of images as models draw them, FIXED or COLOUR.
    Raises ValueError, saying what was expected and what was passed.
    """
    wanted = f"{kind.name} images must be (N, {', '.join(map(str, kind.shape))})"
    x = images if isinstance(images, Tensor) else _tensor(images)
    if kind is FIXED and x.ndim == 4 and x.shape[1] == 1:
        x = x[:, 0]
    if x.shape[1:] != kind.shape:
        raise ValueError(f"{wanted}, not {tuple(x.shape)}")
    if not len(x):
        raise ValueError(f"{wanted} with N of at least 1")
    if x.is_complex() or (kind is COLOUR and x.is_floating_point()):
        raise ValueError(f"{wanted} of integers 0 to {kind.largest}, not {x.dtype}")
    whole = x.to(torch.uint8) if not x.is_floating_point() or x.isfinite().all() else None
    if whole is None or not torch.equal(whole.to(x.dtype), x) or whole.max() > kind.largest:
        how = (
            "; grey values from 0 to 1 become bits by, for example, x > 0.5"
            if kind is FIXED
            else ""
        )
        raise ValueError(f"{wanted} with the values {_values(kind)} only{how}")
    return whole.cpu()


def _values(kind: ImageKind) -> str:
    return "0 and 1" if kind.largest == 1 else f"0 to {kind.largest}"


def _tensor(images: Any) -> Tensor:
    array = np.asarray(images)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"images must be a tensor or an array of numbers, not {array.dtype}")
    if array.dtype.kind == "u" and array.dtype != np.uint8:  # torch has few unsigned types
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))
