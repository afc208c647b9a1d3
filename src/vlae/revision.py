"""The revision of the code, as the records of trainings name it."""

import logging
import os
import re
import subprocess
from pathlib import Path

logger = logging.getLogger(__name__)

# What git itself writes into an archive (.gitattributes): its commit. In a clone, "$Format:%H$".
ARCHIVAL = Path(".git_archival.txt")
UNKNOWN = "unknown"
# A folder of another user, as in a container, is read all the same: its code runs already.
GIT = ("git", "-c", "safe.directory=*")


def revision() -> str:
    """The revision of the code in the working directory.

    VLAE_REVISION where it is set; else the commit, "+" appended where src/ differs from it; else
    the commit that an archive was made of. Where there is none of these, "unknown" and the reason,
    which is also a warning.
    """
    if by_hand := named():
        return by_hand
    try:
        return _commit()
    except _Unknown as reason:
        if archived := _archived():
            return archived
        logger.warning(
            "the revision of the code is unknown (%s) and will be recorded as that; "
            "set VLAE_REVISION to name it",
            reason,
        )
        return f"{UNKNOWN}: {reason}"


def named() -> str:
    """VLAE_REVISION, "" where it is not set."""
    return os.environ.get("VLAE_REVISION", "").strip()


class _Unknown(Exception):
    """Says why git does not know the revision."""


def _commit() -> str:
    # A repository around a folder that is not in it says nothing about the folder.
    _git("ls-files", "--error-unmatch", "params.yaml")
    commit = _git("rev-parse", "--short=12", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", "src")
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    """What git prints. Raises _Unknown with the first line of what it says is wrong."""
    english = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*GIT, *arguments], capture_output=True, text=True, check=False, env=english
        )
    except OSError:
        raise _Unknown("git is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = re.sub(r"^(fatal|error): ", "", said[0]).partition(" at '")[0]  # no one's path
        raise _Unknown(f"git: {reason}")
    return done.stdout.strip()


def _archived() -> str | None:
    """The commit that these files are an archive of; whether they were changed is not known."""
    try:
        found = re.search(r"^node: ([0-9a-f]{12})[0-9a-f]{28}", ARCHIVAL.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return f"{found[1]} (an archive)" if found else None
