"""Finds the revision of the code, which the records of trainings name."""

import logging
import os
import re
import subprocess
from pathlib import Path

logger = logging.getLogger(__name__)

# git writes the commit into this file of an archive (.gitattributes). A clone has "$Format:%H$".
ARCHIVAL = Path(".git_archival.txt")
UNKNOWN = "unknown"
# Also read a folder of another user, as in a container: its code is running already.
GIT = ("git", "-c", "safe.directory=*")


def revision() -> str:
    """Return the revision of the code in the working directory.

    It is VLAE_REVISION if set; otherwise the commit, with "+" if src/ differs from it; otherwise
    the commit of an archive. If there is none of these, a warning is logged and "unknown: REASON"
    returned.
    """
    if by_hand := named():
        return by_hand
    try:
        return _commit()
    except _Unknown as reason:
        if archived := _archived():
            return archived
        logger.warning(
            "the revision of the code is unknown (%s), and the record will say so; "
            "set VLAE_REVISION to name it",
            reason,
        )
        return f"{UNKNOWN}: {reason}"


def named() -> str:
    """Return VLAE_REVISION, or "" if it is not set."""
    return os.environ.get("VLAE_REVISION", "").strip()


class _Unknown(Exception):
    """Says why git does not know the revision."""


def _commit() -> str:
    # The folder may lie inside another repository, without belonging to it.
    _git("ls-files", "--error-unmatch", "params.yaml")
    commit = _git("rev-parse", "--short=12", "--verify", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", "src")
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    """Return the output of git. Raises _Unknown with the first line of its error message."""
    english = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*GIT, *arguments], capture_output=True, text=True, check=False, env=english
        )
    except OSError:
        raise _Unknown("git is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = re.sub(r"^(fatal|error): ", "", said[0]).partition(" at '")[
            0
        ]  # without the path of a folder
        raise _Unknown(f"git: {reason}")
    return done.stdout.strip()


def _archived() -> str | None:
    """Return the commit of an archive, or None; later changes of its files are not noticed."""
    try:
        found = re.search(r"^node: ([0-9a-f]{12})[0-9a-f]{28}", ARCHIVAL.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return f"{found[1]} (an archive)" if found else None
