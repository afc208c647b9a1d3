"""The CIFAR-10 half of the paper in miniature, through `snakemake --cores all`: both trunks, all
windows, both kinds of files, from download to Table 5 and Figures 3 and 4."""

import json

import pytest

from pipeline import Workflow, new_workflow, row

PAPER = ("cifar10-resnet_vlae", *(f"cifar10-vlae_{w}" for w in ("4x2", "5x3", "7x4", "7x4gray")))
NARROW = "cifar10-narrow_7x4"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Workflow:
    workflow = new_workflow(tmp_path_factory.mktemp("colour"), (*PAPER, NARROW))
    workflow.do("snakemake", "--cores", "all")
    return workflow


def test_every_run_is_trained_evaluated_and_sampled(built):
    assert built.trained() == {*PAPER, NARROW}
    for run in (*PAPER, NARROW):
        evaluation = json.loads(built.read(f"results/evaluations/{run}.json"))
        assert evaluation["importance_samples"] == 3 and evaluation["bits_per_dim"] > 0
        assert (built.folder / f"results/samples/{run}.npz").exists()
    assert json.loads(built.read("results/classifiers/cifar10.json"))["n_test"] == 16
    assert "up to date" in built.do("dvc", "status")


def test_the_tables_and_figures_are_made_of_them(built):
    table = built.read("results/tables/table5_cifar10.md")
    models = ["ResNet VLAE", *(f"VLAE, receptive field {w}" for w in ("4x2", "5x3", "7x4"))]
    models += ["VLAE, receptive field 7x4, grayscale", "Narrow VLAE, receptive field 7x4"]
    for model in models:
        assert "1 epoch" in row(built, "table5_cifar10", model), table
    kept = built.read("results/tables/cifar10_kept.md").splitlines()
    for run in (*PAPER, NARROW):
        (line,) = [line for line in kept if f"| {run} " in line]
        assert line.count("±") == 4  # two errors, and two shares that are recognised
    claims = built.read("results/tables/claims.md")
    assert "Receptive field 7x4 beats 4x2" in claims
    for name in ("figure3_cifar10", "figure4_cifar10_samples", "figure3_cifar10_narrow"):
        assert (built.folder / f"results/figures/{name}.png").stat().st_size > 10_000
        assert (built.folder / f"results/figures/{name}.pdf").exists()
