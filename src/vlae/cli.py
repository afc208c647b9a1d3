"""The command line, `vlae COMMAND …`. Each command is one step of the pipeline.

A command imports the heavy modules that it needs itself, so that --help is quick.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlae import logs
from vlae.errors import BAD_INPUT, INTERRUPTED, STOPPED, VlaeError
from vlae.options import BITS, IN_A_PICTURE, PARAMS, Command, parser
from vlae.storage import paths
from vlae.storage.dvc_lock import LOCK
from vlae.threads import wait_passively

WORKFLOW = "VLAE_AT_WORK_IN"  # set by snakemake (workflow/scripts/single_instance.py)

if TYPE_CHECKING:
    from vlae.config.schema import Params, Run
    from vlae.data.dataset import Dataset


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: done; 75: stopped at the time limit; 2: bad input; 130: interrupted.
    """
    try:
        options = parser(COMMANDS).parse_args(arguments)
        logs.to_stderr()
        wait_passively()  # before PyTorch is imported
        return options.command(options) or 0
    except KeyboardInterrupt:
        if "DVC_STAGE" not in os.environ:  # the caller of DVC says so
            print("vlae: interrupted", file=sys.stderr)
        return INTERRUPTED
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
        # PyTorch raises RuntimeError: "DefaultCPUAllocator: can't allocate memory".
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        print("vlae: error: out of memory", file=sys.stderr)
        return BAD_INPUT


def _params(options: argparse.Namespace) -> "Params":
    from vlae.config.load import load_params

    if options.params == PARAMS and not PARAMS.exists():
        home = "; VLAE_HOME is for `import vlae`, compress and decompress"
        raise VlaeError(
            f"{PARAMS} is not in this folder; go to a clone of the repository"
            f"{home if 'VLAE_HOME' in os.environ else ''}"
        )
    return load_params(options.params)


def _params_with_results(options: argparse.Namespace, *steps: str) -> "Params":
    """Return the parameters, once recorded results are in results/ (see `_put_in_place`)."""
    params = _params(options)
    _put_in_place(options, *steps)
    return params


def _put_in_place(options: argparse.Namespace, *steps: str) -> None:
    """Put the recorded results of these steps in results/.

    No steps: of all. Those of the command's run, if it has one. Snakemake and DVC put results in
    their place before they call a command. Raises VlaeError for results that are recorded, but
    not on this machine.
    """
    called_by_hand = not {"DVC_STAGE", WORKFLOW} & os.environ.keys()
    if called_by_hand and PARAMS.exists() and LOCK.exists():
        from vlae.library.in_place import put_in_place
        from vlae.library.project import Project

        put, absent = put_in_place(Project(Path(".")), getattr(options, "run", None), steps)
        if put:
            print(f"vlae: recorded results put in their place: {put} files", file=sys.stderr)
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise VlaeError(
                f"{absent[0]}{more}: recorded, but not on this machine; `dvc pull` fetches them"
            )


def _check_recipe(options: argparse.Namespace, run: "Run", step: str) -> None:
    """Raise VlaeError unless the recipe in results/recipes has the parameters of this run.

    DVC records a result as made by that recipe. The two differ if the parameters were edited
    between the start of the workflow and the start of its job.
    """
    from vlae.config.stages import in_recipe

    if "DVC_STAGE" in os.environ and not in_recipe(run, step):
        raise VlaeError(
            f"{options.params}: {run.block} was edited since the workflow was started; run "
            "the same command again"
        )


def _check_unchanged(options: argparse.Namespace, run: "Run") -> None:
    """Raise VlaeError if the parameters were edited while the command ran.

    DVC records the parameters as they are when a command ends: they must be those it used.
    """
    if _params(options).run(run.name) != run:
        raise VlaeError(
            f"{options.params}: {run.block} was edited meanwhile; the result belongs to the "
            "old parameters and is not recorded; run the same command again"
        )


def _check_block(options: argparse.Namespace, section: str, name: str, config: object) -> None:
    """Raise VlaeError if SECTION.NAME of the parameters was edited while the command ran."""
    if getattr(_params(options), section).get(name) != config:
        raise VlaeError(
            f"{options.params}: {section}.{name} was edited meanwhile; run the same command again"
        )


def _is_recorded(options: argparse.Namespace, run: "Run") -> bool:
    """Return True if the run has the settings of ./params.yaml, to which results/ belongs.

    --params may name another file.
    """
    from vlae.config.load import load_params

    if not PARAMS.exists() or PARAMS.resolve() == Path(options.params).resolve():
        return True
    return load_params(PARAMS).runs.get(run.name, run) == run


def _check_recorded(options: argparse.Namespace, run: "Run") -> None:
    """Raise VlaeError unless the run has the settings to which results/ belongs."""
    if not _is_recorded(options, run):
        raise VlaeError(
            f"{options.params}: {run.block} is not as in {PARAMS}, whose results are in "
            "results/; give the run another name"
        )


def _outside_results(name: str) -> Path:
    """Return the path of --out. Raises VlaeError for a folder and for a file in results/."""
    path = Path(name)
    if path.is_dir():
        raise VlaeError(f"--out {name} is a folder; name a file")
    if path.resolve().is_relative_to(Path("results").resolve()):
        raise VlaeError(
            f"--out {name}: results/ is only for results with the settings of params.yaml; name a "
            "file elsewhere"
        )
    return path


def _dataset(params: "Params", name: str) -> "Dataset":
    from vlae.data.recorded import load_recorded

    return load_recorded(name, params.dataset(name))


def _fetch(options: argparse.Namespace) -> None:
    from vlae.data.fetch import fetch

    spec = _params(options).dataset(options.dataset)
    path = fetch(options.dataset, spec, mirror=os.environ.get("VLAE_DATA_MIRROR"))
    sizes = ", ".join(f"{count} {split}" for split, count in spec["splits"].items())
    print(f"{options.dataset}: {path} ({sizes} images)")


def _labels(options: argparse.Namespace) -> None:
    from vlae.data.labels import fetch_labels

    params, name = _params(options), options.dataset
    block = params.labels_of(name)
    mirror = os.environ.get("VLAE_DATA_MIRROR")
    path = fetch_labels(name, params.dataset(name), block, mirror=mirror)
    print(f"{name}: {path} ({block['classes']} classes: {block['title']})")


def _train(options: argparse.Namespace) -> int:
    params = _params(options)
    run = params.run(options.run)
    _check_recipe(options, run, "train")
    if paths.checkpoint(run.name).exists():  # otherwise there is nothing to replace
        _check_recorded(options, run)
    dataset = _dataset(params, run.dataset)
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
    params = _params_with_results(options, "train")
    run = params.run(options.run)
    _check_recipe(options, run, "evaluate")
    if options.out and options.shard:
        raise VlaeError("--shard only writes its part to scratch/; use --out without --shard")
    out = _outside_results(options.out) if options.out else None
    dataset = _dataset(params, run.dataset)
    from vlae.evaluation.evaluate import asked_for, evaluate

    given = {key: getattr(options, key) for key in ("adaptive_samples", "proposal_scale")}
    changes = {key: value for key, value in given.items() if value is not None}
    by_hand = not _is_recorded(options, run)
    record = evaluate(
        run,
        dataset,
        options.device,
        options.precision,
        options.shard,
        options.samples,
        changes,
        out,
        by_hand,
        options.split,
    )
    _check_unchanged(options, run)
    if record is None:
        return
    from vlae.storage.records import estimator, evaluation_file

    images = "test" if options.split == "test" else "validation"

    print(
        f"{run.name}: NLL {record['nll']:.2f} ± {record['nll_se']:.2f} nats "
        f"({estimator(record)}, "
        f"{record['n_test']} {images} images), ELBO {record['elbo']:.2f}, KL {record['kl']:.2f}"
    )
    if out:
        print(f"written to {out}; nothing recorded")
    elif options.split != "test":
        print("nothing recorded: results/ has likelihoods of test images only")
    elif by_hand or asked_for(run.evaluation, options.samples, changes) != run.evaluation:
        print(f"nothing recorded: these are not the settings of {run.block} in {PARAMS}")
    else:
        print(f"recorded in {evaluation_file(run.name)}")


def _sample(options: argparse.Namespace) -> None:
    params = _params_with_results(options, "train")
    run = params.run(options.run)
    _check_recipe(options, run, "sample")
    if options.out:
        return _sample_picture(options, run)
    if options.n is not None or options.seed is not None:
        raise VlaeError(
            "-n and --seed need --out FILE.png; the samples recorded in results/ have fixed "
            "settings"
        )
    _check_recorded(options, run)
    dataset = _dataset(params, run.dataset)
    from vlae.evaluation.sample import write_samples

    write_samples(run, dataset, device=options.device)
    _check_unchanged(options, run)
    print(f"{run.name}: recorded in {paths.samples(run.name)}")


def _sample_picture(options: argparse.Namespace, run: "Run") -> None:
    path = _outside_results(options.out)
    count = IN_A_PICTURE if options.n is None else options.n
    seed = run.evaluation.seed if options.seed is None else options.seed
    from vlae.evaluation.sample import draw_picture

    draw_picture(path, run, count, seed, options.device)
    print(f"{run.name}: {count} samples (seed {seed}) in {path}; nothing recorded")


def _classifier(options: argparse.Namespace) -> None:
    params = _params(options)
    config = params.classifier(options.dataset)
    from vlae.evaluation.classifier import write_classifier

    record = write_classifier(config, _dataset(params, options.dataset))
    _check_block(options, "classifiers", options.dataset, config)
    print(
        f"{options.dataset}: {record['accuracy']:.1%} ± {record['accuracy_se']:.1%} of "
        f"{record['n_test']} test images recognised"
    )


def _recipe(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.recipes import write_recipes

    write_recipes(params, os.environ.get("VLAE_KEEP_RECIPES") == "1")


def _table(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.report.tables.registry import table_outputs, write_table

    table_outputs(options.name)  # raises VlaeError for an unknown name
    _put_in_place(options)
    _say_written(write_table(options.name, params, Path(".")))


def _figure(options: argparse.Namespace) -> None:
    params = _params(options)
    from vlae.report.figures.registry import figure_outputs, write_figure

    figure_outputs(options.name)  # raises VlaeError for an unknown name
    _put_in_place(options)
    _say_written(write_figure(options.name, params, Path(".")))


def _say_written(files: list[Path]) -> None:
    """Print the files of one table or figure, which differ in their endings, as one line."""
    endings = ",".join(path.suffix[1:] for path in files)
    print(f"written: {files[0].with_suffix('')}.{{{endings}}}")


def _summaries(options: argparse.Namespace) -> None:
    params = _params_with_results(options)
    from vlae.report.summaries import write_summaries

    write_summaries(params)


def _report(options: argparse.Namespace) -> None:
    params = _params_with_results(options)
    from vlae.report.site.page import write_report

    path = write_report(params, Path("."))
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _verify(options: argparse.Namespace) -> None:
    params = _params_with_results(options)
    from vlae.evaluation.verify import verify
    from vlae.report.verify import verify_drawings

    wrong = []
    for check in (verify_drawings(params, Path(".")), verify(params, options.images)):
        try:
            for line in check:
                print(line, flush=True)
        except VlaeError as error:  # the other check still runs
            wrong.append(str(error))
    if wrong:
        raise VlaeError("; ".join(wrong))


def _list(options: argparse.Namespace) -> None:
    params = _params_with_results(options)
    from vlae.report.overview import leftovers, list_runs

    print(list_runs(params, Path(".")))
    for line in leftovers(params, Path(".")):
        print(line)


def _show(options: argparse.Namespace) -> None:
    params = _params_with_results(options)
    from vlae.report.overview import show_run

    print(show_run(params, params.run(options.run), Path(".")))


def _compress(options: argparse.Namespace) -> None:
    from vlae.coding.codec import coding_model, compress
    from vlae.coding.lossy_codec import compress_lossy
    from vlae.library.pretrained import load

    if options.bits is not None and not options.lossy:
        raise VlaeError(
            "--bits needs --lossy; without loss, the images say how many bits they need"
        )
    run, out = options.run, Path(options.out)
    model = load(run, options.weights, device="cpu", precision="float32").model
    images = [Path(name) for name in options.images]
    if options.lossy:
        bits = BITS if options.bits is None else options.bits
        sent = compress_lossy(run, model, images, out, bits, options.array)
        print(
            f"{out}: {_images(sent.images)} in {sent.file_bytes:,} bytes, of which "
            f"{sent.header_bytes} describe the file; {sent.bits} bits an image for a KL of "
            f"{sent.kl_bits:.1f} bits (above {sent.bits}: {_images(sent.poor)}), "
            f"{sent.effective:.1f} effective samples"
        )
        return
    done = compress(run, coding_model(run, model), images, out, options.array)
    print(
        f"{out}: {_images(done.images)} in {done.file_bytes:,} bytes, of which "
        f"{done.header_bytes} describe the file; {done.bits_per_image:.1f} bits an image"
    )


def _decompress(options: argparse.Namespace) -> None:
    from vlae.coding.codec import coding_model, decompress
    from vlae.coding.container import is_lossy
    from vlae.coding.lossy_codec import decompress_lossy
    from vlae.library.pretrained import load
    from vlae.models.base import Model

    def prepared(run: str) -> Model:
        return load(run, options.weights, device="cpu", precision="float32").model

    file, out = Path(options.file), Path(options.out)
    if is_lossy(file):
        header = decompress_lossy(file, out, prepared, options.seed or 0)
        print(f"{out}: {_images(header.images)} ({header.format}), drawn by {header.run}")
        return
    if options.seed is not None:
        raise VlaeError(f"--seed is for lossy files; {file} gives back the very same images")
    header = decompress(file, out, lambda run: coding_model(run, prepared(run)))
    print(f"{out}: {_images(header.images)} ({header.format}), unpacked with {header.run}")


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _codelength(options: argparse.Namespace) -> None:
    params = _params_with_results(options, "train")
    run, config = params.run(options.run), params.codelength(options.run)
    dataset = _dataset(params, config.dataset)
    from vlae.coding.codelength import write_codelength

    record = write_codelength(run, config, dataset)
    _check_block(options, "codelengths", run.name, config)
    print(
        f"{run.name}: {record['n_test']:,} images in {record['file_bytes']:,} bytes, "
        f"{record['bits_per_image']:.2f} bits an image, and back"
    )


def _probe(options: argparse.Namespace) -> None:
    params = _params_with_results(options, "train")
    run, config = params.run(options.run), params.probe(options.run)
    from vlae.evaluation.probe import write_probe

    record = write_probe(run, config, _dataset(params, config.dataset))
    _check_block(options, "probes", run.name, config)
    code = record["code"]
    print(
        f"{run.name}: {code['linear']:.1%} of {record['n_test']:,} test images by a linear probe "
        f"of {record['latent_dim']} variables, {code['neighbours']:.1%} by nearest neighbours"
    )


def _probe_pixels(options: argparse.Namespace) -> None:
    params, name = _params(options), options.dataset
    params.labels_of(name)
    from vlae.config.load import inherited_evaluation
    from vlae.evaluation.probe import write_pixel_probe

    record = write_pixel_probe(_dataset(params, name), inherited_evaluation(params, name))
    print(f"{name}: {record['pixels']['linear']:.1%} by a linear probe of the pixels")


def _lossy(options: argparse.Namespace) -> None:
    params = _params_with_results(options, "train")
    run, config = params.run(options.run), params.lossy_config(options.run)
    dataset = _dataset(params, config.dataset)
    from vlae.coding.lossy import write_lossy

    record = write_lossy(run, config, dataset)
    _check_block(options, "lossy", run.name, config)
    print(
        f"{run.name}: {_images(record['n_test'])} in {record['file_bytes']:,} bytes, KL "
        f"{record['kl_bits']:.1f} bits, {record['pixel_error']:.1%} of the pixels differ"
    )


COMMANDS: dict[str, Command] = {
    "fetch": _fetch,
    "labels": _labels,
    "train": _train,
    "evaluate": _evaluate,
    "sample": _sample,
    "classifier": _classifier,
    "codelength": _codelength,
    "probe": _probe,
    "probe_pixels": _probe_pixels,
    "lossy": _lossy,
    "recipe": _recipe,
    "table": _table,
    "figure": _figure,
    "summaries": _summaries,
    "report": _report,
    "list": _list,
    "show": _show,
    "verify": _verify,
    "compress": _compress,
    "decompress": _decompress,
}
