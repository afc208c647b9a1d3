"""The parts of a code's length: what they sum to, and records that do not belong together."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import recorded
from recorded import REAL, params, write_evaluation, write_per_image
from vlae.coding.distributions import BIN
from vlae.errors import VlaeError
from vlae.report.figures.registry import build_figure, figure_inputs
from vlae.report.tables.bookkeeping import BIN_BITS, NAME, accounts
from vlae.report.tables.registry import build_table, table_inputs, write_table
from vlae.storage import paths
from vlae.storage.records import evaluation_file

VLAE, AF, ALONE = "static_mnist-vlae", "static_mnist-vae_af", "dynamic_mnist-pixelcnn"
COLOUR = "cifar10-narrow_7x4"
SAME = {"checkpoint_sha256": "c" * 64, "data_sha256": "d" * 64, "n_test": 4}
BIT = math.log(2)


def write(root, run, nll=80.0, elbo=-81.5, kl=11.0, **changes):
    """An evaluation, with values of each image that have the same means."""
    of_record = {"elbo": elbo, "elbo_se": 0.5, "nll_se": 0.4, "kl": kl} | SAME | changes
    write_evaluation(root, run, nll, **of_record)
    n, spread = of_record["n_test"], np.array([-9.0, 9.0, -1.0, 1.0])
    gaps = np.array([1.0, 1.0, 2.0, 2.0])
    images = -nll + spread
    write_per_image(root, run, images, np.full(n, kl), elbo=(images - gaps).astype(np.float32))


def write_probe(root, run, entropy=-12.0, **changes):
    return recorded.write_probe(root, run, entropy, **(SAME | changes))


def write_code(root, run, bits=118.0, **changes):
    record = {"run": run, "dataset": run.partition("-")[0], "bits_per_image": bits}
    return write_json(root / paths.codelength(run), record | SAME | changes)


def write_json(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


@pytest.fixture
def known():
    runs = params(ALONE, AF, VLAE, COLOUR)
    runs.codelengths, runs.probes = {VLAE: None, ALONE: None}, {VLAE: None, AF: None}
    return runs


def row(known, root, run=VLAE):
    return build_table(NAME, known, root).frame.set_index("run").loc[run]


# --- numbers ---------------------------------------------------------------------------------


def test_the_bins_are_those_of_the_coder():
    assert 2.0**-BIN_BITS == BIN


def test_the_parts_by_hand(known, tmp_path):
    write(tmp_path, VLAE)
    write_probe(tmp_path, VLAE)
    write_code(tmp_path, VLAE)
    found = row(known, tmp_path)
    back = -12.0 + 8 * 5 * BIT
    for part, nats in {
        "bits_back": 81.5,
        "nll": 80.0,
        "gap": 1.5,
        "kl": 11.0,
        "reconstruction": 70.5,
        "posterior_entropy": -12.0,
        "naive_density": 69.5,  # shorter than the bits-back length: a narrow posterior
        "comes_back": back,
        "naive": 81.5 + back,
        "coded": 118 * BIT,
    }.items():
        assert found[f"{part}_nats"] == pytest.approx(nats), part
        assert found[f"{part}_bits"] == pytest.approx(nats / BIT), part
    assert (found["n_test"], found["latent_dim"]) == (4, 8)


def test_errors(known, tmp_path):
    """Those of differences are paired; that of a sum is the most that it can be."""
    deep = {"images": 3, "importance_samples": 9, "difference": -0.1, "difference_se": 0.4}
    write(tmp_path, VLAE, deep=deep)
    write_probe(tmp_path, VLAE)
    found = row(known, tmp_path)
    first = math.sqrt(1 / 3) / 2  # of the gaps 1, 1, 2, 2
    assert found["gap_se_nats"] == pytest.approx(math.hypot(first, 0.4), rel=1e-5)
    assert found["reconstruction_se_nats"] > 2  # the KL is the same for all images
    assert found["naive_se_nats"] == found["naive_density_se_nats"] == 0.625
    assert found["comes_back_se_nats"] == found["posterior_entropy_se_nats"] == 0.125


def test_a_gaussian_model_whose_parts_are_known(known, tmp_path):
    """x = z + noise, z ~ N(0, 1), q(z|x) = N(x/2 + 0.1, s): the gap is KL(q || p(z|x))."""
    s, x, noise = 0.6, np.array([-1.0, 0.5, 2.0, 3.0]), 1.0
    mean, true, variance = x / 2 + 0.1, x / 2, 0.5
    kl = 0.5 * (s**2 + mean**2 - 1 - math.log(s**2))
    misfit = 0.5 * math.log(2 * math.pi * noise) + ((x - mean) ** 2 + s**2) / (2 * noise)
    nll = 0.5 * math.log(2 * math.pi * 2) + x**2 / 4
    bound = {"elbo": -(misfit + kl).mean(), "kl": kl.mean()}
    write(tmp_path, VLAE, nll.mean(), **bound)
    entropy = 0.5 * math.log(2 * math.pi * math.e * s**2)
    write_probe(tmp_path, VLAE, entropy, latent_dim=1)
    found = row(known, tmp_path)
    gap = 0.5 * ((s**2 + (mean - true) ** 2) / variance - 1 + math.log(variance / s**2))
    assert found["gap_nats"] == pytest.approx(gap.mean())
    prior = 0.5 * math.log(2 * math.pi) + (mean**2 + s**2) / 2
    assert found["naive_density_nats"] == pytest.approx((misfit + prior).mean())


# --- what is not recorded --------------------------------------------------------------------


def test_without_a_probe_the_evaluation_alone(known, tmp_path):
    write(tmp_path, VLAE)
    found = row(known, tmp_path)
    assert found["gap_nats"] == 1.5 and found["kl_nats"] == 11.0
    missing = ("naive_nats", "comes_back_bits", "posterior_entropy_nats", "coded_bits")
    assert found[[*missing, "latent_dim"]].isna().all()


def test_runs_without_a_code_have_no_row(known, tmp_path):
    assert len(build_table(NAME, known, tmp_path).frame) == 0
    write(tmp_path, ALONE)
    write(tmp_path, COLOUR, 8000.0, -8030.0, 310.0)
    write(tmp_path, VLAE)
    table = build_table(NAME, known, tmp_path)
    assert list(table.frame["run"]) == [COLOUR, VLAE]
    assert table.groups == ["cifar10", "static_mnist"]


def test_a_code_of_other_images_is_not_shown(known, tmp_path):
    write(tmp_path, VLAE)
    write_code(tmp_path, VLAE, n_test=3)
    assert row(known, tmp_path)["coded_bits"] is None
    write_code(tmp_path, VLAE)
    assert row(known, tmp_path)["coded_bits"] == pytest.approx(118)


def test_old_records(known, tmp_path):
    """They have no checksums, and no bound of each image."""
    write(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, 80.0, elbo=-81.5, n_test=4)
    write_per_image(tmp_path, VLAE, [-80.0] * 4)
    write_probe(tmp_path, VLAE)
    found = row(known, tmp_path)
    assert found["gap_se_nats"] is None and found["naive_nats"] > 81.5


# --- records that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize("key", SAME)
def test_a_probe_of_another_model_or_of_other_images(known, tmp_path, key):
    write(tmp_path, VLAE)
    write_probe(tmp_path, VLAE, **{key: 3 if key == "n_test" else "e" * 64})
    with pytest.raises(VlaeError, match=rf"probes.*: its {key} is not that of .*evaluations"):
        build_table(NAME, known, tmp_path)


def test_a_probe_of_another_run(known, tmp_path):
    write(tmp_path, VLAE)
    write_probe(tmp_path, AF).rename(tmp_path / paths.probe(VLAE))
    with pytest.raises(VlaeError, match="is a record of run 'static_mnist-vae_af'"):
        build_table(NAME, known, tmp_path)


def test_a_code_of_another_model(known, tmp_path):
    write(tmp_path, VLAE)
    write_code(tmp_path, VLAE, checkpoint_sha256="e" * 64)
    with pytest.raises(VlaeError, match=r"codelengths.*: its checkpoint_sha256 is not that of"):
        build_table(NAME, known, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_sha256": None}, "'data_sha256' must be str"),
        ({"posterior_entropy": None}, "'posterior_entropy' must be float"),
        ({"latent_dim": 8.5}, "'latent_dim' must be int"),
        ({"posterior_entropy": -8 * 5 * BIT - 1}, "narrower than bins of width 1/32"),
    ],
)
def test_a_probe_that_cannot_be_used(known, tmp_path, changes, said):
    write(tmp_path, VLAE)
    path = paths.probe(VLAE)
    write_probe(tmp_path, VLAE, **changes)
    with pytest.raises(VlaeError, match=rf"{path}: .*{said}") as caught:
        build_table(NAME, known, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_evaluation_without_its_bound(known, tmp_path):
    write(tmp_path, VLAE, elbo_se=None)
    with pytest.raises(VlaeError, match="'elbo_se' must be float"):
        build_table(NAME, known, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_bounds_of_images_that_are_no_use(known, tmp_path, value):
    write(tmp_path, VLAE)
    write_per_image(tmp_path, VLAE, [-80.0] * 4, elbo=np.array([-81.0, -81.0, -81.0, value]))
    with pytest.raises(VlaeError, match=r"vlae\.npz: elbo, .* is not finite or too large"):
        build_table(NAME, known, tmp_path)


# --- files and figure ------------------------------------------------------------------------


def test_files(known, tmp_path):
    pareto = {"samples": 64, "k_median": 0.9, "k_most": 0.45, "failing": 0.5}
    write(tmp_path, VLAE, pareto=pareto)
    write(tmp_path, AF)
    write_probe(tmp_path, VLAE)
    csv, markdown, tex, html = write_table(NAME, known, tmp_path)
    read = pd.read_csv(csv).set_index("run")
    assert read.loc[VLAE, "naive_nats"] == 81.5 - 12 + 40 * BIT  # full precision
    assert math.isnan(read.loc[AF, "naive_nats"])
    (line,) = (text for text in markdown.read_text().splitlines() if f"| {VLAE} " in text)
    naive = (81.5 - 12) / BIT + 40
    assert f" {naive:.1f} |" in line and line.count("†") == 2
    assert "80.00" in tex.read_text() and "80.00" in html.read_text()


def test_inputs_are_those_of_runs_with_a_code(known):
    inputs = table_inputs(NAME, known)
    assert inputs == figure_inputs(NAME, known)
    assert str(paths.probe(VLAE)) in inputs and str(paths.probe(ALONE)) not in inputs
    codes = [path for path in inputs if path.startswith("results/codelengths")]
    assert codes == [str(paths.codelength(VLAE))]


def test_bars_are_as_long_as_the_codes(known, tmp_path):
    write(tmp_path, VLAE)
    write_probe(tmp_path, VLAE)
    write_code(tmp_path, VLAE)
    write(tmp_path, AF)
    write(tmp_path, COLOUR, 8000.0, -8030.0, 310.0)
    figure = build_figure(NAME, known, tmp_path)
    axes = {one.get_label(): one for one in figure.axes}
    assert len(axes) == 4  # colour images have their own
    whole, gap = axes["nats per image code"], axes["nats per image gap"]
    assert [one.get_text() for one in whole.get_yticklabels()] == ["vae_af", "vlae"]
    ends = [bar.get_x() + bar.get_width() for bar in whole.patches]
    af, vlae = ends[:3], ends[3:]
    stays, net, naive = (value / BIT for value in (80, 81.5, 81.5 - 12 + 40 * BIT))
    assert af == pytest.approx([stays, net, net])
    assert vlae == pytest.approx([stays, net, naive])
    assert [bar.get_width() for bar in gap.patches] == pytest.approx([1.5 / BIT] * 2)
    (diamond,) = (line for line in gap.lines if line.get_marker() == "D")
    assert diamond.get_xdata()[0] == pytest.approx(118 - stays)


def test_the_figure_has_no_repetitions(tmp_path):
    again = f"{VLAE}_seed1"
    runs = params(VLAE, repetitions={VLAE: [again]})
    write(tmp_path, VLAE)
    write(tmp_path, again)
    assert [one.run.name for one in accounts(runs, tmp_path)] == [VLAE, again]
    whole = build_figure(NAME, runs, tmp_path).axes[0]
    assert [one.get_text() for one in whole.get_yticklabels()] == ["vlae"]


def test_every_run_with_a_code_is_read():
    inputs = table_inputs(NAME, REAL)
    assert len(inputs) == len(set(inputs))
    for name, run in REAL.runs.items():
        assert (str(evaluation_file(name)) in inputs) == bool(run.model.latent_dim)
        assert (str(paths.probe(name)) in inputs) == (name in REAL.probes)
