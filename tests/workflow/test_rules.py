"""What the Snakefile and its surroundings promise, without running any of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import script

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "workflow" / "rules"


def test_the_readme_shows_the_rules_as_they_are():
    readme = script("readme")
    (drawn,) = readme.block("rules").findall((ROOT / "README.md").read_text())
    assert drawn == readme.rules(), "make readme"


@pytest.mark.parametrize(
    "module",
    ["vlae.report.tables.registry", "vlae.report.figures.registry", "vlae.report.site.page"],
)
def test_a_drawing_is_remade_when_its_code_changes(module):
    """What importing it really loads is among the files found by reading import statements."""
    code = f"import sys, {module}; print(*(m for m in sys.modules if m.startswith('vlae')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {ROOT / "src" / name.replace(".", "/") for name in done.stdout.split()}
    found = script("imports").source_files(module, ROOT / "src")
    named = {path.parent if path.name == "__init__.py" else path.with_suffix("") for path in found}
    assert loaded <= named
    assert f'code_behind("{module}")' in (RULES / "common.smk").read_text()


def test_planning_loads_neither_torch_nor_what_draws():
    """Every call of snakemake plans, and PyTorch alone takes seconds and 600 MB."""
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy.io'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, record; print(sorted({heavy} & set(sys.modules)))"],
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'workflow' / 'scripts'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_module_that_is_missing_is_not_passed_over():
    with pytest.raises(FileNotFoundError, match=r"no module vlae\.report\.nothing"):
        script("imports").source_files("vlae.report.nothing", ROOT / "src")


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
