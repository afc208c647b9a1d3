"""Remotes that lose, damage or withhold what was published: never used, and said in one line.

The object in question is the checkpoint of a run; `record.py run` is what the workflow asks
before anything else (workflow/rules/common.smk).
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

import reliability
import s3_store
from http_server import Server
from pipeline import RUNS, Workflow
from s3_store import SIGNED, store

pytestmark = [pytest.mark.slow, pytest.mark.faults]

RUN = RUNS[0]
STAGE = f"train@{RUN}"
MODEL = f"results/checkpoints/{RUN}/model.safetensors"
COLUMNS = ["Remote", "What happened to it", "Wrong files used", "Outcome", "Exit status"]
COLUMNS.append("Seconds")
ROWS: list[list] = []


@pytest.fixture(scope="module", autouse=True)
def report(request):
    """If the figures are to be written, they are a section of the report on reliability."""
    yield
    if ROWS and request.config.getoption("--record-figures"):
        introduction = (
            f"A miniature of the project: {len(RUNS)} runs, published, cloned, and asked for in "
            "the clone; S3 is a real server of that interface on this machine. Wrong files: "
            "outputs in the clone with another MD5 than dvc.lock says. An entry is what the "
            "run-cache has of a training with another learning rate, which the clone also sets."
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


def all_results(workflow: Workflow) -> set[str]:
    """Every stage whose outputs are published."""
    stages = yaml.safe_load(workflow.read("dvc.lock"))["stages"]
    return {stage for stage in stages if not stage.startswith(("fetch@", "recipes"))}


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


def with_other_md5(change):
    """An entry whose last output has another MD5."""
    return lambda entry: re.sub(
        rb"\w{32}(?=\n  size: \d+\n\Z)", lambda found: change(found[0]), entry
    )


# What an entry says beside its outputs is not used, only compared by its hash.
ENTRY_DAMAGE = DAMAGE | {
    "one bit": with_other_md5(lambda md5: md5[:-1] + bytes([md5[-1] ^ 1])),
    "not UTF-8": with_other_md5(lambda md5: b"\xff" + md5[1:]),
    "nested deeply": lambda entry: b"outs: " + b"[" * 100_000,
    "of another output": with_other_md5(lambda md5: md5[::-1]),
    "too long": lambda entry: b"# " + b"x" * 2_000_000 + b"\n" + entry,
}


# --- The folder in the repository ------------------------------------------------------------


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("mode", [0o644, 0o444])
def test_an_object_in_the_repository(built, tmp_path, what, mode):
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


def test_a_whole_one_restores_everything(built, tmp_path):
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    code, lines, found = ask(clone, "folder in git", "whole")
    assert (code, lines, results_left(found)) == (0, [], set())


def test_the_folder_is_gone(built, tmp_path):
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    shutil.rmtree(clone.folder / "artifacts")
    code, lines, found = ask(clone, "folder in git", "gone")
    assert code == 0 and results_left(found) == all_results(built)
    assert any("neither in the cache nor in the remote" in line for line in lines)


# --- What the run-cache knows of other parameters -------------------------------------------


def other_rate(workflow: Workflow) -> None:
    workflow.edit_params(lambda tree: tree["runs"][RUN].update(training={"learning_rate": 0.01}))


@pytest.fixture(scope="module")
def other(built, tmp_path_factory):
    """A copy in which a run was trained with another rate and published, but not committed."""
    workflow = built.copy_to(tmp_path_factory.mktemp("other") / "copy")
    other_rate(workflow)
    workflow.snakemake()
    assert workflow.trained() == {RUN}
    workflow.do("dvc", "push", "-q", "--run-cache")
    return workflow


def clone_with_other_rate(built, other, tmp_path) -> Workflow:
    """Somebody else's, where the remote is the same folder and the edit is made again."""
    clone = built.clone_to(tmp_path / "clone", mirror=built.env["VLAE_DATA_MIRROR"])
    shutil.rmtree(clone.folder / "artifacts")
    shutil.copytree(other.folder / "artifacts", clone.folder / "artifacts")
    other_rate(clone)
    return clone


def key_of_entry(workflow: Workflow, stage: str = STAGE) -> str:
    """Where the remote's run-cache has what is now recorded of a stage."""
    lock = yaml.safe_load(workflow.read("dvc.lock"))["stages"][stage]
    runs = workflow.folder / ".dvc" / "cache" / "runs"
    (path,) = [p for p in runs.glob("*/*/*") if yaml.safe_load(p.read_text()) == lock]
    return f"runs/{path.relative_to(runs)}"


def same_results(workflow: Workflow, other: Workflow) -> bool:
    md5s = recorded_md5(other)
    return recorded_md5(workflow) == md5s and all(
        hashlib.md5((workflow.folder / path).read_bytes()).hexdigest() == md5
        for path, md5 in md5s.items()
    )


def test_what_others_computed_for_the_same_edit_is_had(built, other, tmp_path):
    """Without a data set, and what was taken is in the run-cache of the clone from then on."""
    clone = clone_with_other_rate(built, other, tmp_path)
    code, lines, found = ask(clone, "folder in git", "an entry whole")
    assert (code, results_left(found)) == (0, set())
    assert not any("warning" in line for line in lines)
    assert not (clone.folder / "data").exists()
    assert same_results(clone, other)
    assert clone.read("dvc.lock") == other.read("dvc.lock")
    clone.do("git", "checkout", "-q", "dvc.lock")
    shutil.rmtree(clone.folder / "artifacts")
    assert not results_left(ask(clone, "folder in git", "gone after an entry was taken")[2])
    assert same_results(clone, other)


@pytest.mark.parametrize("what", ENTRY_DAMAGE)
def test_an_entry_in_the_repository(built, other, tmp_path, what):
    clone = clone_with_other_rate(built, other, tmp_path)
    path = clone.folder / "artifacts" / key_of_entry(other)
    content = ENTRY_DAMAGE[what](path.read_bytes())
    assert content != path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    code, lines, found = ask(clone, "folder in git", f"an entry {what}")
    assert code == 0 and results_left(found) == CONCERNED
    assert any("run-cache entries" in line for line in lines) == (content is not None)
    assert not (clone.folder / ".dvc" / "cache" / key_of_entry(other)).exists()
    if what in ("not UTF-8", "nested deeply"):  # DVC would stumble over it
        clone.snakemake()
        assert clone.trained() == {RUN}
        assert (clone.folder / MODEL).read_bytes() == (other.folder / MODEL).read_bytes()


def test_an_object_of_an_entry_is_damaged(built, other, tmp_path):
    clone = clone_with_other_rate(built, other, tmp_path)
    path = clone.folder / "artifacts" / stored(other)
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"x" * size)
    path.chmod(0o444)
    code, lines, found = ask(clone, "folder in git", "an entry's object replaced")
    assert code == 0 and results_left(found) == CONCERNED
    assert any("damaged objects in the remote, not used: 1" in line for line in lines)
    assert not (clone.folder / MODEL).exists()


# --- A bucket --------------------------------------------------------------------------------


def use_bucket(workflow: Workflow, address: str, verify: bool = True) -> None:
    workflow.env |= s3_store.VARIABLES
    (workflow.folder / ".dvc" / "config.local").write_text(s3_store.config(address, verify))


@contextmanager
def bucket_of(workflow: Workflow, folder: Path):
    """The address of a store that has everything, pushed from a copy with its cache."""
    with store() as address:
        publisher = workflow.copy_to(folder / "publisher")
        use_bucket(publisher, address)
        publisher.do("dvc", "push", "-q", "--run-cache")
        shutil.rmtree(publisher.folder)
        yield address


@pytest.fixture(scope="module")
def bucket(built, tmp_path_factory):
    with bucket_of(built, tmp_path_factory.mktemp("bucket")) as address:
        yield address


def clone_of_bucket(built, tmp_path, address: str, verify: bool = True) -> Workflow:
    clone = built.clone_to(tmp_path / "clone", mirror="/nowhere")
    shutil.rmtree(clone.folder / "artifacts")
    use_bucket(clone, address, verify)
    return clone


def test_pushed_and_pulled_by_another_clone(built, bucket, tmp_path):
    clone = clone_of_bucket(built, tmp_path, bucket)
    code, lines, found = ask(clone, "S3", "whole")
    assert (code, lines, results_left(found)) == (0, [], set())
    for path in recorded_md5(built):
        assert (clone.folder / path).read_bytes() == (built.folder / path).read_bytes()


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("verify", [True, False])
def test_an_object_in_a_bucket(built, bucket, tmp_path, what, verify):
    url = f"{bucket}/vlae/{stored(built)}"
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


def put(address: str, key: str, content: bytes) -> None:
    # Escaped, as the dots of a path are taken out of an address before it is asked for.
    url = f"{address}/{key.replace('..', '%2E%2E').replace('/%2E', '%2F%2E')}"
    requests.put(url, data=content, headers=SIGNED, timeout=30).raise_for_status()


@pytest.mark.parametrize("what", ENTRY_DAMAGE)
def test_an_entry_in_a_bucket(built, other, tmp_path, what):
    key = key_of_entry(other)
    content = (other.folder / ".dvc" / "cache" / key).read_bytes()
    with bucket_of(other, tmp_path) as address:
        requests.delete(f"{address}/vlae/{key}", headers=SIGNED, timeout=30)
        if (content := ENTRY_DAMAGE[what](content)) is not None:
            put(address, f"vlae/{key}", content)
        clone = clone_of_bucket(built, tmp_path, address)
        other_rate(clone)
        code, lines, found = ask(clone, "S3", f"an entry {what}")
    assert code == 0 and results_left(found) == CONCERNED
    assert any("run-cache entries" in line for line in lines) == (content is not None)


def test_keys_that_lead_out_of_the_cache(built, other, tmp_path):
    """What is beside them is had all the same."""
    entry = key_of_entry(other)
    with bucket_of(other, tmp_path) as address:
        for up in range(1, 6):
            put(address, f"vlae/runs/{'../' * up}escaped", b"escaped")
            put(address, f"vlae/{entry}/{'../' * up}escaped", b"escaped")
        put(address, "vlae/runs/unknown", b"unknown")
        put(address, f"vlae/{entry}0", b"unknown")
        listing = requests.get(f"{address}?prefix=vlae/runs/..", headers=SIGNED, timeout=30)
        assert "vlae/runs/../../escaped" in listing.text
        clone = clone_of_bucket(built, tmp_path, address)
        other_rate(clone)
        code, _, found = ask(clone, "S3", "keys with `..`")
    assert code == 0 and not results_left(found)
    assert same_results(clone, other)
    assert not [*tmp_path.rglob("*escaped*"), *tmp_path.rglob("unknown")]
    hexadecimal = re.compile("[0-9a-f]{2}/[0-9a-f]{64}/[0-9a-f]{64}")
    runs = clone.folder / ".dvc" / "cache" / "runs"
    assert all(hexadecimal.fullmatch(str(p.relative_to(runs))) for p in runs.glob("*/*/*"))


def test_a_store_that_is_slow(built, bucket, tmp_path):
    """It takes its time for each answer, less than the timeout."""

    server, _, name = bucket.rpartition("/")

    def forward(request):
        time.sleep(0.2)
        url = server + request.path
        done = requests.request(request.command, url, headers=request.headers, timeout=30)
        request.send_response(done.status_code)
        for name, value in done.headers.items():
            if name not in ("Connection", "Date", "Server"):
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(done.content)

    with answering_store(forward, name) as address:
        clone = clone_of_bucket(built, tmp_path, address)
        code, lines, found = ask(clone, "S3", "every answer 0.2 s late")
    assert (code, lines, results_left(found)) == (0, [], set())
    assert same_results(clone, built)


def test_a_push_to_a_store_that_is_gone(built, tmp_path):
    with store() as address:
        pass
    copy = built.copy_to(tmp_path / "copy")
    use_bucket(copy, address)
    before = copy.contents()
    done = copy.call("dvc", "push", "--run-cache")
    assert done.returncode != 0
    assert "ERROR" in done.stderr
    assert "Traceback" not in done.stderr
    assert copy.contents() == before
    with store() as address:  # the same command once there is one again
        use_bucket(copy, address)
        copy.do("dvc", "push", "--run-cache")
        clone = clone_of_bucket(built, tmp_path, address)
        assert not results_left(ask(clone, "S3", "gone during the first `dvc push`")[2])


def test_the_whole_command_after_an_object_was_replaced(built, tmp_path):
    """With the data at hand it trains that run again, to the same weights."""
    with bucket_of(built, tmp_path) as address:
        put(address, f"vlae/{stored(built)}", b"x" * (built.folder / MODEL).stat().st_size)
        clone = clone_of_bucket(built, tmp_path, address)
        clone.env["VLAE_DATA_MIRROR"] = built.env["VLAE_DATA_MIRROR"]
        clone.do("snakemake", "--cores", "all")
        assert clone.trained() == {RUN}
        # The new record of the training names other seconds: what depends on it follows.
        shutil.rmtree(clone.folder / "results" / "logs")
        clone.do("snakemake", "--cores", "all")
        assert not clone.trained()
        assert "up to date" in clone.do("dvc", "status", *CONCERNED)
    before, after = recorded_md5(built), recorded_md5(clone)
    assert after[MODEL] == before[MODEL]
    # Nothing else differs than the records of how many seconds it took.
    timed = {f"results/checkpoints/{RUN}/{name}" for name in ("train.json", "curve.csv")}
    timed.add(f"results/evaluations/{RUN}.json")
    assert {path for path in before if after[path] != before[path]} <= timed


def test_a_clone_of_a_bucket_is_verified(built, bucket, tmp_path):
    """Each checkpoint that was fetched does what its record says."""
    clone = clone_of_bucket(built, tmp_path, bucket)
    clone.env["VLAE_DATA_MIRROR"] = built.env["VLAE_DATA_MIRROR"]
    ask(clone, "S3", "whole, then `vlae verify`")
    for name in ("static_mnist", "dynamic_mnist", "cifar10"):
        clone.do("vlae", "fetch", name)
    said = clone.do("vlae", "verify")
    assert all(f"{run}: as recorded" in said for run in RUNS)


def nothing_restored(built, tmp_path, address: str, what: str) -> None:
    clone = clone_of_bucket(built, tmp_path, address)
    code, lines, found = ask(clone, "S3", what)
    assert code == 0 and results_left(found) == all_results(built)
    assert lines[0].startswith("vlae: warning: the remote could not be read completely")


def test_a_store_that_is_gone(built, tmp_path):
    with store() as address:
        pass
    nothing_restored(built, tmp_path, address, "server gone")


def test_a_store_that_says_nothing(built, tmp_path):
    with answering_store(lambda request: time.sleep(20)) as address:
        nothing_restored(built, tmp_path, address, "server silent")


def test_a_store_that_answers_with_pages(built, tmp_path):
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
        assert code == 0 and results_left(found) == all_results(built)


@contextmanager
def answering_store(answer, name="bucket"):
    """A server that gives every request, whatever its method, the same answer."""
    with Server() as server:
        handler = server.http.RequestHandlerClass
        for method in ("GET", "HEAD", "POST", "PUT"):
            setattr(handler, f"do_{method}", lambda request: answer(request))
        yield f"{server.url}/{name}"
