"""Sends the codes of a run's test images, and measures what comes back (figure lossy)."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vlae.coding import other_formats
from vlae.coding.image_files import image_writer, open_images
from vlae.coding.lossy_codec import compress_lossy, decompress_lossy, file_bytes
from vlae.config.schema import LossyConfig, Run, as_dict
from vlae.data.batches import as_stored
from vlae.data.dataset import Dataset
from vlae.evaluation.evaluate import test_input
from vlae.evaluation.sample import decompress
from vlae.hardware import describe
from vlae.models.weights import load_model
from vlae.revision import revision
from vlae.storage import paths
from vlae.storage.write import sha256, write_json, write_npz

SHOWN = 16  # images of which the figure has originals and draws
DRAWS = 3


def write_lossy(run: Run, config: LossyConfig, dataset: Dataset) -> dict:
    """Send the codes of test images, draw images from them, and return the record.

    The images are evenly spaced over the test set, which may be sorted by class. Writes
    results/lossy/RUN.json and RUN.npz: `originals` and `draws` of some of them, uint8
    (SHOWN, 28, 28) and (DRAWS, SHOWN, 28, 28) of 0 and 1; `backs`, what the other formats of the
    record give back of these, grey, uint8 (formats, SHOWN, 28, 28); and `all_draws`, the first
    draw of all images as packed bits. On one thread.
    """
    torch.set_num_threads(1)
    x = test_input(dataset, run.evaluation, run.evaluation.binarization_seed)
    x = x[_spread(len(x), config.images)]
    pixels = as_stored(x).numpy()
    shown = _spread(len(pixels), SHOWN)
    model = load_model(run, torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="vlae-") as name:
        raw, sent = Path(name, "images.idx"), Path(name, "sent")
        with image_writer(raw, "idx", len(pixels), []) as writer:
            writer.write(pixels)
        started = time.perf_counter()
        done = compress_lossy(run.name, model, [raw], sent, config.bits)
        between = time.perf_counter()
        draws = []
        for seed in range(DRAWS):
            header = decompress_lossy(sent, Path(name, f"{seed}"), lambda run: model, seed)
            with open_images([Path(name, f"{seed}")]) as found:
                draws.append(found.read(0, found.count))
        ended = time.perf_counter()
    direct = as_stored(decompress(model, x, run.evaluation.seed)).numpy()
    others = other_formats.smallest(pixels, shown)
    backs = [other.pop("back") for other in others]
    record = {
        "run": run.name,
        **as_dict(config),
        "n_test": len(pixels),
        "file_bytes": done.file_bytes,
        "header_bytes": done.header_bytes,
        "hundred_bytes": file_bytes(replace(header, images=100)),
        "bits_per_image": 8 * (done.file_bytes - done.header_bytes) / len(pixels),
        "kl_bits": done.kl_bits,
        "poor_images": done.poor,
        "effective_samples": done.effective,
        "pixel_error": float(np.mean(draws[0] != pixels)),
        "pixel_error_of_posterior": float(np.mean(direct != pixels)),
        "compress_seconds": between - started,
        "draw_images_per_second": DRAWS * len(pixels) / (ended - between),
        "others": others,
        "hardware": describe(torch.device("cpu")),
        "torch": torch.__version__,
        "git_revision": revision(),
        "data_sha256": dataset.sha256,
        "checkpoint_sha256": sha256(paths.checkpoint(run.name) / paths.MODEL),
    }
    write_npz(
        paths.lossy_images(run.name),
        originals=pixels[shown],
        draws=np.stack(draws)[:, shown],
        all_draws=np.packbits(draws[0]),
        backs=np.stack(backs),
    )
    write_json(paths.lossy(run.name), record)
    return record


def _spread(count: int, most: int) -> np.ndarray:
    """Return at most `most` of the numbers below `count`, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)
