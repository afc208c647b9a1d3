"""What lies ahead: which stages are asked for again, why each one is to run, how long it takes,
and which trainings are too long to be begun without being asked for by name."""

import argparse
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import hand_on
from console import stop
from dvc_state import Record
from estimate import DAY, Estimate, Speed, duration, estimate, speeds
from plan import reason
from vlae.config.schema import Params


class Ahead:
    """Of one call of snakemake, whose command line `options` describe (record.py).

    left: names (of runs, data sets and classifiers) that nothing is computed for; those that are
        too long come to them.
    forced: stages that run although they are recorded.
    """

    def __init__(self, options: argparse.Namespace, params: Params):
        self.options, self.params = options, params
        self.left = {*options.leave}
        self.forced: set[str] = set()
        self.long: dict[str, str] = {}  # run -> itself and its time, in words
        self._records: dict[str, dict] | None = None

    @cached_property
    def device(self) -> str:
        """The type of the device that trainings run on."""
        return "cuda" if self.options.cluster else self._here[0]

    @cached_property
    def processor(self) -> str:
        """The name of this machine's processor or GPU."""
        return self._here[1].rpartition(" of ")[2]

    @cached_property
    def _here(self) -> tuple[str, str]:
        from vlae.hardware import choose_device, describe  # PyTorch, of use only for estimates

        device = choose_device("auto")
        return device.type, describe(device)

    def records(self, record: Record) -> dict[str, dict]:
        """stage -> what it has recorded, for speeds and for what has changed since; read when
        something is to be run."""
        if self._records is None:
            self._records = record.json_outputs(record.results)
        return self._records

    def ask_again(self, record: Record) -> None:
        """Take what the command line forces for outdated, as far as it is not left out."""
        forced: set[str] = set()
        for name in self.options.again:
            stages = stages_of(record, name)
            wanted = {stage for stage in stages if name_of(stage) not in self.left}
            if stages and not wanted:
                stop(f"{name} is forced, but train=false or runs=… leaves it out")
            forced |= wanted
        if self.options.all_again:
            forced = {stage for stage in record.results if name_of(stage) not in self.left}
        self.force(record, forced)
        self.leave_long_ones(record, forced)
        self.force(record, {stage for stage in forced if name_of(stage) not in self.left})

    def force(self, record: Record, stages: set[str]) -> None:
        """Let these stages, and no others, run although they are recorded."""
        self.forced = stages
        record.force(stages)

    def leave_long_ones(self, record: Record, stages: Iterable[str]) -> None:
        """Leave out those of the trainings among these stages that would take more than a day here
        and are neither named on the command line nor begun before."""
        perhaps_recorded = record.cached.intersection(filter(record.unchanged, record.results))
        candidates = [
            stage
            for stage in stages
            if stage.startswith("train@")
            and stage not in perhaps_recorded
            and name_of(stage) not in self.left
        ]
        if self.options.by_name or not candidates or self.device != "cpu":
            return
        long = {}
        for stage in candidates:
            run, time = name_of(stage), self.time(record, stage)
            asked = self.named(record, run) or self.begun(record, stage)
            if time and time.seconds > DAY and not asked:
                long[run] = f"{run} ({'more than' if time.at_least else 'about'} "
                long[run] += f"{duration(time.seconds)})"
        if long:
            self.left |= long.keys()
            self.long |= long

    def left_out(self) -> str:
        """A line that says which runs are too long; "" if none is."""
        if not self.long:
            return ""
        return (
            f"left out, as without a GPU each would take more than a day: "
            f"{', '.join(self.long.values())}; --config runs='{' '.join(self.long)}' computes them"
        )

    def named(self, record: Record, run: str) -> bool:
        """Return True if a target or a forced file is a result of this run."""
        files = {Path(name).as_posix() for name in (*self.options.targets, *self.options.again)}
        results = {out for s in record.results if name_of(s) == run for out in record.outs[s]}
        return bool(files & results)

    def begun(self, record: Record, stage: str) -> bool:
        """Return True for a first training that has been begun here. Of one that is recorded, the
        state may be that of other settings."""
        return stage not in self.records(record) and hand_on.has_state(name_of(stage))

    def speeds(self, record: Record) -> list[Speed]:
        """Of the recorded trainings on such a device."""
        found = self.records(record).items()
        trained = [content for stage, content in found if stage.startswith("train@")]
        return speeds(trained, self.params, self.device)

    def time(self, record: Record, stage: str) -> Estimate | None:
        """The time that a stage takes; known of trainings alone, and not of all."""
        step, _, name = stage.partition("@")
        if step != "train":
            return None
        run = self.params.runs[name]
        epochs = run.training.epochs
        recorded = self.records(record).get(stage)
        if stage not in self.forced and recorded:
            epochs -= self._epochs_behind(record, stage, recorded)
        return estimate(run, self.params, self.speeds(record), epochs, self.processor)

    def _epochs_behind(self, record: Record, stage: str, recorded: dict) -> int:
        """Those of a recorded checkpoint from which a longer budget goes on."""
        run = self.params.runs[name_of(stage)]
        why = reason(record, stage, self.params, recorded) or ""
        settings = {change.partition(" ")[0] for change in why.split(", ")}
        there = recorded.get("epochs")
        budget_only = settings <= {"epochs", "decay_epochs", "decay"}
        if not budget_only or not isinstance(there, int):
            return 0
        return there if there <= run.training.epochs - run.training.decay_epochs else 0

    def plan(self, record: Record, to_run: Iterable[str]) -> dict[str, dict]:
        """stage -> why it runs and how long it takes, in words, and in seconds: of those that have
        a reason of their own."""
        found = {}
        stages = [stage for stage in to_run if name_of(stage) not in self.left]
        for stage in stages:
            known = {} if stage.startswith("fetch@") else self.records(record)
            why = reason(record, stage, self.params, known.get(stage))
            above = {up for up in record.upstream[stage] if not up.startswith("fetch@")}
            if why is None or (above.intersection(stages) and stage not in self.forced):
                continue
            time = self.time(record, stage)
            words = time.text(name_of(stage)) if time else ""
            if not time and stage.startswith("train@"):
                words = "how long is not known: no like training is recorded"
            elif time and self.begun(record, stage):
                words += ", less what its state in scratch/ has behind it"
            found[stage] = {"why": why, "time": words, "seconds": time.seconds if time else None}
        return found


def name_of(stage: str) -> str:
    """The run, data set or classifier of a stage."""
    return stage.partition("@")[2]


def stages_of(record: Record, name: str) -> set[str]:
    """The stages that a rule of this name runs, or that make this file."""
    path = Path(name).as_posix()
    return {
        stage
        for stage in record.results
        if stage.partition("@")[0] == name or path in record.outs[stage]
    }
