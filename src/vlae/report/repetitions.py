"""Evaluations of a run that was repeated with other seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlae.storage.records import read_results

if TYPE_CHECKING:
    from vlae.config.schema import Params

# Keys in which the repetitions of a run must agree to be averaged.
BUDGET = ("epochs", "exact", "importance_samples", "n_test", "data_sha256", "binarization_seed")


def repeated_evaluations(
    run: str, evaluation: dict, params: "Params", root: Path
) -> tuple[list[dict], list[str]]:
    """Return the evaluations of `run` and of its repetitions with the same budget, and remarks.

    `evaluation` is that of `run`. The remarks give the NLL of each repetition, or the reason why
    it is excluded.
    """
    evaluations, values, excluded = [evaluation], [f"{evaluation['nll']:.2f}"], []
    for name in params.repetitions(run):
        _, other = read_results(root, name, params.runs[name].dataset)
        if other is None:
            excluded.append(f"{name}: not trained and evaluated")
        elif any(other.get(key) != evaluation.get(key) for key in BUDGET):
            excluded.append(f"{name}: left out because its budget or test set differs")
        else:
            evaluations.append(other)
            values.append(f"{other['nll']:.2f}")
    of_each = [f"{', '.join(values)} nats with {len(values)} seeds"] if len(values) > 1 else []
    return evaluations, [*of_each, *excluded]
