"""Asks DVC what is recorded and what is to be run, once, before Snakemake builds its DAG.

    python workflow/scripts/record.py run|look

prints a JSON object

    to_run   stage -> its outputs, for every stage that dvc.lock does not describe as things
             stand now (command, inputs, parameters), or whose outputs are nowhere in the cache
    perhaps  those of them that only depend on one to be run: if that one comes out as before,
             they turn out to be recorded
    recorded outputs of the other stages
    restore  those of them that are not in place
    plan     stage -> why it is to run and how long it takes (ahead.py)
    again    those of them that run although they are recorded
    left     names that nothing is computed for: those given, and the runs that are too long
    left_out a line about the latter

`run` first brings the recipes up to date, fetches from the remote what is recorded and not
cached here, and checks out whatever is recorded, so that `restore` is empty: for Snakemake
a recorded result is a source file. `look` changes nothing.

What only the user has a copy of is never overwritten by what is recorded: one line, exit
status 2.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import ParseError
from dvc.utils.strictyaml import YAMLValidationError

import dvc_patched
import hand_on
import run_cache
from ahead import Ahead, name_of
from console import say, stop
from dvc_remote import Remote
from dvc_state import RECIPES, Record
from vlae.config.load import load_params
from vlae.config.stages import reconfigured

dvc_patched.patch()  # DVC replaces dvc.lock as a whole
for name in ("dvc", "dvc_data", "dvc_objects"):  # what they have to say is said here, in one line
    logging.getLogger(name).setLevel(logging.CRITICAL)
DVC = (sys.executable, Path(__file__).with_name("dvc_patched.py"), "--wait-for-lock")


def do_without_git():
    """Tell DVC, for good, where there is no repository: in a ZIP or an archive of the files."""
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return
    config = Config(Repo.DVC_DIR)
    if not config["core"]["no_scm"]:
        with config.edit("local") as local:
            local["core"] = {**local.get("core", {}), "no_scm": True}
        say("there is no git repository here: DVC works without one (.dvc/config.local)")


def bring_recipes_up_to_date():
    """Run the stage `recipes`: seconds, on the CPU, whatever the runs cost."""
    say("code or params.yaml changed: working out which results that concerns")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads than one only wait here
    done = subprocess.run([*DVC, "repro", "-q", "--single-item", RECIPES], env=env, check=False)
    if done.returncode:
        stop("the recipes could not be made (python -m vlae recipe); nothing was started")


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
    Data sets stay: nothing is drawn from them.
    """
    drawn_from = [name for name in stages if not name.startswith("fetch@")]
    there = [path for name in drawn_from for path in record.outs[name] if os.path.exists(path)]
    for path in there:
        if record.unsaved(path):
            stop(f"{path}: not recorded; snakemake without train=false does that, or remove it")
    for path in there:
        os.remove(path)


def keep_what_is_forced(record):
    """Stop if an output of a stage that is asked for again has no copy in the cache: what is in
    its place would be lost."""
    kept = [name for name in record.forced if record.published(name)]  # data sets are not
    for path in [path for name in kept for path in record.outs[name]]:
        if record.unsaved(path):
            stop(f"{path}: DVC's cache has no copy, and forcing would remove it; move it away")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="what DVC has recorded, as JSON")
    parser.add_argument("mode", choices=("run", "look"))
    names = {"nargs": "*", "default": [], "metavar": "NAME"}
    parser.add_argument("--leave", help="nothing will be computed for these", **names)
    parser.add_argument("--again", help="rules and files that are forced", **names)
    parser.add_argument("--all-again", action="store_true", help="everything is forced")
    parser.add_argument("--targets", help="of the call of snakemake", **names)
    parser.add_argument("--by-name", action="store_true", help="all runs not left are asked for")
    parser.add_argument("--cluster", action="store_true", help="the jobs run elsewhere, on GPUs")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        do_without_git()
        ahead = Ahead(options, load_params("params.yaml"))
        found = run(ahead) if options.mode == "run" else look(ahead)
    except DvcException as error:
        damaged = isinstance(error, ParseError | YAMLValidationError) and "dvc.lock" in str(error)
        hint = "; `git checkout dvc.lock` restores the last one that was committed"
        stop(f"{error}{hint * damaged}")
    except OSError as error:  # a full disk
        stop(f"{error.filename or '.dvc'}: {error.strerror}")
    json.dump(found, sys.stdout)


def look(ahead):
    """The answer, of how things are."""
    record = Record(reconfigured(ahead.params))
    if record.status.get(RECIPES):
        say("code or params.yaml changed: a real run first finds out which results change")
    ahead.ask_again(record)
    recorded = record.recorded_stages()
    remote = record.in_remote([name for name in recorded if name not in record.cached])
    here = [name for name in recorded if name in record.cached or name in remote]
    keep_what_only_the_user_has(record, here)
    keep_what_is_forced(record)
    ahead.leave_long_ones(record, [name for name in record.results if name not in here])
    return answer(record, ahead, here, [p for name in here for p in record.out_of_place(name)])


def run(ahead):
    """The answer, of how things are once everything recorded is in its place."""
    run_cache.clear()
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
    ahead.ask_again(record)
    keep_what_is_forced(record)
    here = put_in_place(record)
    taken = run_cache.take_recorded(record, here, remote)
    if remote.damaged_entries:
        say(f"warning: not used, as they are damaged: {remote.damaged_entries} run-cache entries")
    if taken:
        record = Record(forced=ahead.forced)
        here = put_in_place(record)
    unrecorded = [name for name in record.results if name not in here]
    ahead.leave_long_ones(record, unrecorded)
    wanted = [name for name in unrecorded if name_of(name) not in ahead.left]
    hand_on_checkpoints(record, [name for name in wanted if name not in ahead.forced], remote)
    put_away(record, [name for name in unrecorded if name not in wanted])
    return answer(record, ahead, here, [])


def hand_on_checkpoints(record, names, remote):
    """Let the trainings among these stages go on from the checkpoints that dvc.lock records."""
    stages = [record.stages[name] for name in names if hand_on.wanted(record.stages[name])]
    if not stages:
        return
    params = load_params("params.yaml")
    with record.repo.lock:
        remote.pull(record.repo, {out.hash_info for stage in stages for out in stage.outs})
    for stage in stages:
        if run_cache.are_cached(record.repo, [out.hash_info for out in stage.outs]):
            hand_on.hand_on(params, stage, record.repo.cache.local)


def put_in_place(record):
    """Check out the recorded results that the cache has; returns their stages."""
    here = [name for name in record.recorded_stages() if name in record.cached]
    keep_what_only_the_user_has(record, here)
    displaced = [name for name in here if record.out_of_place(name)]
    if displaced:
        check_out(record, displaced)
    return here


def answer(record, ahead, here, restore):
    """The JSON object that this script prints; says in one line what is left out and missing."""
    to_run = {name: record.outs[name] for name in record.results if name not in here}
    steps = {}  # run -> its first step that is not recorded: the later ones go with it
    for name in to_run:
        step, run = name.split("@")
        if step != "fetch" and run in ahead.options.leave:
            steps.setdefault(run, step)
    if steps:
        say("not recorded: " + ", ".join(f"{step} {run}" for run, step in steps.items()))
    return {
        "to_run": to_run,
        "perhaps": [n for n in to_run if n in record.cached and record.unchanged(n)],
        "recorded": [path for name in here for path in record.outs[name]],
        "restore": restore,
        "plan": ahead.plan(record, to_run),
        "again": sorted(ahead.forced),
        "left": sorted(ahead.left),
        "left_out": ahead.left_out(),
    }


if __name__ == "__main__":
    main()
