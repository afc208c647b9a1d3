"""Asks DVC once, before Snakemake builds its DAG, what is recorded and what has to run.

    python workflow/scripts/record.py run|look

prints a JSON object:

    to_run   stage -> its outputs, for every stage whose command, inputs or parameters differ from
             dvc.lock, or whose outputs are not in the cache
    perhaps  those of them that only depend on a stage to be run: if its outputs are as before,
             they turn out to be recorded
    recorded outputs of the other stages
    restore  recorded outputs that are not in place
    plan     stage -> why it has to run and how long it takes (ahead.py)
    again    stages that run although they are recorded, because they are forced
    left     names for which nothing is computed: the given ones, and the runs that take too long
    left_out a line about the runs that take too long

`run` updates the recipes, fetches recorded results that are not in the cache from the remote, and
checks out all recorded results. Then `restore` is empty: for Snakemake, a recorded result is a
source file. `look` changes nothing.

Neither overwrites a file whose content is not in the cache: they stop with one line and exit
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
from dvc_state import DATA, RECIPES, Record
from vlae.config.load import load_params
from vlae.config.stages import reconfigured, split_stage

dvc_patched.patch()  # DVC replaces dvc.lock as a whole
for name in ("dvc", "dvc_data", "dvc_objects"):  # this script reports their errors, in one line
    logging.getLogger(name).setLevel(logging.CRITICAL)
DVC = (sys.executable, Path(__file__).with_name("dvc_patched.py"), "--wait-for-lock")
MOST_NAMED = 5  # files in one message


def do_without_git():
    """Configure DVC to work without git if there is no repository, as in a ZIP of the files."""
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return
    config = Config(Repo.DVC_DIR)
    if not config["core"]["no_scm"]:
        with config.edit("local") as local:
            local["core"] = {**local.get("core", {}), "no_scm": True}
        say("there is no git repository here: DVC works without one (.dvc/config.local)")


def bring_recipes_up_to_date(record):
    """Run the stage `recipes`: for all runs if the code has changed, which takes minutes, else for
    those whose settings have changed."""
    known = record.only_settings_changed(RECIPES)
    what = "params.yaml changed" if known else "the code changed; this takes some minutes"
    say(f"{what}: finding out which results change")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads would only wait
    env["VLAE_KEEP_RECIPES"] = "1" if known else "0"
    done = subprocess.run([*DVC, "repro", "-q", "--single-item", RECIPES], env=env, check=False)
    if done.returncode:
        stop("`python -m vlae recipe` failed; nothing was started")


def check_out(record, stages):
    """Check out every recorded output of these stages."""
    with record.repo.lock:
        for name in stages:
            if failed := record.stages[name].checkout().get("failed"):
                stop(f"dvc checkout failed: {' '.join(map(str, failed))}")


def keep_what_only_the_user_has(record, stages):
    """Stop if a recorded output would replace a file whose content is not in the cache."""
    displaced = [path for name in stages for path in record.out_of_place(name)]
    lost = [path for path in displaced if record.unsaved(path)]
    if lost:
        named = " ".join(lost[:MOST_NAMED])
        if len(lost) == 1:
            stop(f"{named}: not as dvc.lock records; `dvc checkout -f {named}` replaces it")
        others = f" and {len(lost) - MOST_NAMED} more" * (len(lost) > MOST_NAMED)
        stop(
            f"{named}{others}: not as dvc.lock records; `dvc checkout -f FILE` replaces one of "
            "them, without FILE all"
        )


def put_away(record, stages):
    """Remove outdated outputs, so that no table or figure shows them.

    Only outputs in the cache are removed: with the old parameters they are restored. Data sets
    stay, because nothing is drawn from them.
    """
    drawn_from = [name for name in stages if not name.startswith(DATA)]
    there = [path for name in drawn_from for path in record.outs[name] if os.path.exists(path)]
    for path in there:
        if record.unsaved(path):
            stop(f"{path} is not recorded; run snakemake without train=false, or remove the file")
    for path in there:
        os.remove(path)


def keep_what_is_forced(record):
    """Stop if an output of a forced stage has no copy in the cache, because it would be lost."""
    kept = [name for name in record.forced if record.published(name)]  # data sets are not
    for path in [path for name in kept for path in record.outs[name]]:
        if record.unsaved(path):
            stop(
                f"{path} would be lost: DVC's cache has no copy; move the file before you force it"
            )


def arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="what DVC has recorded, as JSON")
    parser.add_argument("mode", choices=("run", "look"))
    names = {"nargs": "*", "default": [], "metavar": "NAME"}
    parser.add_argument("--leave", help="nothing will be computed for these", **names)
    parser.add_argument("--again", help="rules and files that are forced", **names)
    parser.add_argument("--all-again", action="store_true", help="everything is forced")
    parser.add_argument("--targets", help="targets of the call of snakemake", **names)
    parser.add_argument(
        "--by-name", action="store_true", help="all runs that are not left out are named"
    )
    parser.add_argument(
        "--cluster", action="store_true", help="the jobs run on a cluster, on GPUs"
    )
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
    """Return the answer for the present state, without changes."""
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
    """Put all recorded results in their place and return the answer."""
    run_cache.clear()
    record = Record()
    if record.status.get(RECIPES):
        bring_recipes_up_to_date(record)
        record = Record()
    recorded = record.recorded_stages()
    published = [name for name in recorded if record.published(name)]
    unrecorded = len(recorded) < len(record.results)  # the remote's run-cache may have it
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
        say(f"warning: {remote.damaged_entries} damaged run-cache entries are not used")
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
    """Let the trainings among these stages continue from the checkpoints in dvc.lock."""
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
    """Check out the recorded results that are in the cache; return their stages."""
    here = [name for name in record.recorded_stages() if name in record.cached]
    keep_what_only_the_user_has(record, here)
    displaced = [name for name in here if record.out_of_place(name)]
    if displaced:
        check_out(record, displaced)
    return here


def answer(record, ahead, here, restore):
    """Return the JSON object to print; say in one line which excluded results are missing."""
    to_run = {name: record.outs[name] for name in record.results if name not in here}
    steps = {}  # run -> its first step that is not recorded; later steps are implied
    for name in to_run:
        step, run = split_stage(name)
        if not name.startswith(DATA) and run in ahead.options.leave:
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
