"""make bench: speed of the code as ratios to a baseline in the same run.

Writes results/benchmarks.json, .md and .png. The two sides of a ratio are timed alternately, so
that other load on the machine affects both. Quote the ratios, not the times.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from benchmarks.baseline import baseline_of
from benchmarks.likelihood import full_passes, one_image_at_a_time, peak_mib, raster, streamed
from benchmarks.measure import in_turn, load, ratio
from benchmarks.report import write_markdown, write_plot
from benchmarks.training_speed import (
    made_up_images,
    matmul_rate,
    multiply_adds,
    ours_and_baseline,
)
from benchmarks.workflow_costs import ROOT, costs
from vlae.config.load import load_params
from vlae.config.schema import Run
from vlae.hardware import choose_precision, describe
from vlae.images import FIXED
from vlae.models.initialise import new_model
from vlae.models.vlae import VLAE
from vlae.native.library import backend, unavailable_reason
from vlae.nn.pixelcnn_sampling import draw_pixels
from vlae.revision import revision

CPU = torch.device("cpu")
MAIN = "static_mnist-vlae"
RESULTS = ROOT / "results"


def training(runs: dict[str, Run], repeats: int) -> dict:
    """Measure images per second of a training step, for each kind of run."""
    found = {}
    for name, run in runs.items():
        batch = run.training.batch_size
        ours, baseline, work = ours_and_baseline(run, batch)
        baseline_times, our_times = in_turn(baseline, ours, runs=repeats)
        result = ratio(baseline_times, our_times)
        macs = 3 * multiply_adds(ours.state.model)  # the backward pass costs two forward passes
        limit = matmul_rate() * torch.get_num_threads() / macs if "bfloat16" in work else None
        result |= {
            "batch": batch,
            "ours_is": work,
            "images_per_second": round(batch / our_times.median, 1),
            "baseline_images_per_second": round(batch / baseline_times.median, 1),
            "megamacs_per_image": round(macs / 1e6, 1),
            "limit_images_per_second": round(limit) if limit else None,
            "fraction_of_limit": round(batch / our_times.median / limit, 3) if limit else None,
        }
        found[name] = result
    return found


def likelihood(run: Run, repeats: int) -> dict:
    """Measure images x samples per second of the importance-sampled likelihood."""
    model = new_model(run, made_up_images(64), FIXED, CPU)
    baseline = baseline_of(model)
    precision = choose_precision("auto", CPU)
    x = made_up_images(16).unsqueeze(1).float()
    samples = 64
    theirs, ours = in_turn(
        lambda: one_image_at_a_time(baseline, x[:4], samples),
        lambda: streamed(model, x, samples, precision),
        runs=repeats,
    )
    found = {"equal_k": ratio(theirs, ours, slow_work=4, fast_work=16)}
    found["equal_k"] |= {
        "k": samples,
        "images_x_samples_per_second": round(16 * samples / ours.median),
    }
    # Two ways to the same estimate: many samples for all 10,000 images, or few samples for all
    # and many for a subset. Work is counted in images x samples.
    config = run.evaluation
    images, few, many = 10_000, config.deep_images, config.deep_samples
    work = images * config.importance_samples + few * many
    found["two_level"] = {
        "saved_work": round(images * many / work, 1),
        "ratio": round(images * many / work * found["equal_k"]["ratio"], 1),
        "images": few,
        "samples": [config.importance_samples, many],
    }
    streamed(model, x[:1], 64, precision)
    before = peak_mib()
    streamed(model, x[:1], 4096, precision)
    found["memory"] = {"k_64_mib": round(before), "k_4096_mib": round(peak_mib())}
    return found


@torch.no_grad()
def drawn(model: VLAE, maps: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    return draw_pixels(model.pixelcnn, maps, uniform)


def sampling(run: Run, repeats: int) -> dict:
    """Measure drawing 64 images given their codes, and codes from the prior."""
    model = new_model(run, made_up_images(64), FIXED, CPU)
    baseline = baseline_of(model)
    uniform = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    maps = torch.randn(64, run.model.decoder.maps, 28, 28)
    theirs, ours = in_turn(
        lambda: raster(baseline, maps, uniform, 1),
        lambda: drawn(model, maps, uniform),
        runs=repeats,
    )
    found = {"pixels": ratio(theirs, ours, slow_work=1 / 28) | {"images": 64}}
    noise = torch.randn(64, run.model.latent_dim)
    steps, variables = run.model.prior.steps, 8
    theirs, ours = in_turn(
        lambda: full_passes(baseline, noise, variables),
        lambda: model.sample_prior(noise),
        runs=repeats,
    )
    part = variables / (steps * run.model.latent_dim)
    found["prior"] = ratio(theirs, ours, slow_work=part) | {"codes": 64}
    return found


def growth(run: Run, repeats: int) -> dict:
    """Measure seconds against K, images, batch (also the baseline) and latent size."""
    model = new_model(run, made_up_images(64), FIXED, CPU)
    precision = choose_precision("auto", CPU)
    x = made_up_images(64).unsqueeze(1).float()

    def evaluation(images: int, samples: int) -> float:
        (times,) = in_turn(lambda: streamed(model, x[:images], samples, precision), runs=repeats)
        return round(times.median, 4)

    found = {
        "K, 4 images": {k: evaluation(4, k) for k in (16, 64, 256, 1024)},
        "images, K = 64": {n: evaluation(n, 64) for n in (4, 16, 64)},
        "batch, a training step": {},
        "batch, the usual way": {},
        "latent size, a training step": {},
    }
    for batch in (16, 32, 64, 128):
        ours, baseline, _ = ours_and_baseline(run, batch)
        baseline_times, our_times = in_turn(baseline, ours, runs=repeats)
        found["batch, a training step"][batch] = round(our_times.median, 4)
        found["batch, the usual way"][batch] = round(baseline_times.median, 4)
    for size in (16, 32, 64, 128):
        other = Run(
            **{**vars(run), "model": type(run.model)(**{**vars(run.model), "latent_dim": size})}
        )
        ours, _, _ = ours_and_baseline(other, 64)
        (times,) = in_turn(ours, runs=repeats)
        found["latent size, a training step"][size] = round(times.median, 4)
    return found


def machine() -> dict:
    """Describe the machine and the software of the measurements."""
    precision = choose_precision("auto", CPU)
    return {
        "machine": describe(CPU),
        "threads": torch.get_num_threads(),
        "load_average": load(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "git_revision": revision(),
        "core": backend("cpu", precision),
        "no_core_because": unavailable_reason() or None,
        "bf16_matmul_gflops_a_thread": round(2 * matmul_rate() / 1e9),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs per ratio")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    params = load_params(ROOT / "params.yaml")
    names = (MAIN, "static_mnist-vlae_iaf_relu", "static_mnist-vae_af", "dynamic_mnist-pixelcnn")
    found = {"about": machine()}
    sections = {
        "training": lambda: training({n: params.run(n) for n in names}, options.repeats),
        "likelihood": lambda: likelihood(params.run(MAIN), options.repeats),
        "sampling": lambda: sampling(params.run(MAIN), options.repeats),
        "growth": lambda: growth(params.run(MAIN), 3),
        "pipeline": costs,
    }
    for name, section in sections.items():
        print(f"bench: {name}", file=sys.stderr, flush=True)
        found[name] = section()
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (options.out / "benchmarks.json").write_text(text, encoding="utf-8")
    found = json.loads(text)
    write_markdown(found, options.out / "benchmarks.md")
    write_plot(found, options.out / "benchmarks.png")
    print(f"bench: {options.out / 'benchmarks.md'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
