"""Figures 3 and 4, and colour runs in the figures of all runs: each image in its place, units."""

import math

import numpy as np
import pytest

from recorded import (
    params,
    write_curve,
    write_evaluation,
    write_per_image,
    write_samples,
    write_training,
)
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.receptive_field import decoder_kernels, reach
from vlae.report.figures.image_grids import LINE, compose_grid, spread
from vlae.report.figures.receptive_fields import WINDOWS, WINDOWS_OF
from vlae.report.figures.registry import FIGURES, build_figure, figure_inputs, write_figure
from vlae.storage.records import read_samples

NARROW = tuple(WINDOWS_OF["figure3_cifar10_narrow"].runs.values())
BINARY = "static_mnist-vlae"
NATS = 3072 * math.log(2)  # of one bit/dim


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def write_run(root, run, bits, n_test=300, **changes):
    """A trained, evaluated and sampled run of so many bits/dim, of every image about as many;
    its recorded images."""
    nll = bits * NATS
    write_training(root, run, epochs=2)
    changes = {"epochs": 2, "nll_se": 0.0071 * NATS, "bits_per_dim": bits} | changes
    write_evaluation(root, run, nll=nll, n_test=n_test, importance_samples=4, **changes)
    each = nll + np.random.default_rng(1).permutation(n_test)
    write_per_image(root, run, -each)
    write_curve(root, run, [-2 * nll, -nll], [10.0, 30.0])
    return write_samples(root, run)


# --- grids -----------------------------------------------------------------------------------


def test_a_grid_of_colour_images_has_their_very_values():
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    grid = compose_grid(images, 3, rows=2)
    assert grid.shape == (2 * 33 + 1, 3 * 33 + 1, 3)
    for k, image in enumerate(images):
        top, left = 1 + (k // 3) * 33, 1 + (k % 3) * 33
        cell = grid[top : top + 32, left : left + 32]
        for colour in range(3):
            np.testing.assert_array_equal(cell[:, :, colour], image[colour])
    assert (grid[::33] == LINE).all() and (grid[:, ::33] == LINE).all()


# --- Figures 3 and 4 -------------------------------------------------------------------------


def test_figure_3_has_every_run_with_its_own_images_dot_by_dot(tmp_path):
    from matplotlib.image import imread

    images = {run: write_run(tmp_path, run, 4.5) for run in NARROW}
    name = "figure3_cifar10_narrow"
    figure = build_figure(name, params(*NARROW), tmp_path)
    panels = [f"{run} {what}" for run in NARROW for what in ("originals", "decompressions")]
    assert [axes.get_label() for axes in figure.axes] == panels
    png, _ = write_figure(name, params(*NARROW), tmp_path)
    page = (imread(png)[..., :3] * 255).round().astype(int)
    for axes in figure.axes:
        run, what = axes.get_label().split()
        grid = compose_grid(spread(images[run][what], 49), 7)
        box = axes.get_position()
        left, right = (round(x * page.shape[1]) for x in (box.x0, box.x1))
        top, bottom = (round((1 - y) * page.shape[0]) for y in (box.y1, box.y0))
        zoomed = grid.repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(page[top:bottom, left:right], zoomed)


def test_figure_4_has_the_samples_with_their_bits(tmp_path):
    first, last = NARROW[0], NARROW[2]
    images = {run: write_run(tmp_path, run, bits) for run, bits in ((first, 4.62), (last, 4.31))}
    figure = build_figure("figure4_cifar10_samples_narrow", params(*NARROW), tmp_path)
    for axes, run in zip(figure.axes, (first, last), strict=True):
        grid = compose_grid(images[run]["samples"], 10)
        np.testing.assert_array_equal(axes.images[0].get_array(), grid)
    assert [text for text in texts(figure) if "NLL" in text] == [
        f"{run} · NLL {bits} ± 0.0071 bits/dim\n(IS-4, 300 test images) · 2 epochs"
        for run, bits in ((first, "4.62"), (last, "4.31"))
    ]
    assert texts(figure)[0].endswith("not those of the paper's Figure 4")


def test_fewer_images_are_shown_as_large_as_others(tmp_path):
    write_training(tmp_path, NARROW[0])
    write_samples(tmp_path, NARROW[0], n=10)
    figure = build_figure("figure3_cifar10_narrow", params(*NARROW), tmp_path)
    axes = figure.axes[0]
    dots = axes.get_position().width * figure.get_figwidth() * 200
    assert axes.images[0].get_array().shape == (3 * 33 + 1, 3 * 33 + 1, 3)
    assert round(dots) == 2 * (3 * 33 + 1)
    assert f"{NARROW[0]} · 30 epochs · not evaluated" in texts(figure)


def test_what_is_missing_is_said_in_its_panel(tmp_path):
    write_run(tmp_path, NARROW[0], 4.5)
    write_training(tmp_path, NARROW[1])
    written = texts(build_figure("figure3_cifar10_narrow", params(*NARROW[:3]), tmp_path))
    assert f"{NARROW[1]}: not sampled" in written
    assert f"{NARROW[2]}: not trained" in written  # not trained
    assert f"{NARROW[3]}: not trained" in written  # not in params.yaml
    lost = params("omniglot-vlae")
    written = texts(build_figure("figure2_omniglot", lost, tmp_path))
    assert written == ["omniglot-vlae: not trained: its file is lost"]


def test_the_runs_of_the_figures_are_those_of_params_yaml(request):
    runs = load_params(request.config.rootpath / "params.yaml").runs
    for name, shown in WINDOWS_OF.items():
        for title, run in shown.runs.items():
            model = runs[run].model
            if name == "decoder_windows":
                decoder = model.decoder
                kernels = decoder_kernels(
                    decoder.first_kernel, decoder.masked_blocks, decoder.last_masked
                )
                weights = "tied" if decoder.tied else "untied"
                assert title.endswith(f", {len(reach(kernels))} pixels, {weights}")
            else:
                assert title == WINDOWS[model.window + "gray" * model.grayscale], name
        assert len(figure_inputs(name, params(*shown.runs.values()))) == 3 * len(shown.runs)
    assert set(WINDOWS_OF) < set(FIGURES)


# --- files of samples ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": np.zeros((4, 3, 32, 31), np.uint8)}, "samples must be uint8"),
        ({"samples": np.zeros((4, 3, 32, 32), np.float32)}, "samples must be uint8"),
        ({"samples": np.zeros((4, 28, 28), np.uint8)}, "binary and colour images in one file"),
        ({"originals": np.zeros((3, 3, 32, 32), np.uint8)}, "not one decompression for each"),
    ],
)
def test_unusable_samples(tmp_path, changes, complaint):
    write_samples(tmp_path, NARROW[0], 4, **changes)
    with pytest.raises(VlaeError, match=complaint) as caught:
        read_samples(tmp_path, NARROW[0])
    assert "\n" not in str(caught.value)


def test_images_of_the_other_kind_are_refused(tmp_path):
    write_training(tmp_path, NARROW[0])
    bits = dict.fromkeys(
        ("originals", "decompressions", "samples"), np.ones((4, 28, 28), np.uint8)
    )
    write_samples(tmp_path, NARROW[0], 4, **bits)
    with pytest.raises(VlaeError, match="binary images, but those of cifar10 are colour"):
        build_figure("figure3_cifar10_narrow", params(*NARROW), tmp_path)


# --- figures of all runs ---------------------------------------------------------------------


def test_curves_of_colour_runs_are_in_bits_per_dimension(tmp_path):
    for run in NARROW[:2]:
        write_run(tmp_path, run, 4.5)
    write_curve(tmp_path, BINARY, [-90.0, -81.0], [9.0, 11.0])
    figure = build_figure("learning_curves", params(BINARY, *NARROW), tmp_path)
    axes = {axes.get_label(): axes for axes in figure.axes}
    colour, binary = axes["cifar10 elbo"], axes["static_mnist elbo"]
    np.testing.assert_allclose(colour.lines[0].get_ydata(), [9.0, 4.5])
    np.testing.assert_array_equal(binary.lines[0].get_ydata(), [90.0, 81.0])
    assert colour.get_ylabel() == "−ELBO (bits/dim)"
    assert binary.get_ylabel() == "−ELBO (nats per image)"
    low, high = colour.get_ylim()
    assert 4 < low < 4.5 and 9 < high < 10  # of two epochs both are shown
    kl = axes["cifar10 kl"]
    assert kl.get_ylabel() == "KL (nats per image)"
    np.testing.assert_array_equal(kl.lines[0].get_ydata(), [10.0, 30.0])
    assert {"narrow_4x2 4.50", "narrow_4x2 30.00"} <= set(texts(figure))


def test_one_epoch_of_a_colour_run_is_in_bits_per_dimension(tmp_path):
    run = "cifar10-vlae_7x4"
    write_curve(tmp_path, run, [-3.1 * NATS], [30.0])
    figure = build_figure("learning_curves", params(run), tmp_path)
    assert "vlae_7x4 3.10" in texts(figure)
    low, high = figure.axes[0].get_ylim()
    assert 2.9 < low < 3.1 < high < 3.3


def test_estimates_against_k_of_colour_runs_are_in_bits_per_dimension(tmp_path):
    curve = [{"k": k, "nll": bits * NATS, "se": 0.01 * NATS} for k, bits in ((1, 4.6), (4, 4.5))]
    write_run(tmp_path, NARROW[0], 4.5, curve=curve)
    (axes,) = build_figure("nll_against_k", params(NARROW[0]), tmp_path).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [4.6, 4.5])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [4.49, 4.61])
    assert axes.get_ylabel() == "NLL (bits/dim)"


def test_likelihoods_of_colour_images_have_an_axis_of_their_own(tmp_path):
    write_training(tmp_path, BINARY)
    write_evaluation(tmp_path, BINARY, n_test=300)
    write_per_image(tmp_path, BINARY, -np.linspace(60, 100, 300))
    write_samples(tmp_path, BINARY)
    images = write_run(tmp_path, NARROW[0], 4.5)["originals"]
    # Runs stand by their unit, whatever their order in params.yaml.
    figure = build_figure("per_image_nll", params(NARROW[0], BINARY), tmp_path)
    axes = {axes.get_label(): axes for axes in figure.axes}
    above, below = axes[f"{BINARY} histogram"], axes[f"{NARROW[0]} histogram"]
    assert above.get_position().y0 > below.get_position().y1
    assert above.get_xlim() == (60.0, 100.0)
    nll = 4.5 + np.random.default_rng(1).permutation(300) / NATS
    np.testing.assert_allclose(below.get_xlim(), (nll.min(), nll.max()), rtol=1e-6)
    assert above.get_xlabel() == "nats; line: median"
    assert below.get_xlabel() == "bits/dim; line: median"
    assert sum(bar.get_height() for bar in below.patches) == 300
    best = images[np.argsort(nll[::3])[:5]]
    shown = axes[f"{NARROW[0]} best"].images[0].get_array()
    np.testing.assert_array_equal(shown, compose_grid(best, 5, rows=1))
    assert f"{nll[::3].min():.2f}" in texts(figure)
    every = [a.get_position() for a in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(every) for b in every[:i])
