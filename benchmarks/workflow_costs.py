"""Cost of the workflow itself: starting, planning, doing nothing, a large DAG."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGE = """
rule all:
    input: expand("t/{run}/{shard}", run=range(RUNS), shard=range(SHARDS))
rule train:
    output: "c/{run}"
    resources: gpu=1
    shell: "true"
rule evaluate:
    input: "c/{run}"
    output: "t/{run}/{shard}"
    shell: "true"
"""


def seconds(*command: str, folder: Path = ROOT, runs: int = 3) -> dict:
    """Return median, minimum and maximum of a command's wall-clock seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - start)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            return {"failed": said[-1] if said else f"exit status {done.returncode}"}
    times.sort()
    return {
        "median_s": round(times[len(times) // 2], 2),
        "min_s": round(times[0], 2),
        "max_s": round(times[-1], 2),
    }


def costs() -> dict[str, dict]:
    """Return seconds by name. The workflow's own calls run in this repository as it is."""
    python, snakemake = sys.executable, str(Path(sys.executable).with_name("snakemake"))
    found = {
        "vlae --help": seconds(python, "-m", "vlae", "--help"),
        "vlae table --help": seconds(python, "-m", "vlae", "table", "--help"),
        "import torch (for comparison)": seconds(python, "-c", "import torch"),
    }
    drawn = (snakemake, "--cores", "1", "--quiet", "all", "--config", "train=false")
    seconds(*drawn, runs=1)  # draws everything that is out of date
    found["snakemake, nothing to be done"] = seconds(*drawn)
    found["snakemake -n"] = seconds(snakemake, "-n", "--quiet", "all")
    with tempfile.TemporaryDirectory() as folder:
        text = LARGE.replace("RUNS", "59").replace("SHARDS", "16")
        Path(folder, "Snakefile").write_text(text)
        found["a DAG of 1,003 jobs planned (snakemake -n)"] = seconds(
            snakemake, "-n", "--quiet", "all", folder=Path(folder), runs=1
        )
    return found
