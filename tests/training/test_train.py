"""Resuming is exact, states are guarded, and training does learn."""

import json
import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from miniature import PROJECT, small_params, write_data
from processes import Command
from vlae.config.load import load_params
from vlae.data.batches import as_input, binarize, permutation, training_images
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.images import DYNAMIC, FIXED
from vlae.randomness import generator
from vlae.training.optimizer import new_optimizer, step_and_average
from vlae.training.train import train

RUN = "static_mnist-vlae"


def prepare(folder, training=None):
    params = small_params(folder, training)
    write_data(folder, params)
    return params


def run_training(params, name=RUN, **options):
    run = params.runs[name]
    dataset = load(run.dataset, params.image_kind(run.dataset))
    return train(run, dataset, precision="float32", **options)


def states(folder):
    return list(folder.glob("scratch/*/state-*.safetensors"))


def wait_for_progress(command, folder, since):
    """Until the state is newer than `since` (ns) or the command has ended."""
    while command.running():
        if any(path.stat().st_mtime_ns > since for path in states(folder)):
            return
        time.sleep(0.002)


def train_and_kill(folder, name, most):
    """Train to the end, killed up to `most` times while the state is saved after every step."""
    chance, kills = random.Random(name), 0
    while True:
        newest = max((path.stat().st_mtime_ns for path in states(folder)), default=0)
        command = Command(folder, "train", name, "--checkpoint-seconds", "0.001")
        if kills < most:
            wait_for_progress(command, folder, newest)
            time.sleep(chance.uniform(0, 0.3))
            command.process.kill()
        code = command.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, command.stderr
        kills += 1
    assert kills >= 2  # a fast machine may be done before the last


@pytest.mark.parametrize(
    "name",
    [
        RUN,
        pytest.param("dynamic_mnist-pixelcnn", marks=pytest.mark.slow),
        pytest.param("static_mnist-vae_iaf", marks=pytest.mark.slow),
        pytest.param("cifar10-vlae_4x2", marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_the_weights_are_bit_identical(project, name):
    """SIGKILL, again and again, while it saves its state after every step."""
    prepare(project, {"epochs": 8})
    results = project / f"results/checkpoints/{name}"
    assert Command(project, "train", name).wait() == 0
    undisturbed = (results / "model.safetensors").read_bytes()
    record = json.loads((results / "train.json").read_text())
    shutil.rmtree(project / "results")
    shutil.rmtree(project / "scratch")
    train_and_kill(project, name, 4)
    again = json.loads((results / "train.json").read_text())
    assert (results / "model.safetensors").read_bytes() == undisturbed
    for key in ("steps", "epochs", "final", "data_sha256", "config"):
        assert again[key] == record[key]


def test_the_clock_stops_with_75_and_the_same_command_finishes(project):
    prepare(project, {"epochs": 60})
    assert Command(project, "train", RUN).wait() == 0
    results = project / f"results/checkpoints/{RUN}"
    expected = (results / "model.safetensors").read_bytes()
    half = json.loads((results / "train.json").read_text())["seconds"] / 60 / 2
    shutil.rmtree(project / "results")
    shutil.rmtree(project / "scratch")
    codes = []
    while not codes or codes[-1] == 75:
        command = Command(project, "train", RUN, "--minutes", f"{half:.4f}")
        codes.append(command.wait())
        assert len(codes) < 100
    assert codes[0] == 75 and codes[-1] == 0, command.stderr
    assert (project / f"results/checkpoints/{RUN}/model.safetensors").read_bytes() == expected


def test_sigterm_saves_and_exits_with_75(project):
    prepare(project, {"epochs": 100_000})
    command = Command(project, "train", RUN, "--checkpoint-seconds", "0.001")
    wait_for_progress(command, project, 0)
    command.process.terminate()
    assert command.wait() == 75
    assert "SIGTERM" in command.stderr


def test_more_epochs_continue_and_fewer_refuse(project):
    params = prepare(project, {"epochs": 4})
    assert run_training(params)
    expected = (project / f"results/checkpoints/{RUN}/model.safetensors").read_bytes()
    shutil.rmtree(project / "scratch")
    assert run_training(small_params(project, {"epochs": 2}))
    assert run_training(small_params(project, {"epochs": 4}))
    record = json.loads((project / f"results/checkpoints/{RUN}/train.json").read_text())
    assert record["epochs"] == 4
    assert (project / f"results/checkpoints/{RUN}/model.safetensors").read_bytes() == expected
    with pytest.raises(VlaeError, match="has 4 epochs"):
        run_training(small_params(project, {"epochs": 3}))


def test_a_state_within_an_epoch_says_how_far_beyond_it_is(project):
    params = prepare(project, {"epochs": 4})
    steps = 0
    while steps <= steps_per_epoch(params):  # a time limit of 0 stops after every step
        assert not run_training(params, minutes=0)
        steps += 1
    with pytest.raises(VlaeError, match=r"has 1\.\d epochs, more than .*epochs = 1;"):
        run_training(small_params(project, {"epochs": 1}))


def steps_per_epoch(params):
    run = params.runs[RUN]
    dataset = load(run.dataset, params.image_kind(run.dataset))
    images = training_images(dataset, run.training.split)
    return len(images) // run.training.batch_size


def test_a_complete_state_becomes_results_without_training(project):
    params = prepare(project, {"epochs": 2})
    run_training(params)
    shutil.rmtree(project / "results")
    assert run_training(params)
    record = json.loads((project / f"results/checkpoints/{RUN}/train.json").read_text())
    assert record["steps"] == 2 * 10 and record["images_seen"] == 160


def test_another_configuration_leaves_the_state_alone_and_finds_it_again(project):
    params = prepare(project, {"epochs": 2})
    run_training(params)
    (state,) = (project / "scratch" / RUN).glob("state-*.safetensors")
    before = state.read_bytes()
    run_training(small_params(project, {"epochs": 2, "learning_rate": 0.01}))
    assert len(list((project / "scratch" / RUN).glob("state-*.safetensors"))) == 2
    assert state.read_bytes() == before


def test_a_foreign_state_is_refused_saying_what_differs(project):
    params = prepare(project)
    run_training(params)
    (mine,) = (project / "scratch" / RUN).glob("state-*.safetensors")
    changed = small_params(project, {"learning_rate": 0.01})
    run_training(changed)
    (other,) = set((project / "scratch" / RUN).glob("state-*.safetensors")) - {mine}
    foreign = mine.read_bytes()
    other.write_bytes(foreign)
    with pytest.raises(VlaeError, match=r"training\.learning_rate is 0\.01 here and 0\.002 there"):
        run_training(changed)
    assert other.read_bytes() == foreign


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other tensors"])
def test_a_damaged_state_is_one_clear_line_and_stays(project, damage):
    params = prepare(project)
    run_training(params)
    (state,) = (project / "scratch" / RUN).glob("state-*.safetensors")
    good = state.read_bytes()
    if damage == "other tensors":
        from safetensors import safe_open

        with safe_open(state, "pt") as file:
            metadata = file.metadata()
        save_file({"weights/x": torch.zeros(3)}, state, metadata)
    else:
        state.write_bytes(
            {"truncated": good[: len(good) // 2], "empty": b"", "text": b"x" * 99}[damage]
        )
    damaged = state.read_bytes()
    with pytest.raises(VlaeError, match=state.name):
        run_training(small_params(project, {"epochs": 2}))
    assert state.read_bytes() == damaged


def test_two_trainers_of_one_run_do_not_share_a_state(project):
    prepare(project, {"epochs": 100_000})
    first = Command(project, "train", RUN, "--checkpoint-seconds", "0.001")
    wait_for_progress(first, project, 0)
    second = Command(project, "train", RUN)
    assert second.wait() == 2
    assert "another process is training" in second.stderr
    assert first.running()
    first.process.kill()
    first.wait()


def test_divergence_stops_and_keeps_the_last_good_state(project):
    params = prepare(project, {"epochs": 1})
    run_training(params)
    (state,) = (project / "scratch" / RUN).glob("state-*.safetensors")
    tensors = load_file(state)
    from safetensors import safe_open

    with safe_open(state, "pt") as file:
        about = json.loads(file.metadata()["vlae"])
    del about["sha256"]  # as in states of before: what is in it now is not what was saved
    metadata = {"vlae": json.dumps(about)}
    name = next(k for k in tensors if k.startswith("weights/") and k.endswith("bias"))
    tensors[name].fill_(float("nan"))
    save_file(tensors, state, metadata)
    kept = state.read_bytes()
    with pytest.raises(VlaeError, match=r"diverged at step 11 .*last good state is kept"):
        run_training(small_params(project, {"epochs": 2}))
    assert state.read_bytes() == kept


def test_training_learns_and_averages(project):
    params = prepare(project, {"epochs": 40, "split": "train"})
    run_training(params)
    rows = (project / f"results/checkpoints/{RUN}/curve.csv").read_text().splitlines()
    header = rows[0].split(",")
    curve = [dict(zip(header, row.split(","), strict=True)) for row in rows[1:]]
    assert len(curve) == 40 and int(curve[-1]["step"]) == 40 * 8
    assert float(curve[-1]["elbo"]) > float(curve[0]["elbo"]) + 100
    assert float(curve[-1]["valid_elbo"]) > float(curve[0]["valid_elbo"]) + 20


def test_average_is_the_exponential_one(tmp_path):
    """By hand from the weights after each step."""
    training = small_params(tmp_path, {"polyak": 0.9}).run(RUN).training
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer, average = new_optimizer([weight], training), [torch.tensor([1.0])]
    expected = 1.0
    for gradient in (0.5, -2.0, 1.0):
        weight.grad = torch.tensor([gradient])
        step_and_average(optimizer, average, training, "float32")
        expected = 0.9 * expected + 0.1 * weight.item()
    assert average[0].item() == pytest.approx(expected, rel=1e-6)


def test_each_epoch_visits_every_image_once_in_another_order():
    first, second = permutation(0, 0, 1000), permutation(0, 1, 1000)
    assert sorted(first.tolist()) == list(range(1000)) == sorted(second.tolist())
    assert not torch.equal(first, second)
    assert torch.equal(first, permutation(0, 0, 1000))
    assert not torch.equal(first, permutation(1, 0, 1000))


def test_dynamic_binarization_draws_with_the_grey_value_as_probability():
    grey = torch.tensor([0, 1, 64, 128, 254, 255], dtype=torch.uint8).view(6, 1, 1)
    draws = binarize(grey.expand(6, 300, 300), generator(0, "test"))
    probability = grey.flatten().double() / 255
    mean = draws.double().mean((1, 2))
    error = (probability * (1 - probability) / 90_000).sqrt()
    assert ((mean - probability).abs() <= 5 * error).all()
    assert mean[0] == 0 and mean[5] == 1
    x = grey.expand(6, 28, 28)
    assert not torch.equal(
        as_input(x, DYNAMIC, generator(0, "a")), as_input(x, DYNAMIC, generator(0, "b"))
    )
    assert torch.equal(as_input(x, FIXED, generator(0, "a"))[:, 0], x.float())


def test_params_file_of_the_project_is_valid():
    assert RUN in load_params(PROJECT / "params.yaml").runs
