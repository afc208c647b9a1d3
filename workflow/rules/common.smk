# Helpers of the other rules, and the question to DVC that comes before all of them.
#
# Snakemake asks, DVC judges. Before the DAG is built, workflow/scripts/record.py puts every
# recorded result in its place and names the stages that are left to run. The rules of those
# stages match nothing else (`left_to_run`), so for Snakemake a recorded result is a source
# file: no job, no GPU, no data set is asked for on its behalf. Such a rule runs
# `dvc repro` (by dvc_patched.py), which compares contents once more, takes the result from the
# cache or runs the stage's command, and writes the record.

import atexit
import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path

from snakemake.cli import parse_args

SOURCE = Path(workflow.basedir, "src")
SCRIPTS = Path(workflow.basedir, "workflow", "scripts")

# Every program that a rule or DVC starts is this environment's, and vlae this tree's.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.getenv("PATH", "")]),
    PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE), os.getenv("PYTHONPATH")])),
)
sys.path[:0] = [str(SOURCE), str(SCRIPTS)]

import again
import brief
import failures
import interruption
import plan
import single_instance
from console import say, stop
from imports import source_files
from vlae.errors import VlaeError
from vlae.report.drawn import agrees
from vlae.report.figures.registry import FIGURES as ALL_FIGURES, figure_inputs, figure_outputs
from vlae.config.load import load_params
from vlae.storage.paths import checkpoint, dataset, evaluation, samples, scratch
from vlae.report.summaries import run_inputs, run_outputs, summary_inputs
from vlae.report.tables.registry import TABLES as ALL_TABLES, table_inputs, table_outputs
from vlae.report.verify import drawings

NOTES = Path(".snakemake", "vlae")


def checked_params():
    """params.yaml, or the end of everything with the line that says what is wrong in it."""
    try:
        return load_params("params.yaml")
    except VlaeError as error:
        stop(error)


def checked_config():
    """--config: train (compute what is missing?), runs (of which runs? patterns of their names)
    and shards (jobs of one evaluation). Returns the names that nothing is computed for, of
    runs, data sets and classifiers, and the number of shards."""
    unknown = config.keys() - {"train", "runs", "shards"}
    if unknown:
        stop(f"--config: unknown key {unknown.pop()!r}; known: runs, shards, train")
    train = {"true": True, "false": False}.get(str(config.get("train", True)).lower())
    if train is None:
        stop(f"--config: train must be true or false, not {config['train']!r}")
    shards = config.get("shards", 1)
    if type(shards) is not int or shards < 1:
        stop(f"--config: shards must be 1 or more, not {shards!r}")
    patterns = str(config.get("runs", "*")).split()
    for pattern in patterns:
        if not fnmatch.filter(PARAMS.runs, pattern):
            stop(f"--config: runs: no run in params.yaml is called {pattern!r}")
    runs = {run for pattern in patterns for run in fnmatch.filter(PARAMS.runs, pattern)}
    needed = {PARAMS.runs[run].dataset for run in runs}
    everything = {*PARAMS.runs, *PARAMS.datasets, *PARAMS.classifiers}
    return everything - runs - needed if train else everything, shards


@cache
def command_line():
    """The options of this call of snakemake."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # "Using profile …", again
        return parse_args(sys.argv[1:])[1]


def mode():
    """What this call of snakemake is to do: draw the rules, look at the work, or run it."""
    options = command_line()

    def wanted(*names):
        return any(getattr(options, name) not in (None, False) for name in names)

    if wanted("unlock"):
        return "unlock"
    if wanted(*"lint rulegraph filegraph list_rules list_target_rules print_compilation".split()):
        return "draw"
    if wanted("dryrun", "report", "summary", "detailed_summary", "dag", "d3dag"):
        return "look"
    return "run"


def be_alone():
    """Hold this folder's lock until this Snakemake ends, and clear up after a killed one."""
    try:
        lock = single_instance.take_over()
    except single_instance.AnotherInstance as reason:
        stop(reason)
    except OSError as error:  # a full disk
        stop(f"{single_instance.LOCK}: {error.strerror}")
    interruption.held.append(lock)
    atexit.register(single_instance.release, lock)


def rerun_incomplete():
    """What a killed job has half made is made again, without --rerun-incomplete.

    Called by the rules' input functions: the settings are not there before the DAG is built.
    """
    if workflow.dag_settings:
        workflow.dag_settings.force_incomplete = True


def ask_dvc():
    """The answer of workflow/scripts/record.py; the jobs of a run read what its head was told."""
    notes = NOTES / "stages.json"
    if not workflow.is_main_process:
        return json.loads(notes.read_text())
    asked = mode()
    if asked == "unlock":
        single_instance.forget()
    if asked == "run":
        be_alone()
    if asked in ("draw", "unlock"):
        return {"to_run": {}, "perhaps": [], "restore": [], "again": [], "left": []}
    command = [sys.executable, SCRIPTS / "record.py", asked, *what_is_asked()]
    answer = subprocess.run(command, stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit(answer.returncode)
    found = json.loads(answer.stdout)
    # Of what the command line names Snakemake wants to know a rule, even if it is in its place.
    named = {*found["recorded"]}.intersection(command_line().targets)
    found["restore"] = sorted(named.union(found["restore"]))
    (NOTES / "asked").mkdir(parents=True, exist_ok=True)
    if asked == "run":
        notes.write_text(json.dumps(found))
    for stage, outputs in found["to_run"].items():
        renew(NOTES / "asked" / stage, [Path(path) for path in outputs])
    return found


def forced():
    """The rules and files that the command line forces; not --forceall."""
    options = command_line()
    return [*options.forcerun, *(options.targets if options.force else ())]


def what_is_asked():
    """The command line of this call of snakemake, in options of record.py."""
    options = command_line()
    yield from ("--leave", *sorted(LEFT_OUT), "--again", *sorted(forced()))
    yield from ("--targets", *sorted(options.targets))
    if options.forceall:
        yield "--all-again"
    if "runs" in config:
        yield "--by-name"
    if options.executor not in (None, "local", "dryrun", "touch"):
        yield "--cluster"


def check_forced():
    """Stop at what is forced and is neither a rule nor made by one; called when all rules are
    known."""
    if not workflow.is_main_process or mode() not in ("run", "look"):
        return
    if FOUND["again"] and command_line().no_hooks:
        stop("--no-hooks: what is forced could not begin anew; leave one of the two out")
    rules_by_name = {one.name: one for one in workflow.rules}
    for name in forced():
        made = any(one.is_producer(name) for one in rules_by_name.values())
        if name not in rules_by_name and not made:
            known = ", ".join(sorted(rules_by_name))
            stop(f"{name} is forced, but it is no rule and no result; rules are {known}")


def begin():
    """Before the first job: say what is to be run and why, and let what is forced begin anew."""
    if workflow.is_main_process:
        say_plan()
        for stage in () if command_line().touch else stages_ahead().intersection(FOUND["again"]):
            again.begin(stage)


def say_plan():
    """A line for each expensive step that is to be run, and one for what is drawn."""
    stages = stages_ahead()
    for line in plan.lines(FOUND["plan"], stages):
        say(line)
    drawings = sorted(stage for stage in stages if stage.startswith(("figure@", "table@")))
    if drawings:
        say(f"draw {', '.join(stage.partition('@')[2] for stage in drawings)}")


def say_left_out():
    """A line about the runs that would take too long here, if there are any."""
    if FOUND.get("left_out"):
        say(FOUND["left_out"])


def stages_ahead():
    """The stages that Snakemake is going to run; none if it has come to no plan."""
    jobs = workflow.dag.needrun_jobs(exclude_finished=False) if workflow.dag else ()
    return {f"{job.rule.name}@{name}" for job in jobs for name in job.wildcards_dict.values()}


def renew(note, outputs):
    """Make an outdated result older than an input of its rule, without touching the result."""
    there = [path.stat().st_mtime for path in outputs if path.exists()]
    if not note.exists() or note.stat().st_mtime <= min(there, default=0):
        note.write_text(f"{uuid.uuid4()}\n")


def redraw_what_disagrees():
    """Let Snakemake draw again what is not as it was drawn from the results as they are, by content
    (vlae.report.drawn), whatever the files' times say."""
    changed = []
    for kind, name, inputs, outputs in drawings(PARAMS):
        sign, results = disagrees(kind, name), drawn_from(inputs)
        outputs = summarised() if kind == "summaries" else outputs
        sign.parent.mkdir(parents=True, exist_ok=True)
        if not agrees(kind, name, results, outputs):
            renew(sign, [Path(path) for path in outputs])
            if all(map(os.path.exists, [*results, *outputs])):
                changed.append(f"{kind}/{name}")
        elif not sign.exists():
            sign.touch()
            os.utime(sign, (0, 0))  # older than what is drawn
    if changed:
        say(f"not what the recorded results give, to be drawn again: {', '.join(changed)}")


def disagrees(kind, name):
    """The input by which Snakemake learns that a drawing does not agree with its results."""
    return [] if DRAWING else NOTES / "drawn" / kind / name


def asked(stage):
    """The input by which Snakemake learns that DVC wants this stage to run again."""
    rerun_incomplete()
    return [] if DRAWING else NOTES / "asked" / stage


def repro(stage):
    """The command of an expensive step.

    Snakemake removes a job's outputs before it starts. Where the stage may turn out to be
    recorded after all, they are put back first: DVC finds nothing to do and keeps them.
    """
    dvc = f"python {shlex.quote(os.path.relpath(SCRIPTS / 'dvc_patched.py'))} --wait-for-lock"
    run = f"{dvc} repro --single-item {stage}"  # not -q: that hides errors, too
    if stage in FOUND["perhaps"]:
        run = f"{dvc} checkout -q {stage} && {run}"
    if stage in FOUND["again"]:
        run = f"VLAE_FROM_SCRATCH=1 {run} --force"
    done = again.mark(stage)
    return f"{run} && rm -f {shlex.quote(str(done))}" if done else run


def left_to_run(step):
    """A wildcard constraint: the data sets or runs whose `step` is to be run."""
    if DRAWING:
        return "[^/]+"
    stages = [stage.split("@") for stage in FOUND["to_run"]]
    names = [name for what, name in stages if what == step and name not in LEFT_OUT]
    return "|".join(map(re.escape, names)) if names else "(?!)"


def code_behind(module):
    """What a drawing is remade for when it is edited: code, the paper's numbers, the runs."""
    code = [path.relative_to(SOURCE.parent) for path in source_files(module, SOURCE)]
    return [*map(str, code), "src/vlae/report/paper.yaml", "params.yaml"]


def drawn_from(paths):
    """Those of the results that are there to draw from, or will be."""
    rerun_incomplete()
    missing = {
        path
        for stage, outputs in FOUND["to_run"].items()
        if stage.split("@")[1] in LEFT_OUT
        for path in outputs
    }
    return [path for path in map(str, paths) if path not in missing]


def results_of_runs():
    """The results of all runs, whether a table or figure shows them or not."""
    return drawn_from(
        path
        for run in PARAMS.runs
        for path in (f"{evaluation(run)}.json", f"{evaluation(run)}.npz", samples(run))
    )


def summarised():
    """The files that DVC shows: numbers and curves of the runs that are evaluated, or will be."""
    runs = [run for run in PARAMS.runs if drawn_from(run_inputs(run)) == run_inputs(run)]
    return [path for run in runs for path in run_outputs(run)]


def shards_of(run):
    """The parts that one evaluation is scattered into; none if a single job does it."""
    parts = range(1, SHARDS + 1) if SHARDS > 1 else ()
    return [scratch(run) / "evaluation" / f"shard-{part}-of-{SHARDS}.done" for part in parts]


def clock(wildcards, resources):
    """On a cluster the trainer keeps within the job's time limit, less two minutes to end in."""
    runtime = resources.get("runtime")
    return f"export VLAE_MINUTES={max(runtime - 2, 0.5)}; " if runtime else ""


def say_why_jobs_failed():
    """What is on the screen when a job has failed, unless Snakemake was asked for whole logs."""
    if not command_line().show_failed_logs:
        failures.say_why(workflow.scheduler.failed)


if workflow.is_main_process:
    interruption.take_over()
    if command_line().executor == "slurm":
        import slurm_executor

        slurm_executor.install(command_line().profile or [])
else:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "all" in map(str, command_line().quiet or ()):
    failures.show_errors()
PARAMS = checked_params()
LEFT_OUT, SHARDS = checked_config()
DRAWING = workflow.is_main_process and mode() in ("draw", "unlock")
FOUND = ask_dvc()
LEFT_OUT.update(FOUND["left"])
# Those that show any of the runs in params.yaml.
TABLES = [name for name in ALL_TABLES if table_inputs(name, PARAMS)]
FIGURES = [name for name in ALL_FIGURES if figure_inputs(name, PARAMS)]
CODE_OF_TABLES = code_behind("vlae.report.tables.registry")
CODE_OF_FIGURES = code_behind("vlae.report.figures.registry")
CODE_OF_SUMMARIES = code_behind("vlae.report.summaries")
if workflow.is_main_process and mode() in ("run", "look"):
    redraw_what_disagrees()
if workflow.is_main_process and command_line().dryrun:
    if not command_line().verbose:
        brief.install()
    atexit.register(say_plan)  # behind all that Snakemake says
    atexit.register(say_left_out)
elif workflow.is_main_process:
    say_left_out()
