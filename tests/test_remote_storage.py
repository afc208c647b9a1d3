"""Remotes that lose, damage or withhold what was published: never used, and said in one line.

The object in question is the checkpoint of a run; `record.py run` is what the workflow asks
before anything else (workflow/rules/common.smk).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import requests
import yaml

import reliability
from http_server import Server
from test_workflow import RUNS, Workflow, built  # noqa: F401  the fixture

pytestmark = [pytest.mark.slow, pytest.mark.faults]

RUN = RUNS[0]
STAGE = f"train@{RUN}"
MODEL = f"results/checkpoints/{RUN}/model.safetensors"
COLUMNS = ["Remote", "What happened to it", "Wrong files used", "Outcome", "Exit status"]
COLUMNS.append("Seconds")
ROWS: list[list] = []


@pytest.fixture(scope="module", autouse=True)
def report():
    """With VLAE_FUZZ set, the figures as a section of the report on reliability."""
    yield
    if ROWS and "VLAE_FUZZ" in os.environ:
        introduction = (
            "A miniature of the project: three runs, published, cloned, and asked for in the "
            "clone; S3 is a real server of that interface on this machine. Wrong files: "
            "outputs in the clone with another MD5 than dvc.lock says."
        )
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
        reliability.write_section("remote_storage", "Remote storage", introduction, rows)


def recorded_md5(workflow: Workflow) -> dict[str, str]:
    """Every output but the data sets, which are never published."""
    lock = yaml.safe_load(workflow.read("dvc.lock"))["stages"]
    return {
        out["path"]: out["md5"]
        for stage in lock.values()
        for out in stage["outs"]
        if "md5" in out and not out["path"].startswith(("data/", "results/recipes"))
    }


def wrong_files(workflow: Workflow) -> list[str]:
    """Outputs in their places that are not what dvc.lock says."""
    found = []
    for path, md5 in recorded_md5(workflow).items():
        file = workflow.folder / path
        if file.exists() and hashlib.md5(file.read_bytes()).hexdigest() != md5:
            found.append(path)
    return found


def ask(workflow: Workflow, remote: str, what: str) -> tuple[int, list[str], dict]:
    """What the workflow is told in this clone: exit status, its lines, and the answer."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "workflow/scripts/record.py", "run", "--leave", *RUNS],
        cwd=workflow.folder,
        env=workflow.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    seconds = time.monotonic() - started
    lines = done.stderr.splitlines()
    assert all(line.startswith("vlae: ") for line in lines), done.stderr
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    left = len(found.get("to_run", ())) - len([s for s in found.get("to_run", ()) if "fetch" in s])
    outcome = "everything restored" if not left else f"{left} results asked for again"
    wrong = wrong_files(workflow)
    ROWS.append([remote, what, len(wrong), outcome, done.returncode, round(seconds, 1)])
    assert not wrong
    return done.returncode, lines, found


def results_left(found: dict) -> set[str]:
    return {stage for stage in found["to_run"] if not stage.startswith("fetch@")}


def stored(workflow: Workflow, path: str = MODEL) -> str:
    """The key under which a remote has this output."""
    md5 = recorded_md5(workflow)[path]
    return f"files/md5/{md5[:2]}/{md5[2:]}"


DAMAGE = {
    "replaced": lambda content: b"x" * len(content),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "gone": lambda content: None,
}
CONCERNED = {f"{step}@{RUN}" for step in ("train", "evaluate", "sample")}


# --- The folder in the repository ------------------------------------------------------------


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("mode", [0o644, 0o444])
def test_an_object_in_the_repository(built, tmp_path, what, mode):  # noqa: F811
    """Also one that is write-protected, which DVC takes for one of its own and does not check."""
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    path = clone.folder / "artifacts" / stored(built)
    content = DAMAGE[what](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    protected = ", write-protected" if mode == 0o444 else ""
    code, lines, found = ask(clone, "folder in git", f"an object {what}{protected}")
    assert code == 0
    assert results_left(found) == {STAGE}
    assert any("neither in the cache nor in the remote" in line for line in lines)
    assert not (clone.folder / MODEL).exists()


def test_a_whole_one_restores_everything(built, tmp_path):  # noqa: F811
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    code, lines, found = ask(clone, "folder in git", "whole")
    assert (code, lines, results_left(found)) == (0, [], set())


def test_the_folder_is_gone(built, tmp_path):  # noqa: F811
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    shutil.rmtree(clone.folder / "artifacts")
    code, lines, found = ask(clone, "folder in git", "gone")
    assert code == 0 and len(results_left(found)) == 3 * len(RUNS)
    assert any("neither in the cache nor in the remote" in line for line in lines)


# --- A bucket --------------------------------------------------------------------------------


@contextmanager
def store():
    """A server of S3's interface, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        requests.put(f"http://{host}:{port}/BUCKET", timeout=30).raise_for_status()
        yield server, f"http://{host}:{port}"
    finally:
        server.stop()


def use_bucket(workflow: Workflow, address: str, verify: bool = True) -> None:
    """The lines of docs/sharing.md, with times that suit a test."""
    workflow.env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    workflow.env |= {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "*", "AWS_MAX_ATTEMPTS": "1"}
    (workflow.folder / ".dvc" / "config.local").write_text(
        "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://BUCKET/vlae\n"
        f"    endpointurl = {address}\n    verify = {str(verify).lower()}\n"
        "    connect_timeout = 2\n    read_timeout = 2\n"
    )


@pytest.fixture(scope="module")
def bucket(built, tmp_path_factory):  # noqa: F811
    """The address of a store that has everything, pushed from a copy with its cache."""
    with store() as (_, address):
        publisher = built.copy_to(tmp_path_factory.mktemp("publisher") / "copy")
        use_bucket(publisher, address)
        publisher.do("dvc", "push", "-q", "--run-cache")
        yield address


# The store asks for a signature and does not check whose it is.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=x"
}


def clone_of_bucket(built, tmp_path, address: str, verify: bool = True) -> Workflow:  # noqa: F811
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    shutil.rmtree(clone.folder / "artifacts")
    use_bucket(clone, address, verify)
    return clone


def test_pushed_and_pulled_by_another_clone(built, bucket, tmp_path):  # noqa: F811
    clone = clone_of_bucket(built, tmp_path, bucket)
    code, lines, found = ask(clone, "S3", "whole")
    assert (code, lines, results_left(found)) == (0, [], set())
    for path in recorded_md5(built):
        assert (clone.folder / path).read_bytes() == (built.folder / path).read_bytes()


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("verify", [True, False])
def test_an_object_in_a_bucket(built, bucket, tmp_path, what, verify):  # noqa: F811
    url = f"{bucket}/BUCKET/vlae/{stored(built)}"
    good = requests.get(url, headers=SIGNED, timeout=30).content
    content = DAMAGE[what](good)
    if content is None:
        requests.delete(url, headers=SIGNED, timeout=30).raise_for_status()
    else:
        requests.put(url, data=content, headers=SIGNED, timeout=30).raise_for_status()
    try:
        clone = clone_of_bucket(built, tmp_path, bucket, verify)
        setting = "S3" if verify else "S3, verify false"
        code, lines, found = ask(clone, setting, f"an object {what}")
        assert code == 0 and results_left(found) == {STAGE}
        assert any("neither in the cache nor in the remote" in line for line in lines)
        assert not (clone.folder / MODEL).exists()
    finally:
        requests.put(url, data=good, headers=SIGNED, timeout=30).raise_for_status()


def nothing_restored(built, tmp_path, address: str, what: str) -> None:  # noqa: F811
    clone = clone_of_bucket(built, tmp_path, address)
    code, lines, found = ask(clone, "S3", what)
    assert code == 0 and len(results_left(found)) == 3 * len(RUNS)
    assert lines[0].startswith("vlae: warning: the remote could not be read completely")


def test_a_store_that_is_gone(built, tmp_path):  # noqa: F811
    with store() as (_, address):
        pass
    nothing_restored(built, tmp_path, address, "server gone")


def test_a_store_that_says_nothing(built, tmp_path):  # noqa: F811
    with answering_store(lambda request: time.sleep(20)) as address:
        nothing_restored(built, tmp_path, address, "server silent")


def test_a_store_that_answers_with_pages(built, tmp_path):  # noqa: F811
    """A login page of the network, for every request."""

    def page(request):
        content = b"<html>Please log in</html>"
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    with answering_store(page) as address:
        clone = clone_of_bucket(built, tmp_path, address)
        code, _, found = ask(clone, "S3", "a login page for everything")
        assert code == 0 and len(results_left(found)) == 3 * len(RUNS)


@contextmanager
def answering_store(answer):
    """A server that gives every request, whatever its method, the same answer."""
    with Server() as server:
        handler = server.http.RequestHandlerClass
        for method in ("GET", "HEAD", "POST", "PUT"):
            setattr(handler, f"do_{method}", lambda request: answer(request))
        yield server.url
