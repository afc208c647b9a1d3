"""Everything that the report shows, gathered from params.yaml, results/ and dvc.yaml."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from markupsafe import Markup

from vlae.config.schema import Params
from vlae.errors import VlaeError
from vlae.report.figures.registry import FIGURES
from vlae.report.overview import summaries
from vlae.report.site.drawn_tables import DrawnTable, Row, read_table
from vlae.report.site.explorer import RecordedImages
from vlae.report.site.graph import draw_graph, read_rules
from vlae.report.site.run_page import RunPage, build_run
from vlae.report.site.sprites import figure
from vlae.report.tables.headline import NAME as HEADLINE
from vlae.report.verify import drawings
from vlae.storage import paths
from vlae.storage.read import read_text
from vlae.storage.records import curve_file, evaluation_file, images_file, training_file

CLAIMS = "claims"  # the table that has a page of its own
WORKFLOW = ("README.md", "dvc.yaml")  # have the graph of the rules and the steps of DVC


@dataclass(frozen=True)
class Drawing:
    """A figure. uri: its content, or None where only `missing` is to be said. size: its width and
    height in pixels."""

    name: str
    title: str
    caption: str
    missing: str
    uri: str | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Step:
    """A step that DVC records: its command, what it reads and what it writes."""

    name: str
    command: str
    reads: list[str]
    writes: list[str]


@dataclass(frozen=True)
class Mention:
    """A row of a table that shows a run."""

    table: DrawnTable
    row: Row


@dataclass(frozen=True)
class Site:
    """The report. runs: those that are trained. untrained: (run, why). undrawn: names of tables
    that are not drawn."""

    tables: list[DrawnTable]
    undrawn: list[str]
    figures: list[Drawing]
    runs: list[RunPage]
    untrained: list[tuple[str, str]]
    steps: list[Step]
    graph: Markup | None

    def table(self, name: str) -> DrawnTable | None:
        """The drawn table of that name, or None."""
        return next((table for table in self.tables if table.name == name), None)

    def mentions(self, run: str) -> list[Mention]:
        """The rows of tables other than the claims that show a run."""
        tables = (table for table in self.tables if table.name not in (CLAIMS, HEADLINE))
        return [Mention(t, row) for t in tables for row in t.rows if run in row.runs]

    def claims_about(self, run: str) -> list[tuple[int, Row]]:
        """The claims that rest on a run, each with its number from 1."""
        table = self.table(CLAIMS)
        rows = [] if table is None else table.rows
        return [(i, row) for i, row in enumerate(rows, start=1) if run in row.runs]


def recorded_inputs(params: Params) -> list[str]:
    """Return the recorded results that the report reads if they exist, relative to the root.

    It also reads the drawn tables and figures, and the files of WORKFLOW.
    """
    of_run = (training_file, curve_file, evaluation_file, images_file, paths.samples)
    return [str(file(run)) for run in params.runs for file in of_run]


def gather(params: Params, root: Path) -> Site:
    """Read everything under `root`. Raises VlaeError for a file that cannot be used."""
    shown = [(kind, name) for kind, name, *_ in drawings(params)]
    tables = {name: read_table(name, root) for kind, name in shown if kind == "tables"}
    pages = _runs(params, root)
    steps = _steps(root)
    rules = read_rules(root)
    return Site(
        tables=[table for table in tables.values() if table is not None],
        undrawn=[name for name, table in tables.items() if table is None],
        figures=[_figure(name, params, root) for name in FIGURES if ("figures", name) in shown],
        runs=[page for page in pages if page.recorded],
        untrained=[(page.name, page.summary.state) for page in pages if not page.recorded],
        steps=steps,
        graph=draw_graph(rules, {step.name for step in steps}) if rules else None,
    )


def _runs(params: Params, root: Path) -> list[RunPage]:
    """Return all runs in the order of params.yaml."""
    known, built = RecordedImages(), {}
    found = summaries(params, root)
    # A run without a code has recorded no test images: it shows those of the others.
    for one in sorted(found, key=lambda one: not params.runs[one.run].model.latent_dim):
        built[one.run] = build_run(params, params.runs[one.run], one, root, known)
    return [built[one.run] for one in found]


def _figure(name: str, params: Params, root: Path) -> Drawing:
    caption = _captions().get(name, {"title": name, "caption": ""})
    title, text = caption["title"], " ".join(caption["caption"].split())
    of = FIGURES[name].runs
    runs = [run for run in (params.runs if of is None else of) if run in params.runs]
    lacking = [run for run in runs if not Path(root, training_file(run)).exists()]
    missing = f"not trained: {', '.join(lacking)}" if lacking and of is not None else ""
    path = Path(root, "results", "figures", f"{name}.png")
    if len(lacking) == len(runs):
        return Drawing(name, title, text, missing or "no run is trained")
    if not path.exists():
        return Drawing(name, title, text, "not drawn yet")
    uri, size = figure(path)
    return Drawing(name, title, text, missing, uri, size)


def _captions() -> dict[str, dict[str, str]]:
    text = files("vlae.report.site").joinpath("captions.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _steps(root: Path) -> list[Step]:
    """Return the stages of dvc.yaml, each once for all runs."""
    path = Path(root, "dvc.yaml")
    if not path.exists():
        return []
    try:
        stages = yaml.safe_load(read_text(path))["stages"]
        return [_step(name, stage.get("do", stage)) for name, stage in stages.items()]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise VlaeError(f"{path}: not the stages of DVC") from None


def _step(name: str, stage: dict) -> Step:
    def plain(entry: object) -> str:
        text = next(iter(entry)) if isinstance(entry, dict) else str(entry)
        return text.replace("${item.dataset}", "DATASET").replace("${key}", key)

    key = "RUN" if "results/checkpoints" in str(stage) else "DATASET"
    deps, outs = ([plain(one) for one in stage.get(part, [])] for part in ("deps", "outs"))
    return Step(name, plain(stage["cmd"]), deps, outs)
