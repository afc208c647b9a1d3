"""What SLURM means when it says no (workflow/scripts/slurm_refusals.py)."""

import sys

import pytest

from miniature import PROJECT
from scripts import script

sys.path.append(str(PROJECT / "workflow" / "scripts"))
refusals = script("slurm_refusals")
Kind = refusals.Kind
FAILED = "Batch job submission failed:"
POLICY = (
    f"{FAILED} Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)
BY_PLUGIN = (
    "SLURM sbatch failed. The error message was '{}'.\n"
    "    sbatch call:\n        sbatch --gres=gpu:1 --qos=a -p b -A c --wrap='account'\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "slurm_load_jobs error: Connection refused",
        "no answer within 60 s",
    ],
)
def test_what_passes_in_a_moment(text):
    assert refusals.judge(text).kind == Kind.MOMENT


@pytest.mark.parametrize(
    "text",
    [
        f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}",
        f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}",
        f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}",
        POLICY,
        "sbatch: error: You have reached the maximum number of pending jobs of account abc",
    ],
)
def test_what_passes_when_other_jobs_have_ended(text):
    refusal = refusals.judge(text)
    assert refusal.kind == Kind.LIMIT
    assert "jobs" in refusal.advice


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("Invalid account or account/partition combination specified", "slurm_account"),
        ("You must specify a project with --account", "slurm_account"),
        ("The given account abc appears to be invalid. Available accounts:\nx", "slurm_account"),
        ("invalid partition specified: nope\nInvalid partition name specified", "slurm_partition"),
        ("User's group not permitted to use this partition", "slurm_partition"),
        ("No partition specified or system default partition", "slurm_partition"),
        ("Invalid qos specification", "slurm-qos"),
        ("Job has invalid qos", "slurm-qos"),
        ("Invalid generic resource (gres) specification", "gres: gpu:1"),
        ("Requested GRES option unsupported by configured SelectType plugin", "gres: gpu:1"),
        ("Please use --gres=gpu:N instead of --gpus", "gres: gpu:1"),
        (f"QOSMaxGRESPerJob\n{POLICY}", "gres"),
        ("Please say which GPU model you want", "gpu_model"),
        (f"QOSMaxWallDurationPerJobLimit\n{POLICY}", "runtime"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "runtime"),
        ("Memory specification can not be satisfied", "mem_mb"),
        ("Requested node configuration is not available", "cpus_per_task"),
        (f"QOSMaxCpuPerJobLimit\n{POLICY}", "cpus_per_task"),
        ("Invalid job name: it has to begin with your project", "slurm-jobname-prefix"),
        ("Invalid feature specification", "constraint"),
        ("Requested reservation is invalid", "slurm-reservation"),
        ("Pathname of a file, directory or other parameter too long", "slurm-pass-command"),
    ],
)
def test_what_is_refused_for_good_says_what_to_set(text, setting):
    said = "\n".join(f"sbatch: error: {line}" for line in text.splitlines())
    refusal = refusals.judge(BY_PLUGIN.format(said))
    assert refusal.kind == Kind.FINAL
    assert setting in refusal.advice
    assert refusal.reason == "; ".join(text.replace(f"{FAILED} ", "").splitlines())


def test_what_nobody_knows():
    assert refusals.judge("sbatch: error: not on a Sunday").kind == Kind.UNKNOWN


def test_a_long_answer_is_one_short_line():
    reason = refusals.judge("sbatch: error: no\n" * 5 + "a word " * 100).reason
    assert reason.startswith("no; a word a word")
    assert len(reason) == 300


def test_pauses_grow_and_end():
    pauses = list(refusals.pauses(600))
    assert sum(pauses) == 600
    assert pauses[0] == 5
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) <= refusals.LONGEST_PAUSE


def test_patience_can_be_set(monkeypatch, capsys):
    assert refusals.patience() == 30 * 60
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "0.5")
    assert refusals.patience() == 30
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "soon")
    with pytest.raises(SystemExit):
        refusals.patience()
    assert "VLAE_SLURM_MINUTES must be a number, not 'soon'" in capsys.readouterr().err
