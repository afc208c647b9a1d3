"""Writes the parts of README.md and of docs/ that are generated (`make readme`).

Each stands between <!-- NAME --> and <!-- /NAME -->. The numbers come from results/, so the
drawn tables have to be up to date.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

from vlae.library.project import Project
from vlae.report.tables.headline import STATUSES

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.two_level import check

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("codelengths", "lossy")
CHECKED = ("static_mnist-vae_af", "static_mnist-vae_iaf", "static_mnist-vlae")
TABLES = ROOT / "results" / "tables"


def block(name):
    """Return the pattern of a generated part, without its marks."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


def headline():
    """Return the count of each status in a sentence, and every row of the paper beside ours."""
    rows = pd.read_csv(TABLES / "headline.csv")
    shown = (TABLES / "headline.md").read_text(encoding="utf-8")
    legend, table = shown.split("\n\n")[1:3]
    counts = rows["status"].value_counts()
    parts = [f"{counts[status]} {status}" for status in STATUSES if status in counts]
    total = f"Of {len(rows)} comparisons with numbers of the paper: {', '.join(parts)}."
    total += " The VLAE on MNIST has two rows, one for each reading of its decoder's window."
    origin = "Each of our numbers leads to the card of its run: settings, data, seed, machine."
    return f"{total} {origin}\n\n{_columns(table)}\n\n<sub>{legend}</sub>\n"


def _columns(table, ours="Ours"):
    """Return the Markdown table without columns that would not fit on a page, ± s.e. and Run, and
    with a link from each number in the column `ours` to its run's card."""
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    head = [cell.strip() for cell in lines[0]]
    number, run = head.index(ours), head.index("Run")
    for line in lines[2:]:
        if line[number].strip():
            card = f"results/cards/{line[run].strip()}.md"
            line[number] = f" [{line[number].strip()}]({card}) "
    keep = [i for i, name in enumerate(head) if name not in ("± s.e.", "Run")]
    return "\n".join("|" + "|".join(line[i] for i in keep) + "|" for line in lines)


def beyond():
    """Return our own models beside the paper's best, with what they cost."""
    legend, table = (TABLES / "beyond.md").read_text(encoding="utf-8").split("\n\n")[1:3]
    return f"{_columns(table, 'VLAE+')}\n\n<sub>{legend}</sub>\n"


def times():
    """Return the hours that each row of the paper took to train, by kind of machine."""
    named = set(pd.read_csv(TABLES / "headline.csv")["run"])
    shown = (TABLES / "training_time.md").read_text(encoding="utf-8").split("\n\n")
    legend, (head, rule, *rows) = shown[1], shown[2].splitlines()
    cells = {row: [cell.strip() for cell in row.strip("|").split("|")] for row in rows}
    kept = [row for row, (run, _, *hours) in cells.items() if run in named and any(hours)]
    lines = [line.strip("|").split("|") for line in (head, rule, *kept)]
    filled = [i for i in range(len(lines[0])) if any(line[i].strip() for line in lines[2:])]
    table = ["|" + "|".join(line[i] for i in filled) + "|" for line in lines]
    return "\n".join([*table, "", f"<sub>{legend}</sub>"]) + "\n"


def speed():
    """Return what `make bench` measured of the core, as a table of ratios."""
    measured = json.loads((ROOT / "results" / "benchmarks.json").read_text(encoding="utf-8"))
    training, sampling = measured["training"], measured["sampling"]
    rows = {
        "a training step of the VLAE": training["static_mnist-vlae"]["ratio"],
        "a training step of the decoder alone": training["dynamic_mnist-pixelcnn"]["ratio"],
        "importance sampling with the same K": measured["likelihood"]["equal_k"]["ratio"],
        "drawing images": sampling["pixels"]["ratio"],
    }
    where = f"{measured['about']['machine']}, {measured['about']['core']}"
    lines = [f"| {where} | times as fast |", "| --- | ---: |"]
    shown = {what: f"{ratio:.{0 if ratio >= 10 else 1}f}" for what, ratio in rows.items()}
    return "\n".join(lines + [f"| {what} | {ratio} |" for what, ratio in shown.items()]) + "\n"


def compression():
    """Return what compressing the recorded test images prints, and the size of 100 lossy ones."""
    run = "static_mnist-vlae"
    clone = Project(ROOT)  # finds them in DVC's cache or artifacts/, too
    found = (clone.file(Path("results", kind, f"{run}.json")) for kind in STEPS)
    whole, lossy = (json.loads(path.read_text(encoding="utf-8")) for path in found)
    small = f"{lossy['bits']} bits an image for a KL of {lossy['kl_bits']:.1f} bits "
    small += f"(above {lossy['bits']}: {lossy['poor_images']} images)"
    lines = [
        "```console",
        f"$ vlae compress {run} digits.npz -o digits.vlae",
        f"digits.vlae: {whole['n_test']:,} images in {whole['file_bytes']:,} bytes, of which "
        f"{whole['header_bytes']} describe the file; {whole['bits_per_image']:.1f} bits an image",
        "$ vlae decompress digits.vlae -o again.npz",
        f"again.npz: {whole['n_test']:,} images (npz), unpacked with {run}",
        f"$ vlae compress {run} some.npz --lossy -o some.vlae",
        f"some.vlae: {lossy['n_test']:,} images in {lossy['file_bytes']:,} bytes, of which "
        f"{lossy['header_bytes']} describe the file; {small}, "
        f"{lossy['effective_samples']:.1f} effective samples",
        "$ vlae decompress some.vlae -o drawn.npz",
        f"drawn.npz: {lossy['n_test']:,} images (npz), drawn by {run}",
        "```",
        "",
        f"With loss, 100 digits take {lossy['hundred_bytes']} bytes.",
    ]
    return "\n".join(lines) + "\n"


def rules():
    """Return Snakemake's graph of the rules in mermaid's language, without colours.

    An arrow from a rule to itself is left out: `train` has one, for runs that begin with another
    run's weights.
    """
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--rulegraph", "mermaid-js"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    names, arrows = {}, []
    for line in done.stdout.splitlines():
        if node := re.fullmatch(r"\s*(id\d+)\[(\w+)\]", line):
            names[node[1]] = node[2]
        elif arrow := re.fullmatch(r"\s*(id\d+) --> (id\d+)", line):
            arrows.append((arrow[1], arrow[2]))
    drawn = sorted(
        f"    {names[a]} --> {names[b]}" for a, b in arrows if names[b] != "all" and a != b
    )
    return "\n".join(["```mermaid", "flowchart LR", *drawn, "```", ""])


def two_levels():
    """Return how far two-level likelihoods are from those with all samples of all images."""
    head = ("run", "K = 64", "K = 4,096", "error of the two-level estimate", "predicted")
    rows = ["| " + " | ".join((*head, "within 2 s.e.")) + " |", "| --- " * 6 + "|"]
    for run in CHECKED:
        rows.append(check(run, Project(ROOT).file(Path(f"results/evaluations/{run}.npz"))))
    return "\n".join(rows) + "\n"


BLOCKS = {
    "README.md": {
        "headline": headline,
        "beyond": beyond,
        "compression": compression,
        "times": times,
        "speed": speed,
        "rules": rules,
    },
    "docs/evaluation.md": {"two_levels": two_levels},
}


def main():
    for page, parts in BLOCKS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for name, write in parts.items():
            made = write()
            text, found = block(name).subn(lambda _, made=made: made, text)
            if found != 1:
                sys.exit(f"{page}: there must be one part between <!-- {name} --> and its end")
        (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
