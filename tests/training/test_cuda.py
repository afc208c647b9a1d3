"""The CUDA training path: its parts on any machine, the path itself where there is a GPU."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from miniature import PROJECT, made_up_arrays, small_params, write_data
from processes import Command
from scripts import script
from vlae.config.load import load_params
from vlae.data.batches import permutation
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.hardware import set_arithmetic
from vlae.images import KINDS
from vlae.native.library import backend
from vlae.randomness import generator
from vlae.training.cuda_graph import CapturedStep, StaticInputs, unchanged
from vlae.training.free_bits import RunningGamma
from vlae.training.optimizer import new_optimizer, optimizer_tensors, set_learning_rate
from vlae.training.step import Arithmetic, draw, new_step, training_step
from vlae.training.train import train
from vlae.training.train_state import TrainState, new_train_state


def needs_gpu(test):
    """For one with `-m cuda`, the command for a machine with a GPU; skipped elsewhere."""
    absent = not torch.cuda.is_available()
    return pytest.mark.cuda(pytest.mark.skipif(absent, reason="no CUDA device here")(test))


RUN = "static_mnist-vlae"
RUNS = [RUN, "static_mnist-vlae_iaf_relu", "static_mnist-vae_af", "dynamic_mnist-pixelcnn"]
RUNS += ["omniglot-vlae_plus", "cifar10-resnet_vlae", "cifar10-vlae_7x4gray"]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    return tmp_path


class Training:
    """A miniature training in the middle, without files: all that a step changes."""

    def __init__(self, folder, name, device, graph, precision="float32", compiled=False):
        set_arithmetic(device, precision)  # first, as a training does: the initialisation too
        params = small_params(folder)
        self.run = params.run(name)
        self.kind = params.image_kind(self.run.dataset)
        self.images = torch.from_numpy(made_up_arrays(self.kind.binarization)["train"]).to(device)
        self.state = new_train_state(self.run, self.images, self.kind, device)
        self.model, self.optimizer = self.state.model, self.state.optimizer
        self.step, self.core = new_step(
            self.state,
            self.images,
            self.kind,
            self.run,
            Arithmetic(precision, graph, compiled),
        )

    def steps(self, first, count):
        """`count` steps; the sums after each."""
        size, device = self.run.training.batch_size, self.images.device
        indices = permutation(0, 0, len(self.images)).to(device)
        sums = []
        for i in range(first, first + count):
            start = i % (len(self.images) // size) * size
            self.step(indices[start : start + size], generator(0, "step", i, device.type))
            sums.append(self.state.sums.cpu().clone())
        return torch.stack(sums)

    def changed(self):
        return self.state.changed()

    def values(self):
        return [tensor.detach().cpu().clone() for tensor in self.changed()]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# ---- everything but the capture itself, on the CPU ----


def warm_up_only(step):
    """Stands for CapturedStep.capture where nothing can be captured: replay runs the body."""
    with unchanged(step.changed):
        for _ in range(3):
            step.body()
    step.graph = SimpleNamespace(replay=step.body)
    return step


@pytest.mark.parametrize("name", RUNS)
def test_what_a_graph_would_replay_is_the_training_step(folder, monkeypatch, name):
    monkeypatch.setattr(CapturedStep, "capture", warm_up_only)
    eager, graph = (Training(folder, name, CPU, graph) for graph in (False, True))
    assert graph.core == f"{eager.core}, CUDA graph"
    assert isinstance(graph.step, CapturedStep)
    assert torch.equal(eager.steps(0, 10), graph.steps(0, 10))
    assert equal(eager.values(), graph.values())


def test_the_warm_up_changes_nothing_and_leaves_no_gradient(folder):
    training = Training(folder, RUN, CPU, False)
    training.steps(0, 2)
    before, changed = training.values(), training.changed()
    with unchanged(changed):
        training.steps(2, 3)
        assert not equal(before, training.values())
    assert equal(before, training.values())
    with pytest.raises(RuntimeError, match="in the middle"), unchanged(changed):
        training.model.log_likelihood(
            torch.zeros(2, 1, 28, 28), torch.zeros(2, training.run.model.latent_dim)
        ).sum().backward()
        raise RuntimeError("in the middle")
    assert all(weight.grad is None for weight in training.model.parameters())
    assert equal(before, training.values())


def test_adamax_starts_from_zero_state_as_it_would_by_itself(folder):
    alone, prepared = (Training(folder, RUN, CPU, False) for _ in range(2))
    zeros = optimizer_tensors(prepared.optimizer, prepared.run.training)
    assert len(zeros) == 3 * len(prepared.state.weights)
    assert not any(tensor.any() for tensor in zeros)
    alone.steps(0, 3), prepared.steps(0, 3)
    assert equal(alone.values(), prepared.values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.binarization)
@pytest.mark.parametrize("name", [RUN, "dynamic_mnist-pixelcnn"])
def test_static_inputs_hold_what_a_step_draws(folder, name, kind):
    run = small_params(folder).run(name)
    training = replace(run.training, batch_size=8)
    if run.model.latent_dim:
        training = replace(training, bound_samples=3, bound_gradient="drawn", augment="flip")
    images = torch.from_numpy(made_up_arrays(kind.binarization)["train"])
    inputs = StaticInputs(images, kind, training, run.model.latent_dim)
    tensors = [value for value in vars(inputs).values() if isinstance(value, torch.Tensor)]
    held = {tensor.data_ptr() for tensor in tensors}
    for step in range(3):
        indices = permutation(0, step, len(images))[:8]
        inputs.fill(indices, generator(0, "step", step))
        random = generator(0, "step", step)
        x, noise, uniform = draw(images[indices], kind, training, run.model.latent_dim, random)
        assert torch.equal(inputs.x(), x)
        for held_there, drawn in ((inputs.noise, noise), (inputs.selection, uniform)):
            assert held_there is None if drawn is None else torch.equal(held_there, drawn)
    tensors = [value for value in vars(inputs).values() if isinstance(value, torch.Tensor)]
    assert held == {tensor.data_ptr() for tensor in tensors}


def test_where_capture_fails_steps_are_eager_and_one_line_says_so(folder, monkeypatch, capsys):
    def fail(step):
        with unchanged(step.changed):
            step.body()
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(CapturedStep, "capture", fail)
    eager, fallen_back = (Training(folder, RUN, CPU, graph) for graph in (False, True))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no CUDA graph, ") and line.endswith("operation not permitted")
    assert fallen_back.core == eager.core
    assert torch.equal(eager.steps(0, 3), fallen_back.steps(0, 3))
    assert equal(eager.values(), fallen_back.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_driver_the_capture_itself_fails_in_one_line(folder, capsys):
    fallen_back = Training(folder, RUN, CPU, True)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert fallen_back.core == Training(folder, RUN, CPU, False).core


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", RUNS)
def test_the_body_never_asks_the_device_for_a_value(folder, monkeypatch, name, device):
    """On tensors without content, where asking for one is an error, as it is during capture.

    Without a driver autograd has no such GPU: there the backward pass is left out, and on the
    CPU the optimizer, which asks unless it is the one for graphs.
    """
    training = Training(folder, name, CPU, False)
    with FakeTensorMode():
        model = put_on(device, training.model)
        if device == "cpu":
            parameters = [{"params": list(model.parameters())}]
            optimizer = SimpleNamespace(
                step=list, zero_grad=model.zero_grad, param_groups=parameters
            )
        else:
            optimizer = new_optimizer(list(model.parameters()), training.run.training)
            optimizer_tensors(optimizer, training.run.training)
            monkeypatch.setattr(
                torch.Tensor,
                "backward",
                lambda loss: [setattr(w, "grad", torch.zeros_like(w)) for w in model.parameters()],
            )
        images = torch.empty(training.images.shape, dtype=torch.uint8, device=device)
        settings = replace(training.run.training, batch_size=8)
        inputs = StaticInputs(images, training.kind, settings, training.run.model.latent_dim)
        free_bits = training.state.free_bits
        if free_bits is not None:
            free_bits = RunningGamma(free_bits.floor, free_bits.steps, torch.device(device))
        average = {name: w.detach().clone() for name, w in model.named_parameters()}
        state = TrainState(training.run.training, model, optimizer, average, None, free_bits)
        results = []

        # The C++ core would read memory, which these tensors do not have.
        precision = next(p for p in ("float32", "bfloat16") if backend(device, p) == "PyTorch")

        def update(x, noise, uniform):
            results.append(training_step(state, x, noise, precision, uniform=uniform))

        CapturedStep(update, inputs, []).body()
        assert results[0].device.type == device and results[0].shape == (3,)


def put_on(device, model):
    """The model with tensors of the same shapes that hold nothing, on a device of make-believe."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    empty = torch.empty_strided(tensor.size(), tensor.stride(), device=device)
                    tensors[key] = torch.nn.Parameter(empty) if tensor.requires_grad else empty
    return model


def test_the_settings_for_a_gpu_leave_the_cpu_alone():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    set_arithmetic(CPU, "bfloat16")
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic)


# ---- the session's script ----

# Only what a bare machine may be expected to hold; sitecustomize is imported at every start.
BARE = """
import sys
from importlib.machinery import PathFinder
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {missing}:
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
MISSING = {
    *("dvc", "dvclive", "snakemake", "truststore", "requests", "pandas", "matplotlib", "scipy"),
    *("torchvision", "tabulate", "psutil", "urllib3", "pytest", "hypothesis"),
}


def start_session(folder, *arguments, **environment):
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare" / "sitecustomize.py").write_text(BARE.format(missing=MISSING))
    return subprocess.Popen(
        [sys.executable, PROJECT / "tools/gpu_session.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(folder / "bare"), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def prepare(folder, epochs):
    """Data, recipes and params.yaml for these runs' numbers of epochs."""
    write_data(folder, small_params(folder))
    (folder / "results/recipes").mkdir(parents=True)
    for name, number in epochs.items():
        train_longer(folder, name, number)
        (folder / f"results/recipes/{name}.train.json").write_text('{"numbers": {}}')


def train_longer(folder, name, epochs, decay_epochs=0):
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["runs"][name]["training"] = {"epochs": epochs, "decay_epochs": decay_epochs}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def states(folder):
    """RUN -> its state."""
    return {path.parent.name: path for path in folder.glob("scratch/*/state-*.safetensors")}


OTHER = "dynamic_mnist-pixelcnn"


def run_training(params, name=RUN, **options):
    run = params.run(name)
    dataset = load(run.dataset, params.image_kind(run.dataset))
    return train(run, dataset, precision="float32", **options)


def test_a_session_on_a_bare_machine_and_what_comes_home(folder):
    """Trained side by side in the time given, packed, joined, taken over, gone on from."""
    prepare(folder, {RUN: 2, OTHER: 1})
    session = start_session(
        folder,
        *("train", "--minutes", "5", "--epochs", "10", "--decay-epochs", "2", "--threads", "1"),
        *("--out", "out", "--device", "cpu", RUN, OTHER),
    )
    _, said = session.communicate(timeout=200)
    assert session.returncode == 0, said + (folder / f"out/{RUN}.log").read_text()
    records = {}
    for name in (RUN, OTHER):
        text = (folder / f"results/checkpoints/{name}/train.json").read_text()
        record = records[name] = json.loads(text)
        assert f"{name}: done, epochs 10, decay_epochs 2" in said
        assert record["epochs"] == 10 and record["config"]["training"]["decay_epochs"] == 2
    packed = start_session(folder, "pack", "--out", "out", RUN, OTHER)
    assert packed.wait(60) == 0

    home = folder / "home"
    home.mkdir()
    write_data(home, small_params(home))
    shutil.copytree(folder / "results/recipes", home / "results/recipes")
    joined = start_session(folder, "join", "out", VLAE_SCRATCH=str(home / "scratch"))
    assert joined.wait(60) == 0
    train_longer(home, RUN, 10, 2)
    command = Command(home, "train", RUN)
    assert command.wait() == 0 and "no training needed" in command.stderr
    model = f"results/checkpoints/{RUN}/model.safetensors"
    assert (home / model).read_bytes() == (folder / model).read_bytes()
    train_longer(home, RUN, 12, 1)
    command = Command(home, "train", RUN)
    assert command.wait() == 0 and "continues from" in command.stderr
    record = json.loads((home / f"results/checkpoints/{RUN}/train.json").read_text())
    first, second = record["stretches"]
    assert first["from_checkpoint"] is None
    assert second["from_checkpoint"] == records[RUN]["checkpoint_sha256"]
    assert (second["from_epoch"], second["to_epoch"]) == (first["to_epoch"], record["epochs"])


def test_the_epochs_are_fitted_to_the_time(folder):
    """100 steps an epoch, 10 a second: 94 % of the time left after setting up again."""
    fitted = script("gpu_session", "tools").fitted
    run = small_params(folder).run(RUN)
    trial = {"from_step": 0, "to_step": 250, "seconds": 30.0, "setup_seconds": 5.0}
    state = {"step": 250, "history": [trial], "start": None}
    images = 100 * run.training.batch_size
    assert fitted(run, state, images, 1005) == (96, 19)  # 250 + 9,400 steps
    assert fitted(run, state, images, 115) == (12, 2)
    assert fitted(run, state, images, 35) == (5, 1)
    published = state | {"step": 3250, "start": {"step": 3000}}
    published["history"] = [trial | {"from_step": 3000, "to_step": 3250}]
    assert fitted(run, published, images, 1005) == (126, 48)  # half of the 96 new ones
    with pytest.raises(VlaeError, match="not one epoch"):
        fitted(run, state, images, 9)
    idle = trial | {"from_step": 250, "to_step": 250, "setup_seconds": 20.0}  # spent on compiling
    assert fitted(run, state | {"history": [trial, idle]}, images, 1020) == (96, 19)


def test_measuring_needs_no_data(folder):
    prepare(folder, {RUN: 1})
    shutil.rmtree(folder / "data")
    arguments = ("measure", "--seconds", "0.1", "--device", "cpu", "--out", "out", RUN, OTHER)
    session = start_session(folder, *arguments)
    _, said = session.communicate(timeout=100)
    assert session.returncode == 0, said
    found = json.loads((folder / "out/benchmark.json").read_text())
    assert found["runs"].keys() == {RUN, OTHER}
    assert all(of_run["eager"]["images_per_second"] > 0 for of_run in found["runs"].values())


@pytest.mark.parametrize("damage", ["missing", "changed", "list", "elsewhere"])
def test_damaged_parts_are_one_clear_line_and_leave_nothing(folder, monkeypatch, capsys, damage):
    session = script("gpu_session", "tools")
    monkeypatch.setattr(session, "PART", 10_000)
    prepare(folder, {RUN: 1})
    assert run_training(load_params())
    assert session.main(["pack", "--out", "parts", RUN]) == 0
    part, listed = folder / "parts/part.001", folder / "parts/parts.json"
    if damage == "missing":
        part.unlink()
    elif damage == "changed":
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    elif damage == "list":
        listed.write_text("{")
    else:
        monkeypatch.setattr(
            session, "carried", lambda run: {f"{run}/elsewhere/x": folder / "params.yaml"}
        )
        shutil.rmtree(folder / "parts")
        assert session.main(["pack", "--out", "parts", RUN]) == 0
    capsys.readouterr()
    monkeypatch.setenv("VLAE_SCRATCH", str(folder / "joined"))
    assert session.main(["join", "parts"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    named = {"missing": "part.001", "changed": "part.001", "list": "parts.json"}
    assert named.get(damage, "elsewhere") in line
    assert not (folder / "joined").exists()


# ---- where there is a GPU ----


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RUNS)
def test_the_graph_trains_as_eager_steps_do(folder, name, precision):
    eager, graph = (Training(folder, name, GPU, graph, precision) for graph in (False, True))
    assert (eager.core, graph.core) == ("PyTorch", "PyTorch, CUDA graph")
    rounding = (
        {"rtol": 1e-5, "atol": 1e-6} if precision == "float32" else {"rtol": 0.02, "atol": 1e-3}
    )
    assert equal(eager.values(), graph.values())  # nothing is left of the warm-up
    torch.testing.assert_close(graph.steps(0, 20), eager.steps(0, 20), **rounding)
    for ours, theirs in zip(graph.values(), eager.values(), strict=True):
        torch.testing.assert_close(ours, theirs, **rounding)


@needs_gpu
@pytest.mark.parametrize("name", RUNS)
def test_killed_on_a_gpu_the_weights_are_bit_identical(folder, name):
    prepare(folder, {name: 40})
    results = folder / f"results/checkpoints/{name}"
    arguments = ("train", name, "--device", "cuda")
    assert Command(folder, *arguments).wait() == 0
    undisturbed = (results / "model.safetensors").read_bytes()
    assert json.loads((results / "train.json").read_text())["core"] == "PyTorch, CUDA graph"
    shutil.rmtree(results)
    shutil.rmtree(folder / "scratch")
    for _ in range(2):
        command = Command(folder, *arguments, "--checkpoint-seconds", "0.001")
        since = time.time_ns()
        while command.running():
            if any(path.stat().st_mtime_ns > since for path in states(folder).values()):
                command.process.kill()
        command.wait()
    assert Command(folder, *arguments).wait() == 0
    assert (results / "model.safetensors").read_bytes() == undisturbed


@needs_gpu
@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")])
@pytest.mark.parametrize("name", [RUN, OTHER])
def test_a_state_continues_on_the_other_kind_of_machine(folder, name, devices):
    write_data(folder, small_params(folder))
    for epochs, device in enumerate(devices, start=1):
        params = small_params(folder, {"epochs": epochs})
        assert run_training(params, name, device=device)
    record = json.loads((folder / f"results/checkpoints/{name}/train.json").read_text())
    assert record["epochs"] == 2 and record["steps"] == 2 * 10
    curve = (folder / f"results/checkpoints/{name}/curve.csv").read_text().splitlines()
    losses = [float(row.split(",")[4]) for row in curve[1:]]
    assert losses[1] < losses[0]
    assert record["core"] in ("PyTorch, CUDA graph, PyTorch", "PyTorch, PyTorch, CUDA graph")


@needs_gpu
def test_a_damaged_state_is_refused_on_a_gpu_too(folder):
    prepare(folder, {RUN: 1})
    run_training(load_params(), device="cuda")
    (state,) = states(folder).values()
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(VlaeError, match=state.name):
        run_training(load_params(), device="cuda")


@needs_gpu
@pytest.mark.parametrize("name", [RUN, "cifar10-vlae_7x4gray"])
def test_compiled_steps_train_as_eager_ones_do(folder, name):
    eager = Training(folder, name, GPU, False)
    fused = Training(folder, name, GPU, True, compiled=True)
    assert fused.core == "PyTorch, compiled, CUDA graph"
    assert equal(eager.values(), fused.values())  # nothing is left of the warm-up
    torch.testing.assert_close(fused.steps(0, 20), eager.steps(0, 20), rtol=1e-3, atol=1e-3)


@needs_gpu
def test_a_decay_reaches_the_steps_of_a_graph(folder):
    eager, graph = (Training(folder, RUN, GPU, graph) for graph in (False, True))
    for rate in (0.002, 0.001, 1e-6):
        for training in (eager, graph):
            set_learning_rate(training.optimizer, rate)
            training.steps(0, 2)
        for ours, theirs in zip(graph.values(), eager.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    before = [weight.detach().clone() for weight in graph.model.parameters()]
    set_learning_rate(graph.optimizer, 1e-12)
    graph.steps(0, 1)
    for ours, theirs in zip(graph.model.parameters(), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@needs_gpu
@pytest.mark.slow
def test_the_graph_is_five_times_as_fast(folder):
    params, session = load_params(PROJECT / "params.yaml"), script("gpu_session", "tools")
    eager, graph = (
        session.measure(params, params.run(RUN), GPU, way, 10) for way in ("eager", "graph")
    )
    assert graph["images_per_second"] >= 5 * eager["images_per_second"], (eager, graph)
