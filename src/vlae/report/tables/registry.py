"""All tables by name. To add one, write a module with `inputs` and `build` and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.errors import VlaeError, suggestion
from vlae.report.drawn import write_note
from vlae.report.paper import table_names
from vlae.report.tables import (
    beyond,
    bookkeeping,
    claims,
    code_content,
    codelengths,
    decoder_windows,
    downstream,
    headline,
    information,
    paper_table,
    training_time,
)
from vlae.report.tables.table import Table
from vlae.storage.write import write_text

if TYPE_CHECKING:
    from vlae.config.schema import Params

ENDINGS = ("csv", "md", "tex", "html")


@dataclass(frozen=True)
class Entry:
    """A table.

    inputs(params): returns the recorded results that it reads if they exist, relative to the root.
    build(params, root): returns the table; raises VlaeError for a record that cannot be used.
    """

    inputs: Callable[..., list[str]]
    build: Callable[..., Table]


TABLES = (
    {headline.NAME: Entry(headline.headline_inputs, headline.build)}
    | {
        name: Entry(partial(paper_table.table_inputs, name), partial(paper_table.build, name))
        for name in table_names()
    }
    | {
        beyond.NAME: Entry(beyond.beyond_inputs, beyond.build),
        "claims": Entry(claims.claims_inputs, claims.build),
        "cifar10_kept": Entry(code_content.kept_inputs, code_content.build),
        bookkeeping.NAME: Entry(bookkeeping.bookkeeping_inputs, bookkeeping.build),
        codelengths.NAME: Entry(codelengths.length_inputs, codelengths.build),
        decoder_windows.NAME: Entry(decoder_windows.windows_inputs, decoder_windows.build),
        information.NAME: Entry(information.information_inputs, information.build),
        downstream.NAME: Entry(downstream.probe_inputs, downstream.build),
        training_time.NAME: Entry(training_time.time_inputs, training_time.build),
    }
)


def table_inputs(name: str, params: "Params") -> list[str]:
    """Return the recorded results that table `name` reads if they exist, relative to the root."""
    return _entry(name).inputs(params)


def table_outputs(name: str) -> list[str]:
    """Return the files that write_table writes, relative to the root."""
    _entry(name)
    return [str(Path("results", "tables", f"{name}.{ending}")) for ending in ENDINGS]


def build_table(name: str, params: "Params", root: Path | str = ".") -> Table:
    """Build table `name`. Raises VlaeError if it is unknown or a record cannot be used."""
    return _entry(name).build(params, Path(root))


def write_table(name: str, params: "Params", root: Path | str = ".") -> list[Path]:
    """Write results/tables/NAME.{csv,md,tex,html} under `root`, each atomically, and the note of
    what they were drawn from (vlae.report.drawn).

    The csv has full precision; the others are for readers. Raises the errors of build_table.
    """
    table = build_table(name, params, root)
    texts = table.to_csv(), table.to_markdown(), table.to_latex(), table.to_html()
    paths = [Path(root, output) for output in table_outputs(name)]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    write_note("tables", name, table_inputs(name, params), table_outputs(name), root)
    return paths


def _entry(name: str) -> Entry:
    if name not in TABLES:
        raise VlaeError(f"no table {name!r}; {suggestion(name, TABLES)}")
    return TABLES[name]
