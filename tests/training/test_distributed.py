"""Several processes that train one run together do what one does, and stop and resume like it.

Real processes and real messages (gloo, on the CPU); the GPUs' share is in test_cuda.py.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from miniature import small_params, write_data
from processes import Command
from vlae.models.objective import loss, negative_bound, objective
from vlae.models.vlae import VLAE
from vlae.nn.weightnorm import data_dependent_initialisation
from vlae.training.distributed import SINGLE, ProcessGroup, processes_for

RUN = "static_mnist-vlae"
TWO = ("--processes", "2", "--precision", "float32")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def prepare(folder, training=None):
    params = small_params(folder, training)
    write_data(folder, params)
    return params


def train(folder, name, *options):
    command = Command(folder, "train", name, *options)
    assert command.wait() == 0, command.stderr
    results = folder / "results" / "checkpoints" / name
    return load_file(results / "model.safetensors"), json.loads(
        (results / "train.json").read_text()
    )


def forget(folder):
    for name in ("results", "scratch"):
        shutil.rmtree(folder / name)


@pytest.mark.parametrize("free_bits", [0.0, 1e6, None, "soft"])
def test_shares_of_a_batch_have_the_gradient_of_the_whole(tmp_path, free_bits):
    """In float64, also where the KL of one share is below the free bits and the other's above,
    and with soft free bits."""
    model = VLAE(small_params(tmp_path).runs[RUN].model).double()
    random = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 1, 28, 28, generator=random) < 0.2).double()
    noise = torch.randn(8, 6, generator=random).double()
    with data_dependent_initialisation(model):
        objective(model, x, noise, 0.0)
    halves = [(x[:4], noise[:4]), (x[4:], noise[4:])]
    parts = [negative_bound(model, *half).detach() for half in halves]
    kls = sorted(part[1].item() for part in parts)
    assert kls[0] < kls[1]
    if free_bits is None:
        free_bits = (sum(kls) / 2 + kls[0]) / 2  # between the smaller share's KL and the whole's

    gamma = torch.tensor(0.3, dtype=torch.float64) if free_bits == "soft" else None
    free_bits = 0.0 if gamma is not None else free_bits

    class Other(ProcessGroup):
        """One of two processes, whose messages are known beforehand."""

        def all_reduce_mean(self, values):
            return sum(parts) / 2

    def gradients(x, noise, group=SINGLE):
        model.zero_grad()
        terms = group.mean_with_gradient(negative_bound(model, x, noise))
        total = loss(terms, free_bits, gamma)
        total.backward()
        return (
            total,
            terms.detach(),
            [
                torch.zeros_like(w) if w.grad is None else w.grad.clone()
                for w in model.parameters()
            ],
        )

    whole, terms, expected = gradients(x, noise)
    shares = [gradients(*half, Other(rank, 2)) for rank, half in enumerate(halves)]
    for total, (reconstruction, kl), _ in shares:
        assert total.item() == pytest.approx(whole.item(), rel=1e-12)
        assert reconstruction.item() == pytest.approx(terms[0].item(), rel=1e-12)
        assert kl.item() == pytest.approx(terms[1].item(), rel=1e-12)
    for one, other, wanted in zip(shares[0][2], shares[1][2], expected, strict=True):
        torch.testing.assert_close((one + other) / 2, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        RUN,
        pytest.param("dynamic_mnist-pixelcnn", marks=pytest.mark.slow),
        pytest.param("cifar10-vlae_7x4", marks=pytest.mark.slow),
    ],
)
def test_two_processes_do_what_one_does(project, name):
    prepare(project, {"epochs": 2})
    one, record_of_one = train(project, name, "--precision", "float32")
    forget(project)
    two, record = train(project, name, *TWO)
    for key in ("steps", "images_seen", "parameters"):
        assert record[key] == record_of_one[key]
    for key, value in record_of_one["final"].items():
        assert record["final"][key] == pytest.approx(value, rel=1e-4)
    assert record["hardware"] == f"2 x {record_of_one['hardware']}"
    # Sums in another order: a ReLU at its kink may go either way, which moves the few weights of
    # that unit by some steps of the optimizer. All others agree closely.
    names = one.keys() & two.keys()
    assert names == one.keys()
    mine, theirs = (torch.cat([w[name].flatten() for name in names]) for w in (one, two))
    apart = (mine - theirs).abs()
    assert (apart > 2e-4 + 1e-2 * mine.abs()).float().mean() < 1e-3
    assert apart.max() < 2e-3


def workers(launcher: int) -> list[int]:
    """The processes that share the work: those of its children that were spawned for it."""
    found = []
    for task in Path(f"/proc/{launcher}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def wait_for_state(folder, command):
    while not list(folder.glob("scratch/*/state-*.safetensors")):
        assert command.running(), command.stderr
        time.sleep(0.01)


@pytest.mark.parametrize("victim", [pytest.param("launcher", marks=pytest.mark.slow), "worker"])
def test_killed_and_resumed_the_weights_are_bit_identical(project, victim):
    """SIGKILL. Workers without their launcher save their state and end; so the lock is free."""
    prepare(project, {"epochs": 6})
    undisturbed, _ = train(project, RUN, *TWO)
    forget(project)
    command = Command(project, "train", RUN, *TWO, "--checkpoint-seconds", "0.001")
    wait_for_state(project, command)
    team = workers(command.process.pid)
    assert len(team) == 2
    os.kill(command.process.pid if victim == "launcher" else team[1], signal.SIGKILL)
    code = command.wait()
    assert code == (-signal.SIGKILL if victim == "launcher" else 2), command.stderr
    if victim == "worker":
        assert "a training process failed" in command.stderr
    until = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in team):
        assert time.monotonic() < until, "a worker goes on without its launcher"
        time.sleep(0.05)
    again, record = train(project, RUN, *TWO)
    assert record["epochs"] == 6
    assert all(torch.equal(again[name], weights) for name, weights in undisturbed.items())


def test_sigterm_saves_and_one_process_goes_on_where_two_stopped(project):
    prepare(project, {"epochs": 100_000})
    command = Command(project, "train", RUN, *TWO, "--checkpoint-seconds", "0.001")
    wait_for_state(project, command)
    command.process.terminate()
    assert command.wait() == 75, command.stderr
    assert "the same command continues from here" in command.stderr
    (state,) = project.glob("scratch/*/state-*.safetensors")
    command = Command(project, "train", RUN, "--minutes", "0.02", "--precision", "float32")
    assert command.wait() == 75
    assert list(project.glob("scratch/*/state-*.safetensors")) == [state]


def test_the_clock_stops_all_of_them(project):
    prepare(project, {"epochs": 100_000})
    command = Command(project, "train", RUN, *TWO, "--minutes", "0.3")
    assert command.wait() == 75, command.stderr
    assert "stopped by" in command.stderr


def test_what_is_wrong_is_said_once(project):
    prepare(project, {"epochs": 2})
    command = Command(project, "train", RUN, "--processes", "3")
    assert command.wait() == 2
    assert command.stderr.count("\n") == 1
    assert "batch_size 8 cannot be shared equally by 3 processes" in command.stderr
    train(project, RUN, "--precision", "float32")
    (state,) = project.glob("scratch/*/state-*.safetensors")
    state.write_bytes(b"damaged")
    command = Command(project, "train", RUN, *TWO)
    assert command.wait() == 2
    assert command.stderr.count("not a readable training state") == 1
    assert "Traceback" not in command.stderr
    assert state.read_bytes() == b"damaged"


def test_a_weight_without_a_gradient_is_refused():
    """Its place in the message would be taken by the next weight's gradient."""
    weights = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3, 4))]
    weights[0].grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"a weight of shape \(3, 4\) has no gradient"):
        ProcessGroup(0, 2).average_gradients(weights)
    SINGLE.average_gradients(weights)  # alone there is nothing to average


def test_on_a_cpu_threads_share_the_work_and_not_processes(tmp_path):
    assert processes_for(2, torch.device("cpu")) == 1
