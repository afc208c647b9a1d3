"""The recorded runs in a table."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from vlae.library.project import find_project
from vlae.report.overview import summaries
from vlae.storage.records import evaluation_file, training_file

if TYPE_CHECKING:
    from pandas import DataFrame


def runs(home: str | os.PathLike | None = None) -> "DataFrame":
    """All runs of the project `home`, a row each, indexed by name: `dataset`, `nll` with its
    standard error `nll_se` and the `paper`'s value, all in `unit` (nats per image or bits/dim),
    `epochs` trained of those `wanted`, after the epochs `before` of the run whose weights it began
    with, and `state`, which says if the importance sampling is not reliable. NaN where nothing is
    recorded or printed.

    Raises VlaeError if no project is found (vlae.library.project).
    """
    import pandas as pd

    project = find_project(home)
    names = project.params.runs
    files = [place(run) for run in names for place in (training_file, evaluation_file)]
    with project.files(files) as root:
        rows = [asdict(one) for one in summaries(project.params, root)]
    numbers = {"nll": float, "nll_se": float, "paper": float, "before": "Int64"}
    return pd.DataFrame(rows).set_index("run").astype(numbers)
