"""What happens whenever a Python of .venv starts: caches that can be written, a quiet Ctrl-C."""

import json
import os
import signal
import subprocess
import venv
from pathlib import Path

import pytest

from scripts import script

startup = script("startup")
SHOWN = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """An environment without packages, with what setup_environment.py installs."""
    folder = tmp_path_factory.mktemp("environment") / ".venv"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    startup.install(packages)
    return folder


def caches(environment: Path, **variables: str | None) -> dict[str, str]:
    """Where a Python of the environment keeps caches, as far as it was told another place."""
    unset = {name for name, value in variables.items() if value is None}
    env = {k: v for k, v in os.environ.items() if k not in {*SHOWN, *unset}}
    env |= {name: value for name, value in variables.items() if value is not None}
    code = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {SHOWN}}}))"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", code], env=env, text=True, capture_output=True
    )
    assert done.stderr == "" and done.returncode == 0
    return {name: told for name, told in json.loads(done.stdout).items() if told}


def test_a_usual_home_is_left_alone(environment, tmp_path):
    assert caches(environment, HOME=str(tmp_path)) == {}
    other = str(tmp_path / "elsewhere")
    assert caches(environment, HOME="/dev/null", XDG_CACHE_HOME=other) == {"XDG_CACHE_HOME": other}


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/nobody", "/sys"])
def test_a_home_that_cannot_be_written(environment, home):
    found = caches(environment, HOME=home)
    cache = Path(found["XDG_CACHE_HOME"])
    assert cache == environment / ".cache"
    (cache / "file").write_text("can be written")
    assert Path(found["MPLCONFIGDIR"]).parent == cache
    assert ("XDG_CONFIG_HOME" in found) == (not Path(home).is_dir())  # settings that can be read


def test_a_cache_that_cannot_be_written(environment, tmp_path):
    found = caches(environment, HOME=str(tmp_path), XDG_CACHE_HOME="/proc/nobody")
    assert found["XDG_CACHE_HOME"] == str(environment / ".cache")


def test_a_temporary_folder_of_ones_own(tmp_path, monkeypatch):
    """Compiled code is loaded from there: nobody else may have laid it out."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = Path(startup.own_temporary_folder())
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert startup.own_temporary_folder() is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert startup.own_temporary_folder() is None


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (["snakemake"], "vlae: interrupted\n", 130),
        (["bin/vlae", "train"], "vlae: interrupted\n", 130),
        (["-m", "vlae"], "vlae: interrupted\n", 130),
        (["/x/workflow/scripts/record.py", "run"], "", -signal.SIGINT),
    ],
)
def test_ctrl_c_before_a_program_takes_it(environment, arguments, said, status):
    code = (
        "import os, signal, _vlae_startup\n"
        f"_vlae_startup.quiet_interrupt(['python', *{arguments}])\n"
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    command = [environment / "bin" / "python", "-c", code]
    done = subprocess.run(command, text=True, capture_output=True)
    assert (done.stderr, done.returncode) == (said, status)


def test_other_programs_keep_their_ctrl_c(environment):
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    command = [environment / "bin" / "python", "-c", code]
    done = subprocess.run(
        command,
        text=True,
        capture_output=True,
        # A shell may have started the tests in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stdout == "True\n"
