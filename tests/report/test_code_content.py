"""What codes keep: errors by hand, the table, the claims."""

import math

import numpy as np
import pandas as pd
import pytest

from recorded import (
    params,
    write_classifier,
    write_evaluation,
    write_per_image,
    write_samples,
    write_training,
)
from vlae.errors import VlaeError
from vlae.evaluation.classifier import classify
from vlae.evaluation.reconstruction_error import block_means, errors, errors_of_others
from vlae.report.tables.claims import check_claims
from vlae.report.tables.code_content import kept_rows
from vlae.report.tables.registry import table_inputs, write_table
from vlae.storage import paths

RUN, GRAY = "cifar10-narrow_7x4", "cifar10-narrow_7x4gray"
SMALL = "cifar10-narrow_4x2"
DATA = "cifar10"


def plain(*colours) -> np.ndarray:
    """Images (n, 3, 32, 32), each of one colour (r, g, b)."""
    colours = np.array(colours, np.uint8).reshape(-1, 3, 1, 1)
    return np.broadcast_to(colours, (len(colours), 3, 32, 32)).copy()


# --- errors ----------------------------------------------------------------------------------


def test_means_of_blocks_and_their_colours_by_hand():
    image = plain((0, 0, 0))
    image[0, :, 8:16, 24:32] = np.array([200, 100, 50]).reshape(3, 1, 1)  # block (1, 3): 7
    image[0, 0, 0, 0] = 64  # one red pixel of block 0: a mean of 1
    means = block_means(image)
    assert means.shape == (1, 3, 16)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(means[0, :, 7], [luma, (50 - luma) / 1.772, (200 - luma) / 1.402])
    np.testing.assert_allclose(means[0, :, 0], [0.299, -0.299 / 1.772, 0.701 / 1.402])
    assert (means[0, :, [1, 2, 6, 8, 15]] == 0).all()


def test_errors_by_hand():
    grey, lighter, red = (100, 100, 100), (130, 130, 130), (255, 0, 0)
    found = errors(plain(grey, grey), plain(lighter, red))
    np.testing.assert_allclose(found["structure"], [30, 100 - 0.299 * 255])
    # Grey has no chroma; pure red has Cr = 127.5 and Cb = -0.299 * 255 / 1.772.
    blue = 0.299 * 255 / 1.772
    np.testing.assert_allclose(
        found["colour"], [0, math.hypot(127.5, blue) / math.sqrt(2)], atol=1e-9
    )
    half = plain(grey)
    half[:, :, :16] = 140  # 8 of 16 blocks lighter by 40
    assert errors(plain(grey), half)["structure"] == pytest.approx(40 / math.sqrt(2))


def test_what_a_decoder_makes_up_within_a_block_is_no_error():
    image = plain((100, 120, 80))
    texture = image.copy()
    texture[:, :, ::2] += 30
    texture[:, :, 1::2] -= 30
    assert max(values.max() for values in errors(image, texture).values()) < 1e-9


def test_the_baseline_is_the_mean_over_all_other_pairs():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (2, 5, 3, 32, 32), dtype=np.uint8)
    others = errors_of_others(a, b)
    for kind in ("structure", "colour"):
        for i in range(5):
            pairs = [errors(a[[i]], b[[j]])[kind][0] for j in range(5) if j != i]
            assert others[kind][i] == pytest.approx(np.mean(pairs))
    perfect = errors_of_others(a, a)
    assert all((errors(a, a)[kind] == 0).all() and perfect[kind].min() > 0 for kind in perfect)


# --- the table -------------------------------------------------------------------------------


def write_run(root, run, **images):
    write_training(root, run, epochs=2)
    nats = 4.5 * 3072 * math.log(2)
    write_evaluation(root, run, nll=nats, kl=30.0, n_test=400, data_sha256="d" * 64)
    return write_samples(root, run, **images)


def test_row_by_hand(tmp_path):
    write_run(tmp_path, RUN)
    images = write_samples(tmp_path, RUN, n=50)
    model = write_classifier(tmp_path)
    csv, markdown, *_ = write_table("cifar10_kept", params(RUN, "static_mnist-vlae"), tmp_path)
    frame = pd.read_csv(csv)
    assert frame["run"].tolist() == [RUN]
    line = frame.iloc[0]
    assert (line["epochs"], line["images"], line["chance"]) == (2, 50, 0.1)
    assert line["bits_per_dim"] == pytest.approx(4.5)
    assert line["kl_bits"] == pytest.approx(30 / math.log(2))
    expected = errors(images["originals"], images["decompressions"])
    others = errors_of_others(images["originals"], images["decompressions"])
    for kind, values in expected.items():
        assert line[kind] == pytest.approx(values.mean())
        assert line[f"{kind}_se"] == pytest.approx(values.std(ddof=1) / math.sqrt(50))
        assert line[f"{kind}_others"] == pytest.approx(others[kind].mean())
    # Recorded image i is test image 3 i, recognised where that is even: 25 of 50.
    assert line["recognised_originals"] == 0.5
    assert line["recognised_originals_se"] == pytest.approx(math.sqrt(0.25 / 50))
    again = classify(model, images["decompressions"]) == 3 * np.arange(50) % 10
    assert line["recognised_decompressions"] == pytest.approx(again.mean())
    assert " 50.0 ± 7.1 % |" in markdown.read_text()
    assert "chance: 10 %" in markdown.read_text()


def test_what_is_missing_is_said(tmp_path):
    runs = params("cifar10-vlae_4x2", SMALL, RUN, GRAY)
    write_training(tmp_path, SMALL)
    write_training(tmp_path, RUN)
    write_samples(tmp_path, RUN, n=4)
    rows = {row["run"]: row for row in kept_rows(runs, tmp_path)}
    assert rows["cifar10-vlae_4x2"]["note"] == "not trained"
    assert rows[SMALL]["note"] == "not evaluated; not sampled"
    assert rows[RUN]["note"] == "not evaluated; no classifier trained"
    assert rows[RUN]["structure"] > 0 and rows[RUN]["recognised_originals"] is None
    assert rows[GRAY]["structure"] is None


def test_the_same_results_give_the_same_bytes(tmp_path):
    write_run(tmp_path, RUN)
    write_classifier(tmp_path)
    first = [path.read_bytes() for path in write_table("cifar10_kept", params(RUN), tmp_path)]
    assert [
        path.read_bytes() for path in write_table("cifar10_kept", params(RUN), tmp_path)
    ] == first


def test_inputs_are_samples_and_classifiers_of_colour_runs():
    assert table_inputs("cifar10_kept", params("static_mnist-vlae")) == []
    assert table_inputs("cifar10_kept", params("static_mnist-vlae", RUN)) == [
        f"results/checkpoints/{RUN}/train.json",
        f"results/evaluations/{RUN}.json",
        f"results/samples/{RUN}.npz",
        "results/classifiers/cifar10.safetensors",
        "results/classifiers/cifar10.json",
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dataset": "cifar100"}, "is a record of dataset 'cifar100'"),
        ({"accuracy": "0.7"}, "'accuracy' must be float"),
        ({"checkpoint_sha256": "0" * 64}, "is not the classifier that"),
        ({"n_test": 12}, "must be uint8, one for each of 12 images"),
        ({"data_sha256": "e" * 64}, "trained on other data than"),
    ],
)
def test_a_classifier_that_does_not_belong_there(tmp_path, changes, complaint):
    write_run(tmp_path, RUN)
    write_classifier(tmp_path, **changes)
    with pytest.raises(VlaeError, match=complaint) as caught:
        write_table("cifar10_kept", params(RUN), tmp_path)
    assert "\n" not in str(caught.value)


def test_an_original_beyond_the_test_set(tmp_path):
    write_run(tmp_path, RUN)
    write_classifier(tmp_path, images=290)  # the last recorded one is 297
    with pytest.raises(VlaeError, match="originals_index: no such image"):
        write_table("cifar10_kept", params(RUN), tmp_path)


def test_a_classifier_that_is_damaged(tmp_path):
    write_run(tmp_path, RUN)
    write_classifier(tmp_path)
    (tmp_path / paths.classifier(DATA)).write_bytes(b"\x08" * 40)
    with pytest.raises(VlaeError, match="cannot be read"):
        write_table("cifar10_kept", params(RUN), tmp_path)


# --- claims ----------------------------------------------------------------------------------


def claims_of(root, quantity):
    """The checked claim about the narrow runs."""
    (one,) = [
        c
        for c in check_claims(params(SMALL, RUN, GRAY), root)
        if c.claim.quantity == quantity and c.claim.higher.startswith("cifar10-narrow")
    ]
    return one


def test_claims_about_decompressions_are_paired(tmp_path):
    random = np.random.default_rng(0)
    originals = random.integers(60, 190, (100, 3, 32, 32)).astype(np.uint8)
    each = random.integers(0, 30, (100, 1, 1, 1))  # hard and easy images, for all runs
    colour = np.array([1, -1, 1]).reshape(1, 3, 1, 1)
    shifts = {SMALL: each + 0 * colour, RUN: each + 10 + 20 * colour, GRAY: each + 10 + 3 * colour}
    for run, shift in shifts.items():
        again = (originals + shift).astype(np.uint8)
        write_training(tmp_path, run)
        write_samples(tmp_path, run, originals=originals, decompressions=again)
    structure, colour = claims_of(tmp_path, "structure"), claims_of(tmp_path, "colour")
    assert structure.verdict == colour.verdict == "same sign"
    luma = 10 + 20 * (0.299 - 0.587 + 0.114)
    assert structure.ours == pytest.approx(luma)
    assert structure.standard_error < 1e-9  # every image differs by the same
    assert structure.claim.unit == colour.claim.unit == "levels"
    assert colour.lower / colour.higher == pytest.approx(3 / 20)
    assert structure.note == "100 decompressions"
    text = write_table("claims", params(SMALL, RUN, GRAY), tmp_path)[1].read_text()
    assert f" {luma:.2f} levels |" in text
    write_samples(tmp_path, SMALL, originals=originals[::-1])
    assert "unpaired" in claims_of(tmp_path, "structure").note


def test_claims_about_likelihoods_of_colour_images_are_in_bits(tmp_path):
    nats = 3072 * math.log(2)
    for run, bits in ((SMALL, 4.6), (RUN, 4.3)):
        write_training(tmp_path, run)
        write_evaluation(tmp_path, run, nll=bits * nats, n_test=400)
        own = np.random.default_rng(int(10 * bits)).normal(size=400)
        write_per_image(tmp_path, run, -nats * (bits + 0.01 * own))
    one = claims_of(tmp_path, "nll")
    assert (one.ours, one.higher) == (pytest.approx(0.3), pytest.approx(4.6))
    assert one.standard_error == pytest.approx(0.01 * math.sqrt(2 / 400), rel=0.2)
    assert one.verdict == "same sign"


def test_decompressions_that_are_missing_are_named(tmp_path):
    write_training(tmp_path, SMALL)
    one = claims_of(tmp_path, "structure")
    assert (one.verdict, one.note) == (
        "not trained yet",
        f"{RUN}: not trained; {SMALL}: not sampled",
    )
