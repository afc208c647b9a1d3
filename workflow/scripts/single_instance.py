"""One Snakemake at a time works in a folder, and one that was killed leaves nothing in the way.

Snakemake's own lock is a file that stays when Snakemake is killed, and its jobs go on
without it. Here the kernel keeps the lock, and lets go of it with the process. Whoever gets
it knows that no other Snakemake is at work, so that what a killed one has left can go: its
lock, its jobs in the queue, its processes. Training goes on from its last checkpoint.
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

LOCK = Path(".snakemake", "vlae", "lock")
JOBS = Path(".snakemake", "vlae", "jobs")  # the numbers of the jobs that were submitted
SNAKEMAKES_LOCKS = Path(".snakemake", "locks")
DVCS_LOCKS = Path(".dvc", "tmp", "rwlock")
MARK = "VLAE_AT_WORK_IN"  # in the environment of every process that a run has started
# Names that Snakemake's plugin gives its jobs: a UUID, with a prefix or not. "wrap" is what SLURM
# calls a command line without a name: a site may take names away, as others rewrite comments.
NAME = re.compile(r"(.*_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|wrap")
SECONDS = 90  # for what was left to end: a training saves its state before


class AnotherInstance(Exception):
    """The reason why this Snakemake cannot work here, in one line."""


def take_over():
    """Be the only Snakemake in this folder until the process ends; returns the lock to hold.

    Raises AnotherInstance if another one is at work, or if what it left does not end.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = open(LOCK, "a+")  # noqa: SIM115 - held as long as the process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AnotherInstance(
            f"another snakemake is at work in this folder ({holder(lock)})"
        ) from None
    except OSError as error:
        if not dvc_has_hard_links():  # it would wait for ever for a lock that cannot be had
            raise AnotherInstance(
                f"this file system has no locks (flock: {error.strerror}); "
                "type `dvc config --local core.hardlink_lock true` first"
            ) from None
        return lock  # Snakemake's own lock has to do
    before = holder(lock)
    if before.startswith(socket.gethostname() + " "):
        say(f"the last snakemake here ({before}) was killed; clearing up after it")
        end_jobs()
        shutil.rmtree(SNAKEMAKES_LOCKS, ignore_errors=True)
    elif before:  # not every file system has its locks on all machines: it may be alive
        raise AnotherInstance(
            f"the last snakemake here ({before}) has not ended, or was killed; go on there, or, "
            "if it is not at work any more, type `snakemake --unlock` first"
        )
    elif JOBS.exists():  # it ended by itself while jobs were in the queue
        end_jobs()
    end_processes()  # a trainer outlives the DVC that was killed above it, too
    drop_broken_lock()
    write(lock, f"{socket.gethostname()} process {os.getpid()}")
    os.environ[MARK] = os.getcwd()
    return lock


def dvc_has_hard_links():
    """Return True if DVC is set to make its lock of hard links, which every file system has."""
    from dvc.config import Config

    return Config.from_cwd()["core"].get("hardlink_lock", False)


def release(lock):
    """Note that this Snakemake ended by itself: nothing is left behind."""
    write(lock, "")
    lock.close()


def forget():
    """Unlock for `snakemake --unlock`: the user says that no other Snakemake is at work here."""
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
    """Write down a job that has been submitted: of all that tells which are ours, no site can
    rewrite this."""
    with suppress(OSError), open(JOBS, "a") as file:  # a full disk does not end the job
        file.write(f"{number}\n")


def forget_jobs():
    """No job of this folder is in the queue any more."""
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
    """The SLURM jobs that a Snakemake has submitted from this folder.

    They are known by their numbers or names, whatever a site writes into their comments. Without
    an answer from squeue there are none, unless some have been written down.
    """
    noted = set(JOBS.read_text().split()) if JOBS.exists() else set()
    try:
        rows = queue()
    except OSError as error:
        if noted:
            raise AnotherInstance(
                f"squeue fails ({error}): are jobs left of the last snakemake here? Go on where "
                "squeue answers, or cancel them by hand and type `snakemake --unlock`"
            ) from None
        return []
    here = os.path.realpath(".")
    ours = os.environ.get("SLURM_JOB_ID")  # where snakemake itself is run in a job
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
    """Number, name, comment and folder of each of the user's jobs.

    Raises OSError, with the reason, without an answer.
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
    """Ask the processes on this machine that work in this folder to end, and wait for it."""
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
        with suppress(psutil.Error):  # another user's, or gone
            if process.pid not in ours and process.environ().get(MARK) == os.getcwd():
                found.append(process)
    return found


def drop_broken_lock():
    """Strike from DVC's list of its locks what processes that ended have left there.

    DVC takes a zombie, or whatever else got the number of a killed process, for the holder,
    and does not get over a list that it was killed in the middle of writing. That no job of
    this folder runs on another machine is known by now; DVC looks for its locks' holders on
    its own machine only, too.
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
    """Return True if the process of an entry {"pid", "cmd"} is alive, and still the one that made
    it."""
    try:
        process = psutil.Process(entry["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        _, _, arguments = entry["cmd"].partition(" ")  # the program's name may differ in form
        return " ".join(process.cmdline()).endswith(arguments)
    except psutil.AccessDenied:
        return True  # another user's: nobody knows
    except psutil.Error:
        return False
