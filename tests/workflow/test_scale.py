"""A thousand runs: the right jobs are planned, and nothing is done anew for every run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import scale
from miniature import PROJECT
from vlae.evaluation.blocks import Block, shares

SCRIPTS = PROJECT / "workflow" / "scripts"
DVC_YAML = """
stages:
  recipes: {cmd: touch recipe, outs: [{recipe: {cache: false}}]}
  train:
    foreach: ${runs}
    do: {cmd: "echo ${key} > model-${key}", deps: [recipe], outs: ["model-${key}"]}
"""
# How often DVC reads dvc.lock while record.py puts everything in its place.
COUNT = """
import sys
sys.path.insert(0, sys.argv[1])
import record
from types import SimpleNamespace
from ahead import Ahead
from dvc.utils import strictyaml
calls, parse = [], strictyaml.parse_yaml
def counted(text, path, typ="safe"):
    calls.append(path)
    return parse(text, path, typ)
strictyaml.parse_yaml = counted
options = SimpleNamespace(
    leave=[], again=[], all_again=False, targets=[], by_name=False, cluster=False
)
found = record.run(Ahead(options, None))
print(len(found["to_run"]), sum(path.endswith("dvc.lock") for path in calls))
"""


def test_a_hundred_runs_of_sixteen_shards_are_planned(tmp_path):
    project = scale.new_project(tmp_path, 100)
    said = project.cost("snakemake", "-n", "--quiet", "rules", "--config", "shards=16").said
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    steps = ("train", "evaluate_shard", "evaluate", "sample")
    assert [int(jobs[step]) for step in steps] == [100, 1600, 100, 100]


def call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded_project(folder: Path, runs: int) -> Path:
    """DVC alone, so many tiny stages run and recorded, their outputs removed."""
    folder.mkdir()
    call(folder, sys.executable, "-m", "dvc", "init", "-q", "--no-scm")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text(
        yaml.safe_dump({"runs": {f"r{i}": 0 for i in range(runs)}})
    )
    call(folder, sys.executable, "-m", "dvc", "repro", "-q")
    for model in folder.glob("model-*"):
        model.unlink()
    return folder


@pytest.mark.parametrize("lost", ["outputs", "outputs and records"])
def test_putting_results_in_place_reads_dvc_lock_as_often_for_few_runs_as_for_many(tmp_path, lost):
    counts = set()
    for runs in (3, 12):
        project = recorded_project(tmp_path / str(runs), runs)
        lock = project / "dvc.lock"
        whole = yaml.safe_load(lock.read_text())
        if lost == "outputs and records":  # the run-cache knows them
            few = {"recipes": whole["stages"]["recipes"]}
            lock.write_text(yaml.safe_dump(whole | {"stages": few}, sort_keys=False))
        left, reads = call(project, sys.executable, "-c", COUNT, str(SCRIPTS)).split()
        assert left == "0"
        assert {p.read_text() for p in project.glob("model-*")} == {f"r{i}\n" for i in range(runs)}
        assert yaml.safe_load(lock.read_text()) == whole
        counts.add(reads)
    assert len(counts) == 1


def test_shares_of_an_evaluation_are_even_and_hold_every_block_once():
    work = [Block(f"images-{i}", [0] * 250, 64, {}) for i in range(40)]
    work += [Block(f"deep-{i}", [0] * 8, 4096, {}) for i in range(25)]
    for count in (1, 2, 4, 8, 16, 100):
        found = shares(work, count)
        assert sorted(b.name for s in found for b in s) == sorted(b.name for b in work)
        sizes = [sum(len(b.images) * b.samples for b in share) for share in found]
        assert max(sizes) - min(sizes) <= 8 * 4096  # the largest block
