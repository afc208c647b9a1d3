"""What DVC shows of the runs: those that are evaluated, in few numbers, and no others."""

import json
from dataclasses import replace

import recorded
from miniature import PROJECT
from vlae.config.load import load_params
from vlae.config.schema import Params
from vlae.report.cards import CARDS
from vlae.report.summaries import CURVES, METRICS, SHOWN, run_outputs, write_summaries

PARAMS = load_params(PROJECT / "params.yaml")
TRAINED, NOT_TRAINED, NOT_EVALUATED = (
    f"static_mnist-{name}" for name in ("vlae", "vae_af", "vae_iaf")
)


def params(*runs: str) -> Params:
    return replace(PARAMS, runs={run: PARAMS.runs[run] for run in runs})


def write_training(root, run: str) -> None:
    recorded.write_training(root, run, config={"model": PARAMS.defaults["binary"]["model"]})
    recorded.write_curve(root, run, [-80.0, -79.0], [10.0, 11.0])


def names(folder) -> set[str]:
    return {path.stem for path in folder.glob("*")}


def test_runs_with_results_have_a_summary(tmp_path):
    recorded.write_evaluation(tmp_path, TRAINED, nll=79.5)
    for run in (TRAINED, NOT_EVALUATED):
        write_training(tmp_path, run)
    write_summaries(params(TRAINED, NOT_TRAINED, NOT_EVALUATED), tmp_path)
    for folder in (METRICS, CURVES, CARDS):
        assert names(tmp_path / folder) == {TRAINED}
    metrics, curve, card = (tmp_path / name for name in run_outputs(TRAINED))
    shown = json.loads(metrics.read_text())
    assert shown["nll"] == 79.5 and shown.keys() == {*SHOWN}
    original = tmp_path / "results" / "checkpoints" / TRAINED / "curve.csv"
    assert curve.read_bytes() == original.read_bytes()
    assert card.read_text().startswith(f"# {TRAINED}\n") and "79.50" in card.read_text()


def test_a_run_that_is_gone_leaves_none(tmp_path):
    for run in (TRAINED, NOT_TRAINED):
        recorded.write_evaluation(tmp_path, run)
        write_training(tmp_path, run)
    write_summaries(params(TRAINED, NOT_TRAINED), tmp_path)
    write_summaries(params(TRAINED), tmp_path)
    for folder in (METRICS, CURVES, CARDS):
        assert names(tmp_path / folder) == {TRAINED}
