"""Ends Snakemake after Ctrl-C with one line, so that the next call can continue.

By itself, Snakemake would print a stack trace, or a page about each job that it ends. Here it
leaves the same files as a killed Snakemake, from which the next call continues. Snakemake itself
cancels the jobs of a cluster.
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
SECONDS = 90  # that jobs have to end; a training saves its state first
held = []  # the lock of this folder, once it is held


def take_over():
    """Handle Ctrl-C from now on."""
    signal.signal(signal.SIGINT, interrupt)


def interrupt(number, frame):
    """End all processes that were started on this machine, then exit."""
    if submits(frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C does not wait
    logging.disable(logging.CRITICAL)
    started = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(started, 1)  # the terminal interrupts them, too
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
        say("interrupted; nothing is lost, and the same command continues from here")
    os._exit(INTERRUPTED)


def submits(frame):
    """Return True while jobs that this Snakemake has submitted to a cluster are running."""
    while frame is not None:
        if frame.f_code is JobScheduler.schedule.__code__:
            return frame.f_locals["self"].workflow.non_local_exec
        frame = frame.f_back
    return False
