"""Writes results/benchmarks.md and .png from the measurements."""

from pathlib import Path

from vlae.storage.write import write_text


def _spread(figure: dict) -> str:
    return f"**{figure['ratio']:g}x** ({figure['ratio_min']:g}–{figure['ratio_max']:g})"


def _table(head: list[str], rows: list[list[object]]) -> list[str]:
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"  # noqa: E731
    return [line(head), line(["---"] * len(head)), *map(line, rows), ""]


def write_markdown(found: dict, path: Path) -> None:
    lines = [
        *_introduction(found["about"]),
        *_training(found["training"]),
        *_likelihood_and_samples(found["likelihood"], found["sampling"]),
        *_pipeline(found["pipeline"]),
        "## How cost grows",
        "",
        "![milliseconds against K, images, batch and latent size](benchmarks.png)",
        "",
    ]
    write_text(path, "\n".join(lines))


def _introduction(about: dict) -> list[str]:
    reason = f" ({about['no_core_because']})" if about["no_core_because"] else ""
    return [
        "# Benchmarks",
        "",
        f"{about['machine']}, {about['threads']} thread(s), Python {about['python']}, PyTorch "
        f"{about['torch']}; our core: {about['core']}{reason}; revision {about['git_revision']}; "
        f"load average {about['load_average']} at the start.",
        "Written by `make bench`. Ratios: median over pairs of consecutive runs (min–max).",
        "",
    ]


def _training(runs: dict) -> list[str]:
    rows = [
        [
            name,
            figure["batch"],
            figure["ours_is"],
            _spread(figure),
            f"{figure['images_per_second']:,.0f}",
            f"{figure['baseline_images_per_second']:,.0f}",
            f"{figure['limit_images_per_second']:,}" if figure["limit_images_per_second"] else "–",
            f"{100 * figure['fraction_of_limit']:.1f} %" if figure["fraction_of_limit"] else "–",
        ]
        for name, figure in runs.items()
    ]
    return [
        "## A training step",
        "",
        "The baseline is the same network in straightforward PyTorch: its own operations, single",
        "precision, channels first, full kernels multiplied by their masks. The limit is the",
        "useful multiply-adds of forward and backward pass at the rate of a large bfloat16",
        "matrix product on the same machine.",
        "",
        *_table(
            ["run", "batch", "ours", "ratio", "images/s", "baseline", "limit", "of limit"], rows
        ),
    ]


def _likelihood_and_samples(likelihood: dict, sampling: dict) -> list[str]:
    equal, two, memory = likelihood["equal_k"], likelihood["two_level"], likelihood["memory"]
    rows = [
        [
            f"log-likelihood, K = {equal['k']}: "
            f"{equal['images_x_samples_per_second']:,} images x samples per second",
            "one image at a time, with the encoder run on every copy",
            _spread(equal),
        ],
        [
            f"K = {two['samples'][1]:,} estimate for 10,000 images from "
            f"K = {two['samples'][0]} on all and {two['samples'][1]:,} on {two['images']}",
            "baseline with K samples for all images (computed: "
            f"{two['saved_work']:g}x less work, times the row above)",
            f"**{two['ratio']:g}x**",
        ],
        [
            f"{sampling['pixels']['images']} images drawn, given their codes",
            "raster order, the complete network for each pixel (28 of 784 pixels timed)",
            _spread(sampling["pixels"]),
        ],
        [
            f"{sampling['prior']['codes']} codes drawn from the autoregressive prior",
            "a full pass for each variable (8 of 256 timed)",
            _spread(sampling["prior"]),
        ],
    ]
    return [
        "## Likelihood and samples",
        "",
        *_table(["what", "against", "ratio"], rows),
        f"Peak memory of the process: {memory['k_64_mib']:,} MiB with K = 64, "
        f"{memory['k_4096_mib']:,} MiB after K = 4,096.",
        "",
    ]


def _pipeline(commands: dict) -> list[str]:
    rows = [
        [
            name,
            figure.get("failed")
            or f"{figure['median_s']:g} ({figure['min_s']:g}–{figure['max_s']:g})",
        ]
        for name, figure in commands.items()
    ]
    return ["## The pipeline itself", "", *_table(["what", "seconds (min–max)"], rows)]


def write_plot(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        ("K", ["K, 4 images"]),
        ("images", ["images, K = 64"]),
        ("batch", ["batch, a training step", "batch, the usual way"]),
        ("latent size", ["latent size, a training step"]),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained", sharey=True)
    times: list[float] = []
    for axis, (label, names) in zip(axes, panels, strict=True):
        for name in names:
            points = {float(k): 1000 * v for k, v in found["growth"][name].items()}
            times += points.values()
            axis.plot(list(points), list(points.values()), "o-", label=name.split(", ")[-1])
        axis.set(xlabel=label, xscale="log", yscale="log")
        axis.set_xticks(list(points), [f"{k:g}" for k in points], minor=False)
        axis.minorticks_off()
        axis.legend(fontsize=8, frameon=False)
        axis.grid(alpha=0.3)
    ticks = [t * 10**e for e in range(5) for t in (1, 2, 5) if min(times) / 2 < t * 10**e]
    ticks = [t for t in ticks if t < 2 * max(times)]
    axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks], minor=False)
    axes[0].set_ylabel("milliseconds")
    figure.savefig(path, dpi=130)
    plt.close(figure)
