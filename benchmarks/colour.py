"""make bench, colour model: images per second and memory of a training step.

Writes results/benchmarks_colour.json and .md. On a CPU, steps with the C++ core alternate with
steps in PyTorch alone. The memory that autograd saves between forward and backward pass does not
depend on the machine.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.measure import in_turn, load, ratio
from benchmarks.workflow_costs import ROOT
from vlae.config.load import load_params
from vlae.config.schema import Run
from vlae.data.batches import as_input
from vlae.hardware import autocast, choose_device, choose_precision, describe, set_arithmetic
from vlae.images import COLOUR
from vlae.models.base import latent_noise
from vlae.models.objective import objective
from vlae.native import network
from vlae.native.library import backend
from vlae.storage.write import write_text
from vlae.training import optimizer
from vlae.training.step import training_step
from vlae.training.train_state import new_train_state

RUNS = (
    *("cifar10-vlae_7x4", "cifar10-vlae_4x2", "cifar10-resnet_vlae"),
    "cifar10-narrow_7x4",
)
BATCHES = (1, 4, 16, 64)
MIB = 2**20


class Step:
    """A repeatable training step of `run` on images of noise."""

    def __init__(self, run: Run, batch: int, device: torch.device, precision: str):
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (batch, 3, 32, 32), generator=random, dtype=torch.uint8)
        self.precision = precision
        self.state = new_train_state(run, images, COLOUR, device)
        self.model = self.state.model
        self.x = as_input(images.to(device), COLOUR, random)
        self.noise = latent_noise(self.model.latent_dim, self.x.cpu(), random).to(device)

    def __call__(self) -> None:
        training_step(self.state, self.x, self.noise, self.precision)
        if self.x.is_cuda:
            torch.cuda.synchronize()

    def kept(self) -> int:
        """Return the bytes that autograd saves for the backward pass, except weights and input."""
        ours = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        ours.add(self.x.untyped_storage().data_ptr())
        storages: dict[int, torch.UntypedStorage] = {}  # kept alive, so that addresses are unique

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in ours:
                storages[storage.data_ptr()] = storage
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            autocast(self.x.device, self.precision),
        ):
            objective(self.model, self.x, self.noise, 0.0, self.state.free_bits.gamma)
        return sum(storage.nbytes() for storage in storages.values())


def by_pytorch_alone(step: Step) -> None:
    with (
        patch.object(network, "library", lambda: None),
        patch.object(optimizer, "backend", lambda device, precision: "PyTorch"),
    ):
        step()


def measure(run: Run, device: torch.device, precision: str, repeats: int) -> dict:
    found = {}
    for batch in BATCHES:
        step = Step(run, batch, device, precision)
        kept = step.kept()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found[batch] = {"kept_mib": round(kept / MIB, 1)}
        if backend(device.type, precision).startswith("C++"):
            by_pytorch, times = in_turn(partial(by_pytorch_alone, step), step, runs=repeats)
            found[batch]["times_pytorch"] = ratio(by_pytorch, times)["ratio"]
        else:
            (times,) = in_turn(step, runs=repeats)
        found[batch]["images_per_second"] = round(batch / times.median, 1)
        if device.type == "cuda":
            found[batch]["peak_mib"] = round(torch.cuda.max_memory_allocated() / MIB, 1)
    weights = sum(p.numel() for p in step.model.parameters())
    return {"weights": weights, "batches": found}


def report(found: dict) -> str:
    about = found["about"]
    lines = [
        "# The colour model: speed and memory of a training step",
        "",
        f"{about['machine']}, {about['threads']} thread(s), {about['precision']}, PyTorch "
        f"{about['torch']}; load average {about['load_average']} at the start. Written by "
        "`make bench`.",
        "",
        "*Saved*: memory that autograd holds between forward and backward pass. Weights, "
        "gradients, Adamax's two moments and the average need another 20 bytes per weight. "
        "*Peak*: the largest allocation on the GPU. *Against PyTorch*: speed relative to "
        "PyTorch's operations alone, measured alternately in the same run.",
        "",
        "| run | weights | batch | saved (MiB) | per image | peak (MiB) | images/s "
        "| against PyTorch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in found["runs"].items():
        for batch, row in run["batches"].items():
            lines.append(
                f"| {name} | {run['weights']:,} | {batch} | {row['kept_mib']:,} | "
                f"{row['kept_mib'] / int(batch):.1f} | {row.get('peak_mib', '–')} | "
                f"{row['images_per_second']:,} | {row.get('times_pytorch', '–')} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="steps per batch size")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="folder to write to")
    options = parser.parse_args()
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    set_arithmetic(device, precision)
    params = load_params(ROOT / "params.yaml")
    about = {
        "machine": describe(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": torch.__version__,
        "load_average": load(),
    }
    found = {"about": about, "runs": {}}
    for name in RUNS:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        found["runs"][name] = measure(params.run(name), device, precision, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "benchmarks_colour.json", json.dumps(found, indent=1) + "\n")
    write_text(options.out / "benchmarks_colour.md", report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
