"""The command line's options: what each command takes, of which type and in which unit."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from vlae import __version__

MOST = 1e6
IN_A_PICTURE, MOST_IN_A_PICTURE = 64, 10_000  # samples: unless -n says how many, and at most
PARAMS = Path("params.yaml")

Command = Callable[[argparse.Namespace], int | None]


def positive(what: str) -> Callable[[str], float]:
    """The type of an option that is a positive number of `what`, such as seconds."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < MOST:
            raise argparse.ArgumentTypeError(f"{text!r} is no positive number of {what}")
        return value

    return number


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is an integer from `low` to `high`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer from {low} to {high}")
        return int(text)

    return number


_count = whole(1, 10**9)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(match[1]), int(match[2])


def parser(functions: dict[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line; `functions` has what each command calls, by its name."""
    top = argparse.ArgumentParser(
        prog="vlae",
        description="Variational Lossy Autoencoder (Chen et al., ICLR 2017), step by step. "
        "Likelihoods are in nats an image. Runs and data sets are those of params.yaml.",
        epilog="Exit status: 0 done, 75 stopped at the clock with the state saved, 2 bad input.",
    )
    top.add_argument("--version", action="version", version=f"vlae {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--params", default=PARAMS, metavar="FILE", help="default: %(default)s")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arithmetic = argparse.ArgumentParser(add_help=False)
    arithmetic.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of the networks; likelihoods are float32 in any case "
        "(auto: bfloat16 where the processor has it)",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, help: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common, *parents], help=help, description=help)
        sub.set_defaults(command=functions[name])
        return sub

    sub = command("fetch", "download or take from a mirror, verify and prepare a data set")
    sub.add_argument("dataset", metavar="DATASET")
    sub = command("train", "train a run, or go on where it stopped", machine, arithmetic)
    sub.add_argument("run", metavar="RUN")
    _add_training_options(sub)
    sub = command(
        "evaluate",
        "importance-sampled log-likelihood of the test set, nats an image",
        machine,
        arithmetic,
    )
    _add_evaluation_options(sub)
    sub = command("sample", "samples and decompressions for the figures", machine)
    sub.add_argument("run", metavar="RUN")
    _add_picture_options(sub)
    sub = command("classifier", "train the classifier that judges decompressions")
    sub.add_argument("dataset", metavar="DATASET")
    command("recipe", "write results/recipes: what the code does for each run")
    sub = command("table", "draw a table from the recorded results: csv, md, tex, html")
    sub.add_argument("name", metavar="NAME")
    sub = command("figure", "draw a figure from the recorded results: png, pdf")
    sub.add_argument("name", metavar="NAME")
    command(
        "summaries",
        "write what DVC shows of the runs, and model cards: results/metrics, curves, cards",
    )
    command("list", "list all runs with what is recorded of them, and the paper's values")
    sub = command("show", "show a run's settings, and how its results were made")
    sub.add_argument("run", metavar="RUN")
    sub = command(
        "verify",
        "check that tables and figures are those of the recorded results (by checksum, seconds), "
        "and that each checkpoint still does what its record says (evaluated again)",
    )
    sub.add_argument("--images", type=_count, default=50, help="test images (default: 50)")
    return top


def _add_evaluation_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", metavar="RUN")
    sub.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only the I-th of N parts, left in scratch/"
    )
    sub.add_argument(
        "--samples",
        type=_count,
        metavar="K",
        help="so many for every image, and no deep level (default: as configured); where that is "
        "not as configured, the result is printed and not recorded",
    )
    sub.add_argument(
        "--adaptive-samples",
        type=_count,
        metavar="K",
        help="at most so many for an image whose weights need more (default: as configured)",
    )
    sub.add_argument(
        "--proposal-scale",
        type=positive("times"),
        metavar="S",
        help="times the standard deviations of q(z|x) (default: as configured)",
    )
    sub.add_argument(
        "--out", metavar="FILE", help="write the record (json) to FILE, and nothing to results/"
    )


def _add_training_options(sub: argparse.ArgumentParser) -> None:
    _add_time(
        sub,
        "--minutes",
        None,
        "of wall time, before the end of which it stops with a checkpoint and exits with 75 "
        "(default: $VLAE_MINUTES, else no limit)",
    )
    _add_time(
        sub,
        "--checkpoint-seconds",
        120,
        "between two saves of the state (default: $VLAE_CHECKPOINT_SECONDS, else 120)",
    )
    sub.add_argument(
        "--processes",
        type=_count,
        default=os.environ.get("VLAE_PROCESSES"),
        metavar="N",
        help="that share every batch (default: $VLAE_PROCESSES, else one for each GPU that "
        "`gpus` of the run wants and that is there, on a CPU one)",
    )
    sub.add_argument(
        "--from-scratch",
        action="store_true",
        default=os.environ.get("VLAE_FROM_SCRATCH") == "1",
        help="do not go on from the run's published checkpoint (default: $VLAE_FROM_SCRATCH)",
    )


def _add_picture_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out", metavar="FILE.png", help="draw samples into a picture, and record nothing"
    )
    sub.add_argument(
        "-n",
        type=whole(1, MOST_IN_A_PICTURE),
        metavar="N",
        help=f"samples in the picture (default: {IN_A_PICTURE})",
    )
    sub.add_argument(
        "--seed",
        type=whole(0, 2**63 - 1),
        metavar="S",
        help="of the picture's samples (default: that of the run's evaluation)",
    )


def _add_time(sub: argparse.ArgumentParser, name: str, default: float | None, help: str) -> None:
    """An option whose name ends in its unit, and whose variable is VLAE_ and its name."""
    unit = name.rpartition("-")[2]
    variable = "VLAE_" + name.strip("-").replace("-", "_").upper()
    value = os.environ.get(variable, default)
    sub.add_argument(name, type=positive(unit), default=value, metavar=unit.upper(), help=help)
