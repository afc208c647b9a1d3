"""Each patch of a library still finds what it replaces, and is still needed."""

import importlib
import inspect
import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest

from miniature import PROJECT
from scripts import script

SCRIPTS = PROJECT / "workflow" / "scripts"
OLD = "schema: '2.0'\nstages: {}\n"


def test_dvc_still_has_what_is_replaced():
    from dvc.repo import checkout as checked_out
    from dvc.utils.serialize import _common
    from dvc_data.index import checkout

    assert callable(_common._dump_data)
    assert parameters(checkout.compare)[:2] == ["old", "new"]
    source = inspect.getsource(checked_out)
    assert "from dvc_data.index.checkout import" in source and "compare(old, new," in source


def test_dvc_still_has_what_the_run_cache_is_read_by():
    from dvc.stage import cache

    assert list(inspect.signature(cache._get_cache_hash).parameters) == ["cache", "key"]
    for name in ("_get_cache_dir", "_get_cache_path"):
        assert callable(getattr(cache.StageCache, name)), f"StageCache.{name} has moved"


def test_dvc_itself_would_still_empty_its_lock_before_it_fills_it(tmp_path):
    """Otherwise the patch can go."""
    code = (
        "import pathlib, sys\n"
        "from dvc.utils.serialize import modify_yaml\n"
        "try:\n"
        "    with modify_yaml('dvc.lock') as content:\n"
        "        content['stages']['a'] = object()  # which cannot be written\n"
        "except Exception: pass\n"
        "print(len(pathlib.Path('dvc.lock').read_text()))\n"
    )

    def left(*before: str) -> int:
        (tmp_path / "dvc.lock").write_text(OLD)
        script = "".join(f"{line}\n" for line in before) + code
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert left() < len(OLD)  # a part, or nothing
    patched = ("import dvc_patched", "dvc_patched.patch()")
    assert left(f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})", *patched) == len(OLD)


def test_the_script_that_is_typed_runs_the_patched_one(tmp_path, monkeypatch):
    """Whatever head the installer wrote, and however often it is installed."""
    program = tmp_path / "dvc"
    program.write_text(
        "#!/bin/sh\n'''exec' python \"$0\"\n' '''\nfrom dvc.cli import main\nmain()\n"
    )
    for _ in range(2):
        script("dvc_patched").install(tmp_path, program)
    monkeypatch.syspath_prepend(tmp_path)
    copy = importlib.import_module("_vlae_dvc")
    called = []
    monkeypatch.setattr(copy, "main", lambda: called.append("patched"))
    runpy.run_path(str(program))
    assert called == ["patched"]


@pytest.fixture
def plugin():
    return pytest.importorskip("snakemake_executor_plugin_slurm")


def parameters(function: Callable) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_snakemakes_slurm_plugin_still_has_what_is_replaced(plugin):
    """By workflow/scripts/slurm_status.py."""
    assert inspect.iscoroutinefunction(plugin.query_job_status)
    assert parameters(plugin.query_job_status) == ["command", "logger"]
    assert parameters(plugin.query_job_status_squeue) == ["runid"]
    assert parameters(plugin.get_min_job_age) == []


def test_snakemakes_slurm_plugin_still_has_what_is_overridden_and_called(plugin):
    """By workflow/scripts/slurm_executor.py."""
    for name, expected in {
        "__post_init__": ["self", "test_mode"],
        "run_job": ["self", "job"],
        "_report_job_error_threadsafe": ["self", "job_info", "msg"],
        "_report_job_submission_threadsafe": ["self", "job_info"],
        "check_active_jobs": ["self", "active_jobs"],
        "cancel_jobs": ["self", "active_jobs"],
        "shutdown": ["self"],
        "get_account_arg": ["self", "job"],
        "get_partition_arg": ["self", "job"],
    }.items():
        assert parameters(getattr(plugin.Executor, name)) == expected, name
    assert {"job", "params", "settings", "failed_nodes"} <= {
        *parameters(plugin.get_submit_command)
    }
    assert parameters(plugin.set_gres_string) == ["job"]
    source = inspect.getsource(plugin.Executor)
    for used in (
        "self._report_job_error_threadsafe(",
        "self._report_job_submission_threadsafe(",
        "self._fallback_account_arg",
        "self._failed_nodes",
        "self.run_uuid",
        "self.next_seconds_between_status_checks",
        "self._job_submission_executor.submit(self.run_job, job)",
        "The error message was '{e.output.strip()}'.\\n",
    ):
        assert used in source, used


def test_snakemake_still_takes_its_executor_from_the_registry(plugin):
    from snakemake.scheduling import job_scheduler
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    assert ExecutorPluginRegistry().get_plugin("slurm").executor is plugin.Executor
    assert "executor_plugin.executor(" in inspect.getsource(job_scheduler)


def test_the_plugin_itself_would_still_take_a_refusal_for_a_failed_job(plugin):
    """Otherwise workflow/scripts/slurm_executor.py can go."""
    source = inspect.getsource(plugin.Executor.run_job)
    refused = source[source.index("except subprocess.CalledProcessError") :]
    assert refused.index("self._report_job_error_threadsafe(") < refused.index("return")
