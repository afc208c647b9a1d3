"""The command line: vlae COMMAND …, each one step of the pipeline.

Heavy modules are imported by the command that needs them, so that --help is quick.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlae import __version__, logs
from vlae.errors import BAD_INPUT, STOPPED, VlaeError
from vlae.options import positive
from vlae.threads import wait_passively

if TYPE_CHECKING:
    from vlae.config.schema import Params, Run
    from vlae.data.dataset import Dataset


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 75 stopped at the clock, 2 bad input."""
    options = _parser().parse_args(arguments)
    logs.to_stderr()
    wait_passively()  # before PyTorch is imported
    try:
        return options.command(options) or 0
    except VlaeError as error:
        print(f"vlae: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        return 1
    except OSError as error:  # a folder that may not be written, a full disk
        where = f"{error.filename}: " if error.filename else ""
        print(f"vlae: error: {where}{error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        # PyTorch's word for the same: "DefaultCPUAllocator: can't allocate memory".
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        print("vlae: error: this takes more memory than there is", file=sys.stderr)
        return BAD_INPUT


def _params(options: argparse.Namespace) -> "Params":
    from vlae.config.load import load_params

    return load_params(options.params)


def _check_recipe(options: argparse.Namespace, run: "Run", step: str) -> None:
    """DVC records a result as made by the recipe that is there: it must be of these parameters.

    It is not where they were edited after the workflow was started, and a job starts later.
    """
    from vlae.config.stages import in_recipe

    if "DVC_STAGE" in os.environ and not in_recipe(run, step):
        raise VlaeError(
            f"{options.params}: runs.{run.name} was edited since the workflow was started. Run "
            "the same command again"
        )


def _check_unchanged(options: argparse.Namespace, run: "Run") -> None:
    """DVC records the parameters as they are when a command ends: they must be those it used."""
    if _params(options).run(run.name) != run:
        raise VlaeError(
            f"{options.params}: runs.{run.name} was edited meanwhile; the result is of the old "
            "parameters and will not be recorded. Run the same command again"
        )


def _dataset(params: "Params", run: "Run") -> "Dataset":
    from vlae.data.dataset import load

    return load(run.dataset, params.image_kind(run.dataset))


def _fetch(options: argparse.Namespace) -> None:
    from vlae.data.fetch import fetch

    spec = _params(options).dataset(options.dataset)
    fetch(options.dataset, spec, mirror=os.environ.get("VLAE_DATA_MIRROR"))


def _train(options: argparse.Namespace) -> int:
    params = _params(options)
    run = params.run(options.run)
    _check_recipe(options, run, "train")
    dataset = _dataset(params, run)
    from vlae.training.train import train

    done = train(
        run,
        dataset,
        options.device,
        options.precision,
        options.minutes,
        options.checkpoint_seconds,
        options.processes,
        options.from_scratch,
    )
    _check_unchanged(options, run)
    return 0 if done else STOPPED


def _evaluate(options: argparse.Namespace) -> None:
    params = _params(options)
    run = params.run(options.run)
    _check_recipe(options, run, "evaluate")
    dataset = _dataset(params, run)
    from vlae.evaluation.evaluate import evaluate

    given = {key: getattr(options, key) for key in ("adaptive_samples", "proposal_scale")}
    record = evaluate(
        run,
        dataset,
        options.device,
        options.precision,
        options.shard,
        options.samples,
        {key: value for key, value in given.items() if value is not None},
    )
    _check_unchanged(options, run)
    if record:
        from vlae.storage.records import estimator

        print(
            f"{run.name}: NLL {record['nll']:.2f} ± {record['nll_se']:.2f} nats "
            f"({estimator(record)}, "
            f"{record['n_test']} test images), ELBO {record['elbo']:.2f}, KL {record['kl']:.2f}"
        )


def _sample(options: argparse.Namespace) -> None:
    params = _params(options)
    run = params.run(options.run)
    _check_recipe(options, run, "sample")
    dataset = _dataset(params, run)
    from vlae.evaluation.sample import write_samples

    write_samples(run, dataset, device=options.device)
    _check_unchanged(options, run)


def _classifier(options: argparse.Namespace) -> None:
    params = _params(options)
    if options.dataset not in params.classifiers:
        known = ", ".join(params.classifiers) or "none"
        raise VlaeError(f"no classifier of {options.dataset!r} in params.yaml; there are: {known}")
    from vlae.data.dataset import load
    from vlae.evaluation.classifier import write_classifier

    config = params.classifiers[options.dataset]
    record = write_classifier(config, load(options.dataset, params.image_kind(options.dataset)))
    if _params(options).classifiers.get(options.dataset) != config:
        raise VlaeError(
            f"{options.params}: classifiers.{options.dataset} was edited meanwhile; run the same "
            "command again"
        )
    print(
        f"{options.dataset}: {record['accuracy']:.1%} ± {record['accuracy_se']:.1%} of "
        f"{record['n_test']} test images recognised"
    )


def _recipe(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.recipes import write_recipes

    write_recipes(params)


def _table(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.report.tables.registry import write_table

    write_table(options.name, params, Path("."))


def _figure(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.report.figures.registry import write_figure

    write_figure(options.name, params, Path("."))


def _verify(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.evaluation.verify import verify

    for line in verify(params, options.images):
        print(line, flush=True)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(match[1]), int(match[2])


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlae",
        description="Variational Lossy Autoencoder (Chen et al., ICLR 2017), step by step. "
        "Likelihoods are in nats an image. Runs and data sets are those of params.yaml.",
        epilog="Exit status: 0 done, 75 stopped at the clock with the state saved, 2 bad input.",
    )
    parser.add_argument("--version", action="version", version=f"vlae {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="default: %(default)s"
    )
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str,
        function: Callable[[argparse.Namespace], int | None],
        help: str,
        *parents: argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common, *parents], help=help, description=help)
        sub.set_defaults(command=function)
        return sub

    sub = command("fetch", _fetch, "download or take from a mirror, verify and prepare a data set")
    sub.add_argument("dataset", metavar="DATASET")
    sub = command("train", _train, "train a run, or go on where it stopped", machine, arithmetic)
    sub.add_argument("run", metavar="RUN")
    _add_training_options(sub)
    sub = command(
        "evaluate",
        _evaluate,
        "importance-sampled log-likelihood of the test set, nats an image",
        machine,
        arithmetic,
    )
    sub.add_argument("run", metavar="RUN")
    sub.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only the I-th of N parts, left in scratch/"
    )
    sub.add_argument(
        "--samples",
        type=_positive,
        metavar="K",
        help="so many for every image, and no deep level (default: as configured)",
    )
    sub.add_argument(
        "--adaptive-samples",
        type=_positive,
        metavar="K",
        help="at most so many for an image whose weights need more (default: as configured)",
    )
    sub.add_argument(
        "--proposal-scale",
        type=positive("times"),
        metavar="S",
        help="times the standard deviations of q(z|x) (default: as configured)",
    )
    sub = command("sample", _sample, "samples and decompressions for the figures", machine)
    sub.add_argument("run", metavar="RUN")
    sub = command("classifier", _classifier, "train the classifier that judges decompressions")
    sub.add_argument("dataset", metavar="DATASET")
    command("recipe", _recipe, "write results/recipes: what the code does for each run")
    sub = command("table", _table, "draw a table from the recorded results: csv, md, tex, html")
    sub.add_argument("name", metavar="NAME")
    sub = command("figure", _figure, "draw a figure from the recorded results: png, pdf")
    sub.add_argument("name", metavar="NAME")
    sub = command("verify", _verify, "check that each checkpoint still does what its record says")
    sub.add_argument("--images", type=_positive, default=50, help="test images (default: 50)")
    return parser


def _add_training_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--minutes",
        type=positive("minutes"),
        default=os.environ.get("VLAE_MINUTES"),
        help="stop with a checkpoint before so many minutes of wall time have passed and exit "
        "with 75 (default: $VLAE_MINUTES, else no limit)",
    )
    sub.add_argument(
        "--checkpoint-seconds",
        type=positive("seconds"),
        default=os.environ.get("VLAE_CHECKPOINT_SECONDS", 120),
        metavar="SECONDS",
        help="between two saves of the state (default: $VLAE_CHECKPOINT_SECONDS, else 120)",
    )
    sub.add_argument(
        "--processes",
        type=_positive,
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
