"""Each patch of a library still finds what it replaces, and is still needed."""

import inspect
import subprocess
import sys

import pytest

from miniature import PROJECT

SCRIPTS = PROJECT / "workflow" / "scripts"
OLD = "schema: '2.0'\nstages: {}\n"


def test_dvc_still_has_what_is_replaced():
    from dvc.utils.serialize import _common

    assert callable(_common._dump_data)


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
    patched = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import dvc_atomic"
    assert left(patched) == len(OLD)


def test_snakemakes_slurm_plugin_still_has_what_is_replaced():
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm")
    assert inspect.iscoroutinefunction(plugin.query_job_status)
    assert list(inspect.signature(plugin.query_job_status).parameters) == ["command", "logger"]
