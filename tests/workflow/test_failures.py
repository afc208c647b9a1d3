"""After a failure its reason is on the screen, however quiet Snakemake was told to be."""

import pytest
import yaml

from miniature import PROJECT
from one_run import new_project


@pytest.fixture(scope="module")
def without_data(tmp_path_factory):
    """A project whose data set is nowhere."""
    folder = tmp_path_factory.mktemp("failures")
    workflow = new_project(folder / "project", folder / "mirror", {}, {})
    tree = yaml.safe_load(workflow.read("params.yaml"))
    for file in tree["datasets"]["static_mnist"]["files"].values():
        file["urls"] = []
        (folder / "mirror" / file["path"]).unlink()
    (workflow.folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return workflow


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.slow), ["--quiet", "all"]])
def test_the_end_of_a_failed_job_s_log_is_on_the_screen(without_data, options):
    done = without_data.call("snakemake", "--cores", "1", *options)
    assert done.returncode == 1
    reason = "static_mnist: cannot get binarized_mnist/binarized_mnist_train.amat"
    assert sum(reason in line for line in done.stderr.splitlines()) == 1
    said = "vlae: error: fetch static_mnist failed; the end of results/logs/fetch/"
    assert said in done.stderr
    if "--quiet" in options:
        assert "Building DAG" not in done.stderr and len(done.stderr.splitlines()) < 20


def test_an_error_before_any_job_is_not_hidden(without_data):
    done = without_data.call("snakemake", "--cores", "1", "--quiet", "all", "--", "nonsense")
    assert done.returncode == 1 and "No rule to produce nonsense" in done.stderr


def test_the_last_lines_of_a_log(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "workflow" / "scripts"))
    import failures

    log = tmp_path / "a.log"
    assert failures.last_lines(log) == []
    log.write_bytes(b"\n\n")
    assert failures.last_lines(log) == []
    log.write_bytes(b"first\n" * 100_000 + b"10%\r20%\r30%\n\nbytes \xff\r\nthe end\n\n")
    lines = failures.last_lines(log)
    assert len(lines) == failures.LINES and lines[-3:] == ["30%", "bytes \ufffd", "the end"]
