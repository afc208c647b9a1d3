"""Figures: the right images at the right places, the recorded numbers, the same bytes twice."""

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
from vlae.errors import VlaeError
from vlae.report.figures.image_grids import INK, LINE, PAPER, compose_grid, compose_panels
from vlae.report.figures.learning_curves import limits, place_labels, read_panels
from vlae.report.figures.likelihoods import SHOWN, choose
from vlae.report.figures.registry import (
    FIGURES,
    build_figure,
    figure_inputs,
    figure_outputs,
    write_figure,
)

VLAE = "static_mnist-vlae"
AF = "static_mnist-vae_af"
PIXELCNN = "dynamic_mnist-pixelcnn"
AGAINST_K = [
    {"k": k, "nll": nll, "se": 0.25} for k, nll in ((1, 84.5), (2, 83.5), (64, 82.0), (4096, 81.5))
]


def texts(figure) -> list[str]:
    """Everything written in a figure, axes included."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def rendered(path) -> np.ndarray:
    """Grey levels 0..255 of a png."""
    from matplotlib.image import imread

    return (imread(path)[..., 0] * 255).round().astype(int)


# --- grids of images -------------------------------------------------------------------------


def test_grid_holds_each_image_in_its_cell():
    images = np.random.default_rng(0).integers(0, 2, (9, 28, 28), dtype=np.uint8)
    grid = compose_grid(images, 3)
    assert grid.shape == (3 * 29 + 1, 3 * 29 + 1)
    for k, image in enumerate(images):
        top, left = 1 + (k // 3) * 29, 1 + (k % 3) * 29
        cell = grid[top : top + 28, left : left + 28]
        np.testing.assert_array_equal(cell, np.where(image, INK, PAPER))
    assert (grid[::29] == LINE).all() and (grid[:, ::29] == LINE).all()


def test_panels_show_all_hundred_images_in_order(tmp_path):
    images = write_samples(tmp_path, VLAE)
    panels = compose_panels(images)
    for name, stored in images.items():
        np.testing.assert_array_equal(panels[name], compose_grid(stored, 10))


def test_fewer_images_make_smaller_grids_that_still_match(tmp_path):
    images = write_samples(tmp_path, VLAE, n=11)
    panels = compose_panels(images)
    chosen = [0, 1, 2, 4, 5, 6, 8, 9, 10]  # evenly from the first to the last
    for name in ("originals", "decompressions"):
        np.testing.assert_array_equal(panels[name], compose_grid(images[name][chosen], 3))


def test_figure_1_prints_the_grids_dot_by_dot(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, nll=80.4567)
    panels = compose_panels(write_samples(tmp_path, VLAE))
    figure = build_figure("figure1_static_mnist", params(VLAE), tmp_path)
    assert [axes.get_label() for axes in figure.axes] == list(panels)
    png, _ = write_figure("figure1_static_mnist", params(VLAE), tmp_path)
    page = rendered(png)
    for axes in figure.axes:
        box = axes.get_position()
        left, right = (round(x * page.shape[1]) for x in (box.x0, box.x1))
        top, bottom = (round((1 - y) * page.shape[0]) for y in (box.y1, box.y0))
        zoomed = panels[axes.get_label()].repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(page[top:bottom, left:right], zoomed)


def test_figure_2_is_drawn_like_figure_1(tmp_path):
    run = "omniglot-vlae"
    write_training(tmp_path, run)
    panels = compose_panels(write_samples(tmp_path, run))
    figure = build_figure("figure2_omniglot", params(run), tmp_path)
    for axes, (name, grid) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_label() == name
        np.testing.assert_array_equal(axes.images[0].get_array(), grid)
    assert texts(figure)[0] == "omniglot-vlae · 30 epochs · not evaluated"


def test_title_comes_from_the_records(tmp_path):
    write_samples(tmp_path, VLAE)
    write_training(tmp_path, VLAE, epochs=31)
    figure = build_figure("figure1_static_mnist", params(VLAE), tmp_path)
    assert texts(figure)[0] == "static_mnist-vlae · 31 epochs · not evaluated"
    write_evaluation(tmp_path, VLAE, nll=80.4567, epochs=31)
    figure = build_figure("figure1_static_mnist", params(VLAE), tmp_path)
    assert texts(figure)[0] == (
        "static_mnist-vlae · NLL 80.46 ± 0.23 nats (IS-64, 10,000 test images) · 31 epochs"
    )


def test_what_is_missing_is_said(tmp_path):
    for known in (params(VLAE), params()):
        figure = build_figure("figure1_static_mnist", known, tmp_path)
        assert texts(figure) == ["static_mnist-vlae: not trained"]
    write_training(tmp_path, VLAE)
    figure = build_figure("figure1_static_mnist", params(VLAE), tmp_path)
    assert texts(figure) == ["static_mnist-vlae: not sampled"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": np.full((4, 28, 28), 2, np.uint8)}, "samples must be"),
        ({"originals": np.zeros((4, 28, 28))}, "originals must be"),
        ({"originals": np.zeros((3, 28, 28), np.uint8)}, "not one decompression for each"),
        ({"samples": np.zeros((0, 28, 28), np.uint8)}, "no originals, decompressions or samples"),
        ({"samples": np.array([{}])}, "not a file of samples"),
    ],
)
def test_unusable_samples(tmp_path, changes, complaint):
    write_training(tmp_path, VLAE)
    images = write_samples(tmp_path, VLAE, n=4)
    np.savez(tmp_path / "results/samples/static_mnist-vlae.npz", **(images | changes))
    with pytest.raises(VlaeError, match=complaint) as caught:
        build_figure("figure1_static_mnist", params(VLAE), tmp_path)
    assert "\n" not in str(caught.value)


def test_truncated_samples(tmp_path):
    write_training(tmp_path, VLAE)
    write_samples(tmp_path, VLAE)
    path = tmp_path / "results/samples/static_mnist-vlae.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VlaeError, match="not a file of samples"):
        build_figure("figure1_static_mnist", params(VLAE), tmp_path)


def test_samples_without_a_training(tmp_path):
    write_samples(tmp_path, VLAE)
    with pytest.raises(VlaeError, match="the training record is missing"):
        build_figure("figure1_static_mnist", params(VLAE), tmp_path)


# --- learning curves -------------------------------------------------------------------------


def test_curves_are_the_recorded_ones(tmp_path):
    write_curve(tmp_path, VLAE, [-120.0, -90.0, -82.5], [5.0, 9.0, 11.5])
    write_curve(tmp_path, PIXELCNN, [-95.0, -89.0], [0.0, 0.0], valid_elbo=[-96.0, -90.25])
    figure = build_figure("learning_curves", params(VLAE, AF, PIXELCNN), tmp_path)
    axes = {axes.get_label(): axes for axes in figure.axes}
    # Without a latent variable there is no KL to draw.
    assert list(axes) == ["static_mnist elbo", "static_mnist kl", "dynamic_mnist elbo"]

    def lines(name):
        return [line.get_ydata() for line in axes[name].lines if len(line.get_ydata()) > 1]

    np.testing.assert_array_equal(lines("static_mnist elbo")[0], [120, 90, 82.5])
    np.testing.assert_array_equal(lines("static_mnist kl")[0], [5, 9, 11.5])
    np.testing.assert_array_equal(lines("dynamic_mnist elbo")[0], [95, 89])
    np.testing.assert_array_equal(lines("dynamic_mnist elbo")[1], [96, 90.25])

    written = texts(figure)
    for text in (
        *("vlae 82.50", "vlae 11.50", "vlae, paper 13.30"),
        *("pixelcnn 89.00", "pixelcnn, valid. 90.25", "VLAE", "decoder alone"),
        "not trained: vae_af",
    ):
        assert text in written
    # The paper's likelihoods are of test images: they have no place beside a training bound.
    assert not any("79.03" in text or "87.55" in text for text in written)


def test_the_epochs_of_the_longest_run_are_all_shown(tmp_path):
    """Also where the KL, whose panel shares the axis, is of a shorter run."""
    alone = "static_mnist-pixelcnn"
    write_curve(tmp_path, VLAE, [-90.0, -82.5], [9.0, 11.5])
    write_curve(tmp_path, alone, [-95.0, -89.0, -88.0, -87.0, -86.0], [0.0] * 5)
    figure = build_figure("learning_curves", params(VLAE, alone), tmp_path)
    assert len(figure.axes) == 2
    assert all(axes.get_xlim()[1] > 5 for axes in figure.axes)


def test_a_refined_run_is_drawn_after_the_epochs_of_its_start(tmp_path):
    write_curve(tmp_path, VLAE, [-90.0, -82.5], [9.0, 11.5])
    write_training(tmp_path, VLAE, start={"run": AF, "epochs": 30, "checkpoint_sha256": "0"})
    figure = build_figure("learning_curves", params(VLAE), tmp_path)
    for axes in figure.axes:
        assert axes.lines[0].get_xdata().tolist() == [31, 32]
        assert axes.get_xlim()[1] > 32


def test_other_seeds_are_thin_lines_of_the_same_colour(tmp_path):
    again = f"{VLAE}_seed1"
    runs = params(VLAE, PIXELCNN, repetitions={VLAE: [again, f"{VLAE}_seed2"]})
    write_curve(tmp_path, VLAE, [-90.0, -82.5], [9.0, 11.5])
    write_curve(tmp_path, PIXELCNN, [-95.0, -89.0], [0.0, 0.0])
    assert "other seeds" not in texts(build_figure("learning_curves", runs, tmp_path))
    write_curve(tmp_path, again, [-91.0, -82.25], [8.0, 11.25])
    figure = build_figure("learning_curves", runs, tmp_path)
    static = {axes.get_label(): axes for axes in figure.axes}["static_mnist elbo"]
    (other,) = [line for line in static.lines if list(line.get_ydata()) == [91.0, 82.25]]
    first = static.lines[0]
    assert other.get_color() == first.get_color()
    assert other.get_linewidth() < first.get_linewidth()
    written = texts(figure)
    assert "other seeds" in written
    assert not any("seed1" in text or "seed2" in text for text in written)


def test_no_curve_at_all(tmp_path):
    figure = build_figure("learning_curves", params(VLAE, AF, PIXELCNN), tmp_path)
    written = texts(figure)
    assert "static_mnist-vlae: not trained\nstatic_mnist-vae_af: not trained" in written
    assert "dynamic_mnist-pixelcnn: not trained" in written


def test_a_data_set_without_a_trained_run_has_no_column(tmp_path):
    write_curve(tmp_path, VLAE, [-82.5], [11.5])
    figure = build_figure("learning_curves", params(VLAE, PIXELCNN), tmp_path)
    assert [axes.get_label() for axes in figure.axes] == ["static_mnist elbo", "static_mnist kl"]
    assert "no run trained: dynamic_mnist" in texts(figure)


def test_axis_shows_the_end_and_not_the_steep_start(tmp_path):
    bound = -80 - 400 / np.arange(1, 41) ** 2
    write_curve(tmp_path, VLAE, bound, np.full(40, 12.0))
    low, high = limits(read_panels([VLAE], params(VLAE), tmp_path).bounds)
    assert 79.5 < low < 80.25 < high < 120  # the last epoch is inside


def test_one_epoch_is_enough(tmp_path):
    write_curve(tmp_path, VLAE, [-200.0], [3.0])
    low, high = limits(read_panels([VLAE], params(VLAE), tmp_path).bounds)
    assert low < 200 < high
    write_figure("learning_curves", params(VLAE), tmp_path)


def test_labels_keep_their_distance_and_order():
    wanted = [0.5, 0.51, 0.49, 0.99, 1.4, -0.2]
    placed = place_labels(wanted, 0.05)
    order = np.argsort(wanted)
    assert (np.diff(np.array(placed)[order]) >= 0.05 - 1e-6).all()
    assert min(placed) >= 0.0 and max(placed) <= 1.0
    assert place_labels([0.2, 0.8], 0.05) == [0.2, 0.8]


@pytest.mark.parametrize(
    "text", ["", "epoch,elbo\n1,-80\n", "epoch,step\n", "\x00", "not a curve\nat all\n"]
)
def test_malformed_curve(tmp_path, text):
    write_curve(tmp_path, VLAE, [-80.0], [1.0]).write_text(text)
    with pytest.raises(VlaeError, match=r"curve\.csv: "):
        build_figure("learning_curves", params(VLAE), tmp_path)


def test_curve_with_a_missing_bound(tmp_path):
    write_curve(tmp_path, VLAE, [-80.0, float("nan")], [1.0, 1.0])
    with pytest.raises(VlaeError, match="must be finite"):
        build_figure("learning_curves", params(VLAE), tmp_path)


# --- likelihoods -----------------------------------------------------------------------------


def test_nll_against_k_is_the_recorded_one(tmp_path):
    for run, changes in (
        (VLAE, {"curve": AGAINST_K}),
        (PIXELCNN, {"exact": True, "curve": AGAINST_K[:1]}),
        ("omniglot-vlae", {"curve": AGAINST_K[:3]}),
    ):
        write_training(tmp_path, run)
        write_evaluation(tmp_path, run, **changes)
    runs = params(VLAE, AF, PIXELCNN, "omniglot-vlae")
    figure = build_figure("nll_against_k", runs, tmp_path)
    # A panel per data set; exact likelihoods do not depend on K.
    static, omniglot = figure.axes
    assert (static.get_label(), omniglot.get_label()) == ("static_mnist", "omniglot")
    line, first, more, _ = static.lines
    np.testing.assert_array_equal(line.get_xydata(), [[p["k"], p["nll"]] for p in AGAINST_K])
    np.testing.assert_array_equal(first.get_xdata(), [1, 2, 64])
    np.testing.assert_array_equal(more.get_xdata(), [4096])  # two-level
    band = static.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (81.25, 84.75)
    assert static.get_xscale() == "log" and static.xaxis.get_transform().base == 2
    assert {"vlae 81.50", "vlae 82.00", "not evaluated: static_mnist-vae_af"} <= set(texts(figure))


def test_nothing_against_k(tmp_path):
    write_training(tmp_path, PIXELCNN)
    write_evaluation(tmp_path, PIXELCNN, exact=True, curve=AGAINST_K[:1])
    figure = build_figure("nll_against_k", params(VLAE, PIXELCNN), tmp_path)
    assert texts(figure) == ["no run with importance samples evaluated"]


@pytest.mark.parametrize("curve", [1, [1], [{"k": 1, "nll": 80.0}], [{"k": "1"}]])
def test_malformed_curve_against_k(tmp_path, curve):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, curve=curve)
    with pytest.raises(VlaeError, match="'curve' must be a list of k, nll, se"):
        build_figure("nll_against_k", params(VLAE), tmp_path)


def test_best_median_and_worst():
    nll = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0])
    chosen = {group: nll[places].tolist() for group, places in choose(nll, 2).items()}
    assert chosen == {"best": [1.0, 2.0], "median": [3.0, 5.0], "worst": [8.0, 9.0]}
    assert [len(places) for places in choose(nll[:4], 5).values()] == [1, 1, 1]


def test_images_stand_with_their_own_likelihood(tmp_path):
    """Recorded image i is test image 3 i; the likelihoods are in no order at all."""
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, n_test=300)
    images = write_samples(tmp_path, VLAE)["originals"]
    nll = np.random.default_rng(1).permutation(300) + 0.25
    shuffled = np.random.default_rng(2).permutation(300)
    write_per_image(tmp_path, VLAE, -nll[shuffled], index=shuffled)
    write_training(tmp_path, PIXELCNN)
    write_evaluation(tmp_path, PIXELCNN, exact=True, n_test=300)
    write_per_image(tmp_path, PIXELCNN, -nll)

    figure = build_figure("per_image_nll", params(VLAE, AF, PIXELCNN), tmp_path)
    axes = {axes.get_label(): axes for axes in figure.axes}
    order = np.argsort(nll[::3])
    for group, chosen in (
        ("best", order[:SHOWN]),
        ("median", order[47:52]),
        ("worst", order[-SHOWN:]),
    ):
        (shown,) = axes[f"{VLAE} {group}"].images
        np.testing.assert_array_equal(shown.get_array(), compose_grid(images[chosen], 5, rows=1))
        assert {f"{value:.1f}" for value in nll[::3][chosen]} <= set(texts(figure))
    counts = [bar.get_height() for bar in axes[f"{VLAE} histogram"].patches]
    assert sum(counts) == 300
    written = texts(figure)
    assert f"{VLAE} · mean 149.75, median 149.75 nats (IS-64)" in written
    assert "no recorded test images" in written  # the PixelCNN's
    assert "not evaluated: static_mnist-vae_af" in written


def test_a_run_without_a_code_is_shown_on_the_images_of_another(tmp_path):
    other = "dynamic_mnist-vlae"
    nll = np.random.default_rng(1).permutation(300) + 0.25
    for run in (PIXELCNN, other):
        write_training(tmp_path, run)
        write_evaluation(tmp_path, run, n_test=300, binarization_seed=777)
        write_per_image(tmp_path, run, -nll)
    images = write_samples(tmp_path, other)["originals"]

    def best():
        figure = build_figure("per_image_nll", params(PIXELCNN, other), tmp_path)
        found = [axes for axes in figure.axes if axes.get_label() == f"{PIXELCNN} best"]
        return found[0].images[0].get_array() if found else None

    expected = compose_grid(images[np.argsort(nll[::3])[:SHOWN]], 5, rows=1)
    np.testing.assert_array_equal(best(), expected)
    write_evaluation(tmp_path, other, n_test=300, binarization_seed=1)  # other bits
    assert best() is None


def test_four_data_sets_stand_two_by_two(tmp_path):
    runs = [f"{name}-vlae" for name in ("static_mnist", "dynamic_mnist", "omniglot", "caltech101")]
    for run in runs:
        write_training(tmp_path, run)
        write_evaluation(tmp_path, run, curve=AGAINST_K)
        write_curve(tmp_path, run, [-120.0, -90.0], [5.0, 9.0])
    for name in ("learning_curves", "nll_against_k"):
        axes = build_figure(name, params(*runs), tmp_path).axes
        boxes = [a.get_position() for a in axes if not a.get_label().endswith(" kl")]
        assert boxes[0].x0 == boxes[2].x0 < boxes[1].x0 == boxes[3].x0
        assert boxes[0].y0 == boxes[1].y0 > boxes[2].y1
        assert boxes[2].y0 == boxes[3].y0 > 0
        every = [a.get_position() for a in axes]
        assert not any(a.overlaps(b) for i, a in enumerate(every) for b in every[:i])


def test_no_likelihood_of_an_image(tmp_path):
    figure = build_figure("per_image_nll", params(VLAE), tmp_path)
    assert texts(figure) == ["no run evaluated"]


def test_evaluation_without_the_values_of_its_images(tmp_path):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE)
    with pytest.raises(VlaeError, match=r"results.evaluations.*npz, recorded with it, is missing"):
        build_figure("per_image_nll", params(VLAE), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": np.zeros(3)},
        {"log_likelihood": np.full(6, np.nan)},
        {"index": np.zeros((6, 1), int)},
        {"index": np.array({})},
        {"log_likelihood": np.zeros(5)},
    ],
)
def test_unusable_values_of_images(tmp_path, changes):
    write_training(tmp_path, VLAE)
    write_evaluation(tmp_path, VLAE, n_test=6)
    write_per_image(tmp_path, VLAE, **({"log_likelihood": np.full(6, -80.0)} | changes))
    with pytest.raises(VlaeError, match=r"static_mnist-vlae\.npz: ") as caught:
        build_figure("per_image_nll", params(VLAE), tmp_path)
    assert "\n" not in str(caught.value)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("trained", [True, False])
def test_the_same_results_give_the_same_bytes(tmp_path, name, trained, monkeypatch):
    import matplotlib

    known = params(VLAE, PIXELCNN)
    if trained:
        write_training(tmp_path, VLAE)
        write_evaluation(tmp_path, VLAE, curve=AGAINST_K, n_test=300)
        write_per_image(tmp_path, VLAE, np.linspace(-120, -40, 300))
        write_samples(tmp_path, VLAE)
        write_curve(tmp_path, VLAE, [-120.0, -90.0, -82.5], [5.0, 9.0, 11.5])
    first = [path.read_bytes() for path in write_figure(name, known, tmp_path)]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "pdf.fonttype": 3}):
        paths = write_figure(name, known, tmp_path)  # a user's own style changes nothing
        assert matplotlib.rcParams["font.size"] == 20
    assert [path.read_bytes() for path in paths] == first
    assert [str(path.relative_to(tmp_path)) for path in paths] == figure_outputs(name)
    assert set(paths) == set((tmp_path / "results" / "figures").iterdir())
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF")


def test_unknown_figure(tmp_path):
    for function in (figure_outputs, lambda name: figure_inputs(name, params())):
        with pytest.raises(
            VlaeError, match=r"no figure 'figure9'; there are: .*figure1_static_mnist"
        ):
            function("figure9")


def test_inputs():
    assert figure_inputs("figure1_static_mnist", params(VLAE, AF)) == [
        "results/samples/static_mnist-vlae.npz",
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/evaluations/static_mnist-vlae.json",
    ]
    assert figure_inputs("figure1_static_mnist", params(AF)) == []
    assert figure_inputs("figure2_omniglot", params(VLAE)) == []
    assert figure_inputs("per_image_nll", params(VLAE)) == [
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/evaluations/static_mnist-vlae.json",
        "results/evaluations/static_mnist-vlae.npz",
        "results/samples/static_mnist-vlae.npz",
    ]
    assert figure_inputs("learning_curves", params(VLAE, PIXELCNN)) == [
        "results/checkpoints/static_mnist-vlae/curve.csv",
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/checkpoints/dynamic_mnist-pixelcnn/curve.csv",
        "results/checkpoints/dynamic_mnist-pixelcnn/train.json",
    ]
