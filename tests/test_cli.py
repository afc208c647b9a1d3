"""The command line: quick help, exit codes, one line for bad input."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from miniature import PROJECT, small_params, write_data
from pipeline import generate_files
from vlae.cli import main
from vlae.config.stages import configurations


def vlae(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "vlae", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command_and_is_quick(tmp_path):
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = vlae("--help", cwd=tmp_path)
        times.append(time.perf_counter() - started)
    assert done.returncode == 0
    for command in ("fetch", "train", "evaluate", "sample", "recipe", "table", "figure"):
        assert command in done.stdout
    assert all(command in done.stdout for command in ("list", "show", "verify", "classifier"))
    assert min(times) < 1
    for command in ("train", "evaluate"):
        assert "nats" in done.stdout or "minutes" in vlae(command, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", [["list"], ["show", "static_mnist-vlae"], ["recipe"]])
def test_outside_a_clone_the_error_says_where_to_go(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "go to a clone of the repository" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nonsense"], "no run 'nonsense'"),
        (["fetch", "nonsense"], "no data set 'nonsense'"),
        (["train", "static_mnist-vlae"], "run `vlae fetch static_mnist`"),
        (["evaluate", "static_mnist-vlae"], "run `vlae fetch static_mnist`"),
        (["table", "nonsense"], "nonsense"),
        (["figure", "nonsense"], "nonsense"),
        (["train", "static_mnist-vlae", "--params", "none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    small_params(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("vlae: error: ") and said in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "x", "--shard", "0/3"],
        ["evaluate", "x", "--shard", "4/3"],
        ["evaluate", "x", "--samples", "0"],
        ["train", "x", "--minutes", "-1"],
        ["train", "x", "--minutes", "nan"],
        ["train", "x", "--device", "tpu"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_options_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("option", "unit"), [("--minutes", "minutes"), ("--checkpoint-seconds", "seconds")]
)
@pytest.mark.parametrize("value", ["-1", "0", "soon", "inf"])
@pytest.mark.parametrize("by_environment", [True, False])
def test_a_time_is_refused_in_its_own_unit(
    monkeypatch, capsys, option, unit, value, by_environment
):
    arguments = ["train", "x"]
    if by_environment:
        monkeypatch.setenv("VLAE_" + option[2:].replace("-", "_").upper(), value)
    else:
        arguments.append(f"{option}={value}")
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: {value!r} is not a positive number of {unit}" in said


def test_fetch_says_what_it_has_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLAE_DATA_MIRROR", str(tmp_path / "mirror"))
    tree = yaml.safe_load((PROJECT / "params.yaml").read_text())
    fetched = {"datasets": {"static_mnist": tree["datasets"]["static_mnist"]}, "labels": {}}
    generate_files(tmp_path / "mirror", fetched)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["fetch", "static_mnist"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    splits = tree["datasets"]["static_mnist"]["splits"]
    assert line == "static_mnist: data/static_mnist.npz ({}, {}, {} images)".format(
        *(f"{splits[split]} {split}" for split in ("train", "valid", "test"))
    )


def test_the_steps_by_hand(tmp_path, monkeypatch, capsys):
    """fetch is tested elsewhere; from the prepared data to verify, by the commands."""
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    write_data(tmp_path, params)
    run = "static_mnist-vlae"
    for command in ("train", "evaluate", "sample"):
        assert main([command, run]) == 0
    assert "NLL" in capsys.readouterr().out

    def draw():
        assert main(["table", "table1_static_mnist"]) == 0
        assert main(["figure", "figure1_static_mnist"]) == 0
        return capsys.readouterr().out.splitlines()

    assert draw() == [
        "written: results/tables/table1_static_mnist.{csv,md,tex,html}",
        "written: results/figures/figure1_static_mnist.{png,pdf}",
    ]
    assert "1 epoch" in (tmp_path / "results/tables/table1_static_mnist.md").read_text()
    assert main(["verify", "--images", "10"]) == 0
    said = capsys.readouterr().out
    assert f"{run}: as recorded" in said
    assert "1 tables and 1 figures: as drawn from the recorded results" in said
    # As if evaluated on a GPU, with noise that is not this machine's.
    about = tmp_path / f"results/evaluations/{run}.json"
    record = json.loads(about.read_text())
    about.write_text(json.dumps(record | {"device": "cuda", "seed": record["seed"] + 1}))
    draw()
    assert main(["verify", "--images", "20"]) == 0
    assert "noise differs from that of cuda) on 20 images" in capsys.readouterr().out
    about.write_text(json.dumps(record | {"seed": record["seed"] + 1}))  # on the same device
    assert main(["verify", "--images", "20"]) == 2
    assert f"{run}: NOT as recorded" in capsys.readouterr().out
    about.write_text(json.dumps(record))
    model = tmp_path / f"results/checkpoints/{run}/model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 0x40
    model.write_bytes(content)
    assert main(["verify", "--images", "10"]) == 2
    assert run in capsys.readouterr().err


def test_parameters_edited_during_a_run_are_not_recorded_with_its_result(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    write_data(tmp_path, params)
    import vlae.training.train

    real = vlae.training.train.train

    def train_and_edit(*arguments):
        done = real(*arguments)
        small_params(tmp_path, {"learning_rate": 0.9})
        return done

    monkeypatch.setattr(vlae.training.train, "train", train_and_edit)
    assert main(["train", "static_mnist-vlae"]) == 2
    assert "was edited meanwhile" in capsys.readouterr().err


def test_a_stage_does_not_start_with_parameters_of_another_recipe(tmp_path, monkeypatch, capsys):
    """DVC would record its result as made by that recipe. Without DVC nothing is recorded."""
    monkeypatch.chdir(tmp_path)
    run = "dynamic_mnist-pixelcnn"
    write_data(tmp_path, small_params(tmp_path))
    recipe = tmp_path / "results" / "recipes" / f"{run}.train.json"
    recipe.parent.mkdir(parents=True)
    configuration = configurations(small_params(tmp_path).run(run))["train"]
    recipe.write_text(json.dumps({"configuration": configuration, "numbers": {}}))
    small_params(tmp_path, {"learning_rate": 0.001})
    monkeypatch.setenv("DVC_STAGE", f"train@{run}")
    assert main(["train", run]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"runs.{run} was edited since the workflow was started" in line
    monkeypatch.delenv("DVC_STAGE")
    assert main(["train", run]) == 0
    small_params(tmp_path)
    monkeypatch.setenv("DVC_STAGE", f"train@{run}")
    assert main(["train", run]) == 0
