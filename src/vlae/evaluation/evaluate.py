"""Evaluates one run: plans its blocks, computes those that are missing, and gathers them.

docs/evaluation.md describes every key of the record.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlae.config.schema import EvaluationConfig, Run, as_dict
from vlae.data.batches import as_input
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.evaluation.blocks import (
    Block,
    deep_blocks,
    draw_blocks,
    first_blocks,
    joined,
    read_block,
    shares,
)
from vlae.evaluation.likelihood import curve_points, estimates
from vlae.evaluation.pareto import pareto_summary
from vlae.evaluation.two_level import deep_subset, two_level
from vlae.hardware import choose_device, choose_precision, describe, set_arithmetic
from vlae.models.base import Model
from vlae.models.build import backend_name
from vlae.models.weights import load_model
from vlae.randomness import generator
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import read_training, training_file
from vlae.storage.write import sha256, write_json, write_npz, write_npz_compressed
from vlae.threads import use_free_processors
from vlae.units import bits_per_dim

logger = logging.getLogger(__name__)

DRAWS = 5  # further binarizations of a dynamic test set, to show how much they matter
DRAW_SAMPLES = 8  # importance samples of each image in a further binarization


@dataclass(frozen=True)
class Plan:
    """The estimates that a run's evaluation needs.

    epochs: epochs of the training.
    samples: importance samples of every image in the blocks `first`.
    index: indices of the test images in the blocks `deep`, the deep level.
    draws: the blocks of each further binarization.
    belongs_to: what every block depends on.
    folder: where the blocks are saved.
    """

    epochs: int
    samples: int
    first: list[Block]
    index: list[int]
    deep: list[Block]
    draws: list[list[Block]]
    belongs_to: dict
    folder: Path

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in order."""
        return [*self.first, *self.deep, *(block for draw in self.draws for block in draw)]


def evaluate(
    run: Run,
    dataset: Dataset,
    device: str = "auto",
    precision: str = "auto",
    shard: tuple[int, int] | None = None,
    samples: int | None = None,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
    by_hand: bool = False,
    split: str = "test",
) -> dict | None:
    """Evaluate the run's checkpoint, write results/evaluations/RUN.{json,npz}, return the record.

    Blocks that exist in scratch/ are used, whoever computed them.

    shard: (i, n), i from 1 to n. Only the i-th of n shares is computed. It stays in scratch/,
        nothing is written to results/, and None is returned.
    samples: replaces importance_samples; there is no deep level then.
    changes: other settings of the evaluation.
    out: the record is written to this file, and nothing to results/.
    by_hand: nothing is written to results/. The same holds if `samples` or `changes` differ from
        the run's own settings, and for the split "valid".
    split: "valid" takes the validation images in place of the test images, for choosing settings.

    Raises VlaeError if the checkpoint is missing or belongs to another run or other data, and for
    "valid" if the run was trained on these images too.
    """
    own = run.evaluation
    run = replace(run, evaluation=asked_for(own, samples, changes))
    by_hand = by_hand or run.evaluation != own or split != "test"
    on = choose_device(device)
    precision = choose_precision(precision, on)
    set_arithmetic(on, precision)
    use_free_processors(backend_name(run.model, on.type, precision))
    model = load_model(run, on)
    if split == "valid":
        dataset = replace(dataset, test=dataset.valid)
    plan = _plan(run, dataset, by_hand, split)
    test = cache(partial(test_input, dataset, run.evaluation))
    mine = plan.blocks if shard is None else shares(plan.blocks, shard[1])[shard[0] - 1]
    made_by = {
        "device": on.type,
        "precision": precision,
        "core": backend_name(run.model, on.type, precision),
        "hardware": describe(on),
    }
    parts = {
        block.name: _compute(block, run, test, model, plan, made_by)
        for block in tqdm(mine, unit="block", disable=None)
    }
    if shard is not None:
        logger.info("%s: shard %d of %d, %d blocks", run.name, *shard, len(mine))
        return None
    record, arrays = _gather(run, dataset, plan, parts)
    if split != "test":
        record["split"] = split
    if out is not None:
        write_json(out, record)
    elif not by_hand:
        base = paths.evaluation(run.name)
        write_npz_compressed(base.with_name(base.name + ".npz"), **arrays)
        write_json(base.with_name(base.name + ".json"), record)
    return record


def asked_for(
    config: EvaluationConfig, samples: int | None, changes: dict[str, Any] | None = None
) -> EvaluationConfig:
    """Return the settings of an evaluation with `changes`.

    With `samples`, every image gets so many and there is no deep level.
    """
    config = replace(config, **(changes or {}))
    return replace(config, importance_samples=samples, deep_images=0) if samples else config


def _plan(run: Run, dataset: Dataset, by_hand: bool, split: str) -> Plan:
    """Return the plan of an evaluation; with `by_hand`, its blocks get a separate folder."""
    config, training = run.evaluation, read_training(Path(), run.name, run.dataset)
    if training is None:
        raise VlaeError(f"{paths.model(run.name)}: {training_file(run.name)} is missing")
    dataset.check_trained_on(training)
    if split == "valid" and training["config"]["training"]["split"] != "train":
        raise VlaeError(
            f"{run.name} was trained on the validation images too; set training.split of "
            f"{run.block} to train, and train it again, for a likelihood on the validation images"
        )
    images = len(dataset.test[: config.images] if config.images else dataset.test)
    wanted = config.deep_images if run.model.latent_dim else 0
    samples = config.importance_samples if run.model.latent_dim else 1
    folder = paths.scratch(run.name) / "evaluation"
    index = deep_subset(images, wanted, config.seed)
    most = config.adaptive_samples if run.model.latent_dim else 0
    draws = []
    if dataset.kind.binarization == "dynamic":
        few = min(samples, DRAW_SAMPLES)
        draws = [draw_blocks(images, few, seed) for seed in range(DRAWS)]
    return Plan(
        training["epochs"],
        samples,
        first_blocks(images, samples, 0 if index else most),
        index,
        deep_blocks(index, config.deep_samples, most),
        draws,
        {
            "checkpoint": sha256(paths.model(run.name)),
            "data": dataset.sha256,
            "seed": config.seed,
            "binarization_seed": config.binarization_seed,
            "proposal_scale": config.proposal_scale,
        }
        | ({} if split == "test" else {"split": split}),
        folder / "by-hand" if by_hand else folder,
    )


def _compute(
    block: Block,
    run: Run,
    test: Callable[[int], Tensor],
    model: Model,
    plan: Plan,
    made_by: dict,
) -> dict[str, np.ndarray]:
    """Return the arrays of a block; compute and save them if they are not saved yet.

    test: returns the test images in the binarization of a seed.
    """
    path = plan.folder / f"{block.name}.npz"
    points = len(curve_points(block.samples)) if model.latent_dim else 1
    part = read_block(path, plan.belongs_to | block.key, len(block.images), points)
    if part is not None:
        return part
    config = run.evaluation
    draw = config.binarization_seed if block.draw is None else block.draw
    x = test(draw)[block.images].to(made_by["device"])
    part = estimates(
        model,
        x,
        block.images,
        block.samples,
        config.seed,
        made_by["precision"],
        config.proposal_scale,
        block.most,
    )
    part["about"] = np.array(json.dumps(plan.belongs_to | block.key | made_by))
    write_npz(path, **part)
    return part


def _gather(
    run: Run, dataset: Dataset, plan: Plan, parts: dict[str, dict[str, np.ndarray]]
) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the record of the evaluation and its arrays, from all blocks."""
    made_by = [json.loads(str(parts[block.name].pop("about"))) for block in plan.blocks]
    whole = joined([parts[block.name] for block in plan.first])
    further = None
    if plan.deep:
        further = {"index": np.array(plan.index, dtype=np.int32)}
        further |= joined([parts[block.name] for block in plan.deep])
    record = _record(run, dataset, plan, whole, further)
    if plan.draws:
        of_each = [joined([parts[block.name] for block in draw]) for draw in plan.draws]
        few = plan.draws[0][0].samples
        fixed = whole["curve"][:, curve_points(plan.samples).index(few)]
        record["draws"] = _other_draws(record["nll"], fixed, of_each, few)
    for key in (
        "device",
        "hardware",
        "precision",
        "core",
    ):  # of all processes that computed blocks
        record[key] = ", ".join(dict.fromkeys(block.get(key, "?") for block in made_by))
    arrays = {"index": np.arange(len(whole["elbo"]), dtype=np.int32)}
    arrays |= {k: v.astype(np.float32) for k, v in whole.items()}
    if further:
        arrays["deep_index"] = further["index"]
        for key in ("log_likelihood", "ess", "pareto_k", "samples", "curve"):
            arrays[f"deep_{key}"] = further[key].astype(np.float32)
    return record, arrays


def test_input(dataset: Dataset, config: EvaluationConfig, binarization_seed: int) -> Tensor:
    """Return the test images as network input, float (N, 1, 28, 28) or (N, 3, 32, 32).

    With dynamic binarization, the bits are one fixed draw.
    """
    random = generator(binarization_seed, "test set")
    x = as_input(torch.from_numpy(dataset.test), dataset.kind, random)
    return x[: config.images] if config.images else x


def _record(
    run: Run,
    dataset: Dataset,
    plan: Plan,
    whole: dict[str, np.ndarray],
    further: dict[str, np.ndarray] | None,
) -> dict:
    """Return the record of an evaluation.

    whole: the arrays of all images. further: those of the deep level, with the indices of its test
    images in further["index"]; None without a deep level.
    """
    each = -whole["log_likelihood"]
    first_nll, first_se = nll, nll_se = mean_and_error(each)
    elbo, elbo_se = mean_and_error(whole["elbo"])
    kl, kl_se = mean_and_error(whole["kl"])
    is_exact = not run.model.latent_dim
    points = [1] if is_exact else curve_points(plan.samples)
    curve = [(k, *mean_and_error(-whole["curve"][:, i])) for i, k in enumerate(points)]
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
            if k > plan.samples:
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
        "importance_samples": plan.samples,
        "estimator": estimator,
        "deep": deep,
        "exact": is_exact,
        "ess": float(whole["ess"].mean()),
        "pareto": None if is_exact else pareto_summary(whole if further is None else further),
        "n_test": len(whole["elbo"]),
        "curve": [{"k": k, "nll": value, "se": error} for k, value, error in curve],
        "epochs": plan.epochs,
        "checkpoint_sha256": plan.belongs_to["checkpoint"],
        "data_sha256": dataset.sha256,
        "seed": run.evaluation.seed,
        "binarization_seed": run.evaluation.binarization_seed,
        "config": as_dict(run.evaluation),
    }


def _other_draws(
    nll: float, fixed: np.ndarray, draws: list[dict[str, np.ndarray]], samples: int
) -> list[dict]:
    """Estimate the NLL for other binarizations of the test set, to show how much they matter.

    fixed (N,): bounds, in nats, of the images in the usual binarization with `samples` samples.

    Both bounds use the same small number of samples, so their bias cancels in the difference. The
    difference is added to the NLL. For a model without a latent variable all values are exact.
    """
    differences = [fixed.mean() - draw["log_likelihood"].mean() for draw in draws]
    return [
        {"seed": seed, "nll": float(nll + difference), "importance_samples": samples}
        for seed, difference in enumerate(differences)
    ]
