"""Run `dvc` with two patches, for DVC 3.67:

    python workflow/scripts/dvc_patched.py ARGUMENTS

_dump_data   DVC empties dvc.lock and writes it again. If it is killed meanwhile, or the disk is
             full, it leaves a part of the file, which may even be valid and lack the last stages.
             Here it writes a new file, which replaces the old one when it is complete.
             Replaced: dvc.utils.serialize._common._dump_data. Upstream: not reported yet;
             treeverse/dvc#814 is the same fault in another file.
compare      `dvc pull` and `dvc checkout` get everything else and then exit with status 1 if a
             stage has never run. Here they ignore outputs that dvc.lock does not know. DVC has no
             setting for that; `--allow-missing` would hide recorded files that are missing, too.
             Replaced: dvc_data.index.checkout.compare. Upstream: treeverse/dvc#5913.

`install` (called by setup_environment.py) makes this file the `dvc` of .venv.
tests/workflow/test_patches.py fails when a function has moved, or a patch is no longer needed.
"""

import os
import sys

NAME = "_vlae_dvc"


def install(packages, program):
    """Copy this module to the folder `packages`; `program`, DVC's own script, then runs it."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(packages, NAME + ".py"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(program, encoding="utf-8") as file:
        text = file.read()
    with open(program, "w", encoding="utf-8") as file:
        file.write(text.replace("from dvc.cli import", f"from {NAME} import"))


def main():
    """Run the `dvc` command with both patches."""
    from dvc.cli import main as dvc

    patch()
    return dvc()


def patch():
    """Replace both functions; end with one line where DVC has others."""
    from dvc.utils.serialize import _common
    from dvc_data.index import checkout

    if not hasattr(_common, "_dump_data") or not hasattr(checkout, "compare"):
        sys.exit("vlae: error: this DVC is built in an unknown way (dvc_patched.py)")
    _common._dump_data = dump_atomically
    checkout.compare = only_what_is_recorded(checkout.compare)


def dump_atomically(path, data, dumper, fs=None, **options):
    """Write `data` to `path` by `dumper`, all of it or nothing. The repository's lock is held."""
    path = os.fspath(path)
    new = f"{path}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        dumper(data, file, **options)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def only_what_is_recorded(compare):
    """Return `compare`, which finds what to check out, without outputs of unknown content."""

    def is_unknown(index, entry):
        try:
            index.storage_map.get_cache(entry)
        except ValueError:  # there is no hash to find it by
            return True
        return False

    def compared(old, new, **options):
        found = compare(old, new, **options)
        unknown = {entry.key for entry in found.files_create if is_unknown(new, entry)}
        for files in (found.files_create, found.files_delete):
            files[:] = [entry for entry in files if entry.key not in unknown]
        for key in unknown:
            del found.changes[key]
        return found

    return compared


if __name__ == "__main__":
    sys.exit(main())
