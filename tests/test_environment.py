"""One set of versions: pyproject.toml, requirements.lock and environment.yml agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    *PROJECT["dependencies"],
    *(line for group in PROJECT["optional-dependencies"].values() for line in group),
]
# Where the name that is imported is not the name that is installed.
IMPORTED_AS = {
    "pillow": "PIL",
    "pillow-jxl-plugin": "pillow_jxl",
    "pyyaml": "yaml",
    "ruamel-yaml": "ruamel",
    "scikit-learn": "sklearn",
}
IMPORTED_AS |= {
    name: name.replace("-", "_")
    for name in (
        "dvc-data",
        "snakemake-executor-plugin-slurm",
        "snakemake-interface-common",
        "snakemake-interface-executor-plugins",
        "snakemake-interface-logger-plugins",
    )
}


def name_of(requirement: str) -> str:
    """`Moto[server] >=5` -> moto"""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def locked() -> dict[str, str]:
    """name -> version"""
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[\w,-]+\])?==([^ ;\\]+)", text, re.MULTILINE))


def tracked_files() -> list[Path]:
    """Files that are in git, or will be with the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git repository")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("requirement", DIRECT)
def test_the_lock_has_what_the_project_needs(requirement):
    assert locked()[name_of(requirement)] in Requirement(requirement).specifier


def test_everything_in_the_lock_has_hashes():
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    pins = [entry for entry in entries if "==" in entry]
    assert pins
    assert [entry for entry in pins if "--hash=sha256:" not in entry] == []


def test_conda_gets_the_same_versions():
    (pip,) = [
        part["pip"]
        for part in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if isinstance(part, dict)
    ]
    pins = locked()
    extras = {name_of(line): re.match(r"[\w.\[\]-]+", line)[0] for line in DIRECT}
    assert pip == sorted(f"{written}=={pins[name]}" for name, written in extras.items())


@pytest.mark.parametrize("folder", ["src", "tests", "workflow", "benchmarks", "tools"])
def test_what_is_imported_is_a_direct_dependency(folder):
    allowed = {IMPORTED_AS.get(name_of(line), name_of(line)) for line in DIRECT}
    parts = ("tests", "tools", "workflow/scripts")
    own = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    local = {"vlae", "benchmarks", "cluster", *(path.stem for path in own)}
    known = allowed | local | set(sys.stdlib_module_names)
    used = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                used.setdefault(name.partition(".")[0], path)
    assert {name: path for name, path in used.items() if name not in known} == {}


def test_no_registry_is_named_anywhere():
    """Which registry packages come from is the business of whoever installs them."""
    hosts = [
        "py" + "pi.org",
        "pytho" + "nhosted",
        "anacon" + "da.org",
        "anacon" + "da.com",
        "download." + "pytorch",
    ]
    contents = {path: path.read_bytes() for path in tracked_files()}
    assert [(p, h) for p, text in contents.items() for h in hosts if h.encode() in text] == []


def test_package_citation_and_changelog_have_one_version():
    import vlae

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest[1] == citation["version"] == vlae.__version__
    assert newest[2] == str(citation["date-released"])


def test_linters_before_a_commit_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert lint is not None
    for hook in hooks:
        program, *words = hook["entry"].split()
        assert " ".join([program, *words[:1]] if "ruff" in program else [program]) in lint[1]


def test_the_public_tests_are_those_of_the_project():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert [run for run in runs if run] == [".ci/run"]
