"""Writes results/report.html."""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import vlae
from vlae.config.schema import Params
from vlae.report.paper import citation
from vlae.report.site.drawn_tables import DrawnTable, sort_key
from vlae.report.site.explorer import image_digits
from vlae.report.site.gather import CLAIMS, Site, gather
from vlae.report.site.kinds import KINDS
from vlae.report.site.sprites import Sprite
from vlae.report.tables.headline import NAME as HEADLINE
from vlae.report.tables.headline import STATUSES
from vlae.storage.write import write_text
from vlae.units import Unit, rounded, rounded_error

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE = Path("results", "report.html")
VERDICT, STATUS = "Verdict", "Status"  # columns whose words are drawn as badges


def write_report(params: Params, root: Path | str = ".") -> Path:
    """Write the report of all that is recorded and drawn under `root`, and return its path.

    The same results give the same bytes. Raises VlaeError for a file that cannot be used.
    """
    path = Path(root, PAGE)
    write_text(path, render(gather(params, Path(root))))
    return path


def render(site: Site) -> str:
    """Return the page; all that comes from files is escaped."""
    from markupsafe import Markup

    environment = _environment()
    claims, headline = site.table(CLAIMS), site.table(HEADLINE)
    source = files("vlae.report.site")
    style, script = (
        Markup(source.joinpath(name).read_text(encoding="utf-8"))
        for name in ("style.css", "script.js")
    )
    environment.globals.update(
        site=site,
        names={run.name for run in site.runs} | {name for name, _ in site.untrained},
        kinds=[kind for kind in KINDS.values() if kind in {run.kind for run in site.runs}],
        judged=(VERDICT, STATUS),
        verdict=None if claims is None else claims.column(VERDICT),
    )
    return environment.get_template("page.html.j2").render(
        style=style,
        script=script,
        sprites=_sprites(site),
        claims=claims,
        headline=headline,
        tables=[table for table in site.tables if table is not claims and table is not headline],
        verdicts=_counts(claims, VERDICT),
        statuses=_counts(headline, STATUS, STATUSES),
        citation=citation(),
        version=vlae.__version__,
    )


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vlae.report", "site"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        rounded=rounded, rounded_error=rounded_error, sort_key=sort_key, slug=_slug, digits=_digits
    )
    return environment


def _sprites(site: Site) -> list[Sprite]:
    """The grids of which single images are shown, each once."""
    of = [run.explorer for run in site.runs if run.explorer is not None]
    found = [grid for one in of for grid in (one.originals, one.decompressions) if grid]
    return list({grid.key: grid for grid in found}.values())


def _counts(table: DrawnTable | None, heading: str, order: tuple[str, ...] = ()) -> dict[str, int]:
    """Count the rows of each word in a column, without the mark that may follow it.

    The words in `order` come first, then the others, the most frequent first.
    """
    place = None if table is None else table.column(heading)
    if table is None or place is None:
        return {}
    words = Counter(filter(None, (re.sub(r"\W+$", "", row.cells[place]) for row in table.rows)))
    return {word: words[word] for word in order if words[word]} | dict(words.most_common())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _digits(value: float, unit: Unit) -> str:
    return f"{value:.{image_digits(unit)}f}"
