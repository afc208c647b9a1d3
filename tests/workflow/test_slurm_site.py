"""What a site has is asked once, before anything is submitted (workflow/scripts/slurm_site.py)."""

import pytest

from miniature import PROJECT

DENIED = 'echo "slurm_load_jobs error: Access/permission denied" >&2; exit 1'
DISABLED = 'echo "Slurm accounting storage is disabled" >&2; exit 1'
RESTARTED = """
if [ -e answered ]; then exit 0; fi
touch answered; echo "Unable to contact slurm controller (connect failure)" >&2; exit 1
"""
COMMANDS = {
    **dict.fromkeys(["sbatch", "scancel", "sinfo", "squeue"], "exit 0"),
    "scontrol": 'echo "MinJobAge               = 60 sec"',
    "sacct": DISABLED,
}


@pytest.fixture
def site(monkeypatch, tmp_path):
    """site(NAME=script, ...): what `ask` finds where SLURM's commands are these; None: missing."""
    monkeypatch.syspath_prepend(str(PROJECT / "workflow" / "scripts"))
    import slurm_site

    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "touch").symlink_to("/usr/bin/touch")
    (programs / "sleep").symlink_to("/bin/sleep")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.chdir(tmp_path)

    def ask(wanted="squeue", **changes):
        for name, code in {**COMMANDS, **changes}.items():
            if code is not None:
                (programs / name).write_text(f"#!/bin/sh\n{code}\n")
                (programs / name).chmod(0o755)
        try:
            found = slurm_site.ask(wanted)
        except slurm_site.NoSlurm as reason:
            return str(reason)
        return found.status_command, found.min_job_age

    ask.module = slurm_site
    return ask


def test_a_site_where_all_is_well(site):
    assert site() == ("squeue", 60)
    assert site(sacct="exit 0") == ("squeue", 60)  # however soon SLURM forgets
    assert site("sacct", sacct="exit 0") == ("sacct", 60)


def test_defaults_if_the_site_does_not_tell(site):
    assert site(scontrol=DENIED) == ("squeue", 300)


def test_no_slurm_at_all(site):
    line = site(**dict.fromkeys(COMMANDS))
    assert line.startswith(
        "no SLURM here: sbatch, scancel, scontrol, sinfo, squeue cannot be found"
    )


@pytest.mark.parametrize("name", ["sbatch", "sinfo"])
def test_no_such_command(site, name):
    assert site(**{name: None}).startswith(f"no SLURM here: {name} cannot be found;")


@pytest.mark.parametrize("squeue", [DENIED, None, "exit 3"])
def test_squeue_fails(site, squeue, capsys):
    line = site(squeue=squeue)
    reason = {DENIED: "denied", None: "No such file", "exit 3": "status 3"}[squeue]
    assert line.startswith("squeue fails (")
    assert reason in line
    assert "so does sacct (Slurm accounting storage is disabled)" in line
    assert site(squeue=squeue, sacct="exit 0") == ("sacct", 60)
    assert "sacct is asked for the states of jobs instead" in capsys.readouterr().err


def test_sacct_fails_where_the_profile_wants_it(site, capsys):
    assert site("sacct") == ("squeue", 60)
    assert capsys.readouterr().err == (
        "vlae: sacct fails (Slurm accounting storage is disabled); squeue is asked for the states "
        "of jobs instead\n"
    )


def test_what_passes_is_waited_for(site, monkeypatch, capsys):
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "0.01")
    assert site(squeue=RESTARTED) == ("squeue", 60)
    assert "squeue fails (Unable to contact slurm controller" in capsys.readouterr().err


def test_squeue_is_not_waited_for_for_ever(site, monkeypatch):
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "0.005")
    line = site(squeue=RESTARTED.replace("touch answered; ", ""))
    assert line.startswith("squeue fails (Unable to contact")


def test_a_command_that_hangs(site, monkeypatch):
    monkeypatch.setattr(site.module, "SECONDS", 0.2)
    monkeypatch.setenv("VLAE_SLURM_MINUTES", "0.005")
    assert site(squeue="exec sleep 60").startswith("squeue fails (no answer within 0.2 s)")
