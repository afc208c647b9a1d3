"""Use a GPU machine for a short time: measure it, train on it, bring the weights home.

    python tools/gpu_session.py measure --out DIR RUN ...
    python tools/gpu_session.py train --minutes M --out DIR RUN ...
    python tools/gpu_session.py pack --out DIR RUN ...
    python tools/gpu_session.py join DIR

The machine needs python, torch, numpy, safetensors, tqdm and PyYAML, and this tree without
artifacts/. `measure` times steps on images of noise: launched one by one, as a CUDA graph, and
compiled. It needs no data. `train` trains the runs in parallel and chooses the epochs that fit
into the time, with a learning-rate decay over the last fifth; --epochs sets them instead. A run
continues from the checkpoint in scratch/RUN if there is one (docs/gpu.md). `pack` writes the
results in parts of at most 15 MiB. `join`, run at home, puts them where the next `vlae train RUN`
or `snakemake` finds them.
"""

import argparse
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402
import yaml  # noqa: E402

from vlae.config.load import load_params  # noqa: E402
from vlae.config.schema import Params, Run  # noqa: E402
from vlae.data.batches import permutation  # noqa: E402
from vlae.errors import BAD_INPUT, STOPPED, VlaeError  # noqa: E402
from vlae.hardware import (  # noqa: E402
    choose_device,
    choose_precision,
    describe,
    set_arithmetic,
)
from vlae.options import positive  # noqa: E402
from vlae.randomness import generator  # noqa: E402
from vlae.storage import paths  # noqa: E402
from vlae.storage.paths import BY_HAND, CHECKPOINT_FILES  # noqa: E402
from vlae.storage.read import read_json, read_safetensors  # noqa: E402
from vlae.storage.write import write_atomically, write_json  # noqa: E402
from vlae.training.step import Arithmetic, new_step  # noqa: E402
from vlae.training.train_state import new_train_state  # noqa: E402

COMPARED = 20  # number of steps whose mean losses are compared
TOLERANCE = 0.01  # relative difference of the losses: launch modes differ only by rounding
DECAYING = 0.2  # fraction of a run's new epochs with a decaying learning rate
SPARE = 0.94  # fraction of the time to plan for, because the speed is not constant
PART = 15 * 2**20
# Ways to launch a training step: (as a graph, compiled).
WAYS = {"eager": (False, False), "graph": (True, False), "compiled": (True, True)}


def say(text: str) -> None:
    print(f"gpu_session: {text}", file=sys.stderr, flush=True)


# ---- measuring ----


def measure(params: Params, run: Run, device: torch.device, way: str, seconds: float) -> dict:
    """Time the first training steps on images of noise for `seconds`."""
    kind = params.image_kind(run.dataset)
    random = generator(0, "noise", 0, device.type)
    shape = (20 * run.training.batch_size, *kind.shape)
    images = torch.randint(
        kind.largest + 1, shape, generator=random, dtype=torch.uint8, device=device
    )
    precision = choose_precision("auto", device)
    set_arithmetic(device, precision)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    state = new_train_state(run, images, kind, device)
    step, core = new_step(state, images, kind, run, Arithmetic(precision, *WAYS[way]))
    size = run.training.batch_size
    indices = permutation(0, 0, len(images)).to(device)

    def steps(first: int) -> float:
        for i in range(first, first + COMPARED):
            start = i % (len(images) // size) * size
            step(indices[start : start + size], generator(0, "step", i, device.type))
        return state.sums[0].item()  # waits for the device

    loss = steps(0) / COMPARED
    ready = time.monotonic()
    done = 0
    while done == 0 or time.monotonic() - ready < seconds:
        done += COMPARED
        steps(done)
    numbers = {
        "core": core,
        "images_per_second": round(done * size / (time.monotonic() - ready), 1),
        "seconds_to_start": round(ready - began, 1),
        "loss": loss if math.isfinite(loss) else None,
    }
    if device.type == "cuda":
        numbers["peak_mib"] = torch.cuda.max_memory_allocated() >> 20
    return numbers


def measure_all(options) -> int:
    """Write OUT/benchmark.json for every run and way, after each one so that none is lost."""
    params, device = load_params(options.params), choose_device(options.device)
    found = {"hardware": describe(device), "torch": torch.__version__, "runs": {}}
    ways = options.ways or (list(WAYS) if device.type == "cuda" else ["eager"])
    sound = True
    for name in options.runs:
        of_run = found["runs"][name] = {}
        for way in ways:
            try:
                of_run[way] = measure(params, params.run(name), device, way, options.seconds)
            except RuntimeError as error:
                of_run[way] = {"failed": str(error).strip().split("\n")[0], "loss": None}
            torch.compiler.reset()
            say(f"{name}, {way}: {of_run[way]}")
            write_json(options.out / "benchmark.json", found)
        losses = [numbers["loss"] for numbers in of_run.values()]
        if None in losses or max(losses) - min(losses) > TOLERANCE * abs(losses[0]):
            say(f"{name}: the losses differ: {losses}")
            sound = False
    return 0 if sound else BAD_INPUT


# ---- training ----


class Training:
    """A process `vlae train RUN` with a given number of epochs."""

    def __init__(self, run: Run, options, params_file: Path):
        self.run, self.options, self.params_file = run, options, params_file
        self.log = options.out / f"{run.name}.log"
        self.process: subprocess.Popen | None = None

    def start(self, epochs: int, decay_epochs: int, minutes: float) -> None:
        tree = yaml.safe_load(Path(self.options.params).read_text())
        block = tree["runs"][self.run.name]
        block["training"] |= {"epochs": epochs, "decay_epochs": decay_epochs}
        self.params_file.write_text(yaml.safe_dump(tree, sort_keys=False))
        command = [sys.executable, "-m", "vlae", "train", self.run.name]
        command += ["--params", str(self.params_file), "--device", self.options.device]
        command += ["--minutes", f"{max(minutes, 0.01):.4f}", "--checkpoint-seconds", "60"]
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        if self.options.threads:
            environment["OMP_NUM_THREADS"] = str(self.options.threads)
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def state(self) -> tuple[dict, int] | None:
        """Return description and steps of the state with most steps, None without a state."""
        found = []
        for path in paths.scratch(self.run.name).glob("state-*.safetensors"):
            if "before-decay" not in path.name:
                _, metadata = read_safetensors(path)
                found.append(json.loads(metadata["vlae"]))
        return max(((about, about["step"]) for about in found), key=lambda f: f[1], default=None)


def fitted(run: Run, about: dict, images: int, seconds: float) -> tuple[int, int]:
    """Return the (epochs, decay_epochs) that a run with this state can reach in `seconds`.

    The speed is that of its last stretch with any steps. Raises VlaeError if no epoch fits.
    """
    seconds -= about["history"][-1]["setup_seconds"]  # needed again after a restart
    speed = 0.0
    for stretch in about["history"]:
        if steps := stretch["to_step"] - stretch["from_step"]:
            speed = steps / max(stretch["seconds"] - stretch["setup_seconds"], 1.0)
    start = (about.get("start") or {"step": 0})["step"]
    per_epoch = images // run.training.batch_size
    epochs = int((about["step"] + SPARE * speed * seconds) // per_epoch)
    new = epochs - start // per_epoch
    if new < 1 or epochs * per_epoch <= about["step"]:
        raise VlaeError(f"{run.name}: not one epoch fits into {seconds:.0f} seconds")
    decay = max(1, round(DECAYING * new)) if start == 0 else max(1, new // 2)
    least = -(-about["step"] // per_epoch)  # the decay must begin after the steps done
    return epochs, min(decay, epochs - least)


def train_all(options) -> int:
    """Train the runs in parallel; return 0 if all have reached their budget."""
    end = time.monotonic() + 60 * options.minutes
    params = load_params(options.params)
    options.out.mkdir(parents=True, exist_ok=True)
    trainings = [
        Training(params.run(name), options, options.out / f"{name}.params.yaml")
        for name in options.runs
    ]
    budgets = {}
    if options.epochs is None:
        for training in trainings:
            training.start(10**6, 0, options.trial_seconds / 60)
        for training in trainings:
            training.process.wait()
    left = end - time.monotonic()
    for training in trainings:
        if options.epochs is not None:
            budgets[training.run.name] = options.epochs, options.decay_epochs
        elif (budget := fitted_budget(training, params, left)) is not None:
            budgets[training.run.name] = budget
    if options.same_epochs and budgets:
        budgets = dict.fromkeys(budgets, min(budgets.values()))
    for training in trainings:
        if training.run.name in budgets:
            budget, left = budgets[training.run.name], end - time.monotonic()
            say(f"{training.run.name}: epochs, decay_epochs {budget}, {left:.0f} seconds left")
            training.start(*budget, left / 60)
    codes = {}
    for training in trainings:
        if training.run.name in budgets:
            codes[training.run.name] = training.process.wait()
    for name, (epochs, decay) in budgets.items():
        done = {0: "done", STOPPED: "not done"}.get(codes[name], f"failed, {codes[name]}")
        say(f"{name}: {done}, epochs {epochs}, decay_epochs {decay}")
    return max(codes.values(), default=BAD_INPUT)


def fitted_budget(training: Training, params: Params, seconds: float) -> tuple[int, int] | None:
    """Return the budget of `fitted` after the trial.

    If there is none, print the reason and return None; the other trainings continue.
    """
    run, state = training.run, training.state()
    if state is None:
        say(f"{run.name}: no state after the trial; see {training.log}")
        return None
    splits = params.dataset(run.dataset)["splits"]
    images = splits["train"] + (splits["valid"] if run.training.split == "train+valid" else 0)
    try:
        return fitted(run, state[0], images, seconds)
    except VlaeError as error:
        say(str(error))
        return None


# ---- bringing it home ----


def carried(run: str) -> dict[str, Path]:
    """Return the files of a run to bring home: name in the archive -> file here."""
    files = {f"{run}/{BY_HAND}/{name}": paths.checkpoint(run) / name for name in CHECKPOINT_FILES}
    for block in sorted((paths.scratch(run) / "evaluation").glob("*.npz")):
        files[f"{run}/evaluation/{block.name}"] = block
    return {name: path for name, path in files.items() if path.exists()}


def pack(options) -> int:
    """Write checkpoints and evaluation blocks of the runs to OUT/part.NNN and OUT/parts.json."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for run in options.runs:
            files = carried(run)
            say(f"{run}: {len(files)} files")
            for name, path in files.items():
                archive.add(path, name)
    content = buffer.getvalue()
    parts = {}
    for at in range(0, len(content), PART):
        piece, name = content[at : at + PART], f"part.{len(parts):03}"
        write_atomically(options.out / name, lambda path, piece=piece: path.write_bytes(piece))
        parts[name] = hashlib.sha256(piece).hexdigest()
    write_json(options.out / "parts.json", parts)
    return 0


def join(options) -> int:
    """Copy the files in the parts of `pack` to scratch/RUN.

    Raises VlaeError for damaged parts and for unexpected files in them.
    """
    parts = read_json(options.parts / "parts.json")
    if not isinstance(parts, dict):
        raise VlaeError(f"{options.parts / 'parts.json'}: not a list of parts")
    content = bytearray()
    for name, digest in parts.items():
        path = options.parts / Path(name).name
        piece = path.read_bytes()
        if hashlib.sha256(piece).hexdigest() != digest:
            raise VlaeError(f"{path} is damaged: its SHA-256 is not that of parts.json")
        content += piece
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            run, folder, name = member.name.split("/")
            if not member.isfile() or ".." in (run, folder, name) or folder not in KEPT:
                raise VlaeError(f"{options.parts}: holds an unexpected file, {member.name!r}")
            piece = archive.extractfile(member).read()
            target = paths.scratch(run) / folder / name
            write_atomically(target, lambda path, piece=piece: path.write_bytes(piece))
            say(str(target))
    return 0


KEPT = (BY_HAND, "evaluation")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_session.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, function):
        sub = commands.add_parser(name)
        sub.set_defaults(command=function)
        if function is join:
            sub.add_argument("parts", type=Path)
            return sub
        sub.add_argument("runs", nargs="+", metavar="RUN")
        sub.add_argument("--out", type=Path, required=True, metavar="DIR")
        sub.add_argument("--params", default="params.yaml", metavar="FILE")
        sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        return sub

    sub = command("measure", measure_all)
    sub.add_argument(
        "--seconds", type=positive("seconds"), default=5, help="time per way (default: 5)"
    )
    sub.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    sub = command("train", train_all)
    sub.add_argument(
        "--minutes", type=positive("minutes"), required=True, help="wall time for all runs"
    )
    sub.add_argument("--epochs", type=int, help="epochs per run (default: as many as fit)")
    sub.add_argument("--decay-epochs", type=int, default=0, help="only with --epochs")
    sub.add_argument(
        "--trial-seconds",
        type=positive("seconds"),
        default=45,
        help="duration of the trial that measures each run's speed (default: 45)",
    )
    sub.add_argument("--threads", type=int, help="threads per run on a CPU")
    sub.add_argument(
        "--same-epochs",
        action="store_true",
        help="give all runs the slowest run's budget, so that they can be compared",
    )
    command("pack", pack)
    command("join", join)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 75 stopped by the time limit, 2 bad input or a failure."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (VlaeError, OSError) as error:
        print(f"gpu_session: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
