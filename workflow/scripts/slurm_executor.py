"""Submission of jobs to SLURM: snakemake-executor-plugin-slurm 2.8, for a cluster that says no.

The plugin takes a refused submission for a failed job, so that a limit on the number of jobs
uses up all tries within seconds, and a wrong account is asked for eleven times. Here the site
is asked once, before anything is submitted, what it has and whether it takes each kind of
job; a submission that is refused for a while is made again after growing pauses, and costs no
try; one that is refused for good ends in one line. Replaced: the class that Snakemake has
registered as executor "slurm", by one derived from it, and what slurm_status.py names.
tests/workflow/test_patches.py fails when a method that is overridden here is not there any more.
"""

import math
import os
import re
import shlex
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import snakemake_executor_plugin_slurm as plugin
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

import single_instance
import slurm_site
from console import say, stop
from slurm_refusals import Kind, Refusal, judge, patience, pauses
from slurm_status import States

UNKNOWN_SECONDS = 60  # for a refusal that nobody knows
# Of a trial: a node that is down is missing to it, but not to a submission, which waits.
NOT_FINAL = re.compile("node configuration|test-only")
SHORTEST_PAUSE = 10  # seconds between two questions about states


def install(profiles: list[str]) -> None:
    """Submit by the class below. Its messages name the last profile as the place of settings."""
    Executor.settings_file = str(Path(["PROFILE", *profiles][-1], "config.yaml"))
    ExecutorPluginRegistry().get_plugin("slurm").executor = Executor


class Executor(plugin.Executor):
    """Waits where SLURM says "not now", and says what to set where it says "never"."""

    settings_file: str
    longest_pause: float = math.inf  # until the site has been asked

    def __post_init__(self, test_mode: bool = False) -> None:
        self.cancelled = threading.Event()
        self.submitting = threading.Lock()
        self.refused = threading.local()  # the message of the submission that is being made
        self.submitted: set[str] = set()
        self.told: set[str] = set()
        self.states = States(self.give_up)
        jobs = [job for job in self.workflow.dag.needrun_jobs() if not job.is_local]
        if jobs:
            self.ask_site()
        super().__post_init__(test_mode)
        self.states.install(plugin)
        # Without slurm_account the plugin guesses one with a `sacct` that it calls wrongly.
        self._fallback_account_arg = ""
        self.try_out(jobs)

    def ask_site(self) -> None:
        """Ask SLURM as often, and by that command, as fits the site; stop where there is none."""
        settings = self.workflow.executor_settings
        try:
            site = slurm_site.ask(settings.status_command)
        except slurm_site.NoSlurm as reason:
            stop(reason)
        # Three questions, at least, before SLURM forgets a job that has ended.
        self.longest_pause = max(SHORTEST_PAUSE, site.min_job_age // 3)
        settings.status_command = site.status_command
        settings.init_seconds_before_status_checks = min(
            settings.init_seconds_before_status_checks, self.longest_pause
        )

    def try_out(self, jobs: list[JobExecutorInterface]) -> None:
        """Ask SLURM whether it would take each kind of job; stop where it never will."""
        tried = set()
        for job in jobs:
            kind = (job.rule.name, str(sorted(job.resources.items())))
            if kind in tried:
                continue
            tried.add(kind)
            try:
                refusal = self.refusal_of(self.command_for(job))
            except (WorkflowError, OSError) as error:  # an account that the plugin does not find
                refusal = judge(str(error))
            if refusal and refusal.kind == Kind.FINAL and not NOT_FINAL.search(refusal.reason):
                stop(self.line(job, refusal))

    def command_for(self, job: JobExecutorInterface) -> str:
        parameters = {
            "run_uuid": self.run_uuid,
            "slurm_logfile": os.devnull,
            "comment_str": f"rule_{job.name}",
            "account": next(self.get_account_arg(job)),
            "partition": self.get_partition_arg(job),
            "workdir": self.workflow.workdir_init,
        }
        settings = self.workflow.executor_settings
        command = plugin.get_submit_command(
            job, parameters, settings=settings, failed_nodes=self._failed_nodes
        )
        return f"{command}{plugin.set_gres_string(job)} --test-only --wrap=true"

    def refusal_of(self, command: str) -> Refusal | None:
        try:
            done = subprocess.run(
                shlex.split(command),
                text=True,
                capture_output=True,
                timeout=slurm_site.SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return judge(done.stderr) if done.returncode else None

    def line(self, job: JobExecutorInterface, refusal: Refusal) -> str:
        return (
            f"SLURM refuses {job.name}: {refusal.reason.rstrip('.')}; "
            f"{refusal.advice} ({self.settings_file}; docs/cluster.md)"
        )

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job; wait as long as it is refused for a while."""
        with self.submitting:
            waits: dict[tuple[Kind, bool], Iterator[float]] = {}
            while not self.cancelled.is_set():
                self.refused.job, self.refused.message = job, None
                super().run_job(job)
                self.refused.job = None
                if self.refused.message is None:
                    return
                refusal = judge(self.refused.message)
                if refusal.kind == Kind.MOMENT:
                    self.cancel_unknown()
                # A limit passes when others of the user's jobs end, whenever that is.
                endless = refusal.kind == Kind.LIMIT and self.have_jobs()
                budget = math.inf if endless else self.budget(refusal)
                pause = next(waits.setdefault((refusal.kind, endless), pauses(budget)), None)
                if pause is None:
                    self.refuse(job, refusal)
                    return
                self.tell(
                    f"SLURM does not take {job.name} now: {refusal.reason}; asking again after "
                    "growing pauses, which cost none of the retries"
                )
                self.cancelled.wait(pause)

    def budget(self, refusal: Refusal) -> float:
        if refusal.kind == Kind.FINAL:
            return 0
        return min(UNKNOWN_SECONDS, patience()) if refusal.kind == Kind.UNKNOWN else patience()

    def refuse(self, job: JobExecutorInterface, refusal: Refusal) -> None:
        """End a job that will not be taken: no retry, one line for all that are refused alike."""
        self.tell(f"error: {self.line(job, refusal)}")
        job.attempt = job.restart_times + 1
        self.workflow.scheduler.error_callback(job)

    def tell(self, line: str) -> None:
        if line not in self.told:
            self.told.add(line)
            say(line)

    def have_jobs(self) -> bool:
        try:
            return bool(slurm_site.answer("squeue", "--me", "--noheader").strip())
        except slurm_site.Refused:
            return True

    def cancel_unknown(self) -> None:
        """An sbatch that had no answer may have submitted its job: nobody would wait for that."""
        mine = ["squeue", "--me", "--noheader", "--format=%A", f"--name={self.run_uuid}"]
        try:
            if unknown := {*slurm_site.answer(*mine).split()} - self.submitted:
                slurm_site.answer("scancel", *unknown)
        except slurm_site.Refused:
            return  # the job ends by itself: it finds its work taken

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        if getattr(self.refused, "job", None) is job_info.job:
            self.refused.message = msg
        else:
            super()._report_job_error_threadsafe(job_info, msg)

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        number = re.match(r"\d+", job_info.external_jobid)[0]
        self.submitted.add(number)
        single_instance.note_job(number)
        super()._report_job_submission_threadsafe(job_info)

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncIterator[SubmittedJobInfo]:
        if active_jobs:
            self.states.watched = {info.external_jobid for info in active_jobs}
        async for info in super().check_active_jobs(active_jobs):
            yield info
        self.next_seconds_between_status_checks = min(
            self.next_seconds_between_status_checks, self.longest_pause
        )

    def give_up(self, reason: str) -> None:
        """End the workflow, its jobs left in the queue (`shutdown` keeps the note of them)."""
        self.longest_pause = 1  # the thread that waits for jobs ends after its pause
        self.cancelled.set()
        self.workflow.scheduler.executor_error_callback(WorkflowError(reason))

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        self.cancelled.set()
        super().cancel_jobs(active_jobs)

    def shutdown(self) -> None:
        super().shutdown()
        if not self.active_jobs:
            single_instance.forget_jobs()
