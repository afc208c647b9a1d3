"""The states of jobs: functions of snakemake-executor-plugin-slurm 2.8 that are replaced.

query_job_status           the plugin forgets all its jobs when the question about them fails five
                           times, and waits for them for ever, without a word. Here a question
                           without an answer says nothing about any job, a line says that it
                           fails, and after half an hour the workflow ends. sacct's "CANCELLED by
                           UID", which the plugin takes for a job at work, is CANCELLED. A job
                           that SLURM does not remember is over. So is one that was preempted,
                           or whose node failed, and that SLURM does not put back into the queue:
                           the plugin would wait for it for ever.
query_job_status_squeue    the plugin asks for jobs of a name, which a site may rewrite; here for
                           all of the user's.
get_min_job_age            the plugin goes from squeue to sacct, whatever the profile says and
                           whether sacct works or not, if SLURM forgets jobs soon (MinJobAge).
                           slurm_site.py has found out which one works, and slurm_executor.py asks
                           more often instead.

Upstream: snakemake/snakemake-executor-plugin-slurm#207 and #331 (a database that does not
answer), #38 and #336 (a cluster without one). tests/workflow/test_patches.py fails when one of the
functions is not there any more.
"""

import asyncio
import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from console import say
from slurm_refusals import in_one_line, patience
from slurm_site import SECONDS

QUEUE = "squeue --me --states=all --array --noheader --format='%i|%T|%r'"
# Why SLURM does not start a job, where no time will change it.
NEVER = re.compile(
    r"Partition(TimeLimit|Config|NodeLimit)|BadConstraints|Invalid(Account|QOS)"
    r"|(QOS|Assoc)Max\w+PerJob(Limit)?|DependencyNeverSatisfied"
)
FORGOTTEN = 2  # answers without a job, after which it is over
# How jobs end that SLURM may start again, and after how many seconds it has certainly put them
# back into the queue. sacct tells the old end until then.
TAKEN_AWAY = {"PREEMPTED", "NODE_FAIL"}
BACK_IN_QUEUE = {"squeue": 0, "sacct": 600}


class States:
    """What SLURM tells of the jobs that are `watched`, from one question to the next."""

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self.give_up = give_up  # called with the reason when SLURM is silent for too long
        self.watched: set[str] = set()
        self.silent_since: float | None = None
        self.absent: Counter[str] = Counter()
        self.taken_away: dict[str, float] = {}  # job -> when that was first told
        self.told: set[str] = set()

    def install(self, plugin: ModuleType) -> None:
        plugin.query_job_status = self.query_job_status
        plugin.query_job_status_squeue = lambda runid: QUEUE
        plugin.get_min_job_age = lambda: math.inf

    async def query_job_status(self, command: str, logger: object) -> tuple[dict[str, str], float]:
        """The states by job, {} without an answer, and how many seconds it took."""
        started = time.monotonic()
        text, reason = await answer(command)
        name = Path(command.split()[0]).name
        if text is None:
            self.hear_nothing(name, reason)
            return {}, 0.0
        if self.silent_since is not None:
            say(f"{name} answers again")
        self.silent_since = None
        rows = [[*line.split("|"), ""] for line in text.splitlines() if "|" in line]
        states = {job: state.split()[0] for job, state, *_ in rows if state.strip()}
        self.tell_stuck((job, why) for job, state, why, *_ in rows if state == "PENDING")
        if name == "squeue":  # sacct learns of a job later
            states |= self.forgotten(states)
        return self.without_taken_away(states, BACK_IN_QUEUE[name]), time.monotonic() - started

    def hear_nothing(self, name: str, reason: str) -> None:
        if self.silent_since is None:
            self.silent_since = time.monotonic()
            say(f"{name} fails ({reason}); asking again for {patience() / 60:.0f} minutes")
        elif (silence := time.monotonic() - self.silent_since) > patience():
            self.give_up(
                f"{name} has not answered for {silence / 60:.0f} minutes ({reason}); the jobs "
                "stay in the queue. When it answers again, the same command cancels them and goes "
                "on from their checkpoints (VLAE_SLURM_MINUTES is how long to wait for it)"
            )

    def tell_stuck(self, pending: Iterable[tuple[str, str]]) -> None:
        for job, why in pending:
            if NEVER.fullmatch(why) and job in self.watched - self.told:
                self.told.add(job)
                say(
                    f"job {job} waits for ever as it is ({why}): end this (Ctrl-C), change "
                    "runtime, slurm_partition or the resources in the profile, and start again"
                )

    def forgotten(self, states: dict[str, str]) -> dict[str, str]:
        """UNKNOWN, which is the plugin's word for an end that only the outputs tell, for each job
        that SLURM does not know of any more."""
        gone = {job for job in self.watched if {job, job.split("_")[0]}.isdisjoint(states)}
        self.absent = Counter({job: self.absent[job] + 1 for job in gone})
        over = {job for job in gone if self.absent[job] >= FORGOTTEN}
        for job in sorted(over):
            say(f"SLURM does not remember how job {job} ended; its outputs tell")
        return dict.fromkeys(over, "UNKNOWN")

    def without_taken_away(self, states: dict[str, str], patience: float) -> dict[str, str]:
        """The states, but of a job that was taken away: nothing as long as SLURM may start it
        again, then CANCELLED, which is a failed try."""
        now = time.monotonic()
        away = {job for job, state in states.items() if state in TAKEN_AWAY}
        before = self.taken_away
        self.taken_away = {job: before.get(job, now) for job in away}
        over = {job for job in away & before.keys() if now - before[job] >= patience}
        for job in sorted(over & self.watched):
            end = states[job]
            say(f"job {job} ended as {end}, and SLURM does not start it again; a failed try")
        rest = {job: state for job, state in states.items() if job not in away}
        return rest | dict.fromkeys(over, "CANCELLED")


async def answer(command: str) -> tuple[str | None, str]:
    """What the command prints, None if it fails; and why it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        return None, str(error.strerror)
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None, f"no answer within {SECONDS} s"
    if process.returncode:
        return None, in_one_line(err.decode(errors="replace")) or f"status {process.returncode}"
    return out.decode(errors="replace"), ""
