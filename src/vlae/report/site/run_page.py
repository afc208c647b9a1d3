"""What the report shows of one run: settings, records, curves and images."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup

from vlae.config.schema import Params, Run
from vlae.errors import VlaeError
from vlae.report.doubt import doubt
from vlae.report.figures.learning_curves import Series, limits
from vlae.report.overview import Summary, fields_of, flat, settings
from vlae.report.site.explorer import Explorer, RecordedImages, build_explorer
from vlae.report.site.kinds import ModelKind, model_kind
from vlae.report.site.plot import Axis, Line, line_plot
from vlae.report.site.sprites import Sprite, sprite
from vlae.storage.records import estimator, read_curve, read_results, read_samples
from vlae.units import NATS, Unit, rounded, rounded_error

# What is shown of a stretch of training. The record itself says it of the only stretch.
STRETCH = (
    *("from_epoch", "to_epoch", "decay_epochs", "from_checkpoint", "seconds"),
    *("hardware", "precision", "core", "torch", "git_revision"),
)


@dataclass(frozen=True)
class AgainstK:
    """A point of the estimate with K samples of an image, in the run's unit, as text."""

    k: int
    nll: str
    error: str
    corrected: bool


@dataclass(frozen=True)
class RunPage:
    """A run as the report shows it.

    settings: (key, value, default) of every setting. training, evaluation: (key, value) of the
    records; empty without one. diagnostics: (name, value) of the importance sampling.
    """

    summary: Summary
    title: str
    kind: ModelKind
    unit: Unit
    repeats: str | None
    estimator: str
    doubt: str | None
    settings: list[tuple[str, str, str]]
    training: list[tuple[str, str]] = field(default_factory=list)
    evaluation: list[tuple[str, str]] = field(default_factory=list)
    stretches: list[dict[str, str]] = field(default_factory=list)
    curves: list[Markup] = field(default_factory=list)
    plot_against_k: Markup | None = None
    against_k: list[AgainstK] = field(default_factory=list)
    diagnostics: list[tuple[str, str]] = field(default_factory=list)
    samples: Sprite | None = None
    explorer: Explorer | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.summary.run

    @property
    def validated(self) -> bool:
        """True if the learning curve has validation images."""
        return any("validation" in plot for plot in self.curves)

    @property
    def recorded(self) -> bool:
        """True if the run is trained: only then it has a page."""
        return bool(self.training)


def build_run(
    params: Params, run: Run, summary: Summary, root: Path, known: RecordedImages
) -> RunPage:
    """Read all that is recorded of a run. Raises VlaeError for a damaged file."""
    unit = params.image_kind(run.dataset).unit
    try:
        training, evaluation = read_results(root, run.name, run.dataset)
    except VlaeError:  # summary.state says it
        training = evaluation = None
    page = RunPage(
        summary=summary,
        title=params.datasets[run.dataset]["title"],
        kind=model_kind(run),
        unit=unit,
        repeats=run.repeats,
        estimator="" if evaluation is None else estimator(evaluation),
        doubt=None if evaluation is None else doubt(evaluation),
        settings=list(settings(params, run)),
    )
    if training is None:
        return page
    images = read_samples(root, run.name)
    more: dict = {} if evaluation is None else _evaluated(evaluation, unit)
    if images is not None and evaluation is not None:
        more["explorer"] = build_explorer(root, evaluation, images, unit, known)
    return RunPage(
        **vars(page)
        | more
        | {
            "training": list(fields_of(training)),
            "stretches": _stretches(training),
            "curves": _curves(root, run.name, unit),
            "samples": None if images is None else sprite(images["samples"]),
        }
    )


def _evaluated(evaluation: dict, unit: Unit) -> dict:
    points = [
        AgainstK(
            point["k"],
            rounded(point["nll"] * unit.per_nat),
            rounded_error(point["se"] * unit.per_nat),
            point["k"] > evaluation["importance_samples"],
        )
        for point in evaluation.get("curve", [])
    ]
    exact = evaluation["exact"]
    return {
        "evaluation": list(fields_of(evaluation)),
        "against_k": [] if exact else points,
        "plot_against_k": None if exact or len(points) < 2 else _plot_against_k(evaluation, unit),
        "diagnostics": [] if exact else _diagnostics(evaluation),
    }


def _diagnostics(evaluation: dict) -> list[tuple[str, str]]:
    """What says whether the importance sampling can be trusted (docs/evaluation.md)."""
    found = [("Estimator", estimator(evaluation))]
    if isinstance(ess := evaluation.get("ess"), int | float):
        found.append(("Effective samples", f"{ess:.1f} of {evaluation['importance_samples']}"))
    if deep := evaluation.get("deep"):
        change, error = deep["difference"], rounded_error(deep["difference_se"])
        found.append(
            (
                f"Change by {deep['importance_samples']:,} samples of {deep['images']:,} images",
                f"{change:+.2f} ± {error} nats",
            )
        )
    if pareto := evaluation.get("pareto"):
        found += [
            ("Pareto k̂, median of the images", f"{pareto['k_median']:.2f}"),
            (f"Images with k̂ above {pareto['k_most']:.2f}", f"{pareto['failing']:.1%}"),
        ]
    else:
        found.append(("Pareto k̂", "not recorded"))
    return found


def _stretches(training: dict) -> list[dict[str, str]]:
    """Return the stretches of a training as text, one of them where the record names none."""
    whole = training | {"from_epoch": 0, "to_epoch": training["epochs"]}
    listed = training.get("stretches")
    rows = listed if isinstance(listed, list) and listed else [whole]
    texts = [dict(flat(row)) for row in rows if isinstance(row, dict)]
    return [{key: text.get(key, "") for key in STRETCH} for text in texts]


def _curves(root: Path, run: str, unit: Unit) -> list[Markup]:
    curve = read_curve(root, run)
    if curve is None:
        return []
    epoch = curve["epoch"]
    x = Axis("epoch", 0.0, float(epoch.max()) * 1.02)

    def panel(name: str, key: str, of: Unit, sign: int, low: float | None) -> Markup:
        training, validation = (sign * curve[k] * of.per_nat for k in (key, f"valid_{key}"))
        shown = Series("", "", epoch, training, validation, None, [])
        least, most = limits([shown], of)
        y = Axis(f"{name} ({of.name})", least if low is None else low, most)
        about = f"after {epoch[-1]:g} epochs {training[-1]:.2f} {of.short} on training images"
        lines = [Line(epoch, training, "training")]
        if np.isfinite(validation).any():
            lines.append(Line(epoch, validation, "validation"))
            about += f", {validation[np.isfinite(validation)][-1]:.2f} on validation images"
        return line_plot(f"{name} against the epoch", about, x, y, lines)

    plots = [panel("−ELBO", "elbo", unit, -1, None)]
    if np.any(curve["kl"] != 0):
        plots.append(panel("KL", "kl", NATS, 1, 0.0))
    return plots


def _plot_against_k(evaluation: dict, unit: Unit) -> Markup:
    k, nll, error = (np.array([p[key] for p in evaluation["curve"]]) for key in ("k", "nll", "se"))
    nll, error = nll * unit.per_nat, error * unit.per_nat
    low, high = float((nll - error).min()), float((nll + error).max())
    margin = max(unit.least / 2, 0.06 * (high - low))
    line = Line(k, nll, "training", error, k > evaluation["importance_samples"])
    about = f"{nll[0]:.2f} {unit.short} with K = {k[0]}, {nll[-1]:.2f} with K = {k[-1]}"
    return line_plot(
        "NLL against the number K of importance samples",
        about,
        Axis("importance samples K of an image", float(k[0]), float(k[-1]), log=True),
        Axis(f"NLL ({unit.name})", low - margin, high + margin),
        [line],
    )
