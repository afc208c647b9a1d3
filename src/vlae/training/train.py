"""Training of one run (section 4): Adamax on the free-bits bound, weights averaged.

Straight through: prepare the data, make or resume the state, step until the epochs are
done or the clock runs out, and write the averaged model with its record.
"""

import gc
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from vlae.config.params import ColourTrainingConfig, Run, TrainingConfig, as_dict
from vlae.data.batches import as_input, order
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.hardware import autocast, choose_device, choose_precision, describe, set_arithmetic
from vlae.models.build import Model, core_at_work, model_of
from vlae.models.vlae import objective
from vlae.native.library import in_use
from vlae.native.optimizer import step_and_average
from vlae.nn.weightnorm import data_dependent_initialisation
from vlae.randomness import generator
from vlae.storage import paths
from vlae.storage.read import read_safetensors
from vlae.storage.records import read_training
from vlae.storage.write import sha256, write_json, write_safetensors, write_text
from vlae.training.checkpoint import (
    State,
    as_tensors,
    before_decay,
    copy_into,
    exclusive,
    from_tensors,
    identity,
    save_state,
    state_path,
)
from vlae.training.cuda_graph import CapturedStep, StaticInputs, adamax_state, captured
from vlae.training.distributed import ALONE, Team, in_processes, processes_for
from vlae.training.free_bits import RunningGamma
from vlae.training.live_curves import LiveCurves
from vlae.training.published import CURVE as CURVE_FILE
from vlae.training.published import MODEL, RECORD, recipe_sha256
from vlae.training.resume import beginning, take_over
from vlae.training.schedule import schedule_of

# Nats an image of a model that knows nothing.
IGNORANCE = dict.fromkeys(("fixed", "dynamic"), 784 * math.log(2)) | {"none": 3072 * math.log(256)}
# Images of a batch of the validation bound: what fits into memory.
VALIDATION_BATCH = {"fixed": 500, "dynamic": 500, "none": 50}
CLOCK_RESERVE = 30  # seconds kept back for stopping with a checkpoint
CURVE = [
    "epoch",
    "step",
    "seconds",
    "images_per_second",
    "loss",
    "elbo",
    "kl",
    "valid_elbo",
    "valid_kl",
]  # nats


def training_images(dataset: Dataset, split: str) -> Tensor:
    """uint8 (N, 28, 28) or (N, 3, 32, 32): the training set, for final rows with the validation
    set behind it."""
    parts = [dataset.train, dataset.valid] if split == "train+valid" else [dataset.train]
    return torch.cat([torch.from_numpy(part) for part in parts])


def new_model(
    run: Run,
    images: Tensor,
    binarization: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The run's model, initialised from its seed and one batch of images, as training_images
    gives them; colour images may be smaller than 32x32, and so may the model."""
    seed = run.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        model = model_of(run.model, side=images.shape[-1])
    model.to(device=device, dtype=dtype)
    first = order(seed, -1, len(images))[: run.training.init_images]
    random = generator(seed, "initialisation", 0, device.type)
    x = as_input(images[first.to(images.device)].to(device), binarization, random).to(dtype)
    with data_dependent_initialisation(model):
        objective(model, x, latent_noise(model.latent_dim, x, random), run.training.free_bits)
    return model


def new_optimizer(model: Model, training: TrainingConfig) -> torch.optim.Adamax:
    weights = list(model.parameters())
    on_gpu = weights[0].is_cuda
    optimizer = torch.optim.Adamax(
        weights, training.learning_rate, training.betas, foreach=True, capturable=on_gpu
    )
    if on_gpu:  # the rate lies there, as the step count does: a graph reads them at each replay
        rate = torch.tensor(training.learning_rate, device=weights[0].device)
        optimizer.param_groups[0]["lr"] = rate
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set it for the steps from here on, also of those that a CUDA graph has recorded."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def compiled_objective() -> Callable:
    """The objective with what stands between its convolutions fused into few kernels.

    Kernels are chosen without timing them, so that a resumed training has the same ones.
    """
    return torch.compile(objective, dynamic=False, options={"deterministic": True})


def latent_noise(latent_dim: int, x: Tensor, random: torch.Generator) -> Tensor | None:
    """Standard normal noise (B, latent_dim) for a batch, None for a model without a latent."""
    if not latent_dim:
        return None
    shape = (len(x), latent_dim)
    return torch.randn(shape, generator=random, device=x.device).to(x.dtype)


def running_gamma(training: TrainingConfig, device: torch.device) -> RunningGamma | None:
    """The control of the KL's weight, for a run with soft free bits."""
    if not isinstance(training, ColourTrainingConfig):
        return None
    return RunningGamma(training.free_bits, training.gamma_steps, device)


@torch.no_grad()
def update_average(average: list[Tensor], weights: list[Tensor], polyak: float) -> None:
    """average <- polyak average + (1 - polyak) weights; the average is the model."""
    torch._foreach_lerp_(average, weights, 1 - polyak)


def training_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    x: Tensor,
    noise: Tensor | None,
    run: Run,
    precision: str,
    team: Team = ALONE,
    soft: RunningGamma | None = None,
    loss_of: Callable = objective,
) -> Tensor:
    """One update; returns (loss, reconstruction, KL), nats, float64 (3,).

    Of a team, x and noise are this process's share, the update and the values the whole's.
    `soft` weighs the KL, and takes note of it. `loss_of` is the objective, or its compiled form.
    """
    gamma = None if soft is None else soft.gamma
    mean_of_all = team.mean if team.size > 1 else None
    with autocast(x.device, precision):
        loss, (reconstruction, kl) = loss_of(
            model, x, noise, run.training.free_bits, mean_of_all, gamma
        )
    loss.backward()
    team.average_gradients(list(model.parameters()))
    if in_use(x.device.type, precision) == "PyTorch":
        optimizer.step()
        update_average(average, list(model.parameters()), run.training.polyak)
    else:
        step_and_average(optimizer, average, run.training.polyak)
    optimizer.zero_grad(set_to_none=True)
    if soft is not None:
        soft.note(kl)
    return torch.stack([loss.detach().double(), reconstruction.double(), kl.double()])


def new_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    sums: Tensor,
    images: Tensor,
    binarization: str,
    run: Run,
    precision: str,
    graph: bool,
    team: Team = ALONE,
    soft: RunningGamma | None = None,
    compiled: bool = False,
) -> tuple[Callable[[Tensor, torch.Generator], None], str]:
    """step(visits, random), one update with the images of those numbers (B,), which adds (loss,
    reconstruction, KL) to `sums`, float64 (3,); and what does the work, for the record.

    With `graph` it is a CUDA graph, and with `compiled`, too, its forward and backward pass are
    fused by PyTorch's compiler, unless that cannot be had.
    """

    def update(x: Tensor, noise: Tensor | None, loss_of: Callable = objective) -> None:
        terms = training_step(
            *(model, optimizer, average, x, noise, run, precision, team, soft, loss_of)
        )
        sums.add_(terms)

    def step(visits: Tensor, random: torch.Generator) -> None:
        x = as_input(images[visits], binarization, random)
        noise = latent_noise(run.model.latent_dim, x, random)
        update(team.share(x), None if noise is None else team.share(noise))

    core = core_at_work(run.model, images.device.type, precision)
    if graph:
        size, latent_dim = run.training.batch_size, run.model.latent_dim
        inputs = StaticInputs(images, binarization, size, latent_dim)
        changed = [*model.parameters(), *average, sums, *adamax_state(optimizer)]
        changed += [] if soft is None else [soft.values]
        if compiled:
            fused = partial(update, loss_of=compiled_objective())
            if as_graph := captured(CapturedStep(fused, inputs, changed)):
                return as_graph, f"{core}, compiled, CUDA graph"
        if as_graph := captured(CapturedStep(update, inputs, changed)):
            return as_graph, f"{core}, CUDA graph"
    return step, core


@torch.no_grad()
def validation_bound(
    model: Model, images: Tensor, binarization: str, run: Run, precision: str
) -> tuple[float, float]:
    """(ELBO, KL), nats an image, one latent sample and one fixed draw of the bits."""
    total = torch.zeros(2, dtype=torch.float64)
    size = VALIDATION_BATCH[binarization]
    for i in range(0, len(images), size):
        random = generator(run.training.seed, "validation", i, images.device.type)
        x = as_input(images[i : i + size], binarization, random)
        noise = latent_noise(run.model.latent_dim, x, random)
        with autocast(x.device, precision):
            _, (reconstruction, kl) = objective(model, x, noise, 0.0)
        total += len(x) * torch.stack([-reconstruction - kl, kl]).double().cpu()
    elbo, kl = (total / len(images)).tolist()
    return elbo, kl


class Interrupt:
    """Set by SIGTERM or SIGINT, or when the clock has run out; asked after each step."""

    def __init__(self, started: float, minutes: float | None):
        self.deadline = math.inf
        if minutes is not None:
            reserve = min(CLOCK_RESERVE, 12 * minutes)  # a fifth of a very short limit
            self.deadline = started + 60 * minutes - reserve
        self.reason: str | None = None
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: object) -> None:
        self.reason = signal.Signals(number).name

    def due(self) -> bool:
        if self.reason is None and time.monotonic() >= self.deadline:
            self.reason = "the clock"
        return self.reason is not None

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def train(
    run: Run,
    dataset: Dataset,
    device: str = "auto",
    precision: str = "auto",
    minutes: float | None = None,
    checkpoint_seconds: float = 120,
    processes: int | None = None,
    from_scratch: bool = False,
) -> bool:
    """Train `run` up to its number of epochs, from its state in scratch/ if there is one, else
    from its published checkpoint (vlae.training.published), unless it is to be trained
    `from_scratch`.

    True when it is finished and the results are written; False when the clock (`minutes`)
    or a signal stopped it, its state saved. On the CPU the weights are bit-identical
    however often it was interrupted; on a GPU they are meant to be (docs/gpu.md). Raises
    VlaeError for a state that does not belong to this run and for a training that diverged;
    the last good state stays.

    `processes`: how many share the work (vlae.training.distributed); by default one for each of
    the run's GPUs. However many they are, the result is that of one to rounding, and each may go
    on with what another number has begun.
    """
    started = time.monotonic()
    on = choose_device(device)
    count = processes or processes_for(run.gpus, on)
    if run.training.batch_size % count:
        raise VlaeError(
            f"{run.name}: batch_size {run.training.batch_size} cannot be shared equally by "
            f"{count} processes"
        )
    arguments = run, dataset, on, precision, minutes, checkpoint_seconds, started, from_scratch
    if count > 1:
        return in_processes(count, on.type, _train, *arguments)
    return _train(*arguments, ALONE)


def _train(
    run: Run,
    dataset: Dataset,
    on: torch.device,
    precision: str,
    minutes: float | None,
    checkpoint_seconds: float,
    started: float,
    from_scratch: bool,
    team: Team,
) -> bool:
    """What `train` says, in one process of a team."""
    precision = choose_precision(precision, on)
    set_arithmetic(on, precision)
    binarization = dataset.binarization
    images = training_images(dataset, run.training.split).to(on)
    valid = torch.from_numpy(dataset.valid).to(on)
    belongs_to = identity(run, dataset.training_sha256)
    seed, size = run.training.seed, run.training.batch_size
    schedule = schedule_of(run.training, len(images))
    steps_per_epoch, last_step = schedule.steps_per_epoch, schedule.last_step
    if not steps_per_epoch:
        raise VlaeError(f"{run.name}: batch_size {size} exceeds the {len(images)} training images")

    with ExitStack() as stack:
        base = state_path(run, dataset.training_sha256)
        team.together(lambda: team.leads and stack.enter_context(exclusive(base)), on)
        begun = team.together(
            lambda: beginning(run, dataset, base, belongs_to, schedule, from_scratch), on
        )
        if begun is None:
            team.together(lambda: team.leads and take_over(run, dataset, schedule), on)
            return True
        path, state = begun
        state.schedule = {"epochs": schedule.epochs, "decay_epochs": schedule.decay_epochs}
        model = new_model(run, images, binarization, on)
        optimizer = new_optimizer(model, run.training)
        weights = dict(model.named_parameters())
        average = {name: weight.detach().clone() for name, weight in weights.items()}
        sums = torch.zeros(3, dtype=torch.float64, device=on)
        soft = running_gamma(run.training, on)
        if state.step:
            _restore(state, path, weights, average, optimizer, sums, soft)
        team.copy_from_leader([*weights.values(), *average.values()])
        step, core = new_step(
            model,
            optimizer,
            list(average.values()),
            sums,
            images,
            binarization,
            run,
            precision,
            graph=on.type == "cuda"
            and team.size == 1
            and os.environ.get("VLAE_CUDA_GRAPH") != "0",
            team=team,
            soft=soft,
            compiled=os.environ.get("VLAE_COMPILE") == "1",
        )
        history = {
            "from_step": state.step,
            "to_step": state.step,
            "seconds": 0.0,
            "device": on.type,
            "hardware": f"{team.size} x {describe(on)}" if team.size > 1 else describe(on),
            "precision": precision,
            "core": core,
            "torch": torch.__version__,
        }
        state.history.append(history)

        def checkpoint() -> None:
            if not torch.isfinite(sums).all():
                raise VlaeError(
                    f"{run.name}: loss or weights are not finite at step {state.step}; "
                    f"the last good state is kept in {path}"
                )
            if not team.leads:
                return
            history["to_step"] = state.step
            history["seconds"] = round(time.monotonic() - started, 1)
            state.tensors = _collect(weights, average, optimizer, sums, soft)
            save_state(path, state, belongs_to)

        def keep_state_before_decay() -> None:
            """The state of this step, beside the one that goes on into the decay."""
            checkpoint()
            if team.leads:
                save_state(before_decay(path), state, belongs_to)

        averaged = model_of(run.model).to(on)
        live = LiveCurves(paths.scratch(run.name) / "live", state.curve) if team.leads else None
        interrupt = Interrupt(started, minutes)
        stack.callback(interrupt.restore)  # not before the state is saved: senders may repeat
        saved_at = epoch_started = time.monotonic()
        history["setup_seconds"] = round(epoch_started - started, 1)
        epoch_from = state.step
        if team.leads:
            print(
                f"{run.name}: {sum(w.numel() for w in weights.values()):,} parameters, "
                f"{len(images):,} images, epoch {state.step // steps_per_epoch} of "
                f"{run.training.epochs}, {history['hardware']}, {precision}, {core}",
                file=sys.stderr,
            )
        bar = tqdm(
            total=last_step,
            initial=state.step,
            unit="step",
            disable=None if team.leads else True,
            smoothing=0.02,
        )
        gc.freeze()  # what is there now stays: collections need not look at it every few steps
        try:
            while state.step < last_step:
                if state.step == schedule.decay_from:
                    keep_state_before_decay()
                epoch, within = divmod(state.step, steps_per_epoch)
                if within == 0 or state.step == epoch_from:
                    visits = order(seed, epoch, len(images)).to(on)
                if state.step >= schedule.decay_from:
                    rate = run.training.learning_rate * schedule.factor(state.step)
                    set_learning_rate(optimizer, rate)
                random = generator(seed, "step", state.step, on.type)
                step(visits[within * size : (within + 1) * size], random)
                state.step += 1
                if soft is not None:
                    soft.after(state.step)
                bar.update()
                if on.type == "cpu" or state.step % 50 == 0:
                    _stop_if_diverged(run, binarization, state.step, sums, within + 1, epoch, path)
                    rate = size * (state.step - epoch_from) / (time.monotonic() - epoch_started)
                    loss, reconstruction, kl = (sums / (within + 1)).tolist()
                    bar.set_postfix_str(
                        f"ELBO {-reconstruction - kl:.2f} KL {kl:.2f} nats, {rate:.0f} images/s"
                    )
                if within + 1 == steps_per_epoch:
                    seconds = time.monotonic() - epoch_started
                    rate = size * (state.step - epoch_from) / seconds
                    loss, reconstruction, kl = (sums / steps_per_epoch).tolist()
                    row = {
                        "epoch": epoch + 1,
                        "step": state.step,
                        "seconds": round(seconds, 1),
                        "images_per_second": round(rate, 1),
                        "loss": loss,
                        "elbo": -reconstruction - kl,
                        "kl": kl,
                    }
                    if soft is not None:
                        row["gamma"] = soft.gamma.item()
                    if run.training.split == "train" and team.leads:
                        copy_into(dict(averaged.named_parameters()), average, "average")
                        bound = validation_bound(averaged, valid, binarization, run, precision)
                        row["valid_elbo"], row["valid_kl"] = bound
                    state.curve.append(row)
                    if team.leads:
                        live.log(row)
                        _report(run, row, bar)
                    sums.zero_()
                    epoch_started, epoch_from = time.monotonic(), state.step
                if state.step == last_step:
                    break
                # A team stops at the same step, and asks seldom: it costs a message.
                asks = team.size == 1 or state.step % 10 == 0
                if asks and team.any(interrupt.due(), on):
                    break
                if time.monotonic() - saved_at > checkpoint_seconds:
                    checkpoint()
                    saved_at = time.monotonic()
        finally:
            gc.unfreeze()
            bar.close()
        checkpoint()
        if state.step < last_step:
            if team.leads:
                print(
                    f"{run.name}: stopped by {interrupt.reason or 'another process'} at step "
                    f"{state.step} of {last_step}; the same command goes on from here",
                    file=sys.stderr,
                )
            return False
        if team.leads:
            _write_results(run, dataset, state, average, steps_per_epoch)
        return True


def _restore(state, path, weights, average, optimizer, sums, soft) -> None:
    tensors = state.tensors
    copy_into(average, from_tensors("average", tensors), str(path))
    if state.step == state.first_step:  # averaged weights are all that a published one has
        copy_into(weights, from_tensors("average", tensors), str(path))
        if soft is not None:
            soft.values[0] = state.curve[-1].get("gamma", 1.0)
        return
    copy_into(weights, from_tensors("weights", tensors), str(path))
    momenta = {name: from_tensors(name, tensors) for name in ("exp_avg", "exp_inf")}
    for name, weight in weights.items():
        moments = {}
        for kind, stored in momenta.items():
            moments[kind] = torch.zeros_like(weight)
            copy_into(
                {name: moments[kind]}, {k: v for k, v in stored.items() if k == name}, str(path)
            )
        counter_on = weight.device if optimizer.defaults["capturable"] else "cpu"
        counter = torch.tensor(float(state.step - state.first_step), device=counter_on)
        optimizer.state[weight] = {"step": counter, **moments}
    copy_into({"sums": sums}, from_tensors("epoch", tensors), str(path))
    if soft is not None:
        copy_into({"values": soft.values}, from_tensors("soft_free_bits", tensors), str(path))


def _collect(weights, average, optimizer, sums, soft) -> dict[str, Tensor]:
    tensors = as_tensors("weights", weights) | as_tensors("average", average)
    for kind in ("exp_avg", "exp_inf"):  # none yet before the first step
        moments = {
            name: optimizer.state[weight].get(kind, torch.zeros_like(weight))
            for name, weight in weights.items()
        }
        tensors |= as_tensors(kind, moments)
    if soft is not None:
        tensors["soft_free_bits/values"] = soft.values.clone()
    return tensors | {"epoch/sums": sums.clone()}


def _stop_if_diverged(run, binarization, step, sums, steps, epoch, path) -> None:
    loss = (sums[0] / steps).item()
    ignorance = IGNORANCE[binarization]
    if not math.isfinite(loss) or (epoch > 0 and steps > 50 and loss > ignorance):
        raise VlaeError(
            f"{run.name}: training diverged at step {step} (mean loss {loss:.1f} nats); "
            f"the last good state is kept in {path}; lower runs.{run.name}.training.learning_rate"
        )


def _report(run: Run, row: dict, bar: tqdm) -> None:
    text = (
        f"{run.name}: epoch {row['epoch']}  ELBO {row['elbo']:.2f}  KL {row['kl']:.2f}"
        + (f"  validation {row['valid_elbo']:.2f}" if "valid_elbo" in row else "")
        + f" nats  {row['images_per_second']:.0f} images/s"
    )
    bar.write(text, file=sys.stderr) if not bar.disable else print(text, file=sys.stderr)


def _stretches(state: State, steps_per_epoch: int) -> list[dict]:
    """What train.json lists: where each stretch of the training began, and what did it."""
    worked = [part for part in state.history if part["to_step"] > part["from_step"]]
    worked = worked or state.history[-1:]
    start = state.start or {"checkpoint_sha256": None, "stretches": []}
    names = ("device", "hardware", "precision", "core", "torch")
    told = {k: ", ".join(dict.fromkeys(p.get(k, "PyTorch") for p in worked)) for k in names}
    this = {
        "from_checkpoint": start["checkpoint_sha256"],
        "from_epoch": state.first_step // steps_per_epoch,
        "to_epoch": state.step // steps_per_epoch,
        "decay_epochs": state.schedule["decay_epochs"],
        "seconds": round(sum(part["seconds"] for part in worked), 1),
        **told,
        "git_revision": git_revision(),
    }
    return [*start["stretches"], this]


def _write_results(run, dataset, state, average, steps_per_epoch) -> None:
    folder = paths.checkpoint(run.name)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in average.items()}
    about = {"run": run.name}  # one entry: the library writes several in a random order
    write_safetensors(folder / MODEL, tensors, about)
    columns = [*CURVE, "gamma"] if "gamma" in state.curve[-1] else CURVE
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(key)) for key in columns) for row in state.curve]
    write_text(folder / CURVE_FILE, "\n".join(lines) + "\n")
    last, stretches = state.curve[-1], _stretches(state, steps_per_epoch)

    def of_all(key: str) -> str:
        return ", ".join(dict.fromkeys(part[key] for part in stretches))

    write_json(
        folder / RECORD,
        {
            "run": run.name,
            "dataset": run.dataset,
            "epochs": state.step // steps_per_epoch,
            "steps": state.step,
            "images_seen": state.step * run.training.batch_size,
            "seconds": round(sum(part["seconds"] for part in stretches), 1),
            "device": stretches[-1]["device"],
            "hardware": of_all("hardware"),
            "precision": of_all("precision"),
            "core": of_all("core"),
            "torch": of_all("torch"),
            "git_revision": git_revision(),
            "stretches": stretches,
            "data_sha256": dataset.sha256,
            "training_sha256": dataset.training_sha256,
            "recipe_sha256": recipe_sha256(run),
            "checkpoint_sha256": sha256(folder / MODEL),
            "seed": run.training.seed,
            "split": run.training.split,
            "parameters": sum(tensor.numel() for tensor in average.values()),
            "final": {
                "loss": last["loss"],
                "elbo": last["elbo"],
                "kl": last["kl"],
                "reconstruction": -last["elbo"] - last["kl"],
            },
            "config": {"model": as_dict(run.model), "training": as_dict(run.training)},
        },
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def git_revision() -> str | None:
    """The commit of the working directory, "+" appended where src/ differs from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        revision = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src"]).returncode
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("VLAE_REVISION")  # a copy without its history
    return revision + ("+" if changed else "")


def load_model(run: Run, device: torch.device) -> Model:
    """The averaged model of results/checkpoints/RUN, ready to evaluate.

    Raises VlaeError for a file that is missing, unreadable or of another model, and for one
    that is not the one that the record of the training beside it describes.
    """
    path = paths.checkpoint(run.name) / MODEL
    record = read_training(Path(), run.name, run.dataset) or {}
    recorded = record.get("checkpoint_sha256")  # records of before have none
    if recorded is not None and path.exists() and sha256(path) != recorded:
        raise VlaeError(f"{path} is not the checkpoint that train.json beside it describes")
    return read_model(run, path).to(device).eval()


def read_model(run: Run, path: Path) -> Model:
    if not path.exists():
        raise VlaeError(f"{path} is missing; train it with `vlae train {run.name}`")
    try:
        tensors, about = read_safetensors(path)
    except ValueError as error:
        raise VlaeError(f"{path} is no readable checkpoint: {error}") from error
    if about.get("run", run.name) != run.name:
        raise VlaeError(f"{path} is a checkpoint of {about['run']}, not of {run.name}")
    model = model_of(run.model)
    copy_into(dict(model.named_parameters()), tensors, str(path))
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise VlaeError(f"{path} has weights that are not finite")
    return model
