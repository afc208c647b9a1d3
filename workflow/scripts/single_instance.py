"""Makes sure that only one Snakemake works in a folder, and cleans up after a killed one.

Snakemake's own lock is a file that stays when Snakemake is killed, while its jobs continue. Here
the kernel holds the lock and releases it when the process ends. The process that gets the lock
knows that no other Snakemake is running. It removes the lock, the jobs and the processes that a
killed one has left. Trainings continue from their last checkpoint.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from console import say
from vlae.cli import WORKFLOW as MARK  # in the environment of every process that a run has started

LOCK = Path(".snakemake", "vlae", "lock")
JOBS = Path(".snakemake", "vlae", "jobs")  # ids of the submitted jobs
SNAKEMAKES_LOCKS = Path(".snakemake", "locks")
DVCS_LOCKS = Path(".dvc", "tmp", "rwlock")
# Names of jobs from Snakemake's plugin: a UUID, with or without a prefix. "wrap" is SLURM's name
# for a job without a name, because some sites remove names, as others rewrite comments.
NAME = re.compile(r"(.*_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|wrap")
SECONDS = 90  # that leftovers have to end; a training saves its state first


class AnotherInstance(Exception):
    """Says in one line why this Snakemake cannot work here."""


def take_over():
    """Become the only Snakemake in this folder; return the lock, to be held until the end.

    Raises AnotherInstance if another one is running, or if its jobs or processes do not end.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = open(LOCK, "a+")  # noqa: SIM115 - held as long as the process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AnotherInstance(
            f"another snakemake is running in this folder ({holder(lock)})"
        ) from None
    except OSError as error:
        if not dvc_has_hard_links():  # DVC would wait for ever for its lock
            raise AnotherInstance(
                f"this file system has no locks (flock: {error.strerror}); "
                "run `dvc config --local core.hardlink_lock true` first"
            ) from None
        return lock  # Snakemake's own lock must suffice
    before = holder(lock)
    if before.startswith(socket.gethostname() + " "):
        say(f"the last snakemake here ({before}) was killed; cleaning up after it")
        end_jobs()
        shutil.rmtree(SNAKEMAKES_LOCKS, ignore_errors=True)
    elif before:  # it may be running: not every file system shares its locks
        raise AnotherInstance(
            f"the last snakemake here ({before}) is running or was killed; continue there, or, if "
            "it is not running any more, run `snakemake --unlock` first"
        )
    elif JOBS.exists():  # it exited while jobs were in the queue
        end_jobs()
    end_processes()  # a training survives when its DVC is killed
    drop_broken_lock()
    write(lock, f"{socket.gethostname()} process {os.getpid()}")
    os.environ[MARK] = os.getcwd()
    return lock


def dvc_has_hard_links():
    """Return True if DVC is configured to lock by hard links, which every file system has."""
    from dvc.config import Config

    return Config.from_cwd()["core"].get("hardlink_lock", False)


def release(lock):
    """Note that this Snakemake was not killed, and release the lock."""
    write(lock, "")
    lock.close()


def forget():
    """Remove the lock for `snakemake --unlock`: the user knows that nothing else is running."""
    try:
        end_jobs()
    except AnotherInstance as reason:
        say(reason)
    forget_jobs()
    LOCK.unlink(missing_ok=True)


def holder(lock):
    lock.seek(0)
    return lock.read().strip()


def write(lock, text):
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def note_job(number):
    """Write down the id of a submitted job.

    A site can rewrite the names and comments of jobs, but not this file.
    """
    with suppress(OSError), open(JOBS, "a") as file:  # a full disk must not fail the job
        file.write(f"{number}\n")


def forget_jobs():
    """Forget the ids of submitted jobs: none is in the queue any more."""
    JOBS.unlink(missing_ok=True)


def end_jobs():
    """Cancel the SLURM jobs that work in this folder, and wait until they are gone."""
    told = False
    end = time.monotonic() + SECONDS
    while jobs := jobs_left():
        if not told:
            say(f"cancelling the {len(jobs)} jobs that it left in the queue")
            subprocess.run(["scancel", *jobs], capture_output=True, check=False)
            told = True
        if time.monotonic() > end:
            raise AnotherInstance(f"jobs of a killed snakemake do not end: {' '.join(jobs)}")
        time.sleep(1)
    forget_jobs()


def jobs_left():
    """Return the ids of the SLURM jobs that a Snakemake has submitted from this folder.

    They are recognised by their ids, names or comments. If squeue fails, there are none.

    Raises AnotherInstance if squeue fails although ids have been written down.
    """
    noted = set(JOBS.read_text().split()) if JOBS.exists() else set()
    try:
        rows = queue()
    except OSError as error:
        if noted:
            raise AnotherInstance(
                f"squeue fails ({error}), and jobs of the last snakemake may be left; continue "
                "where squeue works, or cancel them by hand and run `snakemake --unlock`"
            ) from None
        return []
    here = os.path.realpath(".")
    ours = os.environ.get("SLURM_JOB_ID")  # set if snakemake itself runs in a job
    return [
        number
        for number, name, comment, folder in rows
        if number != ours
        and (
            number in noted
            or (
                os.path.realpath(folder) == here
                and (NAME.fullmatch(name) or comment.startswith(("rule_", "group_")))
            )
        )
    ]


def queue():
    """Return the id, name, comment and folder of each of the user's jobs.

    Raises OSError with the reason if squeue fails.
    """
    command = ["squeue", "--me", "--noheader", "--format=%A|%j|%k|%Z"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise OSError("no answer within 60 s") from None
    if done.returncode:
        raise OSError(" ".join(done.stderr.split()) or f"status {done.returncode}")
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line]
    return [(number, name, *rest.rsplit("|", 1)) for number, name, rest in rows]


def end_processes():
    """Terminate the processes on this machine that work in this folder, and wait for their end."""
    left = processes_left()
    if left:
        say(f"stopping the {len(left)} processes that an earlier run left here")
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    end = time.monotonic() + SECONDS
    while left := processes_left():
        if time.monotonic() > end:
            numbers = " ".join(str(process.pid) for process in left)
            raise AnotherInstance(f"processes of a killed snakemake do not end: {numbers}")
        time.sleep(0.2)


def processes_left():
    found = []
    ours = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # another user's process, or one that has ended
            if process.pid not in ours and process.environ().get(MARK) == os.getcwd():
                found.append(process)
    return found


def drop_broken_lock():
    """Remove the locks of ended processes from DVC's list of locks.

    DVC itself takes a zombie for the holder, or any process that got the id of a killed one. It
    also fails if the list is incomplete, because DVC was killed while it wrote the list.

    Like DVC, this looks for processes on this machine only. No job of this folder runs on another
    machine now.
    """
    if not DVCS_LOCKS.exists():
        return
    with open(DVCS_LOCKS.with_name("rwlock.lock"), "a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # as DVC does while it edits the list
        try:
            listed = {"write": {}, "read": {}} | json.loads(DVCS_LOCKS.read_text())
        except ValueError:
            DVCS_LOCKS.unlink()
            return
        writers = {path: by for path, by in listed["write"].items() if holds(by)}
        readers = {path: list(filter(holds, by)) for path, by in listed["read"].items()}
        if {"write": writers, "read": readers} != listed:
            new = DVCS_LOCKS.with_name("rwlock.tmp")
            new.write_text(json.dumps({"write": writers, "read": readers}))
            new.replace(DVCS_LOCKS)


def holds(entry):
    """Return True if the process that made an entry {"pid", "cmd"} is still alive."""
    try:
        process = psutil.Process(entry["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        _, _, arguments = entry["cmd"].partition(" ")  # the path of the program may differ
        return " ".join(process.cmdline()).endswith(arguments)
    except psutil.AccessDenied:
        return True  # another user's process: unknown
    except psutil.Error:
        return False
