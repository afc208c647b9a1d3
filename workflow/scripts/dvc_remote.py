"""The DVC remote, read as far as it can be; what comes from it is compared with its checksum."""

import hashlib
import re
from contextlib import contextmanager
from pathlib import Path

from dvc.fs import HTTPFileSystem

from console import say
from run_cache import LONGEST_ENTRY, outputs_of_entry
from vlae.errors import one_line

# A run-cache has runs/KEY[:2]/KEY/ENTRY: KEY is the hash of command, inputs and parameters and of
# the outputs' names, ENTRY that of all this and the outputs' MD5, which is what it is read for.
ENTRY = re.compile("/(?P<start>[0-9a-f]{2})/(?P<key>(?P=start)[0-9a-f]{62})/[0-9a-f]{64}")


class Remote:
    """The remote, as long as it can be read: what it cannot be had for is said in one line."""

    def __init__(self):
        self.entries = {}  # key of its run-cache -> paths of what is recorded under it
        self.tried = set()  # objects that were asked for
        self.fs = None  # None also once it has failed
        self.damaged_entries = 0

    def fetch(self, repo, wanted):
        """Take these objects from it, and note what it knows of other parameters' runs.

        Not by the command `dvc fetch`: given names of stages, it reads dvc.lock for each.
        """
        with self.one_line_about_failure():
            odb = repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
            self.fs = odb.fs
            if not isinstance(odb.fs, HTTPFileSystem):  # a server of plain files lists nothing
                self._list(odb)
            damaged = self.pull(repo, wanted)
            missing = sum(not repo.cache.local.exists(info.value) for info in wanted)
            if self.fs and missing > damaged:
                say_unreadable(f"{missing - damaged} of {len(wanted)} objects could not be had")

    def _list(self, odb):
        """Names only: what lies under any other, such as one with `..`, is left alone."""
        runs = odb.fs.join(odb.path, "runs")
        for path in sorted(odb.fs.find(runs)) if odb.fs.exists(runs) else ():
            if name := ENTRY.fullmatch(odb.fs.as_posix(path.removeprefix(runs))):
                self.entries.setdefault(name["key"], []).append(path)

    def pull(self, repo, wanted):
        """Copy to the cache those of these objects that are not there, each once, if whole;
        returns how many are damaged.

        DVC asks some remotes only whether they are, and never of a file that is
        write-protected, as those in a shared folder are.
        """
        cache = repo.cache.local
        new = {info for info in wanted - self.tried if not cache.exists(info.value)}
        if not new or self.fs is None:
            return 0
        self.tried |= new
        with self.one_line_about_failure():
            repo.cloud.pull(new)
        there = [Path(cache.oid_to_path(info.value)) for info in new]
        damaged = [path for path in there if path.exists() and not is_whole(path)]
        for path in damaged:
            path.unlink()
        if damaged:
            say(f"warning: not used, as they are damaged in the remote: {len(damaged)} objects")
        return len(damaged)

    def outputs(self, key, stage):
        """Return the outputs of this stage under this key in the remote's run-cache, or None."""
        for path in self.entries.get(key, ()) if self.fs else ():
            try:
                content = self.fs.cat_file(path, start=0, end=LONGEST_ENTRY)
            except Exception:  # as of an empty one
                content = b""
            if outs := outputs_of_entry(content, self.fs.name(path), stage):
                return outs
            self.damaged_entries += 1
        return None

    @contextmanager
    def one_line_about_failure(self):
        try:
            yield
        except Exception as error:  # whatever a remote can fail with
            self.fs = None
            say_unreadable(one_line(error))


def say_unreadable(reason):
    say(f"warning: the remote could not be read completely ({reason})")


def is_whole(path):
    """Return True if an object has the checksum that is its name."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == path.parent.name + path.name
