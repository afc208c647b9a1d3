"""Figure 1 and the learning curves: the right images at the right places, the same bytes twice."""

import numpy as np
import pytest

from recorded import params, write_curve, write_evaluation, write_samples, write_training
from vlae.errors import VlaeError
from vlae.figure_curves import limits, place_labels, read_panels
from vlae.figure_images import INK, LINE, PAPER, compose_grid, compose_panels
from vlae.figures import FIGURES, build_figure, figure_inputs, figure_outputs, write_figure

VLAE = "static_mnist-vlae"
AF = "static_mnist-vae_af"
PIXELCNN = "dynamic_mnist-pixelcnn"


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
    with pytest.raises(VlaeError, match="no training record"):
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
        *("vlae 82.50", "vlae, paper 79.03", "vlae 11.50", "vlae, paper 13.30"),
        *("pixelcnn 89.00", "pixelcnn, validation 90.25", "pixelcnn, paper 87.55"),
        "not trained: vae_af",
    ):
        assert text in written


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
    low, high = limits(read_panels([VLAE], tmp_path).bounds)
    assert low < 79.03 < 80.25 < high < 120  # the paper's number and the last epoch are inside


def test_one_epoch_is_enough(tmp_path):
    write_curve(tmp_path, VLAE, [-200.0], [3.0])
    low, high = limits(read_panels([VLAE], tmp_path).bounds)
    assert low < 79.03 and high > 200
    write_figure("learning_curves", params(VLAE), tmp_path)


def test_labels_keep_their_distance_and_order():
    wanted = [0.5, 0.51, 0.49, 0.99, 1.4, -0.2]
    placed = place_labels(wanted, 0.05)
    order = np.argsort(wanted)
    assert (np.diff(np.array(placed)[order]) >= 0.05 - 1e-6).all()
    assert max(placed) <= 1.0
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


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("trained", [True, False])
def test_the_same_results_give_the_same_bytes(tmp_path, name, trained, monkeypatch):
    import matplotlib

    known = params(VLAE, PIXELCNN)
    if trained:
        write_training(tmp_path, VLAE)
        write_evaluation(tmp_path, VLAE)
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
        with pytest.raises(VlaeError, match="no figure 'figure9'; there are figure1_static_mnist"):
            function("figure9")


def test_inputs():
    assert figure_inputs("figure1_static_mnist", params(VLAE, AF)) == [
        "results/samples/static_mnist-vlae.npz",
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/evaluations/static_mnist-vlae.json",
    ]
    assert figure_inputs("figure1_static_mnist", params(AF)) == []
    assert figure_inputs("learning_curves", params(VLAE, PIXELCNN)) == [
        "results/checkpoints/static_mnist-vlae/curve.csv",
        "results/checkpoints/dynamic_mnist-pixelcnn/curve.csv",
    ]
