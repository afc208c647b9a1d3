"""The paper's claims: their arithmetic, and verdicts on made-up records with known answers."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from miniature import PROJECT
from recorded import params, write_evaluation, write_per_image, write_training
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.report.paper import paper_claims, paper_table, table_names
from vlae.report.tables.registry import table_inputs, table_outputs, write_table
from vlae.report.verdicts import check_claims, paired_error, verdict

VLAE, IAF = "static_mnist-vlae", "static_mnist-vlae_iaf_relu"
FACTORIZED = "static_mnist-vlae_factorized"
PIXELCNN, DYNAMIC = "dynamic_mnist-pixelcnn", "dynamic_mnist-vlae"
SIZE, TRAINING = paper_claims()[:2]  # 0.6 of the test, 0.8 of the training images
ORDER = replace(SIZE, value=None, rounding=None)
N = 400


def write_run(root, run, nll, spread=1.0, kl=12.0, elbo=-81.0, **changes):
    """A trained and evaluated run whose NLL of each image is nll + spread * noise of its own,
    beside 20 * noise that all runs share; the record's mean is `nll` itself."""
    shared = np.random.default_rng(0).normal(size=N)
    own = np.random.default_rng(len(run)).normal(size=N)
    values = nll + 20 * shared + spread * own
    write_training(root, run, final={"elbo": elbo}, **changes.pop("training", {}))
    write_evaluation(root, run, nll=nll, kl=kl, n_test=N, **changes)
    write_per_image(root, run, -values, kl=kl + own)
    return values


def check(root, *runs):
    """(quantity, higher, lower) -> the checked claim."""
    return {
        (one.claim.quantity, one.claim.higher, one.claim.lower): one
        for one in check_claims(params(*runs), root)
    }


# --- what the paper says ---------------------------------------------------------------------


def test_derived_values_are_the_difference_of_the_printed_ones():
    for claim in paper_claims():
        assert (claim.size is None) == (claim.value is None)
        assert claim.value is None or claim.value > 0
        if claim.derived:
            first, second = map(float, re.findall(r"[\d.]+", claim.derived))
            assert claim.value == pytest.approx(first - second, abs=0.001), claim


def test_the_printed_terms_are_those_of_the_runs_in_the_tables():
    printed = {}
    for name in table_names():
        for row in paper_table(name).rows:
            for run in filter(None, (row.run, row.instead)):
                printed.setdefault((run, "nll"), set()).add(row.value)
                printed.setdefault((run, "kl"), set()).add(row.kl and round(row.kl, 2))
    for claim in paper_claims():
        if claim.derived:
            first, second = map(float, re.findall(r"[\d.]+", claim.derived))
            assert first in printed[claim.higher, claim.quantity], claim
            assert second in printed[claim.lower, claim.quantity], claim


def test_the_claims_of_the_paper_are_all_there():
    assert (SIZE.value, TRAINING.value, TRAINING.quantity) == (0.6, 0.8, "training_bound")
    gain = "VLAE beats the same PixelCNN without a code"
    bought = [c.value for c in paper_claims() if c.claim == gain]
    assert bought == [9.02, 4.04, 11.90]
    printed = [c.value for c in paper_claims() if c.quantity == "kl" and c.value]
    assert printed == [12.55, 1.13]
    ours = [c for c in paper_claims() if c.source == "not in the paper"]
    argued = [c for c in paper_claims() if c.source == "Section 2"]
    assert len(paper_claims()) == 16 + len(ours) + len(argued) and len(argued) == 3
    assert all(c.value is None and "not in the paper" in c.group for c in ours)


# --- verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "error", "claim", "expected"),
    [
        (0.55, 0.05, SIZE, "reproduced"),
        (0.75, 0.05, SIZE, "reproduced"),  # 0.6 + rounding 0.05 + 2 s.e.
        (0.76, 0.05, SIZE, "same sign, other size"),
        (0.44, 0.05, SIZE, "same sign, other size"),
        (0.44, 0.05, ORDER, "same sign"),
        (0.10, 0.05, ORDER, "not significant"),
        (0.55, 0.30, SIZE, "not significant"),  # near the paper's, and as near to none
        (0.0, None, SIZE, "not significant"),
        (-0.10, 0.05, SIZE, "not significant"),
        (-0.11, 0.05, SIZE, "contradicted"),
        (-0.11, 0.05, ORDER, "contradicted"),
        (-0.01, None, TRAINING, "contradicted"),
        (0.84, None, TRAINING, "reproduced"),
        (0.9, None, TRAINING, "same sign, other size"),
    ],
)
def test_verdict(ours, error, claim, expected):
    assert verdict(ours, error, claim) == expected


def test_paired_error_by_hand():
    higher, lower = np.array([80.0, 90.0, 103.0, 75.0]), np.array([79.0, 91.0, 100.0, 74.0])
    # Differences 1, -1, 3, 1: mean 1, squares of deviations 0, 4, 4, 0.
    first = math.sqrt(8 / 3 / 4)
    assert paired_error(higher, lower) == pytest.approx(first)
    assert paired_error(higher, lower, (0.3, 0.4)) == pytest.approx(math.hypot(first, 0.5))
    assert paired_error(higher.astype(np.float32), lower) == pytest.approx(first)


@pytest.mark.parametrize(
    ("iaf", "expected"),
    [
        (80.6, "reproduced"),
        (81.5, "same sign, other size"),
        (80.05, "not significant"),
        (79.0, "contradicted"),
    ],
)
def test_verdicts_from_records(tmp_path, iaf, expected):
    lower = write_run(tmp_path, VLAE, 80.0)
    higher = write_run(tmp_path, IAF, iaf)
    one = check(tmp_path, VLAE, IAF)["nll", IAF, VLAE]
    assert one.verdict == expected
    assert one.ours == pytest.approx(iaf - 80.0)
    by_hand = np.std(higher - lower, ddof=1) / np.sqrt(N)
    assert one.standard_error == pytest.approx(by_hand, rel=1e-4)
    assert one.standard_error < 0.1 < 0.9 < np.std(higher) / np.sqrt(N)  # what pairing gains
    assert (one.higher, one.lower, one.epochs, one.note) == (iaf, 80.0, (30, 30), "")


def test_why_a_claim_could_not_be_checked_is_said_once(tmp_path):
    caltech = params("caltech101-pixelcnn", "caltech101-vlae")
    caltech.why_not_trained = lambda run: "its file is lost"
    notes = [
        c.note for c in check_claims(caltech, tmp_path) if c.claim.group.startswith("Caltech")
    ]
    assert notes == [
        "caltech101-pixelcnn: not trained; caltech101-vlae: not trained; its file is lost"
    ]


def test_seeds_count_in_the_value_and_in_its_error(tmp_path):
    again = {run: [f"{run}_seed1"] for run in (VLAE, IAF)}
    known = params(VLAE, IAF, repetitions=again)

    def checked():
        (one,) = [
            c
            for c in check_claims(known, tmp_path)
            if (c.claim.quantity, c.claim.lower) == ("nll", VLAE) and c.ours is not None
        ]
        return one

    write_run(tmp_path, VLAE, 80.0)
    write_run(tmp_path, IAF, 80.6)
    once = checked()
    assert (once.ours, once.seeds) == (pytest.approx(0.6), (1, 1))
    write_run(tmp_path, again[IAF][0], 80.4)
    one_side = checked()
    assert (one_side.ours, one_side.seeds) == (pytest.approx(0.5), (2, 1))
    # The variance of 80.6 and 80.4 is 0.02, of their mean 0.01.
    assert one_side.standard_error == pytest.approx(math.hypot(once.standard_error, 0.1))
    write_run(tmp_path, again[VLAE][0], 80.2)
    both = checked()
    assert (both.ours, both.seeds) == (pytest.approx(0.4), (2, 2))
    assert both.standard_error == pytest.approx(math.hypot(once.standard_error, 0.1, 0.1))
    assert (both.higher, both.lower) == (pytest.approx(80.5), pytest.approx(80.1))


def test_a_claim_says_what_else_sets_its_trainings_apart(tmp_path):
    write_run(tmp_path, VLAE, 80.0)
    write_run(tmp_path, IAF, 80.6, epochs=44)
    known = params(VLAE, IAF)
    known.runs[IAF].training.batch_size = 32
    for run, side, flow in ((VLAE, "prior", "af"), (IAF, "posterior", "iaf")):
        model = load_params(PROJECT / "params.yaml").runs[run].model
        part = getattr(model, side)
        assert (part.flow, part.hidden_activation) == (flow, "relu")
        other = replace(part, activation="elu") if run == IAF else part
        known.runs[run].model = replace(model, **{side: other})
    checked = check_claims(known, tmp_path)[0]
    assert checked.unequal == (
        "epochs 44 and 30; batch size 32 and 64; activation of the flow elu and relu"
    )
    same = replace(known.runs[IAF].model.posterior, activation="relu")
    known.runs[IAF].model = replace(known.runs[IAF].model, posterior=same)
    known.runs[IAF].training.batch_size = 64
    assert check_claims(known, tmp_path)[0].unequal == "epochs 44 and 30"
    text = write_table("claims", known, tmp_path)[1].read_text()
    assert "**reproduced ‡**" in text


def test_second_levels_add_to_the_error(tmp_path):
    deep = {"images": 200, "importance_samples": 4096, "difference": -0.3}
    lower = write_run(tmp_path, VLAE, 80.0, deep=deep | {"difference_se": 0.3})
    higher = write_run(tmp_path, IAF, 80.6, deep=deep | {"difference_se": 0.4})
    checked = check(tmp_path, VLAE, IAF)
    by_hand = math.hypot(np.std(higher - lower, ddof=1) / np.sqrt(N), 0.5)
    assert checked["nll", IAF, VLAE].standard_error == pytest.approx(by_hand, rel=1e-4)
    assert checked["nll", IAF, VLAE].verdict == "not significant"


def test_divergences_have_one_level_only(tmp_path):
    deep = {"images": 9, "importance_samples": 99, "difference": -0.3, "difference_se": 9.0}
    write_run(tmp_path, VLAE, 80.0, kl=13.25, deep=deep)
    write_run(tmp_path, FACTORIZED, 82.0, kl=25.75, deep=deep)
    one = check(tmp_path, VLAE, FACTORIZED)["kl", FACTORIZED, VLAE]
    assert (one.ours, one.verdict) == (12.5, "reproduced")
    assert 0 < one.standard_error < 0.1


def test_training_images_have_no_standard_error(tmp_path):
    write_run(tmp_path, VLAE, 80.0, elbo=-81.5)
    write_training(tmp_path, IAF, final={"elbo": -82.75}, epochs=40)  # not evaluated
    checked = check(tmp_path, VLAE, IAF)
    one = checked["training_bound", IAF, VLAE]
    assert (one.ours, one.standard_error, one.verdict) == (1.25, None, "same sign, other size")
    assert "no standard error is recorded" in one.note
    assert one.unequal == "epochs 40 and 30"
    assert checked["nll", IAF, VLAE].verdict == "not trained yet"
    assert checked["nll", IAF, VLAE].note == f"{IAF}: not evaluated"


def test_other_test_images_cannot_be_paired(tmp_path):
    write_run(tmp_path, PIXELCNN, 87.5, exact=True, nll_se=0.3, binarization_seed=777)
    write_run(tmp_path, DYNAMIC, 78.5, nll_se=0.4, binarization_seed=1)
    one = check(tmp_path, PIXELCNN, DYNAMIC)["nll", PIXELCNN, DYNAMIC]
    assert one.standard_error == pytest.approx(0.5)
    assert one.verdict == "reproduced"  # 9.0 ± 0.5 for 9.02
    assert "unpaired" in one.note
    write_run(tmp_path, DYNAMIC, 78.5, binarization_seed=777)
    assert check(tmp_path, PIXELCNN, DYNAMIC)["nll", PIXELCNN, DYNAMIC].standard_error < 0.1


# --- what is missing or damaged --------------------------------------------------------------


def test_missing_runs_are_named(tmp_path):
    for known in (params(), params(VLAE, IAF)):  # not in params.yaml, and not trained
        for one in check_claims(known, tmp_path):
            assert one.verdict == "not trained yet"
            assert one.ours is one.standard_error is one.epochs is None
            for run in (one.claim.higher, one.claim.lower):
                assert f"{run}: not trained" in one.note
    write_run(tmp_path, VLAE, 80.0)
    assert check(tmp_path, VLAE)["nll", IAF, VLAE].note == f"{IAF}: not trained"


def test_evaluation_without_the_values_of_its_images(tmp_path):
    write_run(tmp_path, VLAE, 80.0)
    write_run(tmp_path, IAF, 81.0)
    path = tmp_path / "results" / "evaluations" / f"{IAF}.npz"
    path.unlink()
    with pytest.raises(
        VlaeError, match=r"results.evaluations.*\.npz, recorded with it, is missing"
    ):
        check_claims(params(VLAE, IAF), tmp_path)
    write_per_image(tmp_path, IAF, np.zeros(N - 1))
    with pytest.raises(VlaeError, match=f"must be one number for each of {N} images"):
        check_claims(params(VLAE, IAF), tmp_path)
    path.write_bytes(b"PK")
    with pytest.raises(VlaeError, match="not the values of each image") as caught:
        check_claims(params(VLAE, IAF), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("final", [None, {}, {"elbo": "80"}, {"elbo": float("nan")}])
def test_training_record_without_its_bound(tmp_path, final):
    for run in (VLAE, IAF):
        write_training(tmp_path, run, final=final)
    with pytest.raises(VlaeError, match=r"train\.json: 'final' must hold the number elbo"):
        check_claims(params(VLAE, IAF), tmp_path)


# --- files -----------------------------------------------------------------------------------


def test_files(tmp_path):
    write_run(tmp_path, VLAE, 80.0)
    write_run(tmp_path, IAF, 80.6543)
    known = params(VLAE, IAF)
    known.runs[IAF].training.batch_size = 32  # what a footnote is for
    paths = write_table("claims", known, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == table_outputs("claims")
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_table("claims", known, tmp_path)] == first
    csv, markdown, latex, _ = paths

    frame = pd.read_csv(csv)
    assert len(frame) == len(paper_claims())
    line = frame.iloc[0]
    assert line["ours"] == 80.6543 - 80.0  # every digit
    assert (line["paper"], line["ours_higher"], line["verdict"]) == (0.6, 80.6543, "reproduced")
    assert (frame["verdict"] == "not trained yet").sum() == len(frame) - 2
    assert pd.isna(frame.iloc[1]["standard_error"])

    rows = [line.strip("|").split("|") for line in markdown.read_text().splitlines()]
    cells = [cell.strip() for row in rows for cell in row if row[0].strip() == SIZE.claim]
    assert cells[1:3] == ["0.6", "0.65"]
    assert cells[4:9] == ["**reproduced ‡**", "", "80.65 − 80.00", "30", "1"]
    assert "≈ 0.58" in markdown.read_text()
    assert rf"{SIZE.claim}\textsuperscript{{a}} & 0.6 & 0.65 & 0.0" in latex.read_text()


def test_inputs_are_the_records_of_the_runs_in_params():
    assert table_inputs("claims", params()) == []
    assert table_inputs("claims", params("caltech101-vlae", "no-run")) == [
        "results/checkpoints/caltech101-vlae/train.json",
        "results/evaluations/caltech101-vlae.json",
        "results/evaluations/caltech101-vlae.npz",
    ]


def test_the_command(tmp_path, monkeypatch):
    from miniature import small_params
    from vlae.cli import main

    monkeypatch.chdir(tmp_path)
    small_params(tmp_path)
    assert main(["table", "claims"]) == 0
    text = (tmp_path / "results" / "tables" / "claims.md").read_text()
    assert "**not trained yet**" in text
    write_training(tmp_path, VLAE).write_text(json.dumps([]))
    assert main(["table", "claims"]) == 2
