# Helpers of the other rules. They ask DVC what is recorded before any rule is used.
#
# Snakemake asks, DVC judges. Before the DAG is built, workflow/scripts/record.py puts every
# recorded result in its place and names the stages that are left to run. The rules of expensive
# steps match only those stages (`left_to_run`). For Snakemake, a recorded result is therefore a
# source file, which needs no job, no GPU and no data set. Such a rule runs `dvc repro` (by
# dvc_patched.py). DVC compares contents once more, takes the result from the cache or runs the
# stage's command, and writes the record.

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

# Rules and DVC start the programs of this environment, and the package vlae of this folder.
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
from vlae.config.stages import split_stage, stage_of
from vlae.storage.paths import checkpoint, dataset, evaluation, labels, samples, scratch
from vlae.report.summaries import run_inputs, run_outputs, summary_inputs
from vlae.report.site.gather import WORKFLOW, recorded_inputs
from vlae.report.tables.registry import TABLES as ALL_TABLES, table_inputs, table_outputs
from vlae.report.verify import drawings

NOTES = Path(".snakemake", "vlae")


def checked_params():
    """Return the checked params.yaml; stop with one line if it is faulty."""
    try:
        return load_params("params.yaml")
    except VlaeError as error:
        stop(error)


def checked_config():
    """Check --config; return the excluded names and the number of shards.

    --config has train (true: compute what is missing), runs (patterns of names: compute these runs
    only) and shards (jobs per evaluation). Nothing is computed for the excluded runs, data sets
    and classifiers.
    """
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
            stop(f"--config: runs: no run in params.yaml matches {pattern!r}")
    runs = {run for pattern in patterns for run in fnmatch.filter(PARAMS.runs, pattern)}
    runs = {run.name for name in runs for run in with_starts(PARAMS.runs[name])}
    needed = {PARAMS.runs[run].dataset for run in runs}
    everything = {*PARAMS.runs, *PARAMS.datasets, *PARAMS.classifiers}
    return everything - runs - needed if train else everything, shards


def with_starts(run):
    """Yield a run, the run whose weights it begins with, and so on."""
    while run:
        yield run
        run = run.start


def starting_files(run):
    """Return the files of the checkpoint that a run's training begins with, if it is another's."""
    files = ("model.safetensors", "train.json")
    return [str(checkpoint(run.start.name) / name) for name in files] if run.start else []


@cache
def command_line():
    """Return the options of this call of snakemake."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # "Using profile …"
        return parse_args(sys.argv[1:])[1]


def mode():
    """Return what snakemake is to do: "draw" the rules, "look" at the work, or "run" it."""
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
    """Hold this folder's lock until this Snakemake ends, and clean up after a killed one."""
    try:
        lock = single_instance.take_over()
    except single_instance.AnotherInstance as reason:
        stop(reason)
    except OSError as error:  # a full disk
        stop(f"{single_instance.LOCK}: {error.strerror}")
    interruption.held.append(lock)
    atexit.register(single_instance.release, lock)


def rerun_incomplete():
    """Make the unfinished outputs of killed jobs again, without --rerun-incomplete.

    The input functions of rules call this, because the settings exist only while the DAG is built.
    """
    if workflow.dag_settings:
        workflow.dag_settings.force_incomplete = True


def ask_dvc():
    """Return the answer of record.py; a job reads the answer that its head process received."""
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
    command = [sys.executable, SCRIPTS / "record.py", asked, *record_options()]
    answer = subprocess.run(command, stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit(answer.returncode)
    found = json.loads(answer.stdout)
    # Snakemake needs a rule for every target on the command line, even if it is in its place.
    named = {*found["recorded"]}.intersection(command_line().targets)
    found["restore"] = sorted(named.union(found["restore"]))
    (NOTES / "asked").mkdir(parents=True, exist_ok=True)
    if asked == "run":
        notes.write_text(json.dumps(found))
    for stage, outputs in found["to_run"].items():
        renew(NOTES / "asked" / stage, [Path(path) for path in outputs])
    return found


def forced():
    """Return the rules and files that the command line forces, apart from --forceall."""
    options = command_line()
    return [*options.forcerun, *(options.targets if options.force else ())]


def record_options():
    """Yield the options of record.py for this call of snakemake."""
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
    """Stop if a forced name is neither a rule nor the output of one.

    Call it when all rules are known.
    """
    if not workflow.is_main_process or mode() not in ("run", "look"):
        return
    if FOUND["again"] and command_line().no_hooks:
        stop("--no-hooks: forced steps could not start from scratch; leave one of the two out")
    rules_by_name = {one.name: one for one in workflow.rules}
    for name in forced():
        made = any(one.is_producer(name) for one in rules_by_name.values())
        if name not in rules_by_name and not made:
            known = ", ".join(sorted(rules_by_name))
            stop(f"{name} is forced, but it is neither a rule nor a result; rules are {known}")


def begin():
    """Before the first job: say what will run and why, and let forced steps start from scratch."""
    if workflow.is_main_process:
        say_plan()
        for stage in () if command_line().touch else stages_ahead().intersection(FOUND["again"]):
            again.begin(stage)


def say_plan():
    """Print a line for each expensive step that will run, and one for the drawings."""
    stages = stages_ahead()
    for line in plan.lines(FOUND["plan"], stages):
        say(line)
    drawn = {
        kind: sorted(stage.partition("@")[2] for stage in stages if stage.startswith(f"{kind}@"))
        for kind in ("table", "figure")
    }
    if parts := [f"{kind}s {', '.join(names)}" for kind, names in drawn.items() if names]:
        say(f"draw {'; '.join(parts)}")


def say_left_out():
    """Print a line about the runs that would take too long here, if there are any."""
    if FOUND.get("left_out"):
        say(FOUND["left_out"])


def stages_ahead():
    """Return the stages that Snakemake will run; none if there is no DAG."""
    jobs = workflow.dag.needrun_jobs(exclude_finished=False) if workflow.dag else ()
    pairs = {(job.rule.name, name) for job in jobs for name in job.wildcards_dict.values()}
    of_runs = {(step, run) for step in ("train", "evaluate", "sample") for run in PARAMS.runs}
    return {
        stage_of(step, PARAMS.runs[name]) if (step, name) in of_runs else f"{step}@{name}"
        for step, name in pairs
    }


def renew(note, outputs):
    """Make an outdated result older than `note`, an input of its rule, without changing it."""
    there = [path.stat().st_mtime for path in outputs if path.exists()]
    if not note.exists() or note.stat().st_mtime <= min(there, default=0):
        note.write_text(f"{uuid.uuid4()}\n")


def redraw_outdated():
    """Let Snakemake draw again all tables and figures that do not agree with their notes.

    Contents are compared, not modification times (vlae.report.drawn).
    """
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
            os.utime(sign, (0, 0))  # older than the drawing
    if changed:
        say(f"not drawn from the recorded results, will be drawn again: {', '.join(changed)}")


def disagrees(kind, name):
    """Return the input that tells Snakemake to draw again what does not agree with its results."""
    return [] if DRAWING else NOTES / "drawn" / kind / name


def asked(stage):
    """Return the input that tells Snakemake to run a stage that is outdated for DVC."""
    rerun_incomplete()
    return [] if DRAWING else NOTES / "asked" / stage


def repro(stage):
    """Return the command of an expensive step.

    Snakemake removes a job's outputs before it starts. If the stage may turn out to be recorded,
    the outputs are put back first, so that DVC can find nothing to do and keep them.
    """
    dvc = f"python {shlex.quote(os.path.relpath(SCRIPTS / 'dvc_patched.py'))} --wait-for-lock"
    run = f"{dvc} repro --single-item {stage}"  # no -q: it hides errors
    if stage in FOUND["perhaps"]:
        run = f"{dvc} checkout -q {stage} && {run}"
    if stage in FOUND["again"]:
        run = f"VLAE_FROM_SCRATCH=1 {run} --force"
    done = again.mark(stage)
    return f"{run} && rm -f {shlex.quote(str(done))}" if done else run


def left_to_run(step):
    """Return a wildcard constraint: the data sets or runs whose `step` has to run."""
    # Two rules write results/probes/NAME.json, so their names are needed to draw the rules, too.
    names = {"probe": [*PARAMS.probes], "probe_pixels": [*PARAMS.labels]}.get(step)
    if DRAWING and names is None:
        return "[^/]+"
    if not DRAWING:
        stages = map(split_stage, FOUND["to_run"])
        names = [name for what, name in stages if what == step and name not in LEFT_OUT]
    return "|".join(map(re.escape, names)) if names else "(?!)"


def code_behind(module):
    """Return the files that a drawing depends on: code, the paper's numbers, the runs."""
    code = [path.relative_to(SOURCE.parent) for path in source_files(module, SOURCE)]
    return [*map(str, code), "src/vlae/report/paper.yaml", "params.yaml"]


def texts_beside(package):
    """Files of a package that are no code: templates, styles, captions."""
    folder = SOURCE.joinpath(*package.split("."))
    found = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]
    return sorted(str(path.relative_to(SOURCE.parent)) for path in found)


def drawn_from(paths):
    """Return the results among `paths` that exist or will be computed."""
    rerun_incomplete()
    missing = {
        path
        for stage, outputs in FOUND["to_run"].items()
        if stage.split("@")[1] in LEFT_OUT
        for path in outputs
    }
    return [path for path in map(str, paths) if path not in missing]


def results_of_runs():
    """Return the results of all runs, whether a table or figure shows them or not."""
    return drawn_from(
        path
        for run in PARAMS.runs
        for path in (f"{evaluation(run)}.json", f"{evaluation(run)}.npz", samples(run))
    )


def summarised():
    """Return the files that DVC shows, for all runs that are or will be evaluated."""
    runs = [run for run in PARAMS.runs if drawn_from(run_inputs(run)) == run_inputs(run)]
    return [path for run in runs for path in run_outputs(run)]


def shards_of(run):
    """Return the marks of an evaluation's shards; none if a single job computes it."""
    parts = range(1, SHARDS + 1) if SHARDS > 1 else ()
    return [scratch(run) / "evaluation" / f"shard-{part}-of-{SHARDS}.done" for part in parts]


def clock(wildcards, resources):
    """Return a command that limits training to the job's time limit, less two minutes."""
    runtime = resources.get("runtime")
    return f"export VLAE_MINUTES={max(runtime - 2, 0.5)}; " if runtime else ""


def say_why_jobs_failed():
    """Show why jobs failed, unless Snakemake was asked for whole logs."""
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
# Those that show any of the runs in params.yaml, and figures of runs that are trained, or will be.
TABLES = [name for name in ALL_TABLES if table_inputs(name, PARAMS)]
FIGURES = [name for name in ALL_FIGURES if drawn_from(figure_inputs(name, PARAMS))]
CODE_OF_TABLES = code_behind("vlae.report.tables.registry")
CODE_OF_FIGURES = code_behind("vlae.report.figures.registry")
CODE_OF_SUMMARIES = code_behind("vlae.report.summaries")
CODE_OF_REPORT = [*code_behind("vlae.report.site.page"), *texts_beside("vlae.report.site")]
if workflow.is_main_process and mode() in ("run", "look"):
    redraw_outdated()
if workflow.is_main_process and command_line().dryrun:
    if not command_line().verbose:
        brief.install()
    atexit.register(say_plan)  # after all output of Snakemake
    atexit.register(say_left_out)
elif workflow.is_main_process:
    say_left_out()
