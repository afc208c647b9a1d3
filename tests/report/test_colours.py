"""A kind of model has one hue in all figures, and every label can be read."""

import pytest

from recorded import params, write_curve, write_evaluation, write_training
from vlae.config.load import load_params
from vlae.report.figures.colours import (
    COLOUR_OF,
    CONTRAST,
    colours_of,
    contrast,
    kind_of,
    legible,
    lighter,
)
from vlae.report.figures.registry import build_figure

RUNS = load_params().runs


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        ("static_mnist-vlae", "VLAE"),
        ("static_mnist-window_a_untied", "VLAE"),
        ("cifar10-narrow_7x4gray", "VLAE"),
        ("static_mnist-vlae_iaf_relu", "IAF posterior, local decoder"),
        ("static_mnist-vlae_factorized", "AF prior, factorized decoder"),
        ("static_mnist-vae_af", "AF prior, factorized decoder"),
        ("static_mnist-vae_iaf", "IAF posterior, factorized decoder"),
        ("dynamic_mnist-vlae_gaussian", "Gaussian prior, local decoder"),
        ("caltech101-pixelcnn", "decoder alone"),
    ],
)
def test_kinds(run, kind):
    assert kind_of(RUNS[run]) == kind


def test_runs_of_a_kind_are_shades_of_its_colour():
    names = [f"static_mnist-window_{reading}" for reading in ("a", "a_untied", "d_untied")]
    colours = colours_of([*(RUNS[name] for name in names), RUNS["static_mnist-vae_iaf"]])
    assert colours["static_mnist-vae_iaf"] == lighter("#D55E00", 0)
    base = COLOUR_OF["VLAE"]
    assert [colours[name] for name in names] == [
        base.lower(),
        lighter(base, 0.25),
        lighter(base, 0.5),
    ]


def test_contrast_is_that_of_the_standard():
    assert contrast([0, 0, 0]) == pytest.approx(21)
    assert contrast([255, 255, 255]) == pytest.approx(1)
    assert contrast([119, 119, 119]) == pytest.approx(4.478, abs=0.001)  # WebAIM's checker: 4.48


@pytest.mark.parametrize("white", [0.0, 0.5])
def test_labels_can_be_read(white):
    for colour in COLOUR_OF.values():
        shown = legible(lighter(colour, white))
        assert contrast([int(shown[i : i + 2], 16) for i in (1, 3, 5)]) >= CONTRAST
    assert legible("#000000") == "#000000"


def test_a_run_has_the_same_colour_in_every_figure(tmp_path):
    run, other = "static_mnist-vlae", "dynamic_mnist-vlae_gaussian"
    for name in (run, other):
        write_training(tmp_path, name)
        write_curve(tmp_path, name, [-90.0, -82.0], [9.0, 11.0])
        curve = [{"k": k, "nll": 80.0, "se": 0.1} for k in (1, 64)]
        write_evaluation(tmp_path, name, nll=80.0, curve=curve)
    for figure in ("learning_curves", "nll_against_k"):
        axes = build_figure(figure, params(run, other), tmp_path).axes
        of = {a.get_label().split()[0]: a.lines[0].get_color() for a in reversed(axes)}
        assert of["static_mnist"].upper() == COLOUR_OF["VLAE"].upper()
        assert of["dynamic_mnist"].upper() == COLOUR_OF["Gaussian prior, local decoder"].upper()
