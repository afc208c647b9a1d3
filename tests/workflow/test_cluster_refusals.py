"""A SLURM cluster that says no, for a while or for good: real jobs, with commands that refuse.

Where the commands of the cluster refuse by themselves, they do; where it takes a site's rule, a
program of the same name stands before them.
"""

import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from test_cluster import COMMAND, IMPATIENT, Training

from cluster import slurm
from cluster.jobs import jobs
from one_run import MODEL, new_project, prepared_project
from pipeline import Workflow

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def prepared(cluster, tmp_path_factory) -> Workflow:
    """A project whose data set is there and whose run is not trained."""
    workflow = prepared_project(tmp_path_factory.mktemp("refusals"), 2)
    workflow.commit("the data set")
    return workflow


@pytest.fixture
def project(prepared, tmp_path) -> Workflow:
    yield prepared.copy_to(tmp_path / "project")
    left = [str(job.number) for job in jobs(tmp_path / "project")]
    with suppress(slurm.ClusterError):
        slurm.client("scancel", "--quiet", *left)


def before_slurm(workflow: Workflow, name: str, code: str) -> None:
    """Let a command of SLURM be this program, in which REAL is the command."""
    folder = workflow.folder.parent / "site"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/bash\n" + code.replace("REAL", shutil.which(name)))
    (folder / name).chmod(0o755)
    if str(folder) not in workflow.env["PATH"]:
        workflow.env["PATH"] = f"{folder}:{workflow.env['PATH']}"


def set_resources(workflow: Workflow, default: dict, train: dict) -> None:
    path = workflow.folder / "workflow" / "profiles" / "slurm" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["default-resources"] |= default
    for rule in ("train", "evaluate", "evaluate_shard"):
        settings["set-resources"][rule] |= train
    path.write_text(yaml.safe_dump(settings))


def train(workflow: Workflow, *options: str) -> tuple[int, str, list[str]]:
    """Status, all that was said, and the lines of our own but for what is going to be done."""
    done = workflow.call(*COMMAND, *IMPATIENT, *options, "--", MODEL)
    said = done.stdout + done.stderr
    ours = [line for line in said.splitlines() if line.startswith("vlae: ")]
    plan = ("not recorded", "never trained")
    return done.returncode, said, [line for line in ours if not any(map(line.count, plan))]


def test_a_partition_that_is_not_there_is_one_line(cluster, tmp_path):
    """Of a project in which nothing has been done yet: its first job is refused."""
    project = new_project(tmp_path / "project", tmp_path / "mirror", {}, {})
    set_resources(project, {"slurm_partition": "nope"}, {})
    status, _, ours = train(project)
    assert status == 2
    assert re.fullmatch(
        "vlae: error: SLURM refuses (fetch|train): invalid partition specified: nope; Invalid "
        "partition name specified; set slurm_partition under default-resources and set-resources "
        r"\(slurm/config.yaml; docs/cluster.md\)",
        ours[-1],
    )
    assert len(ours) == 2  # the first one is about the recipes
    assert jobs(project.folder) == []


@pytest.mark.slow
def test_after_a_refusal_nothing_is_in_the_way(project):
    set_resources(project, {"slurm_partition": "nope"}, {})
    assert train(project)[0] == 2
    set_resources(project, {"slurm_partition": "urgent"}, {"runtime": 30})
    assert train(project)[0] == 0
    (job,) = jobs(project.folder)
    assert (job.partition, job.state) == ("urgent", "COMPLETED")


@pytest.mark.slow
def test_no_slurm_at_all(project):
    """One line, and what needs no job is done all the same."""
    folder = project.folder.parent / "without"
    folder.mkdir()
    for place in ("/bin", "/usr/bin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(("s", "scontrol")) or program.name in ("sh", "sed"):
                (folder / program.name).exists() or (folder / program.name).symlink_to(program)
    first, *_ = project.env["PATH"].split(os.pathsep)
    project.env["PATH"] = f"{first}:{folder}"
    status, _, (line,) = train(project)
    assert status == 2
    assert line.startswith("vlae: error: no SLURM here: sbatch, scancel, scontrol, sinfo, squeue")
    done = project.call(*COMMAND, "--config", "train=false")  # local jobs only
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_refused_for_good_at_the_submission_only(project):
    """A site's own rule that a trial does not tell: no try more, no wall of text."""
    refuse = 'echo "sbatch: error: You must specify a project with --account" >&2; exit 1'
    before_slurm(project, "sbatch", f"[[ $* = *--test-only* ]] && exit 0\necho >> calls\n{refuse}")
    status, said, ours = train(project)
    assert status == 1
    assert ours == [
        "vlae: error: SLURM refuses train: You must specify a project with --account; set "
        "slurm_account under default-resources (slurm/config.yaml; docs/cluster.md)"
    ]
    assert project.read("calls") == "\n"
    assert "Traceback" not in said


@pytest.mark.slow
def test_what_passes_costs_no_try_and_leaves_no_job(project):
    """An sbatch whose answer is lost, then a limit while another job of the user is there."""
    code = """
[[ $* = *--test-only* ]] && exec REAL "$@"
echo >> calls
if [ $(wc -l < calls) = 1 ]; then
    REAL "$@" > lost
    REAL --parsable -D / -t1 -o /dev/null --wrap="sleep 15" > other
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
    exit 1
elif [ "$(squeue -h -j $(cat other) -t PD,R)" ]; then
    echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
    exit 1
fi
exec REAL "$@"
"""
    before_slurm(project, "sbatch", code)
    status, said, ours = train(project, "--retries", "0")
    assert status == 0, said
    assert [line.split("; asking")[0] for line in ours] == [
        "vlae: SLURM does not take train now: Socket timed out on send/recv operation",
        "vlae: SLURM does not take train now: AssocMaxSubmitJobLimit",
    ]
    lost, trained = jobs(project.folder)
    assert (lost.number, lost.state) == (int(project.read("lost")), "CANCELLED")
    assert trained.state == "COMPLETED"
    assert len(project.read("calls")) > 3


@pytest.mark.slow
def test_a_site_that_takes_gres_only(project):
    """Refused as the profile is, in a line that says what docs/cluster.md does, and that works."""
    before_slurm(
        project,
        "sbatch",
        '[[ $* = *--gpus* ]] || exec REAL "$@"\n'
        'echo "sbatch: error: Batch job submission failed: Requested GRES option unsupported by '
        'configured SelectType plugin" >&2\nexit 1\n',
    )
    status, _, (line,) = train(project)
    assert status == 2
    assert "set gpu: 0 and gres: gpu:1 (or gpu:MODEL:1)" in line
    set_resources(project, {}, {"gpu": 0, "gres": "gpu:fake:1"})
    assert train(project)[0] == 0
    (job,) = jobs(project.folder)
    assert (job.state, job.gpus, job.node[:3]) == ("COMPLETED", 1, "gpu")


@pytest.mark.slow
def test_slurm_forgets_soon_and_the_site_renames_jobs(project):
    """With the profile's own seconds between two questions."""
    config = slurm.CONFIG.read_text()
    slurm.CONFIG.write_text(re.sub(r"MinJobAge=\d+", "MinJobAge=60", config))
    slurm.client("scontrol", "reconfigure")
    try:
        process = subprocess.Popen(
            [*COMMAND, "--", MODEL],
            cwd=project.folder,
            env=project.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        while not jobs(project.folder):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        (job,) = jobs(project.folder)
        charged = ["JobName=charged", "Comment=somebody"]
        slurm.client("scontrol", "update", f"jobid={job.number}", *charged)
        said, _ = process.communicate(timeout=300)
    finally:
        slurm.CONFIG.write_text(config)
        slurm.client("scontrol", "reconfigure")
    assert process.returncode == 0, said
    assert "sacct" not in said
    assert (project.folder / MODEL).exists()


@pytest.mark.slow
def test_squeue_is_silent_for_too_long(project, tmp_path):
    """It ends with a line; the same command again clears up, whatever the site has rewritten."""
    project.edit_params(lambda tree: tree["defaults"]["binary"]["training"].update(epochs=50))
    before_slurm(project, "squeue", '[ -e silent ] && { echo no >&2; exit 1; }\nexec REAL "$@"')
    project.env["VLAE_SLURM_MINUTES"] = "0.05"
    output = tmp_path / "output"
    output.mkdir()
    training = Training(project, output)
    training.hold(1)
    number = training.job().number
    slurm.client("scontrol", "update", f"jobid={number}", "JobName=charged", "Comment=somebody")
    silent = project.folder / "silent"
    silent.touch()
    assert training.shell.wait(120) == 1
    assert "vlae: squeue fails (no); asking again" in training.said()
    assert training.said().count("squeue has not answered for") == 1
    assert training.job().number == number
    status, _, (line,) = train(project)
    assert status == 2
    assert "squeue fails (no), and jobs of the last snakemake may be left" in line
    silent.unlink()
    training.start()
    training.finish()
    assert training.calls == 2
    assert "cancelling the 1 jobs that it left in the queue" in training.said()
    assert [job.state for job in jobs(project.folder)] == ["CANCELLED", "COMPLETED"]
