"""Ctrl-C at any moment: one line, nothing lost, and the next call goes on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from miniature import small_params
from one_run import RUN, prepared_project
from pipeline import Workflow


def interrupted(workflow: Workflow, after: float, *command: str) -> str:
    """What a command says that is interrupted as a terminal does it: all of its processes. Empty
    if it was too quick for that."""
    process = subprocess.Popen(
        command,
        cwd=workflow.folder,
        env=workflow.env,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(after)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (0, 130), said
    return said if process.returncode else ""


@pytest.mark.parametrize("after", [0.15, 0.4, 1.0, 2.5, 5.0])
def test_a_step_by_hand(tmp_path, after):
    """While Python starts, while modules are imported, and at work."""
    small_params(tmp_path)
    workflow = Workflow(tmp_path, tmp_path)
    workflow.env["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    assert interrupted(workflow, after, "vlae", "recipe") == "vlae: interrupted\n"  # it is slow
    recipes = tmp_path / "results" / "recipes"
    assert [path for path in recipes.glob(".*")] == []  # none that is half written


def test_while_the_module_of_unfinished_files_is_imported_itself():
    code = (
        "import sys, types\n"
        "from vlae import __main__ as started\n"
        "sys.modules['vlae.storage.write'] = types.ModuleType('half imported')\n"
        "code = types.SimpleNamespace(co_filename='<frozen importlib._bootstrap>')\n"
        "started._interrupt(2, types.SimpleNamespace(f_code=code, f_back=None))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "vlae: interrupted\n")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Workflow:
    """A project whose results are drawn and committed."""
    workflow = prepared_project(tmp_path_factory.mktemp("drawn"), 1)
    workflow.snakemake("--quiet", "all")
    workflow.commit("the results")
    return workflow


def spoil(workflow: Workflow) -> None:
    """Let everything be drawn again."""
    for path in workflow.folder.glob("results/tables/*.csv"):
        path.write_text("spoilt\n")
    for path in workflow.folder.glob("results/figures/*.png"):
        path.write_bytes(b"spoilt")


def missing(workflow: Workflow) -> list[str]:
    """Files that git misses, or does not know."""
    lines = workflow.do("git", "status", "--short").splitlines()
    return [line for line in lines if not line.startswith(" M ")]


@pytest.mark.slow
def test_snakemake_before_and_while_it_draws(drawn):
    """From Python's start to the last figure; where a call has ended, the sweep has."""
    files = {path: path.read_bytes() for path in drawn.folder.glob("results/tables/*")}
    spoil(drawn)
    start = time.monotonic()
    drawn.do("snakemake", "--cores", "2", "--quiet", "all")
    whole = time.monotonic() - start
    for part in (0.005, 0.03, 0.1, 0.25, 0.5, 0.7, 0.8):
        spoil(drawn)
        said = interrupted(
            drawn, part * whole, "snakemake", "--cores", "2", "--quiet", "all"
        ).splitlines()
        assert missing(drawn) == []
        if not said:
            break
        assert said[-1].startswith("vlae: interrupted") and "Traceback" not in "".join(said)
        planned = ("vlae: not drawn ", "vlae: draw ")  # said before the work begins
        assert [line for line in said if not line.startswith(planned)] == said[-1:]
    drawn.do("snakemake", "--cores", "2", "--quiet", "all")
    assert {path: path.read_bytes() for path in files} == files
    assert drawn.do("git", "status", "--short") == ""


@pytest.mark.slow
def test_recipes_stay_while_they_are_made_again(drawn):
    drawn.replace("src/vlae/units.py", '"""', '"""Edited. ')
    seen = 0
    for after in (6, 10, 14, 20):
        process = subprocess.Popen(
            ["snakemake", "-c1"],
            cwd=drawn.folder,
            env=drawn.env,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + after
        while time.monotonic() < end:
            seen += " D " in drawn.do("git", "status", "--short")
            time.sleep(0.2)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(120)
    assert seen == 0 and missing(drawn) == []
    assert f"{RUN}.train.json" in os.listdir(drawn.folder / "results" / "recipes")
