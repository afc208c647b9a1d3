"""The list of runs, one run in detail, and files left over from deleted ones."""

import pytest
import yaml

from miniature import PROJECT, small_params
from recorded import write_evaluation, write_training
from vlae.cli import main
from vlae.config.load import load_params
from vlae.report.overview import leftovers, list_runs, show_run

PARAMS = load_params(PROJECT / "params.yaml")


def lines_of(root, params=PARAMS):
    return {line.split()[0]: line for line in list_runs(params, root).splitlines()[2:]}


def test_every_run_has_a_line_with_what_is_recorded_of_it(tmp_path):
    write_training(tmp_path, "static_mnist-vlae", epochs=60)
    write_evaluation(tmp_path, "static_mnist-vlae", nll=79.125)
    write_training(tmp_path, "static_mnist-vae_af", epochs=7)
    write_training(tmp_path, "cifar10-vlae_7x4", epochs=31)
    write_evaluation(tmp_path, "cifar10-vlae_7x4", nll=3072 * 0.6931471805599453 * 3.25)
    lines = lines_of(tmp_path)
    assert list(lines) == list(PARAMS.runs)
    columns = ["static_mnist", "79.12", "0.23", "nats", "79.03", "60", "evaluated", "(IS-64)"]
    assert lines["static_mnist-vlae"].split()[1:] == columns
    planned = PARAMS.run("static_mnist-vae_af").training.epochs
    assert f"79.30    7 of {planned}" in lines["static_mnist-vae_af"]
    assert lines["static_mnist-vae_af"].endswith("trained, not evaluated")
    columns = ["3.25", "0.00011", "bits/dim", "2.95"]
    assert lines["cifar10-vlae_7x4"].split()[2:6] == columns
    planned = PARAMS.run("omniglot_rebuilt-vlae").training.epochs
    assert lines["omniglot_rebuilt-vlae"].endswith(f"0 of {planned}  not trained")
    assert PARAMS.datasets["omniglot"]["unavailable"] in lines["omniglot-vlae"]


def test_the_list_says_what_an_estimate_lacks_and_how_a_run_began(tmp_path):
    start = {"run": "omniglot_rebuilt-vlae_tuned", "epochs": 114}
    write_training(tmp_path, "omniglot_rebuilt-vlae_plus", epochs=8, start=start)
    failing = {"samples": 64, "k_median": 0.9, "k_most": 0.45, "failing": 0.75}
    write_evaluation(tmp_path, "omniglot_rebuilt-vlae_plus", pareto=failing)
    line = lines_of(tmp_path)["omniglot_rebuilt-vlae_plus"]
    assert " 114 + 8  " in line
    assert line.endswith("evaluated (IS-64), not reliable: probably too high")
    assert "training.bound_samples: 8 (default 1)" in show_run(
        PARAMS, PARAMS.runs["omniglot_rebuilt-vlae_plus"], tmp_path
    )


def test_a_damaged_record_is_told_in_its_line(tmp_path):
    write_training(tmp_path, "static_mnist-vlae", epochs="many")
    assert "'epochs' must be int" in lines_of(tmp_path)["static_mnist-vlae"]


def test_a_run_in_detail(tmp_path):
    run = PARAMS.runs["cifar10-narrow_4x2"]
    said = show_run(PARAMS, run, tmp_path)
    settings = said.partition("differ from the defaults\n")[2].partition("\n\n")[0].splitlines()
    changed = yaml.safe_load((PROJECT / "params.yaml").read_text())["runs"][run.name]
    assert len(settings) == sum(len(changed[part]) for part in ("model", "training", "evaluation"))
    assert "  model.widths: 24, 48, 48 (default 48, 96, 96)" in settings
    assert "  training.batch_size: 16 (default 64)" in settings
    assert said.count("not recorded") == 2
    write_training(tmp_path, run.name, git_revision="abc123", stretches=[{}], torch=None)
    write_evaluation(tmp_path, run.name, ess=1.5, diagnostics={"worst": 0.75}, curve=[])
    said = show_run(PARAMS, run, tmp_path)
    for line in ("git_revision: abc123", "ess: 1.5", "diagnostics.worst: 0.75", "torch: none"):
        assert f"  {line}" in said.splitlines()
    assert "hardware: 2 cores of AMD EPYC" in said and "stretches" not in said


def test_a_repetition_says_of_what(tmp_path):
    said = show_run(PARAMS, PARAMS.runs["caltech101-pixelcnn_seed1"], tmp_path)
    assert "repeats caltech101-pixelcnn with seed 1" in said


@pytest.fixture
def deleted(tmp_path, monkeypatch):
    """What a run, a data set and a figure have left, none of them in params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    left = [
        "results/checkpoints/mnist-old/train.json",
        "results/evaluations/mnist-old.json",
        "results/evaluations/mnist-old.npz",
        "results/samples/mnist-old.npz",
        "results/recipes/mnist-old.train.json",
        "scratch/mnist-old/state-1.safetensors",
        "data/mnist_old.npz",
        "results/recipes/mnist_old.data.json",
        "results/figures/old.png",
        "results/drawn/figures/old.json",
    ]
    kept = [
        "results/checkpoints/static_mnist-vlae/train.json",
        "results/recipes/static_mnist.data.json",
        "results/recipes/cifar10.classifier.json",
        "results/classifiers/cifar10.json",
        "results/tables/claims.md",
        "results/drawn/tables/claims.json",
        "scratch/static_mnist-vlae/state-1.safetensors",
        "data/static_mnist.npz",
        "data/README.md",
        "results/evaluations/.static_mnist-vlae.json.x1",
    ]
    for name in left + kept:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    small_params(tmp_path)
    return left, kept


def test_what_is_left_over_is_named_and_nothing_is_removed(deleted, tmp_path, capsys):
    left, kept = deleted
    assert main(["list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "left over" in line]
    assert [line.split()[3].rstrip(",") for line in lines] == ["mnist-old", "mnist_old", "old"]
    assert all((tmp_path / name).exists() for name in left + kept)
    named = [word for line in lines for word in line.partition("rm -r ")[2].split()]
    assert all(any(name.startswith(word) for word in named) for name in left)
    assert not any(name.startswith(word) for name in kept for word in named)


def test_of_a_scratch_folder_of_several_projects_only_runs_of_this_one(
    deleted, tmp_path, monkeypatch
):
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / "shared"))
    for name in ("mnist-old", "somebody_s-run"):
        (tmp_path / "shared" / name).mkdir(parents=True)
    said = " ".join(leftovers(PARAMS, tmp_path))
    assert "shared/mnist-old" in said and "somebody_s-run" not in said
