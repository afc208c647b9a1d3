"""The CUDA training path: its parts on any machine, the path itself where there is a GPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from miniature import PROJECT, made_up_arrays, small_params, write_data
from processes import Command
from test_rules import script
from vlae.batches import as_input, order
from vlae.cuda_step import CapturedStep, StaticInputs, adamax_state, unchanged
from vlae.data.dataset import Dataset, load
from vlae.errors import VlaeError
from vlae.hardware import set_arithmetic
from vlae.params import load_params
from vlae.randomness import generator
from vlae.train import (
    latent_noise,
    new_model,
    new_optimizer,
    new_step,
    running_gamma,
    train,
    training_step,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

RUN = "static_mnist-vlae"
RUNS = [RUN, "static_mnist-vlae_iaf", "static_mnist-vae_af", "dynamic_mnist-pixelcnn"]
RUNS += ["cifar10-resnet_vlae", "cifar10-vlae_7x4gray"]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    return tmp_path


class Training:
    """A miniature training in the middle, without files: all that a step changes."""

    def __init__(self, folder, name, device, graph, precision="float32"):
        params = small_params(folder)
        self.run = params.run(name)
        binarization = params.dataset(self.run.dataset)["binarization"]
        self.binarization = binarization
        self.images = torch.from_numpy(made_up_arrays(binarization)["train"]).to(device)
        self.model = new_model(self.run, self.images, binarization, device)
        self.optimizer = new_optimizer(self.model, self.run.training)
        self.average = [weight.detach().clone() for weight in self.model.parameters()]
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.soft = running_gamma(self.run.training, device)
        set_arithmetic(device, precision)
        self.step, self.core = new_step(
            self.model,
            self.optimizer,
            self.average,
            self.sums,
            self.images,
            binarization,
            self.run,
            precision,
            graph,
            soft=self.soft,
        )

    def steps(self, first, count):
        """`count` steps; the sums after each."""
        size, device = self.run.training.batch_size, self.images.device
        visits = order(0, 0, len(self.images)).to(device)
        sums = []
        for i in range(first, first + count):
            start = i % (len(self.images) // size) * size
            self.step(visits[start : start + size], generator(0, "step", i, device.type))
            sums.append(self.sums.cpu().clone())
        return torch.stack(sums)

    def changed(self):
        adamax = adamax_state(self.optimizer)
        return [*self.model.parameters(), *self.average, self.sums, *adamax]

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
    assert (eager.core, graph.core) == ("PyTorch", "PyTorch, CUDA graph")
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
    assert not any(tensor.any() for tensor in adamax_state(prepared.optimizer))
    alone.steps(0, 3), prepared.steps(0, 3)
    assert equal(alone.values(), prepared.values())


@pytest.mark.parametrize("binarization", ["fixed", "dynamic", "none"])
@pytest.mark.parametrize("name", [RUN, "dynamic_mnist-pixelcnn"])
def test_static_inputs_hold_what_a_step_draws(folder, name, binarization):
    run = small_params(folder).run(name)
    images = torch.from_numpy(made_up_arrays(binarization)["train"])
    inputs = StaticInputs(images, binarization, 8, run.model.latent_dim)
    tensors = [value for value in vars(inputs).values() if isinstance(value, torch.Tensor)]
    held = {tensor.data_ptr() for tensor in tensors}
    for step in range(3):
        visits = order(0, step, len(images))[:8]
        inputs.fill(visits, generator(0, "step", step))
        random = generator(0, "step", step)
        x = as_input(images[visits], binarization, random)
        noise = latent_noise(run.model.latent_dim, x, random)
        assert torch.equal(inputs.x(), x)
        assert inputs.noise is None if noise is None else torch.equal(inputs.noise, noise)
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
    assert fallen_back.core == "PyTorch"
    assert torch.equal(eager.steps(0, 3), fallen_back.steps(0, 3))
    assert equal(eager.values(), fallen_back.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_driver_the_capture_itself_fails_in_one_line(folder, capsys):
    assert Training(folder, RUN, CPU, True).core == "PyTorch"
    assert len(capsys.readouterr().err.splitlines()) == 1


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
            optimizer = SimpleNamespace(step=list, zero_grad=model.zero_grad)
        else:
            optimizer = new_optimizer(model, training.run.training)
            adamax_state(optimizer)
            monkeypatch.setattr(
                torch.Tensor,
                "backward",
                lambda loss: [setattr(w, "grad", torch.zeros_like(w)) for w in model.parameters()],
            )
        images = torch.empty(training.images.shape, dtype=torch.uint8, device=device)
        inputs = StaticInputs(images, training.binarization, 8, training.run.model.latent_dim)
        soft = running_gamma(training.run.training, torch.device(device))
        average = [weight.detach().clone() for weight in model.parameters()]
        results = []

        def update(x, noise):
            results.append(
                training_step(
                    *(model, optimizer, average, x, noise, training.run, "float32"), soft=soft
                )
            )

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
    *("dvc", "dvclive", "snakemake", "pooch", "requests", "pandas", "matplotlib", "scipy"),
    *("torchvision", "tabulate", "psutil", "urllib3", "pytest", "hypothesis"),
}


def start_session(folder, *arguments, **environment):
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare" / "sitecustomize.py").write_text(BARE.format(missing=MISSING))
    return subprocess.Popen(
        [sys.executable, PROJECT / "workflow/scripts/gpu_session.py", *arguments],
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


def train_longer(folder, name, epochs):
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["runs"][name]["training"] = {"epochs": epochs}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def states(folder):
    """RUN -> its state."""
    return {path.parent.name: path for path in folder.glob("scratch/*/state-*.safetensors")}


OTHER = "dynamic_mnist-pixelcnn"


LIKE_THE_TESTS = ("--device", "cpu", "--precision", "float32")


def test_a_session_on_a_bare_machine_and_what_it_leaves(folder):
    session = script("gpu_session")
    prepare(folder, {RUN: 2, OTHER: 1})
    first = start_session(
        folder,
        *("--minutes", "3", "--out", "first", "--benchmark-seconds", "0.1", "--part-mib", "1"),
        *(*LIKE_THE_TESTS, OTHER, f"{RUN}:2"),
    )
    _, said = first.communicate(timeout=200)
    assert first.returncode == 0, said
    assert "no live curves: dvclive is not installed" in said
    assert f"{OTHER}: done, 10 steps" in said and f"{RUN}: done, 20 steps" in said
    result = json.loads((folder / "first/benchmark.json").read_text())
    assert result["run"] == OTHER and result["sound"]
    assert result["measured"]["PyTorch"]["images_per_second"] > 0

    session.join(folder / "first/parts", folder / "joined/scratch")
    left = states(folder / "first")
    for name, path in states(folder / "joined").items():
        assert path.read_bytes() == left.pop(name).read_bytes()
    assert not left

    # the next one goes on from there, until it is told to stop
    train_longer(folder, RUN, 100_000)
    second = start_session(
        folder,
        *("--minutes", "10", "--out", "second", "--benchmark-seconds", "0", *LIKE_THE_TESTS),
        RUN,
        VLAE_SCRATCH=str(folder / "joined/scratch"),
    )
    while (line := second.stderr.readline()) and "parameters" not in line:
        pass  # until it is training
    second.send_signal(signal.SIGTERM)
    _, said = second.communicate(timeout=100)
    assert second.returncode == 75, said
    assert "stopped by SIGTERM" in said
    assert session.steps_behind(states(folder / "second")[RUN]) > 20
    assert session.steps_behind(states(folder / "joined")[RUN]) == 20


def test_a_session_ends_in_time(folder):
    prepare(folder, {RUN: 100_000, OTHER: 100_000})
    started = time.monotonic()
    session = start_session(
        folder,
        *("--minutes", "0.3", "--out", "out", "--benchmark-seconds", "0", "--part-mib", "1"),
        *(*LIKE_THE_TESTS, RUN, OTHER),
    )
    _, said = session.communicate(timeout=100)
    assert session.returncode == 75, said
    assert f"{OTHER}: not done yet" in said
    assert time.monotonic() - started < 18 + 20  # the import is not counted; nor is a save


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing-here"], "no run 'nothing-here'"),
        ([RUN, RUN], f"{RUN} is given twice"),
        (["static_mnist-vae_af"], "results/recipes/static_mnist-vae_af.train.json is missing"),
        ([OTHER], "data/dynamic_mnist.npz is missing"),
    ],
)
def test_a_session_that_cannot_be_is_refused_in_one_line(folder, capsys, arguments, reason):
    prepare(folder, {RUN: 1, OTHER: 1})
    (folder / "data/dynamic_mnist.npz").unlink()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        code = script("gpu_session").main(["--minutes", "1", "--out", "out", *arguments])
    finally:
        os.environ.pop("VLAE_SCRATCH", None)
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and reason in line


@pytest.fixture
def parts(folder, monkeypatch):
    """The script, and a state left in several parts."""
    session = script("gpu_session")
    monkeypatch.setattr(session, "MIB", 10_000)
    prepare(folder, {RUN: 1})
    assert run_training(load_params())
    split_again(session, folder)
    assert len(list((folder / "parts").glob(f"{RUN}.*"))) > 3
    return session


def split_again(session, folder):
    (state,) = states(folder).values()
    session.split(state, folder / "scratch", folder / "parts", 3)


def run_training(params, name=RUN, **options):
    run = params.run(name)
    dataset = load(run.dataset, params.dataset(run.dataset)["binarization"])
    return train(run, dataset, precision="float32", **options)


def test_parts_of_an_older_state_go_when_the_newer_ones_are_there(folder, parts):
    old = set((folder / "parts").glob(f"{RUN}.*"))
    train_longer(folder, RUN, 2)
    run_training(load_params())
    split_again(parts, folder)
    assert old.isdisjoint((folder / "parts").glob(f"{RUN}.*"))
    (state,) = states(folder).values()
    parts.join(folder / "parts", folder / "joined")
    assert (folder / "joined" / RUN / state.name).read_bytes() == state.read_bytes()


def test_join_keeps_a_state_that_is_further(folder, parts):
    (state,) = states(folder).values()
    (folder / "joined" / RUN).mkdir(parents=True)
    kept = folder / "joined" / RUN / state.name
    shutil.copyfile(state, kept)
    listed = json.loads((folder / "parts/states.json").read_text())
    listed[f"{RUN}/{state.name}"]["step"] = 1
    (folder / "parts/states.json").write_text(json.dumps(listed))
    before = kept.stat().st_mtime_ns
    parts.join(folder / "parts", folder / "joined")
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["missing", "changed", "list", "elsewhere"])
def test_damaged_parts_are_one_clear_line_and_leave_nothing(folder, parts, capsys, damage):
    part = sorted((folder / "parts").glob(f"{RUN}.*"))[1]
    listed = folder / "parts/states.json"
    if damage == "missing":
        part.unlink()
    elif damage == "changed":
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    elif damage == "list":
        listed.write_text("{")
    else:
        listed.write_text(listed.read_text().replace(f'"{RUN}/', '"../'))
    os.environ["VLAE_SCRATCH"] = str(folder / "joined")
    try:
        assert parts.main(["join", "parts"]) == 2
    finally:
        del os.environ["VLAE_SCRATCH"]
    (line,) = capsys.readouterr().err.splitlines()
    named = part if damage in ("missing", "changed") else listed
    assert named.name in line
    assert not list((folder / "joined").glob("*/*.safetensors"))


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
@pytest.mark.slow
def test_the_graph_is_five_times_as_fast():
    run = load_params(PROJECT / "params.yaml").run(RUN)
    arrays = made_up_arrays("fixed", train=2000)
    dataset = Dataset(run.dataset, "fixed", sha256="", **arrays)
    result = script("gpu_session").benchmark(run, dataset, "cuda", "auto", 20)
    rate = {core: numbers["images_per_second"] for core, numbers in result["measured"].items()}
    assert result["sound"]
    assert rate["PyTorch, CUDA graph"] >= 5 * rate["PyTorch"], rate
