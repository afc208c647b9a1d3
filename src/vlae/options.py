"""The options of each command, with their types and units."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from vlae import __version__

MOST = 1e6
IN_A_PICTURE, MOST_IN_A_PICTURE = 64, 10_000  # samples: default and limit of -n
MOST_BITS, BITS = 24, 20  # of a code in a lossy file: limit and default of --bits
PARAMS = Path("params.yaml")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "bfloat16", "float32")

Command = Callable[[argparse.Namespace], int | None]


def positive(what: str) -> Callable[[str], float]:
    """Return the type of an option that is a positive number of `what`, such as seconds."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < MOST:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of {what}")
        return value

    return number


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option that is an integer from `low` to `high`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
        return int(text)

    return number


_count = whole(1, 10**9)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(match[1]), int(match[2])


# Steps that measure as params.yaml says, without options: their argument, and their help.
MEASUREMENTS = (
    ("classifier", "dataset", "train the classifier that judges decompressions"),
    ("codelength", "run", "compress a run's test images and unpack them, as configured"),
    ("lossy", "run", "send the codes of a run's test images, as configured"),
    ("probe", "run", "measure what simple classifiers find in a run's code"),
    ("probe_pixels", "dataset", "measure what the same classifiers find in the pixels"),
)


def parser(functions: dict[str, Command]) -> argparse.ArgumentParser:
    """Build the parser of the command line; `functions` maps each command to its function."""
    top = argparse.ArgumentParser(
        prog="vlae",
        description="Variational Lossy Autoencoder (Chen et al., ICLR 2017), step by step. "
        "Likelihoods are in nats per image. Runs and data sets are defined in params.yaml.",
        epilog="Exit status: 0 done, 75 stopped at the time limit with the state saved, 2 bad "
        "input, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"vlae {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--params", default=PARAMS, metavar="FILE", help="default: %(default)s")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--device", choices=DEVICES, default="auto")
    arithmetic = argparse.ArgumentParser(add_help=False)
    arithmetic.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="precision of the networks; likelihoods are always float32 "
        "(auto: bfloat16 if the processor supports it)",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, help: str, *parents: argparse.ArgumentParser, settings: bool = True
    ) -> argparse.ArgumentParser:
        parents = (common, *parents) if settings else parents
        sub = commands.add_parser(name, parents=parents, help=help, description=help)
        sub.set_defaults(command=functions[name])
        return sub

    sub = command("fetch", "download a data set (or take it from a mirror), verify and prepare it")
    sub.add_argument("dataset", metavar="DATASET")
    sub = command("labels", "fetch and prepare the labels of a data set's images")
    sub.add_argument("dataset", metavar="DATASET")
    sub = command("train", "train a run, or continue where it stopped", machine, arithmetic)
    sub.add_argument("run", metavar="RUN")
    _add_training_options(sub)
    sub = command(
        "evaluate",
        "estimate the log-likelihood of the test set by importance sampling, nats per image",
        machine,
        arithmetic,
    )
    _add_evaluation_options(sub)
    sub = command("sample", "draw samples and decompressions for the figures", machine)
    sub.add_argument("run", metavar="RUN")
    _add_picture_options(sub)
    for name, of, help in MEASUREMENTS:
        command(name, help).add_argument(of, metavar=of.upper())
    command("recipe", "write results/recipes: what the code computes for each run, in numbers")
    sub = command("table", "draw a table from the recorded results: csv, md, tex, html")
    sub.add_argument("name", metavar="NAME")
    sub = command("figure", "draw a figure from the recorded results: png, pdf")
    sub.add_argument("name", metavar="NAME")
    command(
        "summaries",
        "write a model card for each run, and what DVC shows: results/cards, metrics, curves",
    )
    command("report", "write results/report.html: tables, figures, claims and runs in one page")
    command("list", "list all runs with their recorded results and the paper's values")
    sub = command("show", "show a run's settings and how its results were made")
    sub.add_argument("run", metavar="RUN")
    sub = command(
        "verify",
        "check that tables and figures belong to the recorded results (by checksum, seconds), and "
        "that each checkpoint still gives the recorded likelihoods (evaluates it again)",
    )
    sub.add_argument("--images", type=_count, default=50, help="test images (default: 50)")
    _add_coding_options(
        # They need a trained model, which may be from anywhere, and no settings.
        command(
            "compress", "compress binary images without loss, or only their codes", settings=False
        ),
        command("decompress", "unpack images that were compressed", settings=False),
    )
    return top


def _add_coding_options(
    compress: argparse.ArgumentParser, decompress: argparse.ArgumentParser
) -> None:
    compress.add_argument("run", metavar="RUN", help="the run whose model predicts the images")
    compress.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="PNG files or folders of them, one idx file, or one npz file; 28x28 pixels",
    )
    compress.add_argument("--array", metavar="NAME", help="which array of an npz file")
    compress.add_argument(
        "--lossy",
        action="store_true",
        help="send only the codes z; unpacking draws the images from p(x|z)",
    )
    compress.add_argument(
        "--bits",
        type=whole(1, MOST_BITS),
        metavar="N",
        help=f"bits of each code (default: {BITS}); the time is proportional to 2^N",
    )
    decompress.add_argument("file", metavar="FILE")
    decompress.add_argument(
        "--seed",
        type=whole(0, 2**63 - 1),
        metavar="S",
        help="seed of the images drawn from a lossy file (default: 0)",
    )
    for sub, metavar, help in (
        (compress, "FILE", "write this file"),
        (decompress, "OUT", "write this file or, for PNG files, this folder"),
    ):
        sub.add_argument("-o", "--out", metavar=metavar, required=True, help=help)
        sub.add_argument(
            "--weights",
            metavar="FOLDER",
            help="folder with the run's model.safetensors and train.json (default: found by name)",
        )


def _add_evaluation_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", metavar="RUN")
    sub.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="compute only the I-th of N parts and leave it in scratch/",
    )
    sub.add_argument(
        "--samples",
        type=_count,
        metavar="K",
        help="importance samples of every image, without a deep level (default: as configured); "
        "if K is not as configured, the result is printed and not recorded",
    )
    sub.add_argument(
        "--split",
        choices=("test", "valid"),
        default="test",
        help="valid: the validation images, for choosing settings; for runs that were not trained "
        "on them. Printed, not recorded (default: %(default)s)",
    )
    sub.add_argument(
        "--adaptive-samples",
        type=_count,
        metavar="K",
        help="limit of the samples of an image whose weights need more (default: as configured)",
    )
    sub.add_argument(
        "--proposal-scale",
        type=positive("times"),
        metavar="S",
        help="multiply the standard deviations of q(z|x) by S (default: as configured)",
    )
    sub.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="write the record (json) to FILE and nothing to results/",
    )


def _add_training_options(sub: argparse.ArgumentParser) -> None:
    _add_time(
        sub,
        "--minutes",
        None,
        "wall time; before it is over, training saves its state, stops and exits with 75 "
        "(default: $VLAE_MINUTES, else no limit)",
    )
    _add_time(
        sub,
        "--checkpoint-seconds",
        120,
        "time between two saves of the state (default: $VLAE_CHECKPOINT_SECONDS, else 120)",
    )
    sub.add_argument(
        "--processes",
        type=_count,
        default=os.environ.get("VLAE_PROCESSES"),
        metavar="N",
        help="processes that share every batch (default: $VLAE_PROCESSES, else one per GPU, as "
        "many as the run's `gpus` asks for and the machine has; on a CPU one)",
    )
    sub.add_argument(
        "--from-scratch",
        action="store_true",
        default=os.environ.get("VLAE_FROM_SCRATCH") == "1",
        help="do not continue from the run's published checkpoint (default: $VLAE_FROM_SCRATCH)",
    )


def _add_picture_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "-o", "--out", metavar="FILE.png", help="draw samples into a picture and record nothing"
    )
    sub.add_argument(
        "-n",
        type=whole(1, MOST_IN_A_PICTURE),
        metavar="N",
        help=f"number of samples in the picture (default: {IN_A_PICTURE})",
    )
    sub.add_argument(
        "--seed",
        type=whole(0, 2**63 - 1),
        metavar="S",
        help="seed of the picture's samples (default: that of the run's evaluation)",
    )


def _add_time(sub: argparse.ArgumentParser, name: str, default: float | None, help: str) -> None:
    """Add an option whose name ends in its unit; the variable VLAE_NAME sets its default."""
    unit = name.rpartition("-")[2]
    variable = "VLAE_" + name.strip("-").replace("-", "_").upper()
    value = os.environ.get(variable, default)
    sub.add_argument(name, type=positive(unit), default=value, metavar=unit.upper(), help=help)
