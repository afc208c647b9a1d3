"""Sets how many threads compute, and how they wait for each other.

Threads that share a step wait for the slowest one. If other programs use the processors, that
thread may not even be running, and threads that wait by spinning keep it from running.
"""

import functools
import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOOK = 0.25  # seconds for which the processors are watched
CGROUPS = Path("/sys/fs/cgroup")


def wait_passively() -> None:
    """Let waiting threads sleep, unless the environment says how they wait.

    Call it before PyTorch is imported, because the OpenMP runtime reads the setting once.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def use_free_processors(backend: str) -> None:
    """Let PyTorch and the core use the processors that other programs leave free.

    The limit is the initial number of threads (OMP_NUM_THREADS) and the number of processors that
    this process may use. With OMP_DYNAMIC=false, or with a `backend` other than the C++ core in
    bfloat16, all processors up to the limit are used: PyTorch's sums in single precision depend on
    the number of threads, and a training has to continue with the same arithmetic.
    """
    import torch

    most = min(_threads_at_first(), allowed_processors())
    threads = most
    rounded = backend in ("C++ (AMX)", "C++ (AVX-512)")
    if rounded and os.environ.get("OMP_DYNAMIC", "").lower() != "false":
        threads = max(1, min(most, round(free_processors()))) if most > 1 else 1
    if threads < most:
        logger.info("%d of %d processors are free; using %d threads", threads, most, threads)
    torch.set_num_threads(threads)


@functools.cache
def _threads_at_first() -> int:
    import torch

    return torch.get_num_threads()


def allowed_processors() -> int:
    """Return how many processors this process may use, by its affinity and control group."""
    quota = min((limit for limit in map(_quota, _groups()) if limit), default=float("inf"))
    return max(1, round(min(len(os.sched_getaffinity(0)), quota)))


def _groups(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Return the folders of this process's control groups (version 2 or 1) and their parents.

    Each may limit the processor time.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, name in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(root, controllers)
        inner = group.joinpath(*Path(name).parts[1:])
        # In a container the path may be the host's; then the mounted folder is the group.
        found += [path for path in (inner, *inner.parents) if path.is_relative_to(group)]
    return found


def _quota(group: Path) -> float | None:
    """Return the processors of a control group, for example 1.5; None without a limit."""
    try:
        if (limit := group / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max"
        return None


def free_processors(seconds: float = LOOK) -> float:
    """Return how many of this process's processors are idle, or busy with work of low priority.

    It is measured for `seconds`, while this thread sleeps. Without /proc/stat, all are free.
    """
    before = _times()
    time.sleep(seconds)
    after = _times()
    free = 0.0
    for number in os.sched_getaffinity(0):
        spent = [b - a for a, b in zip(before.get(number, ()), after.get(number, ()), strict=True)]
        if sum(spent) <= 0:
            free += 1
            continue
        _, nice, _, idle, waiting = spent[:5]
        free += (idle + waiting + (nice if os.nice(0) == 0 else 0)) / sum(spent)
    return free


def _times() -> dict[int, list[int]]:
    """Return the ticks of each processor: user, nice, system, idle, waiting for a disk, and three
    more."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.startswith("cpu") and line[3].isdigit())
    return {int(name[3:]): [int(value) for value in values[:8]] for name, *values in rows}
