"""Reads the DVC remote as far as possible, and compares every object with its checksum."""

import hashlib
import re
from contextlib import contextmanager
from pathlib import Path

from dvc.fs import HTTPFileSystem

from console import say
from run_cache import LONGEST_ENTRY, outputs_of_entry
from vlae.errors import one_line

# A run-cache has files runs/KEY[:2]/KEY/ENTRY. KEY is the hash of command, inputs, parameters and
# names of the outputs. ENTRY is the hash of all this and of the outputs' MD5. These MD5 are what
# is needed from the file.
ENTRY = re.compile("/(?P<start>[0-9a-f]{2})/(?P<key>(?P=start)[0-9a-f]{62})/[0-9a-f]{64}")


class Remote:
    """The remote. If reading fails, it says so in one line and is not used any further."""

    def __init__(self):
        self.entries = {}  # key in its run-cache -> paths of the entries under this key
        self.tried = set()  # objects that were requested
        self.fs = None  # its file system; None before `fetch` and after a failure
        self.damaged_entries = 0

    def fetch(self, repo, wanted):
        """Copy these objects to the cache, and list the remote's run-cache.

        The command `dvc fetch` is not used: given names of stages, it reads dvc.lock for each.
        """
        with self.one_line_about_failure():
            odb = repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
            self.fs = odb.fs
            if not isinstance(odb.fs, HTTPFileSystem):  # a web server does not list its files
                self._list(odb)
            damaged = self.pull(repo, wanted)
            missing = sum(not repo.cache.local.exists(info.value) for info in wanted)
            if self.fs and missing > damaged:
                say_unreadable(f"{missing - damaged} of {len(wanted)} objects are missing")

    def _list(self, odb):
        """List the entries of the run-cache, ignoring unexpected names such as one with `..`."""
        runs = odb.fs.join(odb.path, "runs")
        for path in sorted(odb.fs.find(runs)) if odb.fs.exists(runs) else ():
            if name := ENTRY.fullmatch(odb.fs.as_posix(path.removeprefix(runs))):
                self.entries.setdefault(name["key"], []).append(path)

    def pull(self, repo, wanted):
        """Copy these objects to the cache unless they are there, and return how many are damaged.

        Each object is tried once, and a damaged one is removed. DVC itself verifies checksums
        only for some remotes, and never for write-protected files, such as those in a shared
        folder.
        """
        cache = repo.cache.local
        new = {info for info in wanted - self.tried if not cache.exists(info.value)}
        if not new or self.fs is None:
            return 0
        self.tried |= new
        with self.one_line_about_failure():
            repo.cloud.pull(new)
        copied = [Path(cache.oid_to_path(info.value)) for info in new]
        damaged = [path for path in copied if path.exists() and not is_whole(path)]
        for path in damaged:
            path.unlink()
        if damaged:
            say(f"warning: damaged objects in the remote, not used: {len(damaged)}")
        return len(damaged)

    def outputs(self, key, stage):
        """Return the outputs that the remote's run-cache has for this stage and key, or None."""
        for path in self.entries.get(key, ()) if self.fs else ():
            try:
                content = self.fs.cat_file(path, start=0, end=LONGEST_ENTRY)
            except Exception:  # treated like an empty entry
                content = b""
            if outs := outputs_of_entry(content, self.fs.name(path), stage):
                return outs
            self.damaged_entries += 1
        return None

    @contextmanager
    def one_line_about_failure(self):
        try:
            yield
        except Exception as error:  # remotes raise many types of errors
            self.fs = None
            say_unreadable(one_line(error))


def say_unreadable(reason):
    say(f"warning: the remote could not be read completely ({reason})")


def is_whole(path):
    """Return True if an object's checksum equals its name."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == path.parent.name + path.name
