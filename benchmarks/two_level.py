"""Checks the two-level likelihood against all samples for all images, on recorded values.

The images of a run's second level have all K' samples. Here they play the role of the complete
test set. Two-level estimates use a random quarter of them, drawn 20,000 times.
"""

import sys
from pathlib import Path

import numpy as np

DRAWS = 20_000


def check(run: str, path: Path) -> str:
    """Return a row of the table in docs/evaluation.md, in nats. path: a run's values per image."""
    with np.load(path, allow_pickle=False) as arrays:
        index = arrays["deep_index"]
        few = -arrays["log_likelihood"][index].astype(np.float64)
        many = -arrays["deep_log_likelihood"].astype(np.float64)
    difference, images = many - few, len(few)
    part = images // 4
    random = np.random.default_rng(0)
    subsets = random.permuted(np.tile(np.arange(images), (DRAWS, 1)), axis=1)[:, :part]
    drawn = difference[subsets]
    errors = few.mean() + drawn.mean(1) - many.mean()
    left = 1 - part / images  # correction for a finite population
    predicted = np.sqrt(drawn.var(1, ddof=1) / part * left)
    cells = [
        run,
        f"{few.mean():.3f}",
        f"{many.mean():.3f}",
        f"{np.sqrt((errors**2).mean()):.3f}",
        f"{np.sqrt((predicted**2).mean()):.3f}",
        f"{(abs(errors) < 2 * predicted).mean():.1%}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for path in sorted(Path("results/evaluations").glob("*.npz")):
        if "deep_index" in np.load(path, allow_pickle=False).files:
            print(check(path.stem, path))
    sys.exit(0)
