"""Reads DVC's run-cache, which has the outputs of stages for earlier inputs.

It is read here rather than in a job, which would wait for a GPU only to copy files. The code uses
`dvc.stage.cache._get_cache_hash` and the stage cache's paths as in DVC 3.67
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
    """Remove incomplete entries, which a killed DVC or a full disk leaves behind.

    DVC fails if a folder has no entry.
    """
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        for folder in Path(repo.stage_cache.cache_dir).glob("*/*"):
            for half_written in folder.glob("*.tmp"):
                half_written.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def take_recorded(record, here, remote):
    """Record the stages whose outputs for these inputs are in the local or the remote's run-cache.

    Returns True if there were any.
    """
    done_with = {*here, *record.forced}
    left = [name for name in record.results if name not in done_with and record.published(name)]
    known = {"recipes", *record.recorded_stages()}
    found = []
    if not left:
        return False
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        made = {out.def_path: out for stage in stages.values() for out in stage.outs}
        while ready := {name for name in left if known.issuperset(record.upstream[name])}:
            left = [name for name in left if name not in ready]
            known_outputs = {}
            for name in ready:
                if outs := look_up(repo, stages[name], made, remote):
                    known_outputs[name] = outs
            remote.pull(repo, {info for outs in known_outputs.values() for info in outs})
            for name, outs in known_outputs.items():
                occupied = any(map(record.unsaved, record.outs[name]))
                if not occupied and are_cached(repo, outs) and restore(repo, stages[name], outs):
                    found.append(stages[name])
                    known.add(name)
        if found:  # like `dvc repro`, but with dvc.lock written only once
            found[0].dvcfile.dump_stages(found, update_pipeline=False)
    return bool(found)


def look_up(repo, stage, made, remote):
    """Return the outputs that a stage had when it ran with these inputs, or None.

    For an input that is another stage's output, dvc.lock's record counts; the file, for example a
    data set, may be missing. An entry whose objects are in the cache is preferred, then one of
    the remote.
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
            path.unlink()  # DVC would fail on it
        elif are_cached(repo, outs):
            return outs
        else:
            incomplete = incomplete or outs
    return remote.outputs(key, stage) or incomplete


def outputs_of_entry(content, name, stage):
    """Return the hashes in an entry of a run-cache, for a stage's outputs sorted by name.

    Returns None unless the entry's own name is the hash of exactly this content. Nothing else in
    the entry is used, so no untrusted YAML is parsed.
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
    """Return True if the cache has these objects; DVC removes damaged ones in this check."""
    return len(repo.cache.local.oids_exist([info.value for info in infos])) == len(infos)


def restore(repo, stage, infos):
    """Check out a stage's outputs and add them to the local run-cache; return True on success."""
    for out, info in zip(sorted(stage.outs, key=lambda out: out.def_path), infos, strict=True):
        out.hash_name, out.hash_info, out.obj = info.name, info, None
    try:
        if stage.checkout().get("failed"):
            return False
        stage.save_outs()  # adds their sizes, which an entry's name does not cover
    except DvcException:
        return False
    entry = to_single_stage_lockfile(stage)
    value = _get_cache_hash(entry)
    key = _get_cache_hash(dict(entry), key=True)
    path = Path(repo.stage_cache._get_cache_path(key, value))
    if not path.exists():  # DVC's stage_cache.save would need all inputs in place
        repo.cache.legacy.makedirs(str(path.parent))
        dump_yaml(path.with_suffix(".tmp"), entry)
        repo.cache.legacy.move(str(path.with_suffix(".tmp")), str(path))
    return True
