"""Importance-sampled log-likelihood of the test set (section 4.1), image by image.

    log p(x) ~ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

In two levels: K samples for every test image, and many more, K', for a few drawn at random.
The mean difference between the two on those few corrects the mean of all. It is precise: what
differs between images cancels, and the first K of an image's K' samples are those of level one.

The encoder runs once for an image; samples stream through in chunks, so memory does not
grow with K. Work is cut into blocks of test images, each saved when it is done: an
interrupted evaluation goes on, and shards are nothing but a choice of blocks. A model
without a latent variable needs no sampling; its likelihood is exact.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlae.config.schema import EvaluationConfig, Run, as_dict
from vlae.data.batches import as_input
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError, one_line
from vlae.hardware import autocast, choose_device, choose_precision, describe
from vlae.models.base import Model, Posterior
from vlae.models.build import backend_name
from vlae.models.weights import load_model
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.read import read_npz
from vlae.storage.records import read_training, training_file
from vlae.storage.write import sha256, write_json, write_npz
from vlae.units import bits_per_dim

CHUNK = 16  # samples of an image that are decoded together; fixes which noise is drawn
# Images x samples decoded at once, by the kind of image: what sets peak memory.
ROWS = {"binary": 512, "colour": 64}
MORE_ROWS_ON_A_GPU = 16  # times as many: small batches leave it idle
BLOCK = 250  # test images between two saves
DEEP_BLOCK = 8  # the same with K' samples each: at 64 and 4096 the work of two such blocks
BLOCK_VALUES = ("log_likelihood", "elbo", "kl", "ess")  # of each image, beside its curve
DRAWS = 5  # further binarizations of a dynamic test set: how much the draw matters
DRAW_SAMPLES = 8  # importance samples of each image in each of them
DRAW_BLOCK = 1000  # test images of one such block


@dataclass
class PerImage:
    """Values of each image, nats: log_likelihood, elbo, kl (means over the samples), ess
    (effective samples, 1 to K), each (N,); curve (N, len(ks)): the bound with k samples."""

    log_likelihood: Tensor
    elbo: Tensor
    kl: Tensor
    ess: Tensor
    curve: Tensor


@dataclass(frozen=True)
class Block:
    """Test images that are estimated and saved together; `key`: what the file's content
    depends on beside the checkpoint, the data and the seeds. `draw`: the seed of another
    binarization of the test set than the fixed one."""

    name: str
    images: list[int]
    samples: int
    key: dict
    draw: int | None = None


@dataclass(frozen=True)
class TwoLevel:
    """Nats: the estimate and the correction in it (K' - K samples), with standard errors."""

    nll: float
    nll_se: float
    difference: float
    difference_se: float


def curve_points(samples: int) -> list[int]:
    """1, 2, 4, … and the number of samples itself."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples]


@torch.no_grad()
def importance_sampled(
    model: Model, x: Tensor, noise_seeds: list[int], samples: int, seed: int, precision: str
) -> PerImage:
    """Estimates for images x (B, C, H, W); image b draws its noise from noise_seeds[b]."""
    images = len(x)
    ks = curve_points(samples)
    full = x.dtype if x.dtype == torch.float64 else torch.float32
    with autocast(x.device, precision):
        posterior = model.encode(x)
    log_sum = torch.full((images,), -math.inf, dtype=torch.float64, device=x.device)
    log_squares = log_sum.clone()
    bound = torch.zeros(images, dtype=torch.float64, device=x.device)
    kl = bound.clone()
    curve = torch.zeros(images, len(ks), dtype=torch.float64, device=x.device)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        noise = torch.stack(
            [
                torch.randn(
                    CHUNK,
                    model.latent_dim,
                    generator=generator(seed, f"image {i}", start // CHUNK),
                )
                for i in noise_seeds
            ]
        )[:, :count].to(x.device, full)
        log_w, log_ratio = _log_weights(model, x, posterior, noise, precision)
        partial = torch.logcumsumexp(torch.cat([log_sum[:, None], log_w], 1), 1)[:, 1:]
        for column, k in enumerate(ks):
            if start < k <= start + count:
                curve[:, column] = partial[:, k - start - 1] - math.log(k)
        log_sum = partial[:, -1]
        log_squares = torch.logaddexp(log_squares, torch.logsumexp(2 * log_w, 1))
        bound += log_w.sum(1)
        kl += log_ratio.sum(1)
    return PerImage(
        log_sum - math.log(samples),
        bound / samples,
        kl / samples,
        torch.exp(2 * log_sum - log_squares),
        curve,
    )


def _log_weights(
    model: Model, x: Tensor, posterior: Posterior, noise: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    """log p(x|z) + log p(z) - log q(z|x), and log q(z|x) - log p(z).

    Noise (B, S, latent_dim) -> (B, S) twice, float64, nats.
    """
    images, count = noise.shape[:2]

    def repeat(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.repeat_interleave(count, 0)

    each = Posterior(repeat(posterior.mean), repeat(posterior.log_std), repeat(posterior.context))
    with autocast(x.device, precision):
        z, log_q = model.sample_posterior(each, noise.flatten(0, 1))
        log_ratio = (log_q - model.log_prior(z)).double()
        log_likelihood = model.log_likelihood(repeat(x), z).double()
    shape = (images, count)
    return (log_likelihood - log_ratio).view(shape), log_ratio.view(shape)


@torch.no_grad()
def exact(model: Model, x: Tensor, precision: str) -> PerImage:
    """The same record for a model without a latent: no sampling, no bound."""
    with autocast(x.device, precision):
        value = model.log_likelihood(x, None).double()
    zeros, ones = torch.zeros_like(value), torch.ones_like(value)
    return PerImage(value, value, zeros, ones, value[:, None])


def test_input(dataset: Dataset, config: EvaluationConfig, binarization_seed: int) -> Tensor:
    """The test images as the network's input, float (N, 1, 28, 28) or (N, 3, 32, 32): of a
    dynamic set one fixed draw."""
    random = generator(binarization_seed, "test set")
    x = as_input(torch.from_numpy(dataset.test), dataset.kind, random)
    return x[: config.images] if config.images else x


def deep_subset(images: int, wanted: int, seed: int) -> list[int]:
    """Numbers of the test images of the deep level, in the order drawn: at most all of them.

    Without replacement, and from the count alone: a test set may be sorted by class. A larger
    subset begins with the smaller one and so goes on from its blocks.
    """
    order = torch.randperm(images, generator=generator(seed, "deep level"))
    return order[:wanted].tolist()


def two_level(nll: np.ndarray, deep: np.ndarray, index: np.ndarray | list[int]) -> TwoLevel:
    """Mean NLL of all images, corrected by those that have been given more samples.

    nll (N,): every image with K samples; deep (n,): images `index` with K' samples; nats.

        mean(nll) + mean(deep - nll[index])

    The few are some of all, so the two means covary: Cov = cov(nll, deep - nll) / N. This
    covariance and the variance of the difference are estimated on the n images.
    """
    few = nll[index]
    first, first_se = _mean_and_error(nll)
    difference, difference_se = _mean_and_error(deep - few)
    covariance = float(np.cov(few, deep - few)[0, 1]) / len(nll)
    variance = first_se**2 + difference_se**2 + 2 * covariance
    # The terms stem from different images: for a handful the sum could fall below zero.
    return TwoLevel(first + difference, math.sqrt(max(0.0, variance)), difference, difference_se)


def evaluate(
    run: Run,
    dataset: Dataset,
    device: str = "auto",
    precision: str = "auto",
    shard: tuple[int, int] | None = None,
    samples: int | None = None,
) -> dict | None:
    """Evaluate the run's checkpoint and write results/evaluations/RUN.{json,npz}.

    With shard (i, n), i from 1 to n, only the i-th of n shares is computed and left in
    scratch/; nothing is written to results/ and None returned. Blocks that are there
    already, whoever computed them, are used. `samples` overrides importance_samples and
    leaves the deep level out: so many samples for every image is what was asked for.
    Raises VlaeError for a missing or foreign checkpoint.
    """
    config = run.evaluation
    deep_images = config.deep_images if run.model.latent_dim and not samples else 0
    samples = samples or config.importance_samples
    if not run.model.latent_dim:
        samples = 1
    on = choose_device(device)
    precision = choose_precision(precision, on)
    checkpoint = paths.model(run.name)
    model = load_model(run, on)
    checkpoint_sha256 = sha256(checkpoint)
    training = read_training(Path(), run.name, run.dataset)
    if training is None:
        raise VlaeError(f"{checkpoint}: no {training_file(run.name)} to go with it")
    belongs_to = {
        "checkpoint": checkpoint_sha256,
        "data": dataset.sha256,
        "seed": config.seed,
        "binarization_seed": config.binarization_seed,
    }
    x = test_input(dataset, config, config.binarization_seed)
    index = deep_subset(len(x), deep_images, config.seed)
    first = _first_blocks(len(x), samples)
    deep = _deep_blocks(index, config.deep_samples)
    draws = []
    if dataset.kind.binarization == "dynamic":
        draws = [_draw_blocks(len(x), min(samples, DRAW_SAMPLES), seed) for seed in range(DRAWS)]
    work = [*first, *deep, *chain.from_iterable(draws)]
    mine = work if shard is None else shares(work, shard[1])[shard[0] - 1]
    folder = paths.scratch(run.name) / "evaluation"
    parts = {}
    for block in tqdm(mine, unit="block", disable=None):
        path = folder / f"{block.name}.npz"
        points = len(curve_points(block.samples)) if model.latent_dim else 1
        part = _read_block(path, belongs_to | block.key, len(block.images), points)
        if part is None:
            bits = x
            if block.draw is not None:
                bits = test_input(dataset, config, block.draw)
            images = bits[block.images].to(on)
            part = _estimates(model, images, block.images, block.samples, config.seed, precision)
            about = belongs_to | block.key
            about |= {
                "device": on.type,
                "precision": precision,
                "core": backend_name(run.model, on.type, precision),
                "hardware": describe(on),
            }
            part["about"] = np.array(json.dumps(about))
            write_npz(path, **part)
        parts[block.name] = part
    if shard is not None:
        print(f"{run.name}: shard {shard[0]} of {shard[1]}, {len(mine)} blocks", file=sys.stderr)
        return None
    made_by = [json.loads(str(parts[block.name].pop("about"))) for block in work]
    whole = _joined([parts[block.name] for block in first])
    further = None
    if deep:
        further = {"index": np.array(index, dtype=np.int32)}
        further |= _joined([parts[block.name] for block in deep])
    record = _record(run, dataset, whole, samples, further, checkpoint_sha256, training["epochs"])
    if draws:
        of_each = [_joined([parts[block.name] for block in blocks]) for blocks in draws]
        few = draws[0][0].samples
        fixed = whole["curve"][:, curve_points(samples).index(few)]
        record["draws"] = _other_draws(record["nll"], fixed, of_each, few)
    for key in ("device", "hardware", "precision", "core"):  # of those who computed the blocks
        record[key] = ", ".join(dict.fromkeys(block.get(key, "?") for block in made_by))
    base = paths.evaluation(run.name)
    arrays = {"index": np.arange(len(x), dtype=np.int32)}
    arrays |= {k: v.astype(np.float32) for k, v in whole.items()}
    if further:
        arrays["deep_index"] = further["index"]
        for key in ("log_likelihood", "ess", "curve"):
            arrays[f"deep_{key}"] = further[key].astype(np.float32)
    write_npz(base.with_name(base.name + ".npz"), **arrays)
    write_json(base.with_name(base.name + ".json"), record)
    return record


def evaluate_images(
    model: Model, x: Tensor, first: int, samples: int, seed: int, precision: str
) -> dict[str, np.ndarray]:
    """The arrays of PerImage for test images first, first + 1, …: x (N, C, H, W)."""
    return _estimates(model, x, range(first, first + len(x)), samples, seed, precision)


def _estimates(
    model: Model, x: Tensor, numbers: Sequence[int], samples: int, seed: int, precision: str
) -> dict[str, np.ndarray]:
    """The same for test images `numbers` (N,), whichever they are."""
    rows = ROWS[model.kind] * (MORE_ROWS_ON_A_GPU if x.is_cuda else 1)
    at_once = max(1, rows // min(samples, CHUNK))
    pieces = []
    for start in range(0, len(x), at_once):
        piece = x[start : start + at_once]
        noise_seeds = list(numbers[start : start + at_once])
        pieces.append(
            importance_sampled(model, piece, noise_seeds, samples, seed, precision)
            if model.latent_dim
            else exact(model, piece, precision)
        )
    names = (*BLOCK_VALUES, "curve")
    return {n: torch.cat([getattr(p, n) for p in pieces]).cpu().numpy() for n in names}


def _first_blocks(images: int, samples: int) -> list[Block]:
    """All test images, in their order."""
    key = {"samples": samples, "block": BLOCK}
    blocks = []
    for start in range(0, images, BLOCK):
        numbers = list(range(start, min(start + BLOCK, images)))
        name = f"images-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, key))
    return blocks


def _deep_blocks(index: list[int], samples: int) -> list[Block]:
    """The images of the deep level, in the order drawn: which they are is part of the key."""
    blocks = []
    for start in range(0, len(index), DEEP_BLOCK):
        numbers = index[start : start + DEEP_BLOCK]
        name = f"deep-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, {"samples": samples, "images": numbers}))
    return blocks


def _draw_blocks(images: int, samples: int, seed: int) -> list[Block]:
    """All test images in another binarization, the one of this seed."""
    blocks = []
    for start in range(0, images, DRAW_BLOCK):
        numbers = list(range(start, min(start + DRAW_BLOCK, images)))
        name = f"draw-{seed}-{start:05d}-{start + len(numbers):05d}"
        blocks.append(Block(name, numbers, samples, {"samples": samples, "draw": seed}, seed))
    return blocks


def shares(work: list[Block], count: int) -> list[list[Block]]:
    """So many shares of about the same work: the largest block left to who has least."""
    found: list[list[Block]] = [[] for _ in range(count)]
    sizes = [0] * count
    for block in sorted(work, key=_size, reverse=True):
        least = sizes.index(min(sizes))
        found[least].append(block)
        sizes[least] += _size(block)
    return found


def _size(block: Block) -> int:
    return len(block.images) * block.samples


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several blocks, one behind the other."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _read_block(
    path: Path, belongs_to: dict, images: int, points: int
) -> dict[str, np.ndarray] | None:
    """A block computed before from the very same things; None where there is none.

    `images` of them, and `points` in the curve of each.
    """
    shapes = dict.fromkeys(BLOCK_VALUES, (images,)) | {"curve": (images, points)}
    try:
        with open(path, "rb") as file:
            block = read_npz(file)
        about = json.loads(str(block["about"]))
        if not isinstance(about, dict):
            raise ValueError("no description in it")
        if any(about.get(key) != value for key, value in belongs_to.items()):
            return None
        if {key: block[key].shape for key in block if key != "about"} != shapes:
            raise ValueError("not the values of these images")
        if not all(block[key].dtype.kind == "f" for key in shapes):
            raise ValueError("values that are no real numbers")
        return block
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        print(f"{path} cannot be read ({one_line(error)}); computed again", file=sys.stderr)
        return None


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over the images."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _record(
    run: Run,
    dataset: Dataset,
    whole: dict[str, np.ndarray],
    samples: int,
    further: dict[str, np.ndarray] | None,
    checkpoint_sha256: str,
    epochs: int,
) -> dict:
    """`whole`: the arrays of all images; `further`: those of the deep level, of test images
    further["index"], or None without one. What each key of the record is: docs/evaluation.md.
    """
    each = -whole["log_likelihood"]
    first_nll, first_se = nll, nll_se = _mean_and_error(each)
    elbo, elbo_se = _mean_and_error(whole["elbo"])
    kl, kl_se = _mean_and_error(whole["kl"])
    is_exact = not run.model.latent_dim
    points = [1] if is_exact else curve_points(samples)
    curve = [(k, *_mean_and_error(-whole["curve"][:, i])) for i, k in enumerate(points)]
    estimator, deep = "exact" if is_exact else "importance sampling", None
    if further:
        deep_samples, index = run.evaluation.deep_samples, further["index"]
        both = two_level(each, -further["log_likelihood"], index)
        estimator, nll, nll_se = "two-level", both.nll, both.nll_se
        deep = {
            "images": len(index),
            "importance_samples": deep_samples,
            "difference": both.difference,
            "difference_se": both.difference_se,
        }
        for i, k in enumerate(curve_points(deep_samples)):
            if k > samples:
                at_k = two_level(each, -further["curve"][:, i], index)
                curve.append((k, at_k.nll, at_k.nll_se))
    return {
        "run": run.name,
        "dataset": run.dataset,
        "nll": nll,
        "nll_se": nll_se,
        "nll_first_level": first_nll,
        "nll_first_level_se": first_se,
        "elbo": elbo,
        "elbo_se": elbo_se,
        "kl": kl,
        "kl_se": kl_se,
        "reconstruction": -elbo - kl,
        "bits_per_dim": bits_per_dim(nll, dataset.test[0].size),
        "importance_samples": samples,
        "estimator": estimator,
        "deep": deep,
        "exact": is_exact,
        "ess": float(whole["ess"].mean()),
        "n_test": len(whole["elbo"]),
        "curve": [{"k": k, "nll": value, "se": error} for k, value, error in curve],
        "epochs": epochs,
        "checkpoint_sha256": checkpoint_sha256,
        "data_sha256": dataset.sha256,
        "seed": run.evaluation.seed,
        "binarization_seed": run.evaluation.binarization_seed,
        "config": as_dict(run.evaluation),
    }


def _other_draws(
    nll: float, fixed: np.ndarray, draws: list[dict[str, np.ndarray]], samples: int
) -> list[dict]:
    """What the NLL would be with other fixed draws of the test bits: how much the draw matters.

    `fixed` (N,): the bound of the images of the one fixed draw with so many samples.

    Few samples an image say by how much the bound of another draw differs from that of the
    fixed one with as few; the bias of few samples is in both. The NLL differs by as much. The
    likelihood of a model without a latent is exact, and so is this.
    """
    differences = [fixed.mean() - draw["log_likelihood"].mean() for draw in draws]
    return [
        {"seed": seed, "nll": float(nll + difference), "importance_samples": samples}
        for seed, difference in enumerate(differences)
    ]
