"""Plans a call of snakemake: which stages will run, why, and how long each takes.

Trainings that take too long here are left out unless the command line names them.
"""

import argparse
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import hand_on
from console import stop
from dvc_state import DATA, Record
from estimate import DAY, Estimate, Speed, duration, estimate, speeds
from plan import reason
from vlae.config.schema import Params
from vlae.config.stages import split_stage


class Ahead:
    """The plan of one call of snakemake, whose command line `options` describe (record.py).

    left: names of runs, data sets and classifiers for which nothing is computed. Runs that take
        too long are added.
    forced: stages that run although they are recorded.
    """

    def __init__(self, options: argparse.Namespace, params: Params):
        self.options, self.params = options, params
        self.left = {*options.leave}
        self.forced: set[str] = set()
        self.long: dict[str, str] = {}  # run -> its name and time, in words
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
        from vlae.hardware import (
            choose_device,
            describe,
        )  # loads PyTorch, which only estimates need

        device = choose_device("auto")
        return device.type, describe(device)

    def records(self, record: Record) -> dict[str, dict]:
        """Return stage -> its recorded JSON file. Read only if something has to run.

        It gives the speeds of trainings, and the settings that have changed since.
        """
        if self._records is None:
            self._records = record.json_outputs(record.results)
        return self._records

    def ask_again(self, record: Record) -> None:
        """Treat stages that the command line forces as outdated, unless they are left out."""
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
        """Let exactly these stages run although they are recorded."""
        self.forced = stages
        record.force(stages)

    def leave_long_ones(self, record: Record, stages: Iterable[str]) -> None:
        """Leave out the trainings among these stages that would take more than a day here.

        Trainings that the command line names, or that have been started before, are kept.
        """
        perhaps_recorded = record.cached.intersection(filter(record.unchanged, record.results))
        candidates = [
            stage
            for stage in stages
            if split_stage(stage)[0] == "train"
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
        for run in map(name_of, candidates):
            base = self.params.runs[run].start
            while base and run not in long:
                if base.name in long:
                    long[run] = f"{run} (begins with {base.name})"
                base = base.start
        if long:
            self.left |= long.keys()
            self.long |= long

    def left_out(self) -> str:
        """Return a line that names the runs that take too long, or "" if there are none."""
        if not self.long:
            return ""
        return (
            f"left out, because each would take more than a day without a GPU: "
            f"{', '.join(self.long.values())}; --config runs='{' '.join(self.long)}' computes them"
        )

    def named(self, record: Record, run: str) -> bool:
        """Return True if a target or a forced file is a result of this run."""
        files = {Path(name).as_posix() for name in (*self.options.targets, *self.options.again)}
        results = {out for s in record.results if name_of(s) == run for out in record.outs[s]}
        return bool(files & results)

    def begun(self, record: Record, stage: str) -> bool:
        """Return True if a first training has been started here.

        The state of a recorded training does not count: it may belong to other settings.
        """
        return stage not in self.records(record) and hand_on.has_state(name_of(stage))

    def speeds(self, record: Record) -> list[Speed]:
        """Return the speeds of the recorded trainings on this type of device."""
        found = self.records(record).items()
        trained = [content for stage, content in found if split_stage(stage)[0] == "train"]
        return speeds(trained, self.params, self.device)

    def time(self, record: Record, stage: str) -> Estimate | None:
        """Estimate the time of a stage; None if it is unknown, as for all but trainings."""
        step, name = split_stage(stage)
        if step != "train":
            return None
        run = self.params.runs[name]
        epochs = run.training.epochs
        recorded = self.records(record).get(stage)
        if stage not in self.forced and recorded:
            epochs -= self._epochs_behind(record, stage, recorded)
        return estimate(run, self.params, self.speeds(record), epochs, self.processor)

    def _epochs_behind(self, record: Record, stage: str, recorded: dict) -> int:
        """Return the epochs of the recorded checkpoint from which a training continues, or 0."""
        run = self.params.runs[name_of(stage)]
        why = reason(record, stage, self.params, recorded) or ""
        settings = {change.partition(" ")[0] for change in why.split(", ")}
        there = recorded.get("epochs")
        budget_only = settings <= {"epochs", "decay_epochs", "decay"}
        if not budget_only or not isinstance(there, int):
            return 0
        return there if there <= run.training.epochs - run.training.decay_epochs else 0

    def plan(self, record: Record, to_run: Iterable[str]) -> dict[str, dict]:
        """Return stage -> {"why", "time", "seconds"}: the reason, the time in words, in seconds.

        Stages that run only because another stage runs are omitted, unless they are trainings.
        """
        found = {}
        stages = [stage for stage in to_run if name_of(stage) not in self.left]
        for stage in stages:
            known = {} if stage.startswith(DATA) else self.records(record)
            training = split_stage(stage)[0] == "train"
            above = {up for up in record.upstream[stage] if not up.startswith(DATA)}
            follows = bool(above.intersection(stages))
            why = reason(record, stage, self.params, known.get(stage), follows)
            if why is None or (follows and not training and stage not in self.forced):
                continue
            time = self.time(record, stage)
            words = time.text(name_of(stage)) if time else ""
            if training and not time:
                words = "time unknown: no similar training is recorded"
            elif time and self.begun(record, stage):
                words += ", less the epochs that its state in scratch/ has done"
            found[stage] = {"why": why, "time": words, "seconds": time.seconds if time else None}
        return found


def name_of(stage: str) -> str:
    """Return the run, data set or classifier of a stage."""
    return stage.partition("@")[2]


def stages_of(record: Record, name: str) -> set[str]:
    """Return the stages that the rule `name` runs, or the stage that makes the file `name`."""
    path = Path(name).as_posix()
    return {
        stage
        for stage in record.results
        if split_stage(stage)[0] == name or path in record.outs[stage]
    }
