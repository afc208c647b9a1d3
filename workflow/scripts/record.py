"""What is recorded, what is to be run: asked of DVC once, before Snakemake builds its DAG.

    python workflow/scripts/record.py run|look

prints a JSON object

    to_run   stage -> its outputs, for every stage that dvc.lock does not describe as things
             stand now (command, inputs, parameters), or whose outputs are nowhere in the cache
    perhaps  those of them that only depend on one to be run: if that one comes out as before,
             they turn out to be recorded
    recorded outputs of the other stages
    restore  those of them that are not in place

`run` first brings the recipes up to date, fetches from the remote what is recorded and not
cached here, and checks out whatever is recorded, so that `restore` is empty: for Snakemake
a recorded result is a source file. `look` changes nothing.

What only the user has a copy of is never overwritten by what is recorded: one line, exit
status 2.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.fs import HTTPFileSystem
from dvc.output import HashInfo
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import ParseError, dump_yaml
from dvc.utils.strictyaml import YAMLValidationError

import dvc_fast  # noqa: F401 - DVC reads and writes dvc.lock more quickly for it
import hand_on
from vlae.config.load import load_params
from vlae.config.stages import reconfigured
from vlae.errors import one_line

for name in ("dvc", "dvc_data", "dvc_objects"):  # what they have to say is said here, in one line
    logging.getLogger(name).setLevel(logging.CRITICAL)
DVC = (sys.executable, Path(__file__).with_name("dvc_fast.py"), "--wait-for-lock")
RECIPES = "recipes"
# A run-cache has runs/KEY[:2]/KEY/ENTRY: KEY is the hash of command, inputs and parameters and of
# the outputs' names, ENTRY that of all this and the outputs' MD5, which is what it is read for.
ENTRY = re.compile("/(?P<start>[0-9a-f]{2})/(?P<key>(?P=start)[0-9a-f]{62})/[0-9a-f]{64}")
LONGEST_ENTRY = 1_000_000
MD5_OF_OUTPUT = re.compile(rb"^  md5: ([0-9a-f]{32})$", re.MULTILINE)


class Record:
    """DVC's view of the working directory at one moment."""

    def __init__(self, reconfigured=()):
        self.reconfigured = reconfigured  # stages known to be outdated, whatever DVC says
        with Repo(_wait_for_lock=True) as repo:
            self.repo = repo
            self.status = repo.status()
            self.stages = {stage.addressing: stage for stage in repo.index.stages}
            self.outs = {
                name: [out.def_path for out in stage.outs] for name, stage in self.stages.items()
            }
            owner = {
                out.def_path: (name, out) for name, s in self.stages.items() for out in s.outs
            }
            made = {
                name: [(*owner[dep.def_path], dep) for dep in stage.deps if dep.def_path in owner]
                for name, stage in self.stages.items()
            }
            # The stages that make a stage's inputs; whether dvc.lock says the same of them twice.
            self.upstream = {name: [above for above, _, _ in deps] for name, deps in made.items()}
            self.consistent = {
                name
                for name, deps in made.items()
                if all(dep.hash_info and dep.hash_info == out.hash_info for _, out, dep in deps)
            }
            self.made = owner.keys()
            self.out = {path: out for path, (_, out) in owner.items()}
            self.results = [name for name in self.stages if name != RECIPES]
            self.cached = {
                name
                for name, stage in self.stages.items()
                if all(out.hash_info and not out.changed_cache() for out in stage.outs)
            }
        self._recorded = {}

    def _changes(self, stage, kind):
        """path -> modified, deleted, new or "not in cache"; kind is deps or outs."""
        found = [c for c in self.status.get(stage, []) if isinstance(c, dict)]
        return {p: how for c in found for p, how in c.get(f"changed {kind}", {}).items()}

    def unchanged(self, stage):
        """Whether dvc.lock has the stage with this command, these parameters and inputs.

        An input that another stage makes is the one that dvc.lock records, whatever lies in
        its place now (nothing, or an older one after a `git pull`): it is checked out next.
        """
        changes = self.status.get(stage, [])
        return (
            stage in self.consistent
            and stage not in self.reconfigured
            and all(isinstance(change, dict) for change in changes)  # not the command
            and self._changes(stage, "deps").keys() <= self.made
        )

    def recorded(self, stage):
        """Whether the stage is unchanged, and so is all that it depends on."""
        if stage not in self._recorded:
            upstream = all(map(self.recorded, self.upstream[stage]))
            self._recorded[stage] = self.unchanged(stage) and upstream
        return self._recorded[stage]

    def recorded_stages(self):
        """The stages, but for the recipes, that are recorded."""
        return [name for name in self.results if self.recorded(name)]

    def published(self, stage):
        """Whether a remote may have the outputs of a stage (a data set's never are)."""
        return all(out.can_push for out in self.stages[stage].outs)

    def out_of_place(self, stage):
        """Outputs of a stage that are missing or not what dvc.lock records."""
        changes = self._changes(stage, "outs")
        return [path for path in self.outs[stage] if path in changes or not os.path.exists(path)]

    def unsaved(self, path):
        """Whether this output's content, as it lies there, is nowhere in the cache."""
        out = self.out[path]
        return out.exists and not out.cache.exists(out.get_hash().value)

    def in_remote(self, stages):
        """Those recorded stages whose outputs the remote has, all of each (nothing is fetched)."""
        outs = {name: self.stages[name].outs for name in stages if self.published(name)}
        wanted = {out.hash_info.value for several in outs.values() for out in several}
        if not wanted:
            return set()
        try:
            with Repo() as repo:
                there = set(repo.cloud.get_remote_odb().list_oids_exists(wanted))
        except Exception:  # whatever a remote can fail with: it does not have them for us
            return set()
        return {n for n, several in outs.items() if there >= {o.hash_info.value for o in several}}


def say(message):
    print(f"vlae: {message}", file=sys.stderr, flush=True)


def stop(message):
    say(f"error: {message}")
    sys.exit(2)


def bring_recipes_up_to_date():
    """Run the stage `recipes`: seconds, on the CPU, whatever the runs cost."""
    say("code or params.yaml changed: working out which results that concerns")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads than one only wait here
    done = subprocess.run([*DVC, "repro", "-q", "--single-item", RECIPES], env=env, check=False)
    if done.returncode:
        stop("the recipes could not be made (python -m vlae recipe); nothing was started")


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
        """What its run-cache says of this stage under this key, if anything that can be right."""
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


def clear_run_cache():
    """Remove what a DVC that was killed, or found no space, has left of an entry: it stumbles
    over a folder without one."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        for folder in Path(repo.stage_cache.cache_dir).glob("*/*"):
            for half_written in folder.glob("*.tmp"):
                half_written.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def is_whole(path):
    """Whether an object is what its name says."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == path.parent.name + path.name


def check_out(record, stages):
    """Put every recorded output of these stages in its place."""
    with record.repo.lock:
        for name in stages:
            if failed := record.stages[name].checkout().get("failed"):
                stop(f"dvc checkout failed: {' '.join(map(str, failed))}")


def keep_what_only_the_user_has(record, stages):
    """Stop if an output in the way of a recorded one is content that the cache does not have."""
    displaced = [path for name in stages for path in record.out_of_place(name)]
    lost = [path for path in displaced if record.unsaved(path)]
    if lost:
        files = " ".join(lost)
        stop(f"{files}: not what dvc.lock records; `dvc checkout -f {files}` restores that")


def put_away(record, stages):
    """Remove outputs that are not of things as they stand, so that nothing draws them.

    Only those that the cache has: asking for them with the old parameters brings them back.
    """
    there = [path for name in stages for path in record.outs[name] if os.path.exists(path)]
    for path in there:
        if record.unsaved(path):
            stop(f"{path}: not recorded; snakemake without train=false does that, or remove it")
    for path in there:
        os.remove(path)


def main():
    parser = argparse.ArgumentParser(description="what DVC has recorded, as JSON")
    parser.add_argument("mode", choices=("run", "look"))
    parser.add_argument(
        "--leave", nargs="*", default=[], metavar="NAME", help="nothing will be computed for these"
    )
    options = parser.parse_args()
    try:
        found = run({*options.leave}) if options.mode == "run" else look()
    except DvcException as error:
        damaged = isinstance(error, ParseError | YAMLValidationError) and "dvc.lock" in str(error)
        hint = "; `git checkout dvc.lock` restores the last one that was committed"
        stop(f"{error}{hint * damaged}")
    except OSError as error:  # a full disk
        stop(f"{error.filename or '.dvc'}: {error.strerror}")
    json.dump(found, sys.stdout)


def look():
    """Both lists, of how things are."""
    record = Record(reconfigured(load_params("params.yaml")))
    if record.status.get(RECIPES):
        say("code or params.yaml changed: a real run first finds out which results change")
    recorded = record.recorded_stages()
    remote = record.in_remote([name for name in recorded if name not in record.cached])
    here = [name for name in recorded if name in record.cached or name in remote]
    keep_what_only_the_user_has(record, here)
    return answer(record, here, [path for name in here for path in record.out_of_place(name)])


def run(left):
    """Both lists, of how things are once everything recorded is in its place."""
    clear_run_cache()
    record = Record()
    if record.status.get(RECIPES):
        bring_recipes_up_to_date()
        record = Record()
    recorded = record.recorded_stages()
    published = [name for name in recorded if record.published(name)]
    unrecorded = len(recorded) < len(record.results)  # perhaps the remote's run-cache knows it
    remote = Remote()
    if unrecorded or not record.cached.issuperset(published):
        with record.repo.lock:
            wanted = {out.hash_info for name in published for out in record.stages[name].outs}
            remote.fetch(record.repo, wanted)
        record = Record()
        gone = [name for name in published if name not in record.cached]
        if gone:
            say(f"warning: recorded, but neither in the cache nor in the remote: {' '.join(gone)}")
    here = put_in_place(record)
    if take_from_run_cache(record, here, remote):
        record = Record()
        here = put_in_place(record)
    unrecorded = [name for name in record.results if name not in here]
    hand_on_checkpoints(
        record, [name for name in unrecorded if name.split("@")[1] not in left], remote
    )
    put_away(record, [name for name in unrecorded if name.split("@")[1] in left])
    return answer(record, here, [])


def hand_on_checkpoints(record, names, remote):
    """Let the trainings among these stages go on from the checkpoints that dvc.lock records."""
    stages = [record.stages[name] for name in names if hand_on.wanted(record.stages[name])]
    if not stages:
        return
    params = load_params("params.yaml")
    with record.repo.lock:
        remote.pull(record.repo, {out.hash_info for stage in stages for out in stage.outs})
    for stage in stages:
        if are_cached(record.repo, [out.hash_info for out in stage.outs]):
            hand_on.hand_on(params, stage, record.repo.cache.local)


def put_in_place(record):
    """Check out the recorded results that the cache has; returns their stages."""
    here = [name for name in record.recorded_stages() if name in record.cached]
    keep_what_only_the_user_has(record, here)
    displaced = [name for name in here if record.out_of_place(name)]
    if displaced:
        check_out(record, displaced)
    return here


def take_from_run_cache(record, here, remote):
    """Record those stages again that have once run with the same inputs, here or where the
    remote has it from; returns whether any.

    Here rather than by a job, which would wait for a GPU only to copy files.
    """
    here = {*here}
    left = [name for name in record.results if name not in here]
    known = {RECIPES, *record.recorded_stages()}
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
    if remote.damaged_entries:
        say(f"warning: not used, as they are damaged: {remote.damaged_entries} run-cache entries")
    return bool(found)


def look_up(repo, stage, made, remote):
    """What the outputs of a stage were when it ran with these inputs, or None.

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
    """Whether the cache has these objects (DVC removes a damaged one when it is asked)."""
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


def answer(record, here, restore):
    """The JSON object that this script prints; says in one line what it comes to."""
    to_run = {name: record.outs[name] for name in record.results if name not in here}
    steps = {}  # run -> its first step that is not recorded: the later ones go with it
    for name in to_run:
        step, run = name.split("@")
        if step != "fetch":
            steps.setdefault(run, step)
    if steps:
        say("not recorded: " + ", ".join(f"{step} {run}" for run, step in steps.items()))
    perhaps = [name for name in to_run if name in record.cached and record.unchanged(name)]
    recorded = [path for name in here for path in record.outs[name]]
    return {"to_run": to_run, "perhaps": perhaps, "recorded": recorded, "restore": restore}


if __name__ == "__main__":
    main()
