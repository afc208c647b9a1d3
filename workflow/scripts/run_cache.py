"""DVC's run-cache: what the outputs of a stage were when it ran with the same inputs before.

It is read here rather than by a job, which would wait for a GPU only to copy files. Uses
`dvc.stage.cache._get_cache_hash` and the stage cache's paths, as DVC 3.67 has them
(tests/workflow/test_patches.py).
"""

import re
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.output import HashInfo
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import dump_yaml

LONGEST_ENTRY = 1_000_000
MD5_OF_OUTPUT = re.compile(rb"^  md5: ([0-9a-f]{32})$", re.MULTILINE)


def clear():
    """Remove what a DVC that was killed, or found no space, has left of an entry: it stumbles
    over a folder without one."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        for folder in Path(repo.stage_cache.cache_dir).glob("*/*"):
            for half_written in folder.glob("*.tmp"):
                half_written.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def take_recorded(record, here, remote):
    """Record those stages again that have once run with the same inputs, here or where the
    remote has it from; returns whether any.

    Here rather than by a job, which would wait for a GPU only to copy files.
    """
    here = {*here}
    left = [name for name in record.results if name not in here and name not in record.forced]
    known = {"recipes", *record.recorded_stages()}
    found = []
    if not left:
        return False
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        made = {out.def_path: out for stage in stages.values() for out in stage.outs}
        while ready := {name for name in left if known.issuperset(record.upstream[name])}:
            left = [name for name in left if name not in ready]
            said = {}
            for name in ready:
                public = remote if record.published(name) else None
                if outs := look_up(repo, stages[name], made, public):
                    said[name] = outs
            public = [outs for name, outs in said.items() if record.published(name)]
            remote.pull(repo, {info for outs in public for info in outs})
            for name, outs in said.items():
                occupied = any(map(record.unsaved, record.outs[name]))
                if not occupied and are_cached(repo, outs) and restore(repo, stages[name], outs):
                    found.append(stages[name])
                    known.add(name)
        if found:  # as `dvc repro` would, but dvc.lock is written once and not for each
            found[0].dvcfile.dump_stages(found, update_pipeline=False)
    return bool(found)


def look_up(repo, stage, made, remote):
    """Return the outputs that a stage had when it ran with these inputs, or None.

    An input that another stage makes is the one that dvc.lock records: a data set need not be
    there. Of several answers the first whose objects are here, else one of the remote.
    """
    for dep in stage.deps:
        if above := made.get(dep.def_path):
            dep.hash_name, dep.hash_info, dep.meta = above.hash_name, above.hash_info, above.meta
        else:
            try:
                dep.save()
            except DvcException:
                return None
    key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    folder = Path(repo.stage_cache._get_cache_dir(key))
    incomplete = None
    for path in sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
        with open(path, "rb") as file:
            outs = outputs_of_entry(file.read(LONGEST_ENTRY), path.name, stage)
        if outs is None:
            path.unlink()  # DVC would stumble over it
        elif are_cached(repo, outs):
            return outs
        else:
            incomplete = incomplete or outs
    return remote and (remote.outputs(key, stage) or incomplete)


def outputs_of_entry(content, name, stage):
    """The hashes of a stage's outputs, by name, as an entry of a run-cache has them.

    None unless the entry's own name is the hash of just this: nothing else in it is used, so
    nobody's YAML is parsed.
    """
    found = MD5_OF_OUTPUT.findall(content.partition(b"\nouts:\n")[2])
    md5s = [md5.decode() for md5 in found]
    paths = sorted(out.def_path for out in stage.outs)
    entry = to_single_stage_lockfile(stage)
    entry["outs"] = [
        {"path": path, "hash": "md5", "md5": md5} for path, md5 in zip(paths, md5s, strict=False)
    ]
    if len(paths) != len(md5s) or _get_cache_hash(entry) != name:
        return None
    return [HashInfo("md5", md5) for md5 in md5s]


def are_cached(repo, infos):
    """Return True if the cache has these objects (DVC removes a damaged one when it is asked)."""
    return len(repo.cache.local.oids_exist([info.value for info in infos])) == len(infos)


def restore(repo, stage, infos):
    """Put a stage's outputs in their places, and note that locally; returns whether it worked."""
    for out, info in zip(sorted(stage.outs, key=lambda out: out.def_path), infos, strict=True):
        out.hash_name, out.hash_info, out.obj = info.name, info, None
    try:
        if stage.checkout().get("failed"):
            return False
        stage.save_outs()  # their sizes, which an entry's name says nothing of
    except DvcException:
        return False
    entry = to_single_stage_lockfile(stage)
    value = _get_cache_hash(entry)
    key = _get_cache_hash(dict(entry), key=True)
    path = Path(repo.stage_cache._get_cache_path(key, value))
    if not path.exists():  # as DVC's stage_cache.save, which wants all the inputs in place
        repo.cache.legacy.makedirs(str(path.parent))
        dump_yaml(path.with_suffix(".tmp"), entry)
        repo.cache.legacy.move(str(path.with_suffix(".tmp")), str(path))
    return True
