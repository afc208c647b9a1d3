"""Evaluations of a run that was trained again with other seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlae.storage.records import read_results

if TYPE_CHECKING:
    from vlae.config.schema import Params

# In what repetitions of a run have to agree to be averaged.
BUDGET = ("epochs", "exact", "importance_samples", "n_test", "data_sha256", "binarization_seed")


def repeated_evaluations(
    run: str, evaluation: dict, params: "Params", root: Path
) -> tuple[list[dict], list[str]]:
    """The evaluation of `run`, given, and those of its repetitions with other seeds that have
    the same budget; and remarks: each one's NLL, or why it is not among them."""
    evaluations, values, left_out = [evaluation], [f"{evaluation['nll']:.2f}"], []
    for name in params.repetitions(run):
        _, other = read_results(root, name, params.runs[name].dataset)
        if other is None:
            left_out.append(f"{name}: not trained and evaluated")
        elif any(other.get(key) != evaluation.get(key) for key in BUDGET):
            left_out.append(f"{name}: left out, of another budget or test set")
        else:
            evaluations.append(other)
            values.append(f"{other['nll']:.2f}")
    of_each = [f"{', '.join(values)} nats with {len(values)} seeds"] if len(values) > 1 else []
    return evaluations, [*of_each, *left_out]
