"""Recipes: a few numbers that summarise what the code computes for a run.

A checkpoint becomes stale when these numbers change, not when a comment does. A recipe runs the
real code with the run's configuration in double precision on a tiny synthetic data set. Its
numbers are rounded, so that they ignore rounding noise and show any change of meaning.

Training depends on the recipe `train` (initialisation and two steps). Evaluation and sampling
depend on recipes of their own. Each recipe also contains the step's complete configuration, with
the defaults of params.yaml filled in.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vlae.coding.bits_back import BitsBack
from vlae.coding.codec import coding_model
from vlae.coding.relative_entropy import choose, lossy_model, pack, prior_noise
from vlae.config.load import inherited_evaluation
from vlae.config.schema import ClassifierConfig, EvaluationConfig, Params, Run, as_dict
from vlae.config.stages import configurations, in_recipe, measurements, recorded
from vlae.data.batches import as_input, permutation
from vlae.data.fetch import data_recipe
from vlae.data.labels import labels_recipe
from vlae.evaluation import probe
from vlae.evaluation.classifier import classify, train_classifier
from vlae.evaluation.evaluate import DRAW_SAMPLES, DRAWS
from vlae.evaluation.likelihood import adaptively_sampled, curve_points, exact, importance_sampled
from vlae.evaluation.sample import DECOMPRESSED, decompress, draw_samples
from vlae.evaluation.two_level import deep_subset, two_level
from vlae.images import COLOUR, FIXED, ImageKind, scaled
from vlae.models.base import Model, Posterior
from vlae.models.build import build_model
from vlae.models.widen import widened
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.tensors import with_prefix
from vlae.storage.write import write_text
from vlae.training.step import draw, training_step
from vlae.training.train_state import TrainState, new_train_state

DIGITS = 7
IMAGES = 6
COLOUR_SIDE = 8  # pixels; the colour model takes any multiple of 4, and 32 would take minutes


def rounded(value: Any) -> Any:
    """Return `value` with all floats in it rounded to 7 significant digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, float) and value != 0 and math.isfinite(value):
        return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return value


def made_up_images(kind: ImageKind) -> torch.Tensor:
    """Return 6 synthetic images with blobs of different positions and sizes.

    uint8 (6, 28, 28) of grey values or bits; for colour (6, 3, 8, 8), a corner in three shades.
    """
    row = torch.arange(28).view(1, 28, 1)
    column = torch.arange(28).view(1, 1, 28)
    number = torch.arange(IMAGES).view(-1, 1, 1)
    distance = (row - 8 - 2 * number) ** 2 + (column - 20 + 2 * number) ** 2
    grey = (255 - 6 * distance).clamp(0, 255)
    if kind is COLOUR:
        corner = grey[:, 10 : 10 + COLOUR_SIDE, 10 : 10 + COLOUR_SIDE]
        return torch.stack([corner, 255 - corner, corner // 2], 1).to(torch.uint8)
    return ((grey > 100) if kind is FIXED else grey).to(torch.uint8)


def run_recipes(run: Run, kind: ImageKind) -> dict[str, dict]:
    """Return the recipes of a run: {"train": …, "evaluate": …, "sample": …}."""
    images = made_up_images(kind)
    full, seed = torch.float64, run.training.seed
    state, trained = _training(run, images, kind)
    model, average = state.model, list(state.average.values())
    with torch.no_grad():
        for weight, value in zip(model.parameters(), average, strict=True):
            weight.copy_(value)
    random = generator(seed, "recipe")
    x = as_input(images, kind, random).to(full)
    return rounded(
        {
            "train": trained,
            "evaluate": _evaluation(model, x, run, kind),
            "sample": _sampling(model, x[:2], run),
        }
    )


def _training(run: Run, images: torch.Tensor, kind: ImageKind) -> tuple[TrainState, dict]:
    """Return the state after two steps, and the numbers of `train`.

    If the run begins with the weights of another one, with those after two steps of that one,
    whose numbers are among its own.
    """
    full, seed = torch.float64, run.training.seed
    state = new_train_state(run, images, kind, torch.device("cpu"), full)
    model, average, soft = state.model, list(state.average.values()), state.free_bits
    start = {}
    if run.start is not None:
        before, start["start"] = _training(run.start, images, kind)
        weights = with_prefix("average", widened(before.average, model))
        state.start_from_average(weights, 1.0, run.start.name)
    steps = []
    for step in range(2):
        random = generator(seed, "step", step)
        indices = permutation(seed, 0, IMAGES)[step * 3 : step * 3 + 3]
        x, noise, uniform = draw(images[indices], kind, run.training, model.latent_dim, random)
        noise = None if noise is None else noise.to(full)
        steps.append(training_step(state, x.to(full), noise, "float32", uniform=uniform).tolist())
        if soft is not None:
            soft.after((step + 1) * soft.steps)
    trained = {
        "loss, reconstruction, KL": steps,
        "weights": {name: _summary(p) for name, p in model.named_parameters()},
        "average": _summary(torch.cat([a.flatten() for a in average])),
    }
    if soft is not None:
        trained["gamma"] = soft.gamma.item()
    return state, trained | start


def _summary(tensor: torch.Tensor) -> float:
    """Return a number that changes with almost any change of the tensor's values or order."""
    flat = tensor.detach().flatten().double()
    return float((flat * torch.cos(torch.arange(len(flat), dtype=torch.float64))).sum())


def _evaluation(model: Model, x: torch.Tensor, run: Run, kind: ImageKind) -> dict:
    if not model.latent_dim:
        return {"exact": exact(model, x, "float32").elbo.tolist(), "draws": DRAWS}
    samples, numbers, seed = 20, list(range(len(x))), run.evaluation.seed
    scale = run.evaluation.proposal_scale
    result = importance_sampled(model, x, numbers, samples, seed, "float32", scale)
    recipe: dict[str, Any] = {
        "k": curve_points(samples),
        "curve": result.curve.mean(0).tolist(),
        "elbo": result.elbo.tolist(),
        "kl": result.kl.tolist(),
        "ess": result.ess.tolist(),
    }
    if kind.binarization == "dynamic":
        recipe["draws, samples of each"] = [DRAWS, DRAW_SAMPLES]
    if run.evaluation.deep_images:
        index = deep_subset(len(x), 3, seed)
        deep = importance_sampled(model, x[index], index, 2 * samples, seed, "float32", scale)
        both = two_level(-result.log_likelihood.numpy(), -deep.log_likelihood.numpy(), index)
        recipe["deep"] = {"images": deep_subset(1000, 5, seed), **dataclasses.asdict(both)}
    if run.evaluation.adaptive_samples:
        more = adaptively_sampled(model, x, numbers, 30, seed, "float32", scale, 240)
        recipe["adaptive"] = [more.samples.tolist(), more.log_likelihood.tolist()]
    return recipe


def _sampling(model: Model, x: torch.Tensor, run: Run) -> dict:
    """Return the numbers of `sample`: summaries of samples, codes and decompressions."""
    seed, device, full = run.evaluation.seed, torch.device("cpu"), torch.float64
    samples = draw_samples(model, 2, seed, device, full)
    made_with = [DECOMPRESSED[model.kind], seed, run.evaluation.binarization_seed]
    numbers = {
        "count, seed, binarization_seed": made_with,
        "samples": _summary(samples),
    }
    if model.latent_dim:
        noise = torch.randn((2, model.latent_dim), generator=generator(seed, "recipe"))
        numbers["code"] = _summary(model.sample_prior(noise.to(full)))
        numbers["decompressions"] = _summary(decompress(model, x, seed))
    return numbers


def classifier_recipe(config: ClassifierConfig) -> dict:
    """Return the recipe of a classifier: two training steps, and its output for the images."""
    images = made_up_images(COLOUR)
    short = dataclasses.replace(config, epochs=2, batch_size=IMAGES)
    model = train_classifier(short, images, torch.arange(IMAGES), torch.float64)
    with torch.no_grad():
        logits = model(scaled(images).double())
    return rounded(
        {
            "weights": {name: _summary(p) for name, p in model.state_dict().items()},
            "logits": _summary(logits),
            "classes": classify(model, images.numpy()).tolist(),
        }
    )


def probe_recipe(run: Run) -> dict:
    """Return the recipe of a run's probes: codes, entropies and strokes of the images, with
    weights that are a fixed pattern, and the probes of a few made-up features."""
    model, seed = _patterned_model(run).double(), run.evaluation.seed
    images = made_up_images(FIXED)
    x = images.unsqueeze(1).double()
    return {
        "configuration": {"dataset": run.dataset},
        "numbers": rounded(
            {
                "code": _summary(torch.from_numpy(probe.codes(model, x))),
                "drawn": _summary(
                    torch.from_numpy(probe.codes(model, x, generator(seed, "probe code")))
                ),
                "entropy": probe.posterior_entropy(model, x, seed).tolist(),
                **{
                    name: measure(images.tril().numpy()).tolist()
                    for name, measure in probe.TARGETS.items()
                },
                "seeds": [seed, run.evaluation.binarization_seed],
                **_made_up_probe(),
            }
        ),
    }


def pixel_recipe(config: EvaluationConfig) -> dict:
    """Return the recipe of the probes of pixels: their seeds, and those of made-up features."""
    seeds = {"seed": config.seed, "binarization_seed": config.binarization_seed}
    return {"configuration": seeds, "numbers": rounded(_made_up_probe())}


def _made_up_probe() -> dict:
    """Return the probes of 60 made-up features in three overlapping classes."""
    labels = torch.arange(60) % 3
    random = torch.randn((60, 4), generator=generator(0, "recipe"), dtype=torch.float64)
    features = random + torch.nn.functional.one_hot(labels, 4)
    parts = {"train": slice(30), "valid": slice(30, 45), "test": slice(45, 60)}
    splits = {split: features[part].numpy() for split, part in parts.items()}
    classes = {split: labels[part].to(torch.uint8).numpy() for split, part in parts.items()}
    targets = {split: (x[:, 0] * x[:, 1] + x[:, 3]) for split, x in splits.items()}
    return {
        "images": probe.MOST,
        "classified": probe.classified(splits, classes),
        "regressed": list(probe.regressed(splits, targets)),
        "components": abs(probe.components(splits, 2)["test"]).sum(0).tolist(),
    }


def _patterned_model(run: Run) -> Model:
    """Return the run's model with weights that are a fixed pattern, the same on every machine."""
    model = build_model(run.model)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            index = torch.arange(weight.numel(), dtype=torch.float64) + 97 * number
            pattern = (index * index * 31 + index * 17) % 251 / 251 - 0.5
            weight.copy_(pattern.view(weight.shape))
    return model


def codelength_recipe(run: Run) -> dict:
    """Return the recipe of a code length: the words of the coder for the images."""
    coder = BitsBack(coding_model(run.name, _patterned_model(run)))
    words = coder.encode(made_up_images(FIXED)).tolist()
    return {"check": coder.model.check.hex(), "count": len(words), "words": words[:4]}


def lossy_recipe(run: Run) -> dict:
    """Return the recipe of a lossy file: the entries of a small codebook for three Gaussians."""
    model = lossy_model(run.name, _patterned_model(run))
    mean = torch.linspace(-1, 1, 3 * model.latent_dim).view(3, -1)
    chosen = choose(model, Posterior(mean, torch.full_like(mean, -0.05), None), 10)
    return rounded(
        {
            "index": chosen.index.tolist(),
            "noise": _summary(prior_noise(chosen.index, model.latent_dim)),
            "packed": pack(chosen.index, 10).hex(),
        }
    )


def write_recipes(params: Params, keep: bool = False) -> None:
    """Write results/recipes: one file per data set and classifier, and three per run. Remove the
    recipes of all others.

    keep: leave those with an unchanged configuration. They are right if this code wrote them.
    """
    torch.set_num_threads(1)  # more threads would slow down such small networks
    there = set(paths.recipe("any", "any").parent.glob("*.json"))
    for path in there - _files(params):
        path.unlink()
    alike = {name for name in params.datasets if keep and _same_images(name, params)}
    for name, spec in params.datasets.items():
        _write(name, "data", data_recipe(name, spec))
    for name, block in params.labels.items():
        _write(name, "labels", labels_recipe(name, params.dataset(name), block))
    kept = {
        run.name
        for run in params.runs.values()
        if run.dataset in alike and all(in_recipe(run, step) for step in configurations(run))
    }
    for step, of_step in measurements(params).items():
        for name, config in of_step.items():
            of_code = name in kept or (keep and name in params.classifiers)
            if not (of_code and recorded(name, step) == as_dict(config)):
                _write(name, step, _measurement(step, name, config, params))
    for name in params.labels:
        _write(name, "probe_pixels", pixel_recipe(inherited_evaluation(params, name)))
    # This can take minutes: show the progress on a terminal.
    changed = [run for run in params.runs.values() if run.name not in kept]
    for run in tqdm(changed, unit="run", leave=False, disable=None):
        numbers = run_recipes(run, params.image_kind(run.dataset))
        for step, configuration in configurations(run).items():
            recipe = {"configuration": configuration, "numbers": numbers[step]}
            _write(run.name, step, recipe)


def _measurement(step: str, name: str, config: Any, params: Params) -> dict:
    """Return the recipe of a step that `measurements` names."""
    if step == "probe":
        return probe_recipe(params.run(name))
    if step == "classifier":
        numbers = classifier_recipe(config)
    elif step == "codelength":
        numbers = codelength_recipe(params.run(name))
    else:
        numbers = lossy_recipe(params.run(name))
    return {"configuration": as_dict(config), "numbers": numbers}


def _same_images(dataset: str, params: Params) -> bool:
    """Return True if the recipe of a data set has the same kind of images."""
    path = paths.recipe(dataset, "data")
    pinned = read_json(path) if path.exists() else None
    kind = params.image_kind(dataset).binarization
    return isinstance(pinned, dict) and pinned.get("binarization") == kind


def _files(params: Params) -> set[Path]:
    """Return the files of all recipes."""
    data = {paths.recipe(name, "data") for name in params.datasets}
    labels = {paths.recipe(name, "labels") for name in params.labels}
    classifiers = {paths.recipe(name, "classifier") for name in params.classifiers}
    codelengths = {paths.recipe(name, "codelength") for name in params.codelengths}
    probes = {paths.recipe(name, "probe") for name in params.probes}
    probes |= {paths.recipe(name, "probe_pixels") for name in params.labels}
    lossy = {paths.recipe(name, "lossy") for name in params.lossy}
    steps = ("train", "evaluate", "sample")
    runs = {paths.recipe(run, step) for run in params.runs for step in steps}
    return data | labels | probes | classifiers | codelengths | lossy | runs


def _write(name: str, step: str, recipe: dict) -> None:
    write_text(paths.recipe(name, step), json.dumps(recipe, indent=1) + "\n")
