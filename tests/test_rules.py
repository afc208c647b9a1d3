"""What the Snakefile and its surroundings promise, without running any of it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "workflow" / "rules"


def script(name: str, folder: str = "workflow/scripts"):
    """A module of a folder that is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_the_rules_as_they_are():
    rulegraph = script("rulegraph")
    (drawn,) = rulegraph.BLOCK.findall((ROOT / "README.md").read_text())
    assert drawn == rulegraph.rulegraph(), "make rulegraph"


@pytest.mark.parametrize("what", ["tables", "figures"])
def test_a_drawing_is_remade_when_its_code_changes(what):
    code = f"import sys, vlae.{what}; print(*(m for m in sys.modules if m.startswith('vlae.')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.removeprefix("vlae.") for name in done.stdout.split()}
    pattern = rf'CODE_OF_{what.upper()} = source\(\s*"([\w ]+)"\s*\)'
    listed = re.search(pattern, (RULES / "common.smk").read_text())[1].split()
    assert imported <= set(listed)
    assert all((ROOT / "src" / "vlae" / f"{name}.py").exists() for name in listed)


def test_retries_stand_in_the_profile_and_in_no_rule():
    profile = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
    assert profile["retries"] > 0
    assert profile["slurm-status-command"] == "squeue"
    for rules in RULES.glob("*.smk"):
        assert "retries" not in rules.read_text()


def test_every_rule_that_the_profile_sizes_exists():
    profile = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
    names = {
        n
        for rules in RULES.glob("*.smk")
        for n in re.findall(r"^rule (\w+):", rules.read_text(), re.M)
    }
    assert profile["set-resources"].keys() <= names


def test_make_lists_its_commands():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in ("reproduce", "test", "lint", "format", "clean"):
        assert re.search(rf"^{command} ", done.stdout, re.M)


def test_an_old_python_is_told_so_in_one_line(monkeypatch):
    setup = script("setup_environment")
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"^make: Python 3\.11 or newer is needed, .* is 3\.9; "):
        setup.main()


def test_the_installer_is_pinned_by_the_lock():
    first, *hashes = script("setup_environment").uv_requirement().splitlines()
    assert re.fullmatch(r"uv==[\d.]+ \\", first)
    assert hashes
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)


def test_without_any_pip_the_missing_package_is_named(monkeypatch, tmp_path):
    setup = script("setup_environment")
    monkeypatch.setattr(setup, "succeeds", lambda *command: False)
    monkeypatch.setattr(setup.glob, "glob", lambda pattern: [])
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"apt-get install python3-venv$"):
        setup.find_pip(str(tmp_path))
