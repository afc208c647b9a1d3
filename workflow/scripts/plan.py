"""Describes in words which stages will run and why, as DVC and the records show.

Snakemake's own reasons only name auxiliary files (workflow/rules/common.smk).
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import again
from dvc_state import Record
from estimate import duration
from vlae.config.schema import Params
from vlae.config.stages import configurations, split_stage

MOST_LINES = 8  # for stages with the same reason; more become one line
NOUN = {"train": "training", "evaluate": "evaluation", "sample": "samples"}
NEVER = {
    "train": "never trained",
    "evaluate": "never evaluated",
    "sample": "never sampled",
    "fetch": "not on this machine",
    "labels": "not on this machine",
    "classifier": "never trained",
    "codelength": "never compressed",
    "probe": "never probed",
    "probe_pixels": "never probed",
    "lossy": "never compressed",
}


def reason(
    record: Record, stage: str, params: Params, recorded: dict | None, follows: bool = False
) -> str | None:
    """Return why a stage has to run; None if only because a stage that it depends on runs.

    recorded: its recorded JSON file, such as train.json; None if it cannot be read. follows: a
    stage that it depends on runs.
    """
    step, name = split_stage(stage)
    outs = record.stages[stage].outs
    if stage in record.forced:
        if again.begun(stage):
            return "forced, continues where it was interrupted"
        return "forced, starts from scratch" if step == "train" else "forced"
    if not all(out.hash_info for out in outs):
        by_hand = step in ("fetch", "labels") and all(Path(out.fs_path).exists() for out in outs)
        return "made by hand, not recorded" if by_hand else NEVER[step]
    if changes := list(changed_settings(step, name, params, recorded or {})):
        return ", ".join(changes)
    if step == "train" and follows:
        return "the run that it begins with is trained again"
    if step in ("fetch", "labels"):
        return NEVER[step] if record.unchanged(stage) else "its entry in params.yaml changed"
    changed = record.status.get(stage, [])
    if any(not isinstance(change, dict) for change in changed):
        return "its command in dvc.yaml changed"
    recipe = f"results/recipes/{name}.{step}.json"
    if any(recipe in change.get("changed deps", {}) for change in changed):
        return f"the code of its {NOUN.get(step, step)} changed"
    if stage in record.reconfigured:
        return "its settings changed"
    if stage not in record.consistent:
        return "its data set or checkpoint changed"
    if record.recorded(stage):
        return "recorded, but its result is neither in DVC's cache nor in the remote"
    return None


def changed_settings(step: str, name: str, params: Params, recorded: dict) -> Iterator[str]:
    """Yield the settings that differ from the record, as `learning_rate 0.002 → 0.001`."""
    if step == "train" and isinstance(recorded.get("config"), dict):
        run, config = params.runs[name], recorded["config"]
        if recorded.get("dataset") != run.dataset:
            yield f"dataset {recorded.get('dataset')} → {run.dataset}"
        yield from _differences(run.model, config.get("model"))
        yield from _differences(run.training, config.get("training"))
    if step == "evaluate" and isinstance(recorded.get("config"), dict):
        run = params.runs[name]
        read = configurations(run)["evaluate"]
        yield from _differences(run.evaluation, recorded["config"], only=read)
    if step == "classifier" and recorded:
        yield from _differences(params.classifiers[name], recorded)
    if step == "codelength" and recorded:
        yield from _differences(params.codelengths[name], recorded)
    if step == "lossy" and recorded:
        yield from _differences(params.lossy[name], recorded)


def _differences(
    config: Any, recorded: Any, prefix: str = "", only: Iterable[str] | None = None
) -> Iterator[str]:
    recorded = recorded if isinstance(recorded, dict) else {}
    for one in fields(config):
        if only is not None and one.name not in only:
            continue
        new = getattr(config, one.name)
        if is_dataclass(new):
            yield from _differences(new, recorded.get(one.name), f"{prefix}{one.name}.")
            continue
        new = list(new) if isinstance(new, tuple) else new
        old = recorded.get(one.name, one.metadata.get("unsaid"))
        if old != new:
            yield f"{prefix}{one.name} {'unknown' if old is None else old} → {new}"


def lines(plan: dict[str, dict], stages: Iterable[str]) -> list[str]:
    """Return one line for each of the stages in `plan`.

    More than MOST_LINES stages with the same reason share one line.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for stage in plan:
        if stage in stages:
            alike.setdefault((split_stage(stage)[0], plan[stage]["why"]), []).append(stage)
    return [line for (step, why), some in alike.items() for line in _lines(plan, step, why, some)]


def _lines(plan: dict[str, dict], step: str, why: str, stages: list[str]) -> list[str]:
    names = [stage.partition("@")[2] for stage in stages]
    if len(stages) > MOST_LINES:
        seconds = [plan[stage]["seconds"] for stage in stages]
        known = [number for number in seconds if number]
        time = f"; about {duration(sum(known))} for {len(known)} of them" if known else ""
        return [f"{step} {len(names)}: {why}{time}: {', '.join(names)}"]
    times = [plan[stage]["time"] for stage in stages]
    return [
        f"{step} {name}: {why}" + (f"; {time}" if time else "")
        for name, time in zip(names, times, strict=True)
    ]
