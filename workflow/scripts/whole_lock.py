"""DVC's files are written beside the old ones, and take their places when they are complete.

DVC itself empties dvc.lock and fills it again. Killed meanwhile, or out of space, it leaves a
part, which may even be valid and lack the stages behind it.
"""

import os
import sys

from dvc.utils.serialize import _common


def write_whole(path, write):
    """Put what write(file) writes in the place of `path`. The repository's lock is held."""
    path = os.fspath(path)
    new = f"{path}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def dump_whole(path, data, dumper, fs=None, **options):
    """In the place of DVC's function of these arguments."""
    write_whole(path, lambda file: dumper(data, file, **options))


if not hasattr(_common, "_dump_data"):
    sys.exit("vlae: error: this DVC writes dvc.lock in an unknown way (whole_lock.py)")
_common._dump_data = dump_whole
