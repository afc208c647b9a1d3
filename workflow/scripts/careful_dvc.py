"""DVC with a dvc.lock that is always whole: `python workflow/scripts/careful_dvc.py ARGUMENTS`.

DVC empties the file and fills it again. Killed meanwhile, or out of space, it leaves a part,
which may even be valid and lack the stages behind it. Here the new file is written beside the
old one, and takes its place when it is complete.
"""

import os
import sys

from dvc.cli import main
from dvc.utils.serialize import _common


def dump_whole(path, data, dumper, fs=None, **options):
    """In the place of DVC's function of these arguments. The repository's lock is held."""
    path = os.fspath(path)
    new = f"{path}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        dumper(data, file, **options)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


if not hasattr(_common, "_dump_data"):
    sys.exit("vlae: error: this DVC writes dvc.lock in an unknown way (careful_dvc.py)")
_common._dump_data = dump_whole

if __name__ == "__main__":
    sys.exit(main())
