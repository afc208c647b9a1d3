"""Cost of the workflow against the number of runs: seconds, memory, jobs and files.

    python -m benchmarks.scale [--runs 10 100] [--shards 16]

For each number it creates a project in a temporary folder. One tiny run is really trained and
evaluated on synthetic digits; the others repeat it with other seeds. Their results are simulated:
copies of the first run's results, each slightly changed, recorded by DVC itself. The output is
JSON. Seconds are CPU time, which depends less on other programs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vlae.storage import paths
from vlae.storage.write import write_json, write_npz

ROOT = Path(__file__).resolve().parent.parent
TREE = "Snakefile dvc.yaml environment.yml .dvcignore .gitignore .dvc/config src workflow slurm"
RESULTS = ("checkpoints", "evaluations", "samples")
FIRST = "static_mnist-vlae"
TINY = {
    "model": {
        "latent_dim": 2,
        "trunk_maps": [2, 2, 2],
        "trunk_hidden": 8,
        "prior": {"steps": 1, "hidden": 4},
        "posterior": {"steps": 1, "hidden": 4},
        "decoder": {"filters": 2, "maps": 1, "masked_blocks": 1, "pointwise_blocks": 1},
    },
    "training": {"epochs": 1, "batch_size": 32, "init_images": 32},
    "evaluation": {"importance_samples": 4, "deep_images": 8, "deep_samples": 8},
}


@dataclass(frozen=True)
class Cost:
    """Cost of one command: CPU seconds, MiB of its largest process, and its output."""

    seconds: float
    mib: float
    said: str

    def as_dict(self) -> dict:
        return {"seconds": round(self.seconds, 1), "mib": round(self.mib)}


class Project:
    """A copy of the workflow in its own git repository."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "VLAE_"))}
        self.env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "OMP_NUM_THREADS": "1",
        }
        for role in ("AUTHOR", "COMMITTER"):
            self.env |= {f"GIT_{role}_NAME": "a test", f"GIT_{role}_EMAIL": "test@example.org"}

    def cost(self, *command: str) -> Cost:
        """Run a command in the folder and measure it. Raises RuntimeError if it fails."""
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=said, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)  # includes children it has waited for
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}\n{text}")
        return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)

    def python(self, code: str, *arguments: str) -> Cost:
        return self.cost(sys.executable, "-c", code, *arguments)

    def commit(self) -> None:
        self.cost("git", "add", "--all")
        self.cost("git", "commit", "--quiet", "--message", "as it stands")


def run_names(count: int) -> list[str]:
    return [FIRST, *(f"{FIRST}_seed{seed}" for seed in range(1, count))]


def new_project(folder: Path, count: int) -> Project:
    """Create a copy of this repository with `count` runs in params.yaml and synthetic data."""
    for name in TREE.split():
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target, follow_symlinks=False)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for part, changes in TINY.items():
        for key, value in changes.items():
            nested = isinstance(value, dict)
            tree["defaults"]["binary"][part][key] = (
                tree["defaults"]["binary"][part][key] | value if nested else value
            )
    splits = {"train": 96, "valid": 32, "test": 64}
    tree["datasets"] = {"static_mnist": tree["datasets"]["static_mnist"] | {"splits": splits}}
    tree.update(classifiers={}, codelengths={}, labels={}, lossy={}, probes={}, refined={})
    first = {"dataset": "static_mnist", "model": {}, "training": {}, "evaluation": {}}
    again = {"dataset": "static_mnist", "repeats": FIRST}
    others = {name: again | {"seed": i} for i, name in enumerate(run_names(count)) if i}
    tree["runs"] = {FIRST: first} | others
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    random = np.random.default_rng(0)
    arrays = {s: random.integers(0, 2, (n, 28, 28), np.uint8) for s, n in splits.items()}
    write_npz(folder / paths.dataset("static_mnist"), **arrays)
    project = Project(folder)
    project.cost("git", "init", "--quiet")
    project.commit()
    return project


def simulate_results(project: Project, count: int) -> None:
    """Create the results of every run: computed for the first, changed copies for the others."""
    for step in ("train", "evaluate", "sample"):
        project.cost(sys.executable, "-m", "vlae", step, FIRST)
    folder = project.folder
    made = folder / paths.checkpoint(FIRST)
    weights, training = load_file(made / "model.safetensors"), made / "train.json"
    with safe_open(made / "model.safetensors", "np") as file:
        about = file.metadata()
    evaluation = folder / paths.evaluation(FIRST)
    record = json.loads(evaluation.with_name(f"{FIRST}.json").read_text())
    images = dict(np.load(evaluation.with_name(f"{FIRST}.npz"), allow_pickle=False))
    samples = dict(np.load(folder / paths.samples(FIRST), allow_pickle=False))
    for i, run in enumerate(run_names(count)[1:], 1):
        there = folder / paths.checkpoint(run)
        there.mkdir(parents=True)
        save_file(
            {k: v + np.float32(i) for k, v in weights.items()}, there / "model.safetensors", about
        )
        write_json(there / "train.json", json.loads(training.read_text()) | {"run": run})
        text = (made / "curve.csv").read_text()
        (there / "curve.csv").write_text(text + "\n" * i)
        write_json(evaluation.with_name(f"{run}.json"), record | {"run": run})
        write_npz(evaluation.with_name(f"{run}.npz"), **(images | {"kl": images["kl"] + i / 7}))
        write_npz(folder / paths.samples(run), **(samples | {"sample_seed": np.array(i)}))


PARAMS = "from vlae.config.load import load_params; load_params('params.yaml')"
# Does what `dvc repro` does after a stage's command, for all stages, with one dump of dvc.lock.
RECORD = """
from dvc.repo import Repo
with Repo() as repo, repo.lock:
    stages = [stage for stage in repo.index.stages if stage.addressing != "recipes"]
    for stage in stages:
        stage.save()
        stage.commit()
        repo.stage_cache.save(stage)
    stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
"""


def forget(project: Project, stage: str) -> None:
    """Remove a stage from dvc.lock."""
    path = project.folder / "dvc.lock"
    pattern = rf"^  {re.escape(stage)}:\n(    .*\n)+"
    path.write_text(re.sub(pattern, "", path.read_text(), flags=re.MULTILINE))


def files(folder: Path, *parts: str) -> int:
    return sum(path.is_file() for part in parts for path in (folder / part).rglob("*"))


def measure(folder: Path, count: int, shards: int) -> dict:
    """Measure a project with `count` runs, from the first plan to a clone of its results."""
    project = new_project(folder / "project", count)
    python, stage = sys.executable, f"sample@{run_names(count)[-1]}"
    found = {"params.yaml read": project.python(PARAMS)}
    found["recipes"] = project.cost("dvc", "repro", "-q", "--single-item", "recipes")
    project.commit()
    plan = ("snakemake", "-n", "--quiet", "rules", "--config")
    found["planned"] = project.cost(*plan, "shards=1")
    found["planned, with shards"] = project.cost(*plan, f"shards={shards}")
    jobs = re.findall(r"^(\w+) +(\d+)$", found["planned, with shards"].said, re.MULTILINE)
    simulate_results(project, count)
    project.python(RECORD)
    repro = ("--wait-for-lock", "repro", "-q", "--single-item", stage)
    forget(project, stage)
    found["a recording by dvc"] = project.cost("dvc", *repro)
    forget(project, stage)
    found["a recording"] = project.cost(python, "workflow/scripts/dvc_patched.py", *repro)
    found["everything drawn"] = project.cost("snakemake", "--cores", "1", "--quiet", "all")
    found["nothing to be done"] = project.cost("snakemake", "--cores", "1", "--quiet", "all")
    found["dvc status"] = project.cost("dvc", "status", "-q")
    project.cost("dvc", "push", "-q", "--run-cache")
    project.commit()
    clone = Project(folder / "clone")
    project.cost("git", "clone", "--quiet", ".", str(clone.folder))
    command = (python, "workflow/scripts/record.py", "run", "--leave")
    found["results put in place in a clone"] = clone.cost(*command)
    here = project.folder
    counts = {
        "jobs": dict(jobs),
        "files of results": files(here, *(f"results/{part}" for part in RESULTS)),
        "files of recipes": files(here, "results/recipes"),
        "objects in DVC's cache": files(here, ".dvc/cache/files"),
        "files of its run-cache": files(here, ".dvc/cache/runs"),
        "files of Snakemake's": files(here, ".snakemake"),
        "KiB of dvc.lock": round((here / "dvc.lock").stat().st_size / 1024),
    }
    return {name: cost.as_dict() for name, cost in found.items()} | counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--shards", type=int, default=16)
    options = parser.parse_args()
    found = {}
    for count in options.runs:
        print(f"scale: {count} runs", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[count] = measure(Path(folder), count, options.shards)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
