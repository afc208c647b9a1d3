"""The table of probes: what simple classifiers and regressions find in codes and in pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlae.errors import VlaeError
from vlae.report.tables.table import Table
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.records import check_record, evaluation_file, read_evaluation

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "downstream"
ACCURACIES = ("linear", "neighbours")
MEASURES = ("thickness_r2", "slant_r2")
PROBED = (*ACCURACIES, *MEASURES)
NUMBERS = tuple(f"{key}{end}" for key in PROBED for end in ("", "_se"))
RECORD = {"latent_dim": int, "n_train": int, "n_test": int, "data_sha256": str}
RECORD |= {"posterior_entropy": float, "posterior_entropy_se": float, "labels_sha256": str}
RECORD |= {"code": dict, "drawn": dict, "pca": dict}
PIXELS = {"pixels": dict, "most_frequent": float, "n_train": int, "n_test": int}
CSV = (
    *("dataset", "features", "dimension", "kl", "kl_se", *NUMBERS),
    *(f"drawn_{key}" for key in NUMBERS),
    *("posterior_entropy", "posterior_entropy_se", "n_train", "n_test"),
)
LEGEND = (
    "What is easily read from a code z, on test images, ± standard error. z is the mean of "
    "q(z|x); drawn: z is a sample of q(z|x), as the decoder gets it. Linear probe: images "
    "whose class a multinomial logistic regression of z finds; neighbours: the same for the vote "
    "of the nearest training images. Classes are digits, alphabets (OMNIGLOT) or categories "
    "(Caltech-101). R²: the share of the variance of the stroke's thickness and slant that a "
    "ridge regression of z explains. Fitted on training images, chosen on validation images. PCA: "
    "as many principal components of the pixels. Chance: the most frequent class. "
    "KL(q(z|x) ‖ p(z)) in nats per image, as evaluated."
)


def probe_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    of_runs = [str(file(run)) for run in params.probes for file in (paths.probe, evaluation_file)]
    return of_runs + ([str(paths.probe(name)) for name in params.labels] if params.probes else [])


def build(params: "Params", root: Path) -> Table:
    """Build the table: a row per run, then PCA, pixels and chance, for each data set.

    Raises VlaeError for a record that cannot be used.
    """
    import pandas as pd

    rows = [row for name in params.labels for row in _of_dataset(params, root, name)]
    return Table(
        name=NAME,
        title="What the codes of binary images tell about class and stroke",
        legend=LEGEND,
        frame=pd.DataFrame(rows, columns=CSV),
        shown=pd.DataFrame([_cells(row) for row in rows], columns=list(_cells({}))),
        text=("Features",),
        groups=[row["dataset"] for row in rows],
    )


def _of_dataset(params: "Params", root: Path, dataset: str) -> list[dict]:
    """Return the rows of the runs on a data set, and of what they are compared with."""
    rows: list[dict] = []
    components: dict[int, dict] = {}
    for run, config in params.probes.items():
        path = root / paths.probe(run)
        if config.dataset != dataset or not path.exists():
            continue
        record = check_record(path, read_json(path), {"run": run, "dataset": dataset}, RECORD)
        row = _row(record, dataset, run, record["latent_dim"], _numbers(path, record, "code"))
        drawn = _numbers(path, record, "drawn")
        row |= {f"drawn_{key}": value for key, value in drawn.items()}
        row |= {key: record[key] for key in ("posterior_entropy", "posterior_entropy_se")}
        if evaluation := read_evaluation(root, run, dataset):
            row |= {"kl": evaluation["kl"], "kl_se": evaluation["kl_se"]}
        rows.append(row)
        size, of_pca = record["latent_dim"], _numbers(path, record, "pca")
        components.setdefault(size, _row(record, dataset, f"PCA, {size}", size, of_pca))
    rows += [components[size] for size in sorted(components)]
    path = root / paths.probe(dataset)
    if path.exists():
        record = check_record(path, read_json(path), {"dataset": dataset}, PIXELS)
        numbers = _numbers(path, record, "pixels", ACCURACIES)
        rows.append(_row(record, dataset, "pixels", 784, numbers))
        chance = {key: record["most_frequent"] for key in ACCURACIES}
        rows.append(_row(record, dataset, "chance", None, chance))
    return rows


def _numbers(path: Path, record: dict, of: str, keys: tuple[str, ...] = PROBED) -> dict:
    """Return the probes of some features in a record. Raises VlaeError if one is missing."""
    numbers = [f"{key}{end}" for key in keys for end in ("", "_se")]
    try:
        found = check_record(path, record[of], {}, dict.fromkeys(numbers, float))
    except VlaeError as error:
        raise VlaeError(f"{error} (in {of!r})") from None
    return {key: found[key] for key in numbers}


def _row(record: dict, dataset: str, name: str, size: int | None, numbers: dict) -> dict:
    about = {"dataset": dataset, "features": name, "dimension": size}
    return about | {key: record[key] for key in ("n_train", "n_test")} | numbers


def _cells(row: dict) -> dict[str, str]:
    """Return the cells for readers, by heading."""

    def number(key: str, digits: int, factor: float = 1) -> str:
        value, error = row.get(key), row.get(f"{key}_se")
        if value is None:
            return ""
        text = f"{factor * value:.{digits}f}"
        return text if error is None else f"{text} ± {factor * error:.{digits}f}"

    return {
        "Features": row.get("features", ""),
        "Dimension": "" if row.get("dimension") is None else str(row["dimension"]),
        "KL, nats": number("kl", 2),
        "Linear probe, %": number("linear", 1, 100),
        "Neighbours, %": number("neighbours", 1, 100),
        "Linear probe, drawn, %": number("drawn_linear", 1, 100),
        "R², thickness": number("thickness_r2", 3),
        "R², slant": number("slant_r2", 3),
    }
