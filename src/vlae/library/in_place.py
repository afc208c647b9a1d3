"""Puts recorded results in their place in results/, for commands that are called by hand.

In a fresh clone they are in `artifacts/`. `snakemake` and `dvc pull` put them in their place, too.
Here it is done without DVC, for objects in its cache or in remotes that are folders. As with DVC,
the cache has them afterwards.
"""

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from vlae.config.stages import split_stage
from vlae.library.project import Project, store_path
from vlae.storage.dvc_lock import LOCK, md5, read_stages
from vlae.storage.write import write_atomically


def put_in_place(
    project: Project, run: str | None = None, steps: Iterable[str] = ()
) -> tuple[int, list[Path]]:
    """Put missing results of a run, or of all runs, data sets and classifiers in params.yaml.

    steps: of these stages only (train, evaluate, …); none: of all. Returns the number of files
    that were put in place, and those that are not on this machine.
    A stage is passed over if what it was made from, or any of its results, is not as recorded:
    then its record does not belong to the files that are here.
    """
    root = project.root
    stages = read_stages(root / LOCK)
    maker = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", ())}

    def agrees(path: str, content: str) -> bool:
        if (root / path).is_file():
            return md5(root / path) == content
        recorded = project.recorded_md5(Path(path)) == content
        return recorded and path in maker and valid(maker[path])

    @cache
    def valid(name: str) -> bool:
        needed = _in_results(stages[name].get("deps", ()))
        there = [out for out in _results(stages[name]) if (root / out["path"]).exists()]
        return all(agrees(file["path"], file["md5"]) for file in [*needed, *there])

    put, absent = 0, []
    params = project.params
    known = {run} if run else {*params.runs, *params.datasets, *params.classifiers}
    for name, stage in stages.items():
        step, of = split_stage(name)
        if of not in known or (steps and step not in steps):
            continue
        missing = [out for out in _results(stage) if not (root / out["path"]).exists()]
        if not missing or not valid(name):
            continue
        for out in missing:
            path = Path(out["path"])
            stored = project.stored(path)
            if stored is None:
                absent.append(path)
            else:
                cached = store_path(project.cache, out["md5"])
                if not cached.exists():
                    _copy(stored, cached)
                    cached.chmod(0o444)  # as DVC has them
                _copy(cached, root / path)
                put += 1
    return put, absent


def _copy(stored: Path, path: Path) -> None:
    write_atomically(path, lambda new: shutil.copyfile(stored, new))


def _results(stage: dict) -> list[dict]:
    """Return the outputs of a stage that are files in results/."""
    return [out for out in _in_results(stage.get("outs", ())) if not out["md5"].endswith(".dir")]


def _in_results(files: Iterable[dict]) -> list[dict]:
    return [file for file in files if file["path"].startswith("results/")]
