"""Threads: as many as there are free processors, and they sleep while they wait."""

import os
import subprocess
import sys
import time

import pytest
import torch

from vlae import threads
from vlae.threads import _groups, _quota, allowed_processors, free_processors

BUSY = "import os\nos.nice({nice})\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"


def said_by(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in (*threads.WAITING, "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "policy", "spins"),
    [
        ({}, "PASSIVE", "GOMP_SPINCOUNT = '0'"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", "GOMP_SPINCOUNT"),
        ({"GOMP_SPINCOUNT": "1234"}, "PASSIVE", "GOMP_SPINCOUNT = '1234'"),
    ],
)
def test_the_command_line_lets_threads_wait_without_spinning(environment, policy, spins):
    """What the OpenMP runtime of PyTorch says itself of its settings, when it is loaded."""
    code = (
        "import sys; from vlae.cli import main; main(['evaluate', 'no_such_run', '--params', '/'])"
    )
    code += "\nimport torch"
    said = said_by(code, OMP_DISPLAY_ENV="verbose", **environment)
    assert f"OMP_WAIT_POLICY = '{policy}'" in said and spins in said


def test_it_is_set_before_pytorch_is_there():
    said_by("import sys, vlae.cli; assert 'torch' not in sys.modules")


@pytest.fixture
def busy():
    """Programs that keep a processor of this process busy, each, at a priority."""
    started = []

    def start(cpu: int, nice: int = 0) -> None:
        code = BUSY.format(cpu=cpu, nice=nice)
        started.append(subprocess.Popen([sys.executable, "-c", code]))

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_processors_that_others_use_are_not_free(busy):
    mine = sorted(os.sched_getaffinity(0))
    for cpu in mine:
        busy(cpu)
    time.sleep(0.3)
    # The least of several looks: a busy process may pause for a moment.
    assert 0 <= min(free_processors(0.3) for _ in range(5)) < 0.2 * len(mine) + 0.1


def test_processors_are_counted_by_themselves_and_gentle_programs_give_way(monkeypatch):
    times = [
        {0: [0] * 8, 1: [0] * 8, 2: [0] * 8, 9: [0] * 8},
        #    user nice system idle waiting … stolen
        {
            0: [25, 0, 0, 0, 0, 0, 0, 0],
            1: [0, 20, 0, 3, 2, 0, 0, 0],
            2: [5, 0, 0, 15, 0, 0, 0, 5],
            9: [0, 0, 0, 25, 0, 0, 0, 0],
        },
    ]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(os, "nice", lambda by: 0)
    reads = iter(times * 2)
    monkeypatch.setattr(threads, "_times", lambda: next(reads))
    assert free_processors(0) == pytest.approx(0 + 1 + 0.6)
    monkeypatch.setattr(os, "nice", lambda by: 10)  # no more important than they are
    assert free_processors(0) == pytest.approx(0 + 0.2 + 0.6)
    monkeypatch.setattr(threads, "_times", dict)  # no /proc
    assert free_processors(0) == 3


def test_a_control_group_limits_the_processors(tmp_path):
    membership = tmp_path / "cgroup"
    inner = tmp_path / "slurm/job_7"
    inner.mkdir(parents=True)
    membership.write_text("0::/slurm/job_7\n")
    groups = _groups(tmp_path, membership)
    assert inner in groups and tmp_path in groups and tmp_path.parent not in groups
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "slurm/cpu.max").write_text("150000 100000\n")
    assert [_quota(group) for group in groups] == [None, 1.5, None]
    old = tmp_path / "cpu,cpuacct"
    (old / "docker/abc").mkdir(parents=True)
    membership.write_text("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n")
    (old / "docker/abc/cpu.cfs_quota_us").write_text("200000")
    (old / "docker/abc/cpu.cfs_period_us").write_text("100000")
    (old / "cpu.cfs_quota_us").write_text("-1")
    (old / "cpu.cfs_period_us").write_text("100000")
    assert [_quota(group) for group in _groups(tmp_path, membership)] == [2.0, None, None]
    assert _groups(tmp_path, tmp_path / "no such file") == []
    assert 1 <= allowed_processors() <= len(os.sched_getaffinity(0))


@pytest.fixture
def processors(monkeypatch):
    """Pretend so many processors, and so many threads at first."""
    before = torch.get_num_threads()

    def pretend(allowed: int, free: float, threads_at_first: int) -> None:
        monkeypatch.setattr(threads, "allowed_processors", lambda: allowed)
        monkeypatch.setattr(threads, "free_processors", lambda: free)
        monkeypatch.setattr(threads, "_threads_at_first", lambda: threads_at_first)

    yield pretend
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("allowed", "free", "at_first", "backend", "expected"),
    [
        (2, 2.0, 2, "C++ (AMX)", 2),
        (2, 1.1, 2, "C++ (AMX)", 1),
        (2, 0.1, 2, "C++ (AMX)", 1),
        (16, 6.2, 16, "C++ (AVX-512)", 6),
        (16, 16.0, 4, "C++ (AVX-512)", 4),  # OMP_NUM_THREADS=4
        (3, 16.0, 16, "C++ (AVX-512)", 3),  # a quota
        (4, 0.5, 4, "C++ (AVX2)", 4),  # PyTorch's share of the work is in single precision
        (4, 0.5, 4, "PyTorch", 4),  # its sums depend on the number
        (4, 0.5, 4, "PyTorch, between convolutions C++ (AVX-512)", 4),
    ],
)
def test_as_many_threads_as_processors_are_free(
    processors, monkeypatch, allowed, free, at_first, backend, expected
):
    monkeypatch.delenv("OMP_DYNAMIC", raising=False)
    processors(allowed, free, at_first)
    threads.use_free_processors(backend)
    assert torch.get_num_threads() == expected
    monkeypatch.setenv("OMP_DYNAMIC", "false")
    threads.use_free_processors(backend)
    assert torch.get_num_threads() == min(allowed, at_first)
