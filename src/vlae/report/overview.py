"""Lists all runs, shows one run in detail, and finds the files that deleted runs have left."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from vlae.config.schema import Params, Run
from vlae.errors import VlaeError, one_line
from vlae.report.doubt import doubt
from vlae.report.paper import printed_nll
from vlae.report.verify import drawings
from vlae.storage import paths
from vlae.storage.records import epochs_before, estimator, read_results
from vlae.units import rounded, rounded_error

HEADINGS = ("run", "data set", "NLL", "±", "unit", "paper", "epochs", "state")
# Keys of records that are shown elsewhere or are not for readers.
NOT_SHOWN = {"run", "dataset", "config", "curve", "stretches", "draws"}


@dataclass(frozen=True)
class Summary:
    """One run in the list.

    nll, nll_se, paper: our NLL, its standard error and the paper's printed value, in `unit`; None
        if nothing is recorded or printed.
    epochs: trained epochs, of the `wanted` ones.
    before: epochs of the run whose weights it began with; None: random weights.
    state: a few words for the reader.
    """

    run: str
    dataset: str
    nll: float | None
    nll_se: float | None
    unit: str
    paper: float | None
    epochs: int
    wanted: int
    before: int | None
    state: str


def summaries(params: Params, root: Path) -> list[Summary]:
    """Summarise each run, in the order of params.yaml, from the recorded results under `root`."""
    return [_summary(params, run, root) for run in params.runs.values()]


def _summary(params: Params, run: Run, root: Path) -> Summary:
    unit = params.image_kind(run.dataset).unit
    nll, nll_se, epochs, before = None, None, 0, None
    try:
        training, evaluation = read_results(root, run.name, run.dataset)
    except VlaeError as error:
        training, evaluation, state = None, None, str(error)
    else:
        why = params.why_not_trained(run.name)
        state = "not trained" + (f": {why}" if why else "")
    if training is not None:
        epochs, before = training["epochs"], epochs_before(training)
        state = "trained, not evaluated"
    if evaluation is not None:
        nll, nll_se = (evaluation[key] * unit.per_nat for key in ("nll", "nll_se"))
        state = f"evaluated ({estimator(evaluation)})"
        state += ", not reliable: probably too high" if doubt(evaluation) else ""
    paper, wanted = printed_nll(run.name), run.training.epochs
    return Summary(
        *(run.name, run.dataset, nll, nll_se, unit.short, paper, epochs, wanted, before, state)
    )


def list_runs(params: Params, root: Path) -> str:
    """Return the summaries as a table for the terminal, with one line per run."""
    rows = [
        (
            one.run,
            one.dataset,
            rounded(one.nll),
            rounded_error(one.nll_se),
            one.unit,
            rounded(one.paper),
            _epochs(one),
            one.state,
        )
        for one in summaries(params, root)
    ]
    return tabulate(
        rows, HEADINGS, disable_numparse=True, colalign=("left", "left", *["right"] * 2)
    )


def _epochs(one: Summary) -> str:
    own = str(one.epochs) if one.epochs == one.wanted else f"{one.epochs} of {one.wanted}"
    return own if one.before is None else f"{one.before} + {own}"


def show_run(params: Params, run: Run, root: Path) -> str:
    """Describe a run: its settings that differ from the defaults, and its records under `root`."""
    lines = [f"{run.name}, on {run.dataset} ({params.datasets[run.dataset]['title']})"]
    if run.repeats:
        lines.append(f"repeats {run.repeats} with seed {run.training.seed}")
    changed = [
        f"  {key}: {value} (default {usual})"
        for key, value, usual in settings(params, run)
        if value != usual
    ]
    lines += ["", "settings that differ from the defaults", *(changed or ["  none"])]
    training, evaluation = read_results(root, run.name, run.dataset)
    printed = printed_nll(run.name)
    if printed is not None:
        unit = params.image_kind(run.dataset).unit
        lines += ["", f"the paper: {rounded(printed)} {unit.name}"]
    for name, record in (("training", training), ("evaluation", evaluation)):
        lines += ["", name]
        lines += [f"  {key}: {value}" for key, value in fields_of(record or {})]
        lines += [] if record else ["  not recorded"]
    return "\n".join(lines)


def settings(params: Params, run: Run) -> Iterator[tuple[str, str, str]]:
    """Yield (key, value, default) of every setting of the run, keys joined by dots."""
    usual = dict(flat(params.defaults[params.image_kind(run.dataset).name]))
    parts = {part: asdict(getattr(run, part)) for part in ("model", "training", "evaluation")}
    for key, value in flat(parts):
        yield key, value, usual[key]


def fields_of(record: dict) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of what a record says of itself, keys joined by dots."""
    return ((k, value) for k, value in flat(record) if k.partition(".")[0] not in NOT_SHOWN)


def flat(tree: dict, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, value) of nested mappings, with keys joined by dots and values as one line."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{before}{key}", one_line(", ".join(map(_text, value)))
        else:
            yield f"{before}{key}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    plain = {None: "none", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    return one_line(value) or "none"


def leftovers(params: Params, root: Path) -> Iterator[str]:
    """Yield a line for each name that has files under `root` but is not in `params` any more.

    A name is that of a run, data set, table or figure. The line ends with the command that removes
    its files; nothing is removed here.
    """
    drawn = {name for _, name, *_ in drawings(params)}
    known = {*params.runs, *params.datasets}
    found: dict[str, list[Path]] = {}
    for names, places in (
        (known, ("checkpoints/*", "evaluations/*", "samples/*", "recipes/*")),
        (known, ("classifiers/*", "codelengths/*", "lossy/*", "probes/*")),
        (drawn, ("tables/*", "figures/*", "drawn/*/*")),
    ):
        for place in places:
            for path in sorted(Path(root, "results").glob(place)):
                _note(found, names, path)
    for place in ("*.npz", "labels/*.npz"):
        for path in sorted(Path(root, "data").glob(place)):
            _note(found, known, path)
    # VLAE_SCRATCH may hold the training states of other projects, too.
    shared = "VLAE_SCRATCH" in os.environ
    for path in sorted(Path(root, paths.scratch("x").parent).glob("*/")):
        if not shared or path.name in found:
            _note(found, known, path)
    for name, files in found.items():
        command = shlex.join(["rm", "-r", *(os.path.relpath(path, root) for path in files)])
        yield f"left over from {name}, which is not in params.yaml; to remove it: {command}"


def _note(found: dict[str, list[Path]], known: set[str], path: Path) -> None:
    name = path.name.partition(".")[0]
    if name and name not in known:
        found.setdefault(name, []).append(path)
