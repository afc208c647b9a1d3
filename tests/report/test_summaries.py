"""What DVC shows of the runs: those that are evaluated, in few numbers, and no others."""

import json

import recorded
from vlae.report.summaries import CURVES, METRICS, SHOWN, run_outputs, write_summaries

TRAINED, NOT_TRAINED, NOT_EVALUATED = (f"static_mnist-{name}" for name in ("a", "b", "c"))


def names(folder) -> set[str]:
    return {path.stem for path in folder.glob("*")}


def test_runs_with_results_have_a_summary(tmp_path):
    recorded.write_evaluation(tmp_path, TRAINED, nll=79.5)
    for run in (TRAINED, NOT_EVALUATED):
        recorded.write_curve(tmp_path, run, [-80.0, -79.0], [10.0, 11.0])
    write_summaries(recorded.params(TRAINED, NOT_TRAINED, NOT_EVALUATED), tmp_path)
    assert names(tmp_path / METRICS) == names(tmp_path / CURVES) == {TRAINED}
    metrics, curve = (tmp_path / name for name in run_outputs(TRAINED))
    shown = json.loads(metrics.read_text())
    assert shown["nll"] == 79.5 and shown.keys() == {*SHOWN}
    original = tmp_path / "results" / "checkpoints" / TRAINED / "curve.csv"
    assert curve.read_bytes() == original.read_bytes()


def test_a_run_that_is_gone_leaves_none(tmp_path):
    for run in (TRAINED, NOT_TRAINED):
        recorded.write_evaluation(tmp_path, run)
        recorded.write_curve(tmp_path, run, [-80.0], [10.0])
    write_summaries(recorded.params(TRAINED, NOT_TRAINED), tmp_path)
    write_summaries(recorded.params(TRAINED), tmp_path)
    assert names(tmp_path / METRICS) == names(tmp_path / CURVES) == {TRAINED}
