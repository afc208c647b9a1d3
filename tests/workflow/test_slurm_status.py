"""What SLURM tells of jobs, and what its silence means (workflow/scripts/slurm_status.py)."""

import asyncio
import logging
from pathlib import Path
from types import ModuleType

import pytest

from miniature import PROJECT

plugin = pytest.importorskip("snakemake_executor_plugin_slurm")


class Asked:
    """Answers of a squeue or sacct of our own."""

    def __init__(self, module: ModuleType, folder: Path):
        self.folder = folder
        self.ended = []
        self.module = module
        self.states = module.States(self.ended.append)

    def __call__(self, answer: str, status: int = 0, name: str = "squeue") -> dict[str, str]:
        command = self.folder / name
        command.write_text(
            f"#!/bin/sh\ncat <<'X' >&{1 + bool(status)}\n{answer}\nX\nexit {status}\n"
        )
        command.chmod(0o755)
        question = self.states.query_job_status(str(command), logging.getLogger())
        return asyncio.run(question)[0]


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """ask(answer): the states of the jobs, as the plugin is told."""
    monkeypatch.syspath_prepend(str(PROJECT / "workflow" / "scripts"))
    import slurm_status

    return Asked(slurm_status, tmp_path)


def test_an_answer_is_passed_on(ask, capsys):
    assert ask("7|RUNNING|None\n8|PENDING|Resources") == {"7": "RUNNING", "8": "PENDING"}
    assert ask("") == {}
    assert capsys.readouterr().err == ""


def test_saccts_cancelled_by_somebody_is_cancelled(ask):
    assert ask("7|CANCELLED by 0\n8|COMPLETED", name="sacct") == {
        "7": "CANCELLED",
        "8": "COMPLETED",
    }


def test_silence_says_nothing_about_any_job_and_is_told_once(ask, capsys):
    ask.states.watched = {"7"}
    for _ in range(5):
        assert ask("slurm_load_jobs error: Access/permission denied", status=1) == {}
    assert capsys.readouterr().err == (
        "vlae: squeue fails (slurm_load_jobs error: Access/permission denied); asking again for "
        "30 minutes\n"
    )
    assert ask("7|RUNNING|") == {"7": "RUNNING"}
    assert capsys.readouterr().err == "vlae: squeue answers again\n"
    assert ask.ended == []


def test_a_command_that_is_not_there(ask, capsys):
    asyncio.run(ask.states.query_job_status("/no/such/squeue", logging.getLogger()))
    assert "squeue fails (No such file or directory)" in capsys.readouterr().err


def test_a_command_that_hangs(ask, monkeypatch, capsys):
    monkeypatch.setattr(ask.module, "SECONDS", 0.2)
    asyncio.run(ask.states.query_job_status("sleep 60", logging.getLogger()))
    assert "sleep fails (no answer within 0.2 s)" in capsys.readouterr().err


def test_silence_for_too_long_ends_it(ask, monkeypatch):
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "10")
    ask("no", status=1)
    ask.states.silent_since -= 601
    ask("Connection refused", status=1)
    (reason,) = ask.ended
    assert reason.startswith("squeue has not answered for 10 minutes (Connection refused); the")
    assert "the same command cancels them and goes on" in reason


def test_a_job_that_slurm_has_forgotten_is_over(ask, capsys):
    """Not at once, and not while SLURM is silent; of an array, its own number may be told only."""
    ask.states.watched = {"7", "8", "9_1"}
    assert ask("8|RUNNING|\n9|RUNNING|") == {"8": "RUNNING", "9": "RUNNING"}
    assert ask("no", status=1) == {}
    assert ask("8|RUNNING|\n9|RUNNING|")["7"] == "UNKNOWN"
    assert capsys.readouterr().err.splitlines()[-1] == (
        "vlae: SLURM does not remember how job 7 ended; its outputs tell"
    )
    ask.states.watched = {"8"}
    assert ask("") == {}
    assert ask("8|RUNNING|") == {"8": "RUNNING"}  # it was not gone
    assert ask("") == {}


@pytest.mark.parametrize("end", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_slurm_takes_away_and_does_not_start_again_is_a_failed_try(ask, capsys, end):
    """PreemptMode=CANCEL, for example. Told once only, it may be on its way into the queue."""
    ask.states.watched = {"7", "8"}
    assert ask(f"7|{end}|None\n8|{end}|None\n9|{end}|None") == {}
    assert ask(f"7|{end}|None\n8|PENDING|BeginTime") == {"7": "CANCELLED", "8": "PENDING"}
    assert capsys.readouterr().err == (
        f"vlae: job 7 ended as {end}, and SLURM does not start it again; a failed try\n"
    )
    ask.states.watched = {"8"}
    assert ask(f"7|{end}|None\n8|{end}|None") == {"7": "CANCELLED"}  # 8 for the first time again


def test_sacct_tells_of_a_new_start_minutes_after_the_preemption(ask, capsys):
    ask.states.watched = {"7"}
    for _ in range(3):
        assert ask("7|PREEMPTED", name="sacct") == {}
    ask.states.taken_away["7"] -= ask.module.BACK_IN_QUEUE["sacct"]
    assert ask("7|PREEMPTED", name="sacct") == {"7": "CANCELLED"}
    assert "job 7 ended as PREEMPTED" in capsys.readouterr().err


def test_sacct_may_not_know_a_job_yet(ask):
    ask.states.watched = {"7"}
    assert [ask("", name="sacct") for _ in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize("why", ["PartitionTimeLimit", "QOSMaxWallDurationPerJobLimit"])
def test_a_job_that_will_never_start_is_told_of_once(ask, capsys, why):
    ask.states.watched = {"7", "8"}
    for _ in range(2):  # not of a job that is somebody else's, or that waits for its turn
        ask(f"6|PENDING|{why}\n7|PENDING|{why}\n8|PENDING|Priority")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vlae: job 7 waits for ever as it is ({why})")


def test_the_plugin_asks_by_these_functions(ask, monkeypatch):
    """If it does not any more, the workflow has lost its patience."""
    source = Path(plugin.__file__).read_text()
    for name in ("query_job_status", "query_job_status_squeue", "get_min_job_age"):
        monkeypatch.setattr(plugin, name, getattr(plugin, name))
        assert f" {name}(" in source
    ask.states.install(plugin)
    assert plugin.get_min_job_age() > 10**9
    assert "--name" not in plugin.query_job_status_squeue("a name")
