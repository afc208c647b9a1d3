"""Estimates how long a training will take, from the speeds of recorded trainings.

The speed is that of the same run, or of the recorded run with the most similar settings. Only the
same type of device counts, because a CPU's speed says nothing about a GPU. Nothing is measured
here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vlae.config.schema import Params, Run, as_dict

DAY = 24 * 60 * 60
HOUR = 60 * 60


@dataclass(frozen=True)
class Speed:
    """The speed of a recorded training.

    kind: of the images. model, hardware, core: as in train.json.
    """

    run: str
    kind: str
    model: dict
    batch_size: int
    hardware: str
    core: str
    images_per_second: float
    bound: float = 1.0  # the cost of its bound (`bound_cost`)


@dataclass(frozen=True)
class Estimate:
    """The time of a training; with `at_least`, the speed is that of a smaller network."""

    seconds: float
    at_least: bool
    speed_of: Speed

    def text(self, run: str) -> str:
        """Return the time in words, for a line about `run`."""
        of = self.speed_of
        whose = "" if of.run == run else f"{of.run} on "
        about = "more than" if self.at_least else "about"
        # Processors of one name differ: an "AMD EPYC" may have AVX-512 or not.
        machine = f"{of.hardware}, {of.core}"
        return f"{about} {duration(self.seconds)} at the speed of {whose}{machine}"


def duration(seconds: float) -> str:
    """Return a duration in words, with two digits."""
    if seconds < 90:
        return "a minute"
    if seconds < 1.5 * HOUR:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.2g} h"
    return f"{seconds / DAY:,.0f} days"


def speeds(records: Iterable[dict], params: Params, device: str) -> list[Speed]:
    """Return the speeds in train.json records on a `device`, cpu or cuda.

    Records without the necessary keys are skipped.
    """
    found = []
    for record in records:
        try:
            speed = _speed(record, params, device)
        except (KeyError, TypeError, AttributeError, ZeroDivisionError):
            continue
        if speed:
            found.append(speed)
    return found


def _speed(record: dict, params: Params, device: str) -> Speed | None:
    """Return the speed of the last stretch of a training on `device`."""
    whole = {**record, "from_epoch": 0, "to_epoch": record["epochs"]}
    stretches = [s for s in record.get("stretches") or [whole] if s["device"] == device]
    if not stretches or stretches[-1]["seconds"] <= 0:
        return None
    last = stretches[-1]
    images = record["images_seen"] / record["epochs"] * (last["to_epoch"] - last["from_epoch"])
    return Speed(
        record["run"],
        params.image_kind(record["dataset"]).name,
        record["config"]["model"],
        record["config"]["training"]["batch_size"],
        last["hardware"],
        last.get("core") or "PyTorch",
        images / last["seconds"],
        bound_cost(record["config"]["training"]),
    )


def bound_cost(training: dict) -> float:
    """Return how many times as long a step takes as with the ELBO.

    training: its settings, as in train.json. With the gradient of all K samples, K times
    (measured: 4, 8.1 and 15 times with 4, 8 and 16). With that of a drawn one, 1 + K / 4 times
    (2.9, 4.7 and 8.5 times with 8, 16 and 32).
    """
    samples = training.get("bound_samples", 1)
    return 1 + samples / 4 if training.get("bound_gradient") == "drawn" else samples


def estimate(
    run: Run, params: Params, known: list[Speed], epochs: int, processor: str
) -> Estimate | None:
    """Estimate the time for `epochs` of the run; None if no comparable training is recorded.

    The time grows with the samples of the bound. Of equally similar trainings, one on this
    `processor` is preferred.
    """
    kind = params.image_kind(run.dataset).name
    mine, bound = dict(_flat(as_dict(run.model))), bound_cost(as_dict(run.training))

    def distance(speed: Speed) -> tuple:
        changes = len(_different(mine, speed)) + (speed.batch_size != run.training.batch_size)
        changes += speed.bound != bound
        return changes, processor not in speed.hardware, speed.run != run.name

    alike = [speed for speed in known if speed.kind == kind and speed.images_per_second > 0]
    if not alike:
        return None
    nearest = min(alike, key=distance)
    splits = params.datasets[run.dataset]["splits"]
    images = splits["train"] + (splits["valid"] if run.training.split == "train+valid" else 0)
    sizes = [(old, new) for old, new in _different(mine, nearest) if _is_size(old, new)]
    smaller = bool(sizes) and all(old < new for old, new in sizes)
    images *= bound / nearest.bound
    return Estimate(epochs * images / nearest.images_per_second, smaller, nearest)


def _flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _different(mine: dict, speed: Speed) -> list[tuple[Any, Any]]:
    """Return pairs (its value, our value) of the settings in which the models differ."""
    theirs = dict(_flat(speed.model))
    names = {**mine, **theirs}
    pairs = [(theirs.get(name), mine.get(name)) for name in names]
    return [(old, new) for old, new in pairs if old != new]


def _is_size(old: Any, new: Any) -> bool:
    """Return True for numbers or lists of numbers."""
    return all(
        isinstance(value, int | float | list) and not isinstance(value, bool)
        for value in (old, new)
    )
