"""What SLURM means when it says no: does it pass, and if not, what has to be set where?"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from os import environ

from console import stop

MINUTES = 30  # for which SLURM may be silent, or refuse what may pass
LONGEST_PAUSE = 120  # seconds


class Kind(Enum):
    """How long a refusal lasts."""

    MOMENT = "a moment"  # the controller is busy, or restarted
    LIMIT = "until other jobs have ended"
    FINAL = "for good: a setting has to change"
    UNKNOWN = "nobody knows"


@dataclass(frozen=True)
class Refusal:
    kind: Kind
    reason: str  # in SLURM's own words, on one line
    advice: str  # what to set


MOMENT = (
    r"timed? ?out|unable to contact|connect(ion)? (failure|refused|reset)|zero bytes|temporarily"
    r"|try again|standby mode|not responding|does not answer|no answer|shutting down|rate limit"
    r"|transport endpoint|i/o error writing|cannot allocate memory|slurmdbd|talking to database"
    r"|unexpected message received|partition not available \(inactive or drain\)"
)
LIMIT = (
    r"submit_?jobs?(per\w+)?limit|max_?submit|max_?jobs?|grp_?(submit)?_?jobs|too many jobs"
    r"|maximum number of \S*\s?jobs|submit limit|job limit"
)
# SLURM ends with these words whatever the limit is; the line before them says which.
ANY_LIMIT = r"job violates accounting/qos policy( \(job submit limit[^)]*\))?"
# What has to be set, by what is refused. The first that fits holds.
ADVICE = {
    r"command not found|no such file": "start snakemake where SLURM's commands are (a login node)",
    r"too long|max_submit_line_size": "set slurm-pass-command-as-script: true",
    r"job ?name": "set slurm-jobname-prefix",
    r"\baccounts?\b|--account|project|association|sshare": (
        "set slurm_account under default-resources"
    ),
    r"\bgres\b|generic resource|--gpus|\btres\b|maxgres|gpu": (
        "set gpu: 0 and gres: gpu:1 (or gpu:MODEL:1), or gpu_model, "
        "for train, evaluate and evaluate_shard under set-resources"
    ),
    r"\bqos\b|quality of service": "set slurm-qos",
    r"reservation": "set slurm-reservation",
    r"partition": "set slurm_partition under default-resources and set-resources",
    r"wall|time ?limit|--time": "set runtime (minutes) under default-resources and set-resources",
    r"memory|--mem\b|maxmem": "set mem_mb under default-resources and set-resources",
    r"feature|constraint": "set constraint under default-resources or set-resources",
    r"(max|min)\w*per(job|node|user|account)|node configuration|processors|cpu count|node count": (
        "set cpus_per_task, mem_mb, gpu or gpu_model under set-resources to what a node has"
    ),
    r"permission denied|not permitted|user id|not allowed": (
        "ask the site who may submit jobs, and from where"
    ),
}


def judge(text: str) -> Refusal:
    """What a message of sbatch, squeue or the plugin says, in a line, and what to do about it."""
    reason = in_one_line(text)
    named = re.sub(ANY_LIMIT, "", reason, flags=re.IGNORECASE).lower()
    if re.search(MOMENT, named):
        return Refusal(Kind.MOMENT, reason, "")
    if re.search(LIMIT, named):
        return Refusal(Kind.LIMIT, reason, "set jobs to what the site allows a user at once")
    for pattern, advice in ADVICE.items():
        if re.search(pattern, named):
            return Refusal(Kind.FINAL, reason, advice)
    if re.search(ANY_LIMIT, reason, flags=re.IGNORECASE):
        advice = "set jobs, runtime and the resources to what the site allows"
        return Refusal(Kind.LIMIT, reason, advice)
    return Refusal(Kind.UNKNOWN, reason, "docs/cluster.md has the rules of sites")


def in_one_line(text: str) -> str:
    """What is said, without who says so, and each thing once."""
    said = re.search(r"The error message was '(.*?)'\.\n", text, flags=re.DOTALL)
    prefix = r"(\w+: )?(error: )?(Batch job submission failed: |allocation failure: )?"
    lines = (said[1] if said else text).split("    sbatch call:")[0].splitlines()
    stripped = (re.sub(f"^{prefix}", "", line.strip()) for line in lines)
    line = "; ".join(dict.fromkeys(filter(None, stripped)))
    return line if len(line) <= 300 else f"{line[:297]}..."


def patience() -> float:
    """For how many seconds SLURM may be silent, or refuse what may pass."""
    minutes = environ.get("VLAE_SLURM_MINUTES") or MINUTES
    try:
        return 60 * float(minutes)
    except ValueError:
        stop(f"VLAE_SLURM_MINUTES must be a number, not {minutes!r}")


def pauses(seconds: float) -> Iterator[float]:
    """Growing pauses between questions, of so many seconds in all."""
    pause = 5.0
    while seconds > 0:
        yield min(pause, seconds)
        seconds -= pause
        pause = min(2 * pause, LONGEST_PAUSE)
