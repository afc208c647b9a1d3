"""Ctrl-C in Snakemake: one line, and nothing that is in the way of the next call.

By itself Snakemake would print where it was, or a page about each job that it has ended. What is
left is what a killed Snakemake leaves, which the next call knows how to go on from. Jobs of a
cluster are cancelled by Snakemake.
"""

import logging
import os
import shutil
import signal
from contextlib import suppress

import psutil
from snakemake.scheduling.job_scheduler import JobScheduler

import single_instance
from console import say

INTERRUPTED = 130  # what a shell reports after Ctrl-C
SECONDS = 90  # for jobs to end: a training saves its state before
held = []  # the lock of this folder, as soon as it is had


def take_over():
    """Take Ctrl-C from now on."""
    signal.signal(signal.SIGINT, interrupt)


def interrupt(number, frame):
    """End what was started on this machine, and then at once."""
    if submits(frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second time without waiting
    logging.disable(logging.CRITICAL)
    started = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(started, 1)  # a terminal tells them, too
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(left, 2)
    if left:
        say("interrupted; waiting until the jobs have saved their state")
        psutil.wait_procs(left, SECONDS)
    for lock in held:
        shutil.rmtree(single_instance.SNAKEMAKES_LOCKS, ignore_errors=True)
        single_instance.release(lock)
    if not left:
        say("interrupted; nothing is lost, and the same command goes on from here")
    os._exit(INTERRUPTED)


def submits(frame):
    """Return True while jobs are at work that this Snakemake has submitted to a cluster."""
    while frame is not None:
        if frame.f_code is JobScheduler.schedule.__code__:
            return frame.f_locals["self"].workflow.non_local_exec
        frame = frame.f_back
    return False
