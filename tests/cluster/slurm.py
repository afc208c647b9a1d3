"""A real SLURM cluster on this machine, to test on: three nodes, two of them with two GPUs.

    python tests/cluster/slurm.py install    SLURM's Debian packages, where they are missing
    python tests/cluster/slurm.py up         start it, or what is missing of it
    python tests/cluster/slurm.py down       stop it and forget it
    python tests/cluster/slurm.py status     its nodes and jobs

Needs root. The GPUs are device nodes without a driver, but really scheduled; cgroups
confine memory and devices where this machine lets them. Everything listens on loopback and
lies in one folder; outside it there is only the link /etc/slurm/slurm.conf, which the
clients inside the jobs need. Processes are stopped by the ids that were written down when
they were started.
"""

import argparse
import fcntl
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
FOLDER = Path(tempfile.gettempdir(), "vlae-cluster")
CONFIG = FOLDER / "slurm.conf"
LINK = Path("/etc/slurm/slurm.conf")
PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
NODES = ("cpu1", "gpu1", "gpu2")
GPUS = {"gpu1": (0, 1), "gpu2": (2, 3)}
EXPERIMENTAL = 240  # a major device number that belongs to no driver
UP = {"IDLE", "MIXED", "ALLOCATED"}
ASKED_FOR = os.environ.get("VLAE_CLUSTER") == "1"  # by `make test-cluster`


class ClusterError(Exception):
    """Why there is no cluster, in one line."""


def missing() -> str | None:
    """What keeps a cluster from being started here, None if nothing does."""
    if sys.platform != "linux" or os.geteuid():
        return "a SLURM cluster to test on needs Linux and root"
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not which(name)]
    if absent:
        return f"SLURM is not installed ({absent[0]} is missing); `make test-cluster` installs it"
    if LINK.exists() and not ours():
        return f"{LINK} is there: this machine belongs to a cluster already"
    return None


def which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def ours() -> bool:
    return LINK.is_symlink() and LINK.readlink() == CONFIG


def install() -> None:
    """The Debian packages, without anything being started by them."""
    if all(which(name) for name in ("munged", "slurmctld", "slurmd", "sbatch")):
        return
    if os.geteuid() or not which("apt-get"):
        raise ClusterError("SLURM is not installed, and only root on Debian can install it here")
    patience = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
    with no_services():
        apt_get(*patience, "update")
        apt_get(*patience, "-y", "--no-install-recommends", "install", *PACKAGES)


def apt_get(*arguments: str) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", *arguments]
    try:
        done = subprocess.run(
            command, env=env, text=True, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError("apt-get does not get anywhere; SLURM is not installed") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ClusterError(f"apt-get failed, SLURM is not installed: {' '.join(last)}")


@contextmanager
def no_services():
    """Debian's way of saying that packages shall not start their daemons."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def up() -> str:
    """Start what is not running; returns how jobs are confined: cgroup or linuxproc."""
    reason = missing()
    if reason:
        raise ClusterError(reason)
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(running(f"slurmd.{node}") for node in NODES):
            start_daemons()
            return confinement()
        for name in ("state", "spool"):  # a cluster that was killed would start its jobs again
            shutil.rmtree(FOLDER / name, ignore_errors=True)
        for proctrack in ("cgroup", "linuxproc"):
            try:
                configure(proctrack)
                start_daemons()
                for node in NODES:  # a job on each: cgroups may fail only when one starts
                    client("srun", "-Q", "-t1", f"-w{node}", "true", timeout=30)
                return proctrack
            except (ClusterError, OSError) as error:  # OSError: no device nodes, say
                failure = error
                stop_daemons()
        raise ClusterError(f"no cluster here: {failure}")


def confinement() -> str:
    return "cgroup" if "proctrack/cgroup" in CONFIG.read_text() else "linuxproc"


def configure(proctrack: str) -> None:
    """Key, configuration and device nodes."""
    for name in ("munge", "state", "log", "dev", *(f"spool/{node}" for node in NODES)):
        (FOLDER / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    key = FOLDER / "munge" / "key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
    task = "task/cgroup" if proctrack == "cgroup" else "task/none"
    host = socket.gethostname().split(".")[0]
    template = (HERE / "slurm.conf").read_text()
    CONFIG.write_text(
        template.replace("{words} are", "Words were").format(
            host=host, folder=FOLDER, proctrack=f"proctrack/{proctrack}", task=task
        )
    )
    confine = "yes" if proctrack == "cgroup" else "no"
    (FOLDER / "cgroup.conf").write_text(
        f"CgroupAutomount={confine}\nConstrainRAMSpace={confine}\nConstrainDevices={confine}\n"
    )
    lines = []
    for node, numbers in GPUS.items():
        for number in numbers:
            device = FOLDER / "dev" / f"gpu{number}"
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(EXPERIMENTAL, number))
            lines.append(f"NodeName={node} Name=gpu Type=fake File={device}\n")
    (FOLDER / "gres.conf").write_text("".join(lines))
    LINK.parent.mkdir(exist_ok=True)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(CONFIG)


def start_daemons() -> None:
    munge = FOLDER / "munge"
    start(
        "munged",
        "--foreground",
        *(f"--{name}-file={munge / name}" for name in ("key", "seed", "log", "pid")),
        f"--socket={munge / 'socket'}",
    )
    wait_for("munged", (munge / "socket").is_socket)
    start("slurmctld", "-D", "-f", str(CONFIG))
    wait_for("slurmctld", lambda: "is UP" in client("scontrol", "ping"))
    for node in NODES:
        start_node(node)
    for node in NODES:
        wait_for(f"slurmd.{node}", lambda node=node: state(node) in UP)


def start_node(node: str) -> None:
    start(f"slurmd.{node}", "-D", "-N", node, "-f", str(CONFIG))


def kill_node(node: str) -> None:
    """As if its power had failed: the daemon and all jobs on it, at once and unwarned."""
    processes = [running(f"slurmd.{node}"), *on_node(node)]
    for process in processes:
        kill(process)


def on_node(node: str) -> list[psutil.Process]:
    """The processes of the jobs on a node, and the steps' managers above them."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURMD_NODENAME") == node:
                found.add(process)
                found |= {p for p in process.parents() if p.name().startswith("slurmstepd")}
        except psutil.Error:
            continue  # ended meanwhile, or a zombie
    return list(found)


def kill(process: psutil.Process | None) -> None:
    with suppress(psutil.NoSuchProcess):
        if process:
            process.kill()


def start(name: str, *arguments: str) -> None:
    """Start a daemon, unless it runs, and write down its id and when it was started."""
    if running(name):
        return
    with open(FOLDER / "log" / f"{name}.out", "ab") as log:
        process = subprocess.Popen(
            [which(name.split(".")[0]), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "SLURM_CONF": str(CONFIG)},
            start_new_session=True,
        )
    born = psutil.Process(process.pid).create_time()
    (FOLDER / f"{name}.pid").write_text(f"{process.pid} {born}\n")


def running(name: str) -> psutil.Process | None:
    """The daemon that was started under this name, if it is alive: its id may be another's now."""
    try:
        pid, born = (FOLDER / f"{name}.pid").read_text().split()
        process = psutil.Process(int(pid))
        alive = process.create_time() == float(born) and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return process if alive else None


def client(*command: str, timeout: float = 60) -> str:
    """What a SLURM command prints. Raises ClusterError if it fails or does not answer."""
    env = {**os.environ, "SLURM_CONF": str(CONFIG)}
    try:
        done = subprocess.run(
            command, env=env, text=True, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command)} does not answer") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {' '.join(done.stderr.split())}")
    return done.stdout


def state(node: str) -> str:
    return client("sinfo", "-h", "-n", node, "-o", "%T").split()[0].rstrip("*").upper()


def has_failed(node: str) -> bool:
    """Whether the controller has given up a node. Asked by all of its flags: sinfo names one
    state, which may be that of a job that the node can no longer end."""
    shown = re.search(r"State=(\S+)", client("scontrol", "show", "node", node))
    return "DOWN" in re.split(r"\W+", shown[1])


def wait_for(name: str, condition, seconds: float = 30) -> None:
    """Raises ClusterError if the condition does not come about, or the daemon dies first."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except ClusterError:
            pass
        if not running(name) or time.monotonic() > end:
            raise ClusterError(f"{name} does not work here; it says why in {FOLDER / 'log'}")
        time.sleep(0.1)


def stop_daemons() -> None:
    for names in ([f"slurmd.{node}" for node in NODES], ["slurmctld"], ["munged"]):
        for name in names:
            if process := running(name):
                process.terminate()
        for name in names:
            end = time.monotonic() + 10
            while running(name) and time.monotonic() < end:
                time.sleep(0.05)
            kill(running(name))
    for node in NODES:
        for process in on_node(node):
            kill(process)


def down() -> None:
    """Cancel all jobs, stop every daemon, and remove all that `up` has made."""
    if running("slurmctld"):
        with suppress(ClusterError):  # the daemons are stopped all the same
            client("scancel", "--me")
    stop_daemons()
    if ours():
        LINK.unlink()
    for node in NODES:
        for group in sorted(Path("/sys/fs/cgroup").glob(f"**/slurm_{node}"), reverse=True):
            for below in sorted(group.rglob("*"), reverse=True):
                if below.is_dir():
                    below.rmdir()
            group.rmdir()
    shutil.rmtree(FOLDER, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("install", "up", "down", "status"))
    command = parser.parse_args().command
    try:
        if command == "install":
            install()
        elif command == "up":
            print(f"the cluster is up; jobs are confined by {up()}")
        elif command == "down":
            down()
        else:
            print(client("sinfo", "-N", "-o", "%N %T %c %m %G"), client("squeue"), sep="\n")
    except ClusterError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
