"""Runs whenever a Python of .venv starts: caches that can be written, and a quiet Ctrl-C.

`install` (called by setup_environment.py, with the standard library only) copies this file into
.venv, beside a .pth file that imports it. Snakemake and DVC begin to write and to import long
before any code of this repository is asked, so there is no later place.
"""

import os
import signal
import sys

NAME = "_vlae_startup"
INTERRUPTED = 130  # what a shell reports after Ctrl-C
DVCS_CACHE = "/var/tmp/dvc"  # where DVC keeps what it knows of files, for all users


def usable(folder):
    """Return True if files can be written in a folder, which is made if need be."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def usual_cache():
    """The folder of all caches by the rules of XDG; None where no user has a home."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return folder if os.path.isabs(folder) else None


def move_caches(prefix):
    """Let caches be in `prefix`, or else in a temporary folder of this user's, where the usual
    place is missing or cannot be written. Programs that are started from here inherit that."""
    usual = usual_cache()
    if usual and usable(usual):
        return
    caches = os.path.join(prefix, ".cache")
    if not usable(caches):
        caches = own_temporary_folder()
    if caches is None:
        return
    os.environ["XDG_CACHE_HOME"] = caches
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(caches, "matplotlib"))
    if not os.path.isdir(os.path.expanduser("~")):  # no settings either
        os.environ.setdefault("XDG_CONFIG_HOME", os.path.join(caches, "config"))
    if not usable(DVCS_CACHE):
        os.environ.setdefault("DVC_SITE_CACHE_DIR", os.path.join(caches, "dvc"))


def own_temporary_folder():
    """A folder in /tmp that nobody else could have laid out, for compiled code is loaded from it;
    None if somebody has."""
    folder = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"vlae-cache-{os.getuid()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return None
    own = found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if own and os.path.isdir(folder) and not os.path.islink(folder) else None


def quiet_interrupt(command):
    """Until a program has its own way to take Ctrl-C: one line of the two that people start, none
    of the scripts that those start."""
    script, *rest = [*command[1:], ""]
    program = rest[0] if script == "-m" else os.path.basename(script)
    if program in ("snakemake", "vlae"):
        signal.signal(signal.SIGINT, stop)
    elif os.path.join("workflow", "scripts", "") in script:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(number, frame):
    """End at once: nothing has been begun."""
    if "DVC_STAGE" not in os.environ:  # whoever called DVC says it
        os.write(2, b"vlae: interrupted\n")
    os._exit(INTERRUPTED)


def install(packages):
    """Put this module into a folder of packages, to be imported when Python starts."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for name, content in ((NAME + ".py", text), (NAME + ".pth", f"import {NAME}\n")):
        with open(os.path.join(packages, name), "w", encoding="utf-8") as file:
            file.write(content)


if __name__ == NAME:
    move_caches(sys.prefix)
    quiet_interrupt(sys.orig_argv)
