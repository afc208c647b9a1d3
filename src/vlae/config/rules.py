"""Checks settings that have to agree with each other."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from vlae.config.schema import ColourModelConfig, ModelConfig, Run
from vlae.errors import VlaeError, suggestion
from vlae.images import COLOUR, FIXED


def check_run(run: Run, where: str) -> None:
    """Raise VlaeError, naming the key, for settings of a run that do not go together."""
    if isinstance(run.model, ColourModelConfig):
        _check_colour_model(run.model, f"{where}.model")
    else:
        _check_binary_model(run.model, f"{where}.model")
    if run.training.decay_epochs > run.training.epochs:
        raise VlaeError(
            f"{where}.training.decay_epochs must be at most epochs ({run.training.epochs}), not "
            f"{run.training.decay_epochs}"
        )
    if len(run.training.betas) != 2 or max(run.training.betas) >= 1:
        raise VlaeError(f"{where}.training.betas must be two numbers below 1")
    kind = COLOUR if isinstance(run.model, ColourModelConfig) else FIXED
    if run.training.free_bits > kind.uniform_loss:
        raise VlaeError(
            f"{where}.training.free_bits must be at most {kind.uniform_loss:.0f} (the nats of an "
            f"image with equally probable values), not {run.training.free_bits}"
        )
    if run.training.bound_samples > 1:
        _check_bound(run, where)
    elif run.training.bound_gradient != "all":
        raise VlaeError(
            f"{where}.training.bound_gradient must be all with bound_samples 1, not "
            f"{run.training.bound_gradient}: there is one sample to take it of"
        )
    if run.training.polyak >= 1:
        raise VlaeError(f"{where}.training.polyak must be below 1")
    evaluation = run.evaluation
    for key, images in (("images", evaluation.images), ("deep_images", evaluation.deep_images)):
        if images == 1:
            raise VlaeError(
                f"{where}.evaluation.{key} must be 0 or at least 2, not 1: "
                "one image has no standard error"
            )
    if evaluation.deep_images and evaluation.deep_samples < evaluation.importance_samples:
        raise VlaeError(
            f"{where}.evaluation.deep_samples must be at least importance_samples "
            f"({evaluation.importance_samples}), not {evaluation.deep_samples}"
        )
    each = evaluation.deep_samples if evaluation.deep_images else evaluation.importance_samples
    if 0 < evaluation.adaptive_samples < each:
        raise VlaeError(
            f"{where}.evaluation.adaptive_samples must be 0 or at least {each}, the samples of "
            f"every such image, not {evaluation.adaptive_samples}"
        )


def check_start(run: Run, section: str, runs: dict[str, Run]) -> None:
    """Raise VlaeError, naming the key, if a run cannot begin with the weights of the run it names.

    section: its section of params.yaml. runs: all runs by name.
    """
    where, base = f"{section}.{run.name}.training.start_from", run.training.start_from
    if section == "runs":
        if base and run.repeats is None:
            raise VlaeError(f"{where}: move the run to `refined`, as it begins with {base!r}")
        return
    if not base:
        raise VlaeError(f"{where}: name a run, or move this one to `runs`")
    if base not in runs:
        raise VlaeError(f"{where}: no run {base!r} to begin with; {suggestion(base, runs)}")
    other, passed = runs[base], [run.name]
    while base in runs:
        if base in passed:
            circle = " → ".join([*passed, base])
            raise VlaeError(f"{where}: {circle} is a circle; one of them has to be in `runs`")
        passed.append(base)
        base = runs[base].training.start_from
    if other.dataset != run.dataset:
        raise VlaeError(
            f"{section}.{run.name}.dataset must be {other.dataset}, on which {other.name} is "
            f"trained, not {run.dataset}: it begins with those weights"
        )
    model = run.model
    if isinstance(model, ModelConfig) and isinstance(other.model, ModelConfig):
        # A decoder may have more filters than the one that it begins with (vlae.models.widen).
        filters = min(model.decoder.filters, other.model.decoder.filters)
        model = replace(model, decoder=replace(model.decoder, filters=filters))
    if different := _differences(model, other.model):
        raise VlaeError(
            f"{section}.{run.name}.model must be that of {other.name}, with whose weights it "
            f"begins, but {', '.join(different)}; only decoder.filters may be larger"
        )


def _differences(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    found = []
    for one in fields(ours):
        mine, other = getattr(ours, one.name), getattr(theirs, one.name)
        if is_dataclass(mine):
            found += _differences(mine, other, f"{prefix}{one.name}.")
        elif mine != other:
            found.append(f"{prefix}{one.name} is {mine} here and {other} there")
    return found


def _check_bound(run: Run, where: str) -> None:
    samples = f"bound_samples {run.training.bound_samples}"
    if run.training.free_bits:
        raise VlaeError(
            f"{where}.training.free_bits must be 0 with {samples}, not "
            f"{run.training.free_bits}: the importance-weighted bound has no separate KL"
        )
    if not run.model.latent_dim:
        raise VlaeError(
            f"{where}.training.bound_samples must be 1 without a latent variable, not "
            f"{run.training.bound_samples}: the likelihood is exact"
        )


def _check_binary_model(model: ModelConfig, where: str) -> None:
    if model.prior.flow == "iaf":
        raise VlaeError(f"{where}.prior.flow must be af or none, not 'iaf'")
    if model.posterior.flow == "af":
        raise VlaeError(f"{where}.posterior.flow must be iaf or none, not 'af'")
    if model.decoder.first_kernel % 2 == 0:
        raise VlaeError(f"{where}.decoder.first_kernel must be odd")
    if len(model.trunk_maps) != 3:
        raise VlaeError(f"{where}.trunk_maps must have three entries (28 - 14 - 7 - 4)")
    if model.latent_dim == 0:
        if model.decoder.kind != "pixelcnn":
            raise VlaeError(f"{where}: a factorized decoder needs latent_dim of 1 or more")
        if model.prior.flow != "none" or model.posterior.flow != "none":
            raise VlaeError(f"{where}: latent_dim 0 leaves nothing for a flow")
    for side, flow in (("prior", model.prior), ("posterior", model.posterior)):
        if flow.flow != "none" and flow.hidden < model.latent_dim:
            raise VlaeError(f"{where}.{side}.hidden must be latent_dim or more")


def _check_colour_model(model: ColourModelConfig, where: str) -> None:
    if len(model.widths) != 3:
        raise VlaeError(f"{where}.widths must have three entries (32x32, 16x16, 8x8)")
    if model.flow_maps < model.latent_maps:
        raise VlaeError(f"{where}.flow_maps must be latent_maps or more")
