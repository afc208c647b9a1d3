"""Measures how long the code of a run's test images is, and that they come back from it."""

import tempfile
import time
from pathlib import Path

import torch

from vlae.coding import other_formats
from vlae.coding.codec import coding_model, compress, decompress
from vlae.coding.image_files import image_writer, open_images
from vlae.config.schema import CodelengthConfig, Run, as_dict
from vlae.data.batches import as_stored
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.evaluation.evaluate import test_input
from vlae.hardware import describe
from vlae.models.weights import load_model
from vlae.revision import revision
from vlae.storage import paths
from vlae.storage.write import sha256, write_json


def write_codelength(run: Run, config: CodelengthConfig, dataset: Dataset) -> dict:
    """Compress test images with a run's model and unpack them, on one thread; return the record.

    Writes results/codelengths/RUN.json, which also has what other formats need for the same
    images. Raises VlaeError if an image does not come back.
    """
    torch.set_num_threads(1)
    images = as_stored(test_input(dataset, run.evaluation, run.evaluation.binarization_seed))
    images = images[: config.images] if config.images else images
    pixels = images.numpy()
    model = coding_model(run.name, load_model(run, torch.device("cpu")))
    with tempfile.TemporaryDirectory(prefix="vlae-") as name:
        raw, packed, back = (Path(name, part) for part in ("images.idx", "packed", "back.idx"))
        with image_writer(raw, "idx", len(pixels), []) as writer:
            writer.write(pixels)
        started = time.perf_counter()
        done = compress(run.name, model, [raw], packed)
        between = time.perf_counter()
        decompress(packed, back, lambda run: model)
        ended = time.perf_counter()
        with open_images([back]) as found:
            if found.read(0, found.count).tobytes() != pixels.tobytes():
                raise VlaeError(f"{run.name}: the images that come back are not those compressed")
        file_sha256 = sha256(packed)
    record = {
        "run": run.name,
        **as_dict(config),
        "n_test": len(pixels),
        "file_bytes": done.file_bytes,
        "header_bytes": done.header_bytes,
        "bits_per_image": done.bits_per_image,
        "encode_images_per_second": len(pixels) / (between - started),
        "decode_images_per_second": len(pixels) / (ended - between),
        "file_sha256": file_sha256,
        "arithmetic": model.check.hex(),
        "others": [other_formats.measure(one, pixels) for one in other_formats.formats()],
        "hardware": describe(torch.device("cpu")),
        "torch": torch.__version__,
        "git_revision": revision(),
        "data_sha256": dataset.sha256,
        "checkpoint_sha256": sha256(paths.checkpoint(run.name) / paths.MODEL),
    }
    write_json(paths.codelength(run.name), record)
    return record
