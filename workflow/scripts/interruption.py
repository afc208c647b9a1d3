"""Ctrl-C while Snakemake plans: one line, and nothing that is in the way of the next call.

While jobs are at work Snakemake itself cancels them. Before, and after, it would only print where
it was, and at some moments not even end.
"""

import os
import shutil
import signal
from contextlib import suppress

import psutil
from snakemake.scheduling.job_scheduler import JobScheduler

import single_instance
from console import say

INTERRUPTED = 130  # what a shell reports after Ctrl-C
held = []  # the lock of this folder, as soon as it is had


def take_over():
    """Take Ctrl-C from now on."""
    signal.signal(signal.SIGINT, interrupt)


def interrupt(number, frame):
    """Leave it to Snakemake where jobs are at work, and end at once elsewhere."""
    if scheduling(frame):
        raise KeyboardInterrupt
    say("interrupted; nothing is lost, and the same command goes on from here")
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for lock in held:
        shutil.rmtree(single_instance.SNAKEMAKES_LOCKS, ignore_errors=True)
        single_instance.release(lock)
    os._exit(INTERRUPTED)


def scheduling(frame):
    """Return True if jobs are at work."""
    while frame is not None:
        if frame.f_code is JobScheduler.schedule.__code__:
            return True
        frame = frame.f_back
    return False
