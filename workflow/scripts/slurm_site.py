"""What a SLURM site has, asked once before anything is submitted."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass

from console import say
from slurm_refusals import Kind, judge, patience, pauses

NEEDED = ("sbatch", "scancel", "scontrol", "sinfo")
# What tells the states of jobs, and the question that shows whether it does here.
STATUS = {"squeue": ("squeue", "--me", "--noheader"), "sacct": ("sacct", "-X", "--noheader")}
SECONDS = 60  # for an answer
MIN_JOB_AGE = 300  # SLURM's default, where the site does not tell


class NoSlurm(Exception):
    """Why no job can be submitted here, in one line."""


class Refused(Exception):
    """What a command of SLURM said instead of an answer."""


@dataclass(frozen=True)
class Site:
    status_command: str
    min_job_age: int  # seconds for which SLURM remembers a job that has ended


def ask(wanted: str | None) -> Site:
    """Ask a site what it has. `wanted` is the profile's slurm-status-command.

    Raises NoSlurm if no job can be submitted from here, or its state not be told.
    """
    missing = [name for name in NEEDED if not shutil.which(name)]
    if not any(map(shutil.which, STATUS)):
        missing.append("squeue")
    if missing:
        raise NoSlurm(
            f"no SLURM here: {', '.join(missing)} cannot be found; start snakemake on a login "
            "node of the cluster, or without --profile and --executor"
        )
    return Site(status_command(wanted or "squeue"), min_job_age())


def status_command(wanted: str) -> str:
    """The one that tells the states of jobs here: the wanted one, or the other where it fails."""
    (other,) = STATUS.keys() - {wanted}
    reason = why_silent(wanted)
    if reason is None:
        return wanted
    try:
        answer(*STATUS[other])
    except Refused as refused:
        raise NoSlurm(
            f"{wanted} fails ({reason}), and so does {other} ({refused}): nobody could tell when "
            f"a job ends; ask the site to allow `{' '.join(STATUS['squeue'])}`"
        ) from None
    say(f"{wanted} fails ({reason}); {other} is asked for the states of jobs instead")
    return other


def why_silent(command: str) -> str | None:
    """Why a command fails, if not for a moment only; None if it answers."""
    for pause in (*pauses(patience()), 0):
        try:
            answer(*STATUS[command])
            return None
        except Refused as refused:
            refusal = judge(str(refused))
            if refusal.kind != Kind.MOMENT:
                break
            if pause:
                say(f"{command} fails ({refusal.reason}); asking again in {pause:.0f} s")
                time.sleep(pause)
    return refusal.reason


def min_job_age() -> int:
    """For how many seconds SLURM remembers a job that has ended."""
    try:
        told = re.search(r"^MinJobAge\s*=\s*(\d+)", answer("scontrol", "show", "config"), re.M)
    except Refused:
        told = None
    return int(told[1]) if told else MIN_JOB_AGE


def answer(*command: str) -> str:
    """What a command prints. Raises Refused, with the reason, if it fails or is silent."""
    try:
        done = subprocess.run(
            command, text=True, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"no answer within {SECONDS} s") from None
    except OSError as error:
        raise Refused(f"{error.strerror}") from None
    if done.returncode:
        raise Refused(judge(done.stderr or done.stdout).reason or f"status {done.returncode}")
    return done.stdout
