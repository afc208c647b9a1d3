"""Runs whenever a Python of .venv starts: finds writable caches, and keeps Ctrl-C quiet.

`install` copies this file into .venv, beside a .pth file that imports it. setup_environment.py
calls it, so it uses the standard library only. Snakemake and DVC import modules and write caches
before they load any code of this repository, so a later place would be too late.
"""

import os
import signal
import sys

NAME = "_vlae_startup"
INTERRUPTED = 130  # what a shell reports after Ctrl-C
DVCS_CACHE = "/var/tmp/dvc"  # DVC's cache of file hashes, shared by all users


def usable(folder):
    """Return True if files can be written in a folder; create it if necessary."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def usual_cache():
    """Return the folder of all caches as XDG defines it; None if the user has no home."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return folder if os.path.isabs(folder) else None


def move_caches(prefix):
    """Move the caches to `prefix` if the usual folder is missing or cannot be written.

    If `prefix` cannot be written either, use a temporary folder of this user. Programs that are
    started from here inherit the setting.
    """
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
    if not os.path.isdir(os.path.expanduser("~")):  # no home, so no settings either
        os.environ.setdefault("XDG_CONFIG_HOME", os.path.join(caches, "config"))
    if not usable(DVCS_CACHE):
        os.environ.setdefault("DVC_SITE_CACHE_DIR", os.path.join(caches, "dvc"))


def own_temporary_folder():
    """Create a temporary folder that only this user can write; return None if that fails.

    Compiled code is loaded from it, so nobody else may have created it.
    """
    folder = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"vlae-cache-{os.getuid()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return None
    own = found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if own and os.path.isdir(folder) and not os.path.islink(folder) else None


def quiet_interrupt(command):
    """Handle Ctrl-C until the program has its own handler.

    snakemake and vlae print one line; the scripts that they start print nothing.
    """
    script, *rest = [*command[1:], ""]
    program = rest[0] if script == "-m" else os.path.basename(script)
    if program in ("snakemake", "vlae"):
        signal.signal(signal.SIGINT, stop)
    elif os.path.join("workflow", "scripts", "") in script:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(number, frame):
    """Exit at once: no work has started yet."""
    if "DVC_STAGE" not in os.environ:  # the caller of DVC says so
        os.write(2, b"vlae: interrupted\n")
    os._exit(INTERRUPTED)


def install(packages):
    """Copy this module into a folder of packages, so that Python imports it at every start."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for name, content in ((NAME + ".py", text), (NAME + ".pth", f"import {NAME}\n")):
        with open(os.path.join(packages, name), "w", encoding="utf-8") as file:
            file.write(content)


if __name__ == NAME:
    move_caches(sys.prefix)
    quiet_interrupt(sys.orig_argv)
