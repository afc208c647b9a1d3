"""A session on a bare GPU machine: benchmark, train runs until a given minute, leave the states.

    python workflow/scripts/gpu_session.py --minutes 9.5 --out DIR RUN[:SHARE] ...
    python workflow/scripts/gpu_session.py join PARTS

Needs python, torch, numpy, safetensors, tqdm and PyYAML, no network, and beside this
repository's files the prepared data/DATASET.npz. The runs are trained one after the other by
`vlae train`, each for its share of the time (default 1); whoever is done early leaves its
time to the others. States lie in DIR/scratch and are continued there; one with more steps
in $VLAE_SCRATCH is copied from there first. With --part-mib they are also left in parts in
DIR/parts, which `join` puts together again elsewhere.

At the end of the time and at SIGTERM every state is whole. Exit status: 0 all runs are
done, 75 some are not, 2 bad input or a training that failed.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "src"))

import safetensors  # noqa: E402
import torch  # noqa: E402

from vlae import paths  # noqa: E402
from vlae.batches import order  # noqa: E402
from vlae.cli import BAD_INPUT, STOPPED  # noqa: E402
from vlae.data.dataset import Dataset, load  # noqa: E402
from vlae.errors import VlaeError  # noqa: E402
from vlae.files import sha256, write_atomically, write_json  # noqa: E402
from vlae.hardware import (  # noqa: E402
    choose_device,
    choose_precision,
    describe,
    set_arithmetic,
)
from vlae.params import Run, load_params  # noqa: E402
from vlae.randomness import generator  # noqa: E402
from vlae.state import exclusive, state_path  # noqa: E402
from vlae.train import (  # noqa: E402
    new_model,
    new_optimizer,
    new_step,
    running_gamma,
    training_images,
)

COMPARED = 20  # steps whose mean losses are compared
TOLERANCE = 0.01  # of the loss; the two launch the same kernels
SHORTEST = 1.0  # seconds that are worth starting a training for
PATIENCE = 30.0  # seconds for a training to save its state when told to stop
MIB = 1 << 20


def say(text: str) -> None:
    print(f"gpu_session: {text}", file=sys.stderr, flush=True)


# ---- the benchmark ----


def measure(run: Run, dataset: Dataset, device, precision: str, graph: bool, seconds: float):
    """Training steps from the start for so many seconds; (what did them, its numbers)."""
    images = training_images(dataset, run.training.split).to(device)
    model = new_model(run, images, dataset.binarization, device)
    optimizer = new_optimizer(model, run.training)
    average = [weight.detach().clone() for weight in model.parameters()]
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    step, core = new_step(
        *(model, optimizer, average, sums, images, dataset.binarization, run, precision, graph),
        soft=running_gamma(run.training, device),
    )
    seed, size = run.training.seed, run.training.batch_size
    visits = order(seed, 0, len(images)).to(device)
    batches = len(images) // size

    def steps(first: int) -> list[float]:
        for i in range(first, first + COMPARED):
            start = i % batches * size
            step(visits[start : start + size], generator(seed, "step", i, device.type))
        return sums.tolist()  # waits for the device

    loss = steps(0)[0] / COMPARED
    if not math.isfinite(loss):
        raise RuntimeError(f"{core}: the loss is not finite")
    done, started = 0, time.monotonic()
    while done == 0 or time.monotonic() - started < seconds:
        done += COMPARED
        steps(done)
    rate = done * size / (time.monotonic() - started)
    return core, {"images_per_second": round(rate, 1), "steps": done, "loss": loss}


def benchmark(run: Run, dataset: Dataset, device: str, precision: str, seconds: float) -> dict:
    """Eager steps, and on a GPU the graph, for half of the seconds each. Mean losses of the
    first steps, nats, stand beside the speeds: "sound" says that they agree."""
    on = choose_device(device)
    precision = choose_precision(precision, on)
    set_arithmetic(on, precision)
    gpu = on.type == "cuda"
    measured = [measure(run, dataset, on, precision, False, seconds / (1 + gpu))]
    failure = None
    if gpu:
        try:
            measured.append(measure(run, dataset, on, precision, True, seconds / 2))
        except RuntimeError as error:
            failure = str(error).strip().split("\n")[0]
            say(f"the CUDA graph failed: {failure}")
    for core, numbers in measured:
        say(f"{run.name}, {core}: {numbers['images_per_second']:,.0f} images/s")
    losses = [numbers["loss"] for _, numbers in measured]
    return {
        "run": run.name,
        "hardware": describe(on),
        "torch": torch.__version__,
        "precision": precision,
        "batch_size": run.training.batch_size,
        "measured": dict(measured),
        "failure": failure,
        "sound": not failure and max(losses) - min(losses) <= TOLERANCE * abs(losses[0]),
    }


# ---- the trainings ----


class Stop:
    """Notes SIGTERM and SIGINT and hands them on to the training that is running."""

    def __init__(self):
        self.reason: str | None = None
        self.process: subprocess.Popen | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.reason = signal.Signals(number).name
        if self.process is not None:
            self.process.terminate()


def train(run: Run, seconds: float, options, scratch: Path, stop: Stop) -> int:
    """`vlae train` for so many seconds; its exit status, 75 also where it had to be stopped."""
    command = [sys.executable, "-m", "vlae", "train", run.name, "--params", options.params]
    command += ["--device", options.device, "--precision", options.precision]
    command += ["--minutes", f"{seconds / 60:.5f}", "--checkpoint-seconds", "30"]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "VLAE_SCRATCH": str(scratch)}
    stop.process = subprocess.Popen(command, env=environment)
    try:
        if stop.reason:  # it came before there was a process to hand it to
            stop.process.terminate()
        for wait, too_late in ((seconds, "terminate"), (PATIENCE, "kill"), (None, None)):
            try:
                code = stop.process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                getattr(stop.process, too_late)()
    finally:
        stop.process = None
    return STOPPED if -code in (signal.SIGTERM, signal.SIGKILL) else code


def steps_behind(path: Path) -> int:
    """Of a training state, -1 where there is none. Raises VlaeError for an unreadable file."""
    if not path.exists():
        return -1
    try:
        with safetensors.safe_open(path, "pt") as file:
            return int(json.loads(file.metadata()["vlae"])["step"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())
        raise VlaeError(f"{path} is no readable training state ({line})") from error


def adopt(name: Path, elsewhere: str | None, scratch: Path) -> None:
    """Copy the state RUN/state-….safetensors from the other folder if it has more steps."""
    if elsewhere and steps_behind(Path(elsewhere) / name) > steps_behind(scratch / name):
        write_atomically(
            scratch / name,
            lambda temporary: shutil.copyfile(Path(elsewhere) / name, temporary),
        )


# ---- states in parts ----


def split(state: Path, scratch: Path, folder: Path, mib: int) -> None:
    """Leave a state in parts of at most so many MiB, and say so in folder/states.json.

    Parts of another content have other names, and the old ones go last: whenever this is
    stopped, states.json describes parts that are there.
    """
    listed = folder / "states.json"
    states = json.loads(listed.read_text()) if listed.exists() else {}
    name, digest = state.relative_to(scratch).as_posix(), sha256(state)
    parts = {}
    with open(state, "rb") as file:
        while content := file.read(mib * MIB):
            part = f"{state.parent.name}.{digest[:8]}.{len(parts):03}"
            write_atomically(folder / part, lambda path, data=content: path.write_bytes(data))
            parts[part] = hashlib.sha256(content).hexdigest()
    old = states.get(name, {"parts": {}})["parts"]
    states[name] = {"step": steps_behind(state), "sha256": digest, "parts": parts}
    write_json(listed, states)
    for part in old.keys() - parts.keys():
        (folder / part).unlink(missing_ok=True)


def join(folder: Path, scratch: Path) -> None:
    """Put the states of folder/states.json together again, in scratch/RUN/.

    One with as many or more steps there is kept. Raises VlaeError for a part that is missing
    or damaged, and where the run is being trained.
    """
    try:
        states = json.loads((folder / "states.json").read_text())
        listed = [
            (Path(name), int(about["step"]), str(about["sha256"]), dict(about["parts"]))
            for name, about in states.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VlaeError(f"{folder / 'states.json'} cannot be read: {error}") from error
    for name, step, digest, parts in listed:
        if name.is_absolute() or len(name.parts) != 2 or ".." in name.parts:
            raise VlaeError(f"{folder / 'states.json'}: {name} is no RUN/state-….safetensors")
        content = bytearray()
        for part, expected in parts.items():
            path = folder / Path(part).name
            if not path.exists():
                raise VlaeError(f"{path} is missing")
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != expected:
                raise VlaeError(f"{path} is damaged: its SHA-256 is not that of states.json")
            content += data
        if hashlib.sha256(content).hexdigest() != digest:
            raise VlaeError(f"{name}: the parts in {folder} do not make up the state")
        target = scratch / name
        with exclusive(target):
            if steps_behind(target) >= step:
                say(f"{target} kept: {steps_behind(target)} steps, {step} in {folder}")
                continue
            write_atomically(target, lambda path, data=content: path.write_bytes(data))
        say(f"{target}: {step} steps")


# ---- the session ----


def session(options) -> int:
    started = time.monotonic()
    end = started + 60 * options.minutes
    end_of_training = end - min(10, 3 * options.minutes)  # seconds for the parts
    stop = Stop()
    params = load_params(options.params)
    elsewhere = os.environ.get("VLAE_SCRATCH")
    scratch = (options.out / "scratch").resolve()
    os.environ["VLAE_SCRATCH"] = str(scratch)  # from here on for vlae.state, too
    shares, states, datasets = {}, {}, {}
    for name, share in options.runs:
        run = params.run(name)
        if name in shares:
            raise VlaeError(f"{name} is given twice")
        if not paths.recipe(name, "train").exists():
            raise VlaeError(f"{paths.recipe(name, 'train')} is missing; run `vlae recipe`")
        if run.dataset not in datasets:
            binarization = params.dataset(run.dataset)["binarization"]
            datasets[run.dataset] = load(run.dataset, binarization)
        shares[name] = share
        states[name] = state_path(run, datasets[run.dataset].training_sha256)
        adopt(states[name].relative_to(scratch), elsewhere, scratch)

    if options.benchmark_seconds > 0 and not stop.reason:
        first = params.run(options.runs[0][0])
        result = benchmark(
            first,
            datasets[first.dataset],
            options.device,
            options.precision,
            options.benchmark_seconds,
        )
        write_json(options.out / "benchmark.json", result)
        if not result["sound"]:
            say("the graph's steps are not the eager ones: training without CUDA graphs")
            os.environ["VLAE_CUDA_GRAPH"] = "0"
    datasets.clear()

    codes = {}
    for name, share in shares.items():
        others = sum(s for n, s in shares.items() if n not in codes)
        seconds = (end_of_training - time.monotonic()) * share / others
        codes[name] = STOPPED
        if stop.reason or seconds < SHORTEST:
            say(f"{name}: not trained, {stop.reason or 'no time left'}")
        else:
            say(f"{name}: {seconds / 60:.2f} minutes")
            codes[name] = train(params.run(name), seconds, options, scratch, stop)
        if options.part_mib and states[name].exists():
            split(states[name], scratch, options.out / "parts", options.part_mib)
    for name, code in codes.items():
        how = {0: "done", STOPPED: "not done yet"}.get(code, f"failed with status {code}")
        say(f"{name}: {how}, {max(0, steps_behind(states[name]))} steps")
    failed = set(codes.values()) - {0, STOPPED}
    return BAD_INPUT if failed else max(codes.values())


def _run(text: str) -> tuple[str, float]:
    name, colon, share = text.partition(":")
    return name, _positive(share) if colon else 1.0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 9999")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    joining = arguments[:1] == ["join"]
    parser = argparse.ArgumentParser(
        prog="gpu_session.py join" if joining else "gpu_session.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if joining:
        arguments = arguments[1:]
        parser.add_argument("parts", type=Path, help="the folder that holds states.json")
    else:
        _add_session_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        if joining:
            join(options.parts, Path(os.environ.get("VLAE_SCRATCH", "scratch")))
            return 0
        return session(options)
    except VlaeError as error:
        print(f"gpu_session: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT


def _add_session_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=_run, metavar="RUN[:SHARE]")
    parser.add_argument("--minutes", type=_positive, required=True, help="of wall time, for all")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--part-mib", type=_whole, metavar="N", help="leave states in parts of at most N MiB"
    )
    parser.add_argument(
        "--benchmark-seconds",
        type=float,
        default=20,
        metavar="SECONDS",
        help="default: %(default)s; 0: no benchmark",
    )
    parser.add_argument("--params", default="params.yaml", metavar="FILE")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")


if __name__ == "__main__":
    sys.exit(main())
