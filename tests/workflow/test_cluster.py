"""The workflow on a real SLURM cluster (tests/cluster/slurm.py), and what goes wrong there.

A training is disturbed in mid-run in every way that a cluster knows. Whatever happened, the
same command again finishes the work, no step before the last checkpoint is done twice, and
the weights are those of a run that nothing disturbed, to the bit.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_kills import ancestor

from cluster import slurm
from cluster.jobs import Job, jobs
from one_run import (
    MODEL,
    RUN,
    history,
    new_project,
    prepared_project,
    trainer,
    undisturbed_weights,
)
from pipeline import MIRROR, Workflow
from small_disk import FULL, empty, fill
from vlae.storage.write import sha256
from vlae.threads import allowed_processors

pytestmark = pytest.mark.cluster

COMMAND = ("snakemake", "--cores", "all", "--profile", "slurm")
IMPATIENT = ("--slurm-init-seconds-before-status-checks", "3")
EPOCHS = 10
STEPS_OF_EPOCH = 16  # 128 images in batches of 8
CHECKPOINT_SECONDS = "0.5"
EARLY = 2 * STEPS_OF_EPOCH  # the step from which on a training is disturbed


DAEMONS = ("munged", "slurmctld", *(f"slurmd.{node}" for node in slurm.NODES))


def test_brought_up_again_it_is_the_same(cluster):
    before = [slurm.running(name) for name in DAEMONS]
    assert None not in before
    assert slurm.up() == cluster
    assert [slurm.running(name) for name in DAEMONS] == before


def test_it_listens_on_loopback_only(cluster):
    places = [
        connection.laddr.ip
        for name in DAEMONS
        for connection in slurm.running(name).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(places) >= 1 + len(slurm.NODES)  # the controller and each node
    assert set(places) == {"127.0.0.1"}


def test_gpus_are_really_scheduled(cluster, tmp_path):
    """A node has two: a job that wants three is refused, a third one waits for those before."""
    with pytest.raises(slurm.ClusterError, match="configuration is not available"):
        slurm.client("srun", "-Q", "-t1", "-N1", "--gpus=3", "true")
    one = (
        "sbatch",
        f"-D{tmp_path}",
        "-o/dev/null",
        "-t1",
        "-n1",
        "--mem=50",
        "-wgpu1",
        "--gpus=1",
    )
    for _ in range(3):
        slurm.client(*one, "--comment=rule_none", "--wrap=sleep 60")
    try:
        end = time.monotonic() + 60
        while sum(job.running for job in jobs(tmp_path)) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert [job.state for job in jobs(tmp_path)] == ["RUNNING", "RUNNING", "PENDING"]
        assert [job.devices for job in jobs(tmp_path)] == ["0", "1", ""]
    finally:
        slurm.client("scancel", *(str(job.number) for job in jobs(tmp_path)))


@pytest.fixture(scope="module")
def reproduced(cluster, record, tmp_path_factory) -> Workflow:
    """A fresh clone in which the command of the README has been typed: on all of MNIST in `make
    test-cluster`, where there is a mirror of it, else on a few of its images."""
    folder = tmp_path_factory.mktemp("reproduced")
    whole = MIRROR and slurm.ASKED_FOR
    origin = new_project(
        folder / "origin",
        MIRROR if whole else folder / "mirror",
        {"batch_size": 1000 if whole else 32},
        {"importance_samples": 4, "images": 100},
        real=MIRROR,
    )
    clone = origin.clone_to(folder / "clone", origin.env["VLAE_DATA_MIRROR"])
    with stopwatch(record, "fresh clone, 3 shards", clone):
        clone.do(*COMMAND, *IMPATIENT, "--config", "shards=3")
    return clone


def test_download_training_shards_tables_and_figures(reproduced):
    done = jobs(reproduced.folder)
    assert sorted((job.rule, job.gpus) for job in done) == [
        ("evaluate", 1),
        ("evaluate_shard", 1),
        ("evaluate_shard", 1),
        ("evaluate_shard", 1),
        ("fetch", 0),
        ("sample", 0),
        ("train", 1),
    ]
    assert {job.state for job in done} == {"COMPLETED"}
    shards = [job for job in done if job.rule == "evaluate_shard"]
    assert max(job.started for job in shards) < min(job.ended for job in shards)  # side by side
    assert "not trained" not in line_of_table(reproduced)
    assert (reproduced.folder / "results/figures/figure1_static_mnist.png").exists()
    assert "up to date" in reproduced.do("dvc", "status")
    assert 'id="/figure/figure1_static_mnist"' in reproduced.read("results/report.html")


def test_what_is_recorded_books_nothing(reproduced, record, tmp_path):
    reproduced.do("dvc", "push", "-q", "--run-cache")
    reproduced.commit("the results")
    other = reproduced.clone_to(tmp_path / "other", "/nowhere")
    with stopwatch(record, "fresh clone of what is recorded", other):
        other.do(*COMMAND, *IMPATIENT)
    assert jobs(other.folder) == []
    assert line_of_table(other) == line_of_table(reproduced)


@pytest.mark.slow
def test_a_learning_rate_set_back_books_nothing(reproduced, record, tmp_path):
    workflow = reproduced.copy_to(tmp_path / "copy")
    training = yaml.safe_load(workflow.read("params.yaml"))["defaults"]["binary"]["training"]
    for rate in (10 * training["learning_rate"], training["learning_rate"]):
        change = {"learning_rate": rate}
        workflow.edit_params(
            lambda tree, new=change: tree["defaults"]["binary"]["training"].update(new)
        )
        before = len(jobs(workflow.folder))
        with stopwatch(record, f"learning rate {rate:g}", workflow):
            workflow.do(*COMMAND, *IMPATIENT)
    assert before == 3  # training, evaluation and samples with the other learning rate
    assert len(jobs(workflow.folder)) == before
    assert line_of_table(workflow) == line_of_table(reproduced)


@pytest.mark.slow
def test_a_longer_budget_goes_on_from_the_recorded_checkpoint(reproduced, tmp_path):
    """Where there is no training state any more: the node gets it by way of the shared folder."""
    workflow = reproduced.copy_to(tmp_path / "project")
    shutil.rmtree(workflow.folder / "scratch")
    before = json.loads(workflow.read(f"results/checkpoints/{RUN}/train.json"))
    longer = {"epochs": before["epochs"] + 2, "decay_epochs": 1}
    workflow.edit_params(lambda tree: tree["runs"][RUN]["training"].update(longer))
    workflow.do(*COMMAND, *IMPATIENT, "--", MODEL)
    after = json.loads(workflow.read(f"results/checkpoints/{RUN}/train.json"))
    assert after["epochs"] == before["epochs"] + 2
    starts = [stretch["from_checkpoint"] for stretch in after["stretches"]]
    assert starts == [None, before["checkpoint_sha256"]]
    assert "up to date" in workflow.do("dvc", "status", f"train@{RUN}")


@pytest.mark.slow
def test_shards_in_groups(reproduced, record, tmp_path):
    """As docs/scaling.md has it for many short ones: here four, two in a job, one after another
    on its GPU."""
    workflow = reproduced.copy_to(tmp_path / "copy")
    workflow.edit_params(lambda tree: tree["defaults"]["binary"]["evaluation"].update(seed=1))
    groups = ("--groups", "evaluate_shard=shards", "--group-components", "shards=2")
    before = len(jobs(workflow.folder))
    with stopwatch(record, "another evaluation, 4 shards in 2 jobs", workflow):
        workflow.do(*COMMAND, *IMPATIENT, *groups, "--config", "shards=4")
    done = jobs(workflow.folder)[before:]
    assert sorted((job.rule, job.gpus) for job in done) == [
        ("evaluate", 1),
        ("sample", 0),  # of the same seed
        ("shards_evaluate_shard", 1),
        ("shards_evaluate_shard", 1),
    ]
    assert {job.state for job in done} == {"COMPLETED"}
    logs = (workflow.folder / "results/logs/slurm/group_shards_evaluate_shard").iterdir()
    for log in logs:
        # As the group's own Snakemake tells it; the one of each shard says "1 of 1".
        assert re.findall(r"(\d) of 2 steps", log.read_text()) == ["1", "2"]
    assert line_of_table(workflow) != line_of_table(reproduced)


def line_of_table(workflow: Workflow) -> str:
    table = workflow.read("results/tables/table1_static_mnist.md")
    (line,) = re.findall(r".*\*\*VLAE\*\*.*", table)
    return line


@contextmanager
def stopwatch(record, what: str, workflow: Workflow):
    """Write down how long the workflow took in the block, and what it asked of the cluster."""
    before = len(jobs(workflow.folder))
    started = time.monotonic()
    yield
    done = jobs(workflow.folder)[before:]
    record(
        "cluster-pipeline",
        "The pipeline on a SLURM cluster",
        "`snakemake --cores all --profile slurm`, one run with a tiny network, on a cluster of "
        "three nodes on one machine.",
        {
            "What": what,
            "Seconds": f"{time.monotonic() - started:.0f}",
            "Jobs": str(len(done)),
            "of them with a GPU": str(sum(job.gpus > 0 for job in done)),
        },
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Workflow:
    """A project whose data set is there and whose run is not trained, and the right weights."""
    folder = tmp_path_factory.mktemp("cluster")
    workflow = prepared_project(folder, EPOCHS)
    workflow.commit("the data set")
    return workflow


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> str:
    """SHA-256 of the weights of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    return undisturbed_weights(prepared, folder, threads=allowed_processors())  # as a job has


class Training:
    """`snakemake --profile slurm` at work on one training, to be disturbed."""

    def __init__(self, workflow: Workflow, output: Path, *options: str):
        self.workflow = workflow
        self.output = output
        self.options = options
        self.started = time.monotonic()
        self.calls = 0
        self.steps_again = 0
        self.workflow.env["VLAE_CHECKPOINT_SECONDS"] = CHECKPOINT_SECONDS
        self.start()

    def start(self) -> None:
        self.calls += 1
        with open(self.output / f"call-{self.calls}.txt", "w") as said:
            command = shlex.join([*COMMAND, *IMPATIENT, *self.options, "--", MODEL])
            self.shell = subprocess.Popen(
                ["bash", "-c", f"{command}; exit $?"],
                cwd=self.workflow.folder,
                env=self.workflow.env,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def snakemake(self) -> psutil.Process:
        (process,) = psutil.Process(self.shell.pid).children()
        return process

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.output.iterdir()))

    def saved(self) -> int:
        """The step of the last checkpoint."""
        starts = history(self.workflow)
        return starts[-1]["to_step"] if starts else 0

    def reached(self) -> int:
        """The step of the last epoch that the trainer reported."""
        log = self.workflow.folder / "results" / "logs" / "train" / f"{RUN}.log"
        epochs = re.findall(r": epoch (\d+)  ELBO", log.read_text()) if log.exists() else []
        return int(epochs[-1]) * STEPS_OF_EPOCH if epochs else 0

    def job(self) -> Job:
        (job,) = [job for job in jobs(self.workflow.folder) if job.running]
        return job

    def wait(self, condition, seconds: float = 600) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.shell.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def hold(self, step: int = EARLY) -> psutil.Process:
        """Stop the trainer in mid-run, so that there is time to disturb it on any machine."""
        self.wait(lambda: self.saved() >= step)
        process = trainer(self.workflow)
        for each in (process, *process.children(recursive=True)):
            each.suspend()
        return process

    def disturbed(self) -> None:
        """Called when the trainer has died: note what it had done beyond its last checkpoint."""
        self.at = self.saved()
        self.steps_again += max(0, self.reached() - self.at)

    def finish(self) -> None:
        """Wait for the end; while there is something left to do, the same command again."""
        while self.shell.wait(900) and self.calls < 3:
            self.start()
        assert self.shell.returncode == 0, self.said()
        self.seconds = time.monotonic() - self.started

    def check(self, undisturbed: str) -> None:
        assert sha256(self.workflow.folder / MODEL) == undisturbed
        assert "up to date" in self.workflow.do("dvc", "status", f"train@{RUN}")
        starts = history(self.workflow)
        assert starts[-1]["to_step"] == EPOCHS * STEPS_OF_EPOCH
        for before, after in pairwise(starts):
            assert after["from_step"] == before["to_step"]

    def starts(self) -> int:
        return sum(1 + job.restarts for job in jobs(self.workflow.folder))


def note(record, what: str, training: Training, weights: str = "identical") -> None:
    """A row of the report: what happened to a training that is finished, and what it came to."""
    record(
        "cluster-faults",
        "On a SLURM cluster",
        f"A training of {EPOCHS * STEPS_OF_EPOCH} steps, a checkpoint every "
        f"{CHECKPOINT_SECONDS} seconds, disturbed in mid-run. *Starts* counts how often SLURM "
        "started it, *commands* how often `snakemake --cores all --profile slurm` was typed, "
        "*steps done again* those after the last checkpoint (to within an epoch, "
        f"{STEPS_OF_EPOCH} steps). The weights are compared with those of an undisturbed run.",
        {
            "What happened": what,
            "Starts": str(training.starts()),
            "Commands": str(training.calls),
            "Steps done again": str(training.steps_again),
            "Seconds in all": f"{training.seconds:.0f}",
            "Weights": weights,
        },
    )


@pytest.fixture
def start(cluster, tmp_path_factory):
    """start(workflow, *options): a Training, of which nothing is left when the test ends."""
    trainings = []

    def run(workflow: Workflow, *options: str) -> Training:
        trainings.append(Training(workflow, tmp_path_factory.mktemp("output"), *options))
        return trainings[-1]

    yield run
    for training in trainings:
        if training.shell.poll() is None:
            os.killpg(training.shell.pid, signal.SIGKILL)
        for job in jobs(training.workflow.folder):
            if job.running:
                slurm.client("scancel", str(job.number))


@pytest.fixture
def disturb(start, prepared, undisturbed, record, tmp_path):
    """disturb(what, fault, *options): train on the cluster, let `fault(training)` happen, finish,
    check, and write down what it came to."""

    def run(what: str, fault, *options: str, calls: int = 1) -> Training:
        training = start(prepared.copy_to(tmp_path / "project"), *options)
        fault(training)
        training.finish()
        training.check(undisturbed)
        assert training.calls == calls
        note(record, what, training)
        return training

    return run


@pytest.mark.slow
def test_nothing(disturb):
    training = disturb("nothing", lambda training: None)
    assert training.starts() == 1


@pytest.mark.slow
def test_the_training_job_is_cancelled(disturb):
    def cancel(training):
        training.hold()
        number = training.job().number
        slurm.client("scancel", str(number))
        training.wait(lambda: state_of(training, number) == "CANCELLED")
        training.disturbed()

    training = disturb("`scancel` of the job", cancel)
    assert [job.state for job in jobs(training.workflow.folder)] == ["CANCELLED", "COMPLETED"]


def state_of(training: Training, number: int) -> str:
    (job,) = [job for job in jobs(training.workflow.folder) if job.number == number]
    return job.state


@pytest.mark.slow
def test_a_time_limit_twice(disturb, prepared, tmp_path):
    """The trainer stops itself before its limit; in a copied profile with another partition."""
    profile = tmp_path / "mycluster"
    shutil.copytree(prepared.folder / "slurm", profile)
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    settings["default-resources"]["slurm_partition"] = "urgent"
    settings["set-resources"]["train"]["runtime"] = 3
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))

    def take_long(training):
        for _ in range(2):
            process = training.hold(training.saved() + 1)
            number = training.job().number
            time.sleep(49)  # of the 48 seconds that a limit of three minutes leaves it
            process.resume()
            training.wait(lambda number=number: state_of(training, number) == "FAILED")

    training = disturb(
        "its time limit, twice: the trainer stops itself",
        take_long,
        "--profile",
        str(profile),
    )
    assert {job.partition for job in jobs(training.workflow.folder)} == {"urgent"}
    states = [job.state for job in jobs(training.workflow.folder)]
    assert states[-1] == "COMPLETED"
    assert set(states[:-1]) == {"FAILED"}
    log = training.workflow.read(f"results/logs/train/{RUN}.log")
    assert log.count("stopped by the clock") == len(states) - 1 >= 2  # more if it is slow here


@pytest.mark.slow
def test_a_hanging_job_is_killed_at_its_limit(disturb):
    def hang(training):
        training.hold()
        number = training.job().number
        slurm.client("scontrol", "update", f"jobid={number}", "TimeLimit=1")
        training.wait(lambda: state_of(training, number) == "TIMEOUT")
        training.disturbed()

    disturb("a trainer that hangs, killed at the job's time limit", hang)


@pytest.mark.slow
def test_the_job_is_requeued(disturb):
    def requeue(training):
        training.hold()
        slurm.client("scontrol", "requeue", str(training.job().number))
        training.wait(lambda: not any(job.running for job in jobs(training.workflow.folder)))
        training.disturbed()

    training = disturb("`scontrol requeue`", requeue)
    (job,) = jobs(training.workflow.folder)
    assert job.restarts == 1


def displace(training: Training) -> Job:
    """Let an urgent job take the trainer's node; returns the job of the trainer."""
    training.hold()
    job = training.job()
    everything = ["--partition=urgent", "--exclusive", "--nodes=3", "--mem=0", "--time=1"]
    slurm.client("srun", "-Q", *everything, "sleep", "3", timeout=300)
    training.disturbed()
    return job


@pytest.mark.slow
def test_an_urgent_job_displaces_it(disturb):
    def preempt(training):
        assert state_of(training, displace(training).number) == "PENDING"

    training = disturb("an urgent job that takes its node", preempt)
    (job,) = jobs(training.workflow.folder)
    assert job.restarts == 1


@pytest.mark.slow
def test_an_urgent_job_cancels_it(disturb):
    """PreemptMode=CANCEL: SLURM does not start it again, whatever the profile asks for."""

    def preempt(training):
        slurm.client("scontrol", "update", "partition=main", "PreemptMode=CANCEL")
        try:
            assert state_of(training, displace(training).number) == "PREEMPTED"
        finally:
            slurm.client("scontrol", "update", "partition=main", "PreemptMode=REQUEUE")

    training = disturb("an urgent job that takes its node, `PreemptMode=CANCEL`", preempt)
    first, second = jobs(training.workflow.folder)
    assert (first.state, second.state) == ("PREEMPTED", "COMPLETED")
    line = f"job {first.number} ended as PREEMPTED, and SLURM does not start it again; a failed"
    assert training.said().count(line) == 1


@pytest.mark.slow
def test_too_little_memory(disturb, cluster, prepared, tmp_path):
    """By the profile's own rule, with less of it."""
    if cluster != "cgroup":
        pytest.skip("without cgroups nothing confines a job's memory here")
    profile = tmp_path / "mycluster"
    shutil.copytree(prepared.folder / "slurm", profile)
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    rule = settings["set-resources"]["train"]
    assert rule["mem_mb"] == "8000 * min(attempt, 2)"
    rule["mem_mb"] = rule["mem_mb"].replace("8000", "450")
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))
    training = disturb(
        "out of memory: 450 MB, then 900 MB", lambda training: None, "--profile", str(profile)
    )
    first, second = jobs(training.workflow.folder)
    assert (first.memory, second.memory) == ("450M", "900M")
    assert (first.state, second.state) in [
        ("OUT_OF_MEMORY", "COMPLETED"),
        ("FAILED", "COMPLETED"),  # its step was out of memory, and the job gave up by itself
    ]
    folder = training.workflow.folder / "results" / "logs" / "slurm" / "rule_train" / RUN
    assert "oom" in (folder / f"{first.number}.log").read_text()


@pytest.mark.slow
def test_its_node_goes_down(disturb):
    def crash(training):
        training.hold()
        node = training.job().node
        slurm.kill_node(node)
        training.disturbed()
        try:
            training.wait(lambda: slurm.has_failed(node))
            training.wait(lambda: training.saved() > training.at)
            assert training.job().node != node
        finally:  # the tests after this one need it
            slurm.start_node(node)

    training = disturb("its node goes down", crash)
    (job,) = jobs(training.workflow.folder)
    assert job.restarts == 1


@pytest.mark.slow
def test_its_file_system_is_full(start, prepared, undisturbed, record, small):
    """That of the whole project, which the nodes share: the job fails, and what was recorded and
    trained stays."""
    training = start(prepared.copy_to(small / "project"))
    workflow = training.workflow
    lock = workflow.read("dvc.lock")
    process = training.hold()
    fill(small)
    process.resume()
    assert training.shell.wait(900) != 0
    assert FULL in training.said()
    assert workflow.read("dvc.lock") == lock
    assert jobs(workflow.folder)
    assert not any(job.running for job in jobs(workflow.folder))
    training.disturbed()
    empty(small)
    training.start()
    training.finish()
    training.check(undisturbed)
    assert training.calls == 2
    note(record, "the shared file system is full", training)


@pytest.mark.slow
def test_the_trainer_is_killed(disturb):
    def kill(training):
        training.hold().kill()
        training.disturbed()

    training = disturb("SIGKILL of the trainer", kill)
    assert [job.state for job in jobs(training.workflow.folder)] == ["FAILED", "COMPLETED"]


@pytest.mark.slow
def test_dvc_is_killed(disturb):
    """The one that Snakemake has started in the job, the trainer's parent."""

    def kill(training):
        process = training.hold()
        ancestor(process, "dvc_patched.py").kill()
        training.disturbed()

    training = disturb("SIGKILL of dvc in the job", kill)
    assert [job.state for job in jobs(training.workflow.folder)] == ["FAILED", "COMPLETED"]


@pytest.mark.slow
def test_the_login_shell_is_killed(disturb):
    """With all below it, as when the login node kills what a closed connection leaves."""

    def kill(training):
        training.hold()
        os.killpg(training.shell.pid, signal.SIGKILL)
        assert training.shell.wait() == -signal.SIGKILL
        training.disturbed()

    training = disturb("SIGKILL of the login shell and all below it", kill, calls=2)
    states = [job.state for job in jobs(training.workflow.folder)]
    assert states == ["CANCELLED", "COMPLETED"]


@pytest.mark.slow
def test_the_controller_is_gone_for_a_while(disturb):
    def restart(training):
        process = training.hold()
        slurm.kill(slurm.running("slurmctld"))
        training.wait(lambda: "squeue fails (" in training.said())
        slurm.up()
        process.resume()
        training.disturbed()

    training = disturb("the cluster's controller is down, and Snakemake asks in vain", restart)
    assert training.starts() == 1


@pytest.mark.slow
def test_snakemake_is_killed(disturb):
    def kill(training):
        training.hold()
        training.snakemake().kill()
        assert training.shell.wait() == 128 + signal.SIGKILL
        assert "up to date" not in training.workflow.call("dvc", "status", f"train@{RUN}").stdout
        assert any((training.workflow.folder / ".snakemake" / "locks").iterdir())
        training.disturbed()

    training = disturb("SIGKILL of snakemake, its job left running", kill, calls=2)
    states = [job.state for job in jobs(training.workflow.folder)]
    assert states == ["CANCELLED", "COMPLETED"]
    assert "cancelling the 1 jobs that it left in the queue" in training.said()


@pytest.mark.slow
def test_a_second_snakemake_is_told_to_wait(disturb):
    def second(training):
        training.wait(lambda: jobs(training.workflow.folder))
        done = training.workflow.call(*COMMAND, MODEL)
        assert done.returncode == 2
        assert re.fullmatch(
            r"Using profile slurm .*\n"  # Snakemake's own
            r"vlae: error: another snakemake is running in this folder \(\S+ process \d+\)\n",
            done.stderr,
        )

    disturb("a second snakemake in the same folder", second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "said"),
    [(False, "was edited meanwhile"), (True, "was edited since the workflow was started")],
)
def test_parameters_edited_while_it_trains(
    start, prepared, undisturbed, record, tmp_path, killed, said
):
    """What is recorded is of the parameters that it is recorded with; so is what comes later."""

    def learn_faster(tree):
        tree["defaults"]["binary"]["training"]["learning_rate"] *= 2

    faster = prepared.copy_to(tmp_path / "faster")
    old = yaml.safe_load(faster.read("params.yaml"))["defaults"]
    faster.edit_params(learn_faster)
    faster.do("vlae", "recipe")
    faster.do("vlae", "train", RUN)

    training = start(prepared.copy_to(tmp_path / "project"), "--retries", "1")
    workflow = training.workflow
    process = training.hold()
    workflow.edit_params(learn_faster)
    process.kill() if killed else process.resume()
    training.disturbed()
    assert training.shell.wait(900) != 0
    assert said in workflow.read(f"results/logs/train/{RUN}.log")
    assert f"train@{RUN}" not in workflow.read("dvc.lock")
    training.start()
    training.finish()
    training.check(sha256(faster.folder / MODEL))
    assert training.calls == 2
    note(
        record,
        "the learning rate edited" + ", and SIGKILL of the trainer" * killed,
        training,
        "identical, of the new rate",
    )
    workflow.edit_params(lambda tree: tree["defaults"].update(old))
    workflow.do("snakemake", "--cores", "2", "--", MODEL)
    assert sha256(workflow.folder / MODEL) == undisturbed


@pytest.mark.slow
def test_two_processes_in_one_job(start, prepared, record, tmp_path):
    """`gpus: 2`, without GPUs: one of both is killed, both go on in the next job, bit-identical;
    and it is what one process with the same batches makes of it, to rounding."""
    workflow = prepared.copy_to(tmp_path / "project")
    workflow.edit_params(lambda tree: tree["runs"][RUN].update(gpus=2))
    # Both round differently, which bfloat16 would make much of.
    workflow.replace("dvc.yaml", "vlae train ${key}", "vlae train ${key} --precision float32")
    weights = {}
    for count in ("1", "2"):
        other = workflow.copy_to(tmp_path / count)
        other.do("vlae", "train", RUN, "--precision", "float32", "--processes", count)
        weights[count] = other.folder / MODEL
    workflow.env["VLAE_PROCESSES"] = "2"
    training = start(workflow, "--set-threads", "train=1")  # threads of both get in their way
    launcher = training.hold()
    team = [p for p in launcher.children() if any("spawn_main" in part for part in p.cmdline())]
    assert len(team) == 2
    team[1].kill()
    for process in (launcher, *launcher.children(recursive=True)):
        process.resume()
    launcher.wait(120)
    training.disturbed()
    training.finish()
    training.check(sha256(weights["2"]))
    assert {job.gpus for job in jobs(workflow.folder)} == {2}
    assert [job.state for job in jobs(workflow.folder)] == ["FAILED", "COMPLETED"]
    one, two = load_file(weights["1"]), load_file(workflow.folder / MODEL)
    for name, tensor in one.items():  # after eight times the steps of test_team.py
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)
    note(record, "two processes in one job, SIGKILL of one of them", training)
