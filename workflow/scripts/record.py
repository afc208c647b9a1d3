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
from contextlib import suppress
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotSupported
from dvc.utils.serialize import ParseError
from dvc.utils.strictyaml import YAMLValidationError

import quick_dvc  # noqa: F401 - DVC reads and writes dvc.lock more quickly for it
from vlae.configuration import reconfigured
from vlae.errors import one_line
from vlae.params import load_params

for name in ("dvc", "dvc_data", "dvc_objects"):  # what they have to say is said here, in one line
    logging.getLogger(name).setLevel(logging.CRITICAL)
DVC = (sys.executable, Path(__file__).with_name("quick_dvc.py"), "--wait-for-lock")
RECIPES = "recipes"
MD5 = re.compile("[0-9a-f]{30}")  # the first two digits are the folder's name


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


def fetch(record, stages):
    """Take from the remote what is recorded, and what it knows of other parameters' runs.

    Not by the command `dvc fetch`: given names of stages, it reads dvc.lock for each of them.
    """
    before, reason = set(cached_objects()), None
    wanted = {out.hash_info for name in stages for out in record.stages[name].outs}
    try:
        with record.repo.lock:
            with suppress(RunCacheNotSupported):  # by a server of plain files
                record.repo.stage_cache.pull(None)
            record.repo.cloud.pull(wanted)
        cache = record.repo.cache.local
        if missing := sum(not cache.exists(hash_info.value) for hash_info in wanted):
            reason = f"{missing} of {len(wanted)} objects could not be had"
    except Exception as error:  # whatever a remote can fail with
        reason = one_line(error)
    if reason:
        say(f"warning: the remote could not be read completely ({reason})")
    clear_run_cache()
    damaged = [path for path in cached_objects() if path not in before and not is_whole(path)]
    for path in damaged:
        path.unlink()
    if damaged:
        say(f"warning: not used, as they are damaged in the remote: {len(damaged)} objects")


def clear_run_cache():
    """Remove what a DVC that was killed, or found no space, has left of an entry: it stumbles
    over a folder without one."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        for folder in Path(repo.stage_cache.cache_dir).glob("*/*"):
            for half_written in folder.glob("*.tmp"):
                half_written.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def cached_objects():
    """The files of the cache, whose names are the MD5 of their content."""
    with Repo() as repo:
        return [p for p in Path(repo.cache.local.path).glob("??/*") if MD5.fullmatch(p.name)]


def is_whole(path):
    """Whether an object is what its name says. DVC asks some remotes only, and never a file
    that is write-protected, as those in a shared folder are."""
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
    if published and (unrecorded or not record.cached.issuperset(published)):
        fetch(record, published)
        record = Record()
        gone = [name for name in published if name not in record.cached]
        if gone:
            say(f"warning: recorded, but neither in the cache nor in the remote: {' '.join(gone)}")
    here = put_in_place(record)
    if take_from_run_cache(record, here):
        record = Record()
        here = put_in_place(record)
    unrecorded = [name for name in record.results if name not in here]
    put_away(record, [name for name in unrecorded if name.split("@")[1] in left])
    return answer(record, here, [])


def put_in_place(record):
    """Check out the recorded results that the cache has; returns their stages."""
    here = [name for name in record.recorded_stages() if name in record.cached]
    keep_what_only_the_user_has(record, here)
    displaced = [name for name in here if record.out_of_place(name)]
    if displaced:
        check_out(record, displaced)
    return here


def take_from_run_cache(record, here):
    """Record those stages again that have once run with the same inputs; returns whether any.

    Here rather than by a job, which would wait for a GPU only to copy files.
    """
    there = set(here)
    found = []
    if there.issuperset(record.results):
        return False
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        for name in record.results:
            if name in there or not there.issuperset({*record.upstream[name]} - {RECIPES}):
                continue
            stage = stages[name]
            try:
                stage.save_deps()
                # With what dvc.lock says of its outputs it would be looked up by that alone.
                for out in stage.outs:
                    out.hash_info = type(out.hash_info)()
                repo.stage_cache.restore(stage)
            except DvcException:
                continue  # it has not run with them
            stage.save()
            stage.commit()
            found.append(stage)
            there.add(name)
        if found:  # as `dvc repro` would, but dvc.lock is written once and not for each
            found[0].dvcfile.dump_stages(found, update_pipeline=False)
    return bool(found)


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
