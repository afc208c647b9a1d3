"""What a dry run prints of a job."""

import logging

from snakemake_interface_logger_plugins.common import LogEvent

from scripts import script

brief = script("brief")


def job(rule: str, outputs: list[str]) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": "a job", "event": LogEvent.JOB_INFO})
    record.__dict__.update(rule_name=rule, output=outputs, input=["in"], reason="why")
    return record


def test_few_outputs_are_named_and_many_are_counted():
    few, many = [f"{i}.json" for i in range(3)], [f"{i}.json" for i in range(300)]
    train, restore = job("train", few), job("restore", many)
    assert brief.shorten(train) and brief.shorten(restore)
    assert train.__dict__["output"] == few and train.__dict__["input"] == []
    assert restore.__dict__["output"] == ["0.json and 299 more files"]


def test_jobs_that_only_draw_are_not_named():
    assert not brief.shorten(job("figure", ["a.png"]))
    assert brief.shorten(logging.makeLogRecord({"msg": "Building DAG of jobs..."}))
    assert not brief.shorten(logging.makeLogRecord({"msg": "Reasons: none"}))
