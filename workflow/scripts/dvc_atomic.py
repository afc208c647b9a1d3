"""Run `dvc` with one patch, for DVC 3.67:

    python workflow/scripts/dvc_atomic.py ARGUMENTS

With the patch, DVC writes a new dvc.lock beside the old one and replaces it when it is complete.
Without it, DVC empties the file and fills it again. If DVC is killed meanwhile, or the disk is
full, a part of the file is left, which may be valid and lack the last stages.

Replaced function: dvc.utils.serialize._common._dump_data.

tests/workflow/test_patches.py fails when that function has moved, or when DVC no longer needs it.
"""

import os
import sys

from dvc.cli import main
from dvc.utils.serialize import _common


def dump_atomically(path, data, dumper, fs=None, **options):
    """Write `data` to `path` by `dumper`, completely or not at all. DVC's lock is held."""
    path = os.fspath(path)
    new = f"{path}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        dumper(data, file, **options)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


if not hasattr(_common, "_dump_data"):
    sys.exit("vlae: error: this DVC writes dvc.lock in an unknown way (dvc_atomic.py)")
_common._dump_data = dump_atomically

if __name__ == "__main__":
    sys.exit(main())
