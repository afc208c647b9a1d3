"""The revision that a record names: read wherever it can be, never lost without a word."""

import json
import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from miniature import PROJECT, small_params, write_data
from vlae.data.dataset import load
from vlae.revision import revision
from vlae.training.train import train

RUN = "static_mnist-vlae"


def git(*arguments: str, folder: Path | str = ".") -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def nobody_s_settings(monkeypatch):
    monkeypatch.delenv("VLAE_REVISION", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")


@pytest.fixture
def files(project):
    """The files of a small project, without a repository."""
    (project / "src").mkdir()
    (project / "src" / "code.py").write_text("x = 1\n")
    (project / "params.yaml").write_text("runs: {}\n")
    for name in (".gitattributes", ".git_archival.txt"):
        shutil.copy(PROJECT / name, project)
    return project


@pytest.fixture
def clone(files):
    """The same in a repository, committed."""
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "the project")
    return files


def the_warning(caplog) -> str:
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    message = record.getMessage()
    assert "VLAE_REVISION" in message and "\n" not in message
    return message


def test_is_the_commit(clone, caplog):
    assert revision() == git("rev-parse", "HEAD")[:12]
    assert not caplog.records


@pytest.mark.parametrize("changed", ["src/code.py", "src/new.py"])
def test_says_that_the_code_differs_from_it(clone, changed):
    (clone / changed).write_text("x = 2\n")
    assert revision() == git("rev-parse", "HEAD")[:12] + "+"
    if changed == "src/code.py":
        git("checkout", "--quiet", changed)
        (clone / "params.yaml").write_text("runs: {a: 1}\n")
        assert revision() == git("rev-parse", "HEAD")[:12]


def test_a_name_given_by_hand_goes_first(clone, monkeypatch):
    monkeypatch.setenv("VLAE_REVISION", "abc1234")
    assert revision() == "abc1234"


def test_is_read_in_a_clone_of_another_user(clone, monkeypatch, caplog):
    commit = git("rev-parse", "HEAD")[:12]
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError):
        git("rev-parse", "HEAD")  # git itself refuses
    assert revision() == commit
    assert not caplog.records


def test_is_read_in_a_shallow_clone_and_in_a_worktree(clone, tmp_path_factory, monkeypatch):
    git("commit", "--quiet", "--allow-empty", "--message", "another")
    commit = git("rev-parse", "HEAD")[:12]
    others = tmp_path_factory.mktemp("others")
    git("clone", "--quiet", "--depth", "1", f"file://{clone}", str(others / "shallow"))
    git("worktree", "add", "--quiet", "--detach", str(others / "tree"))
    for name in ("shallow", "tree"):
        monkeypatch.chdir(others / name)
        assert revision() == commit


def test_without_git_it_is_unknown_and_says_so(clone, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(clone))
    assert revision() == "unknown: git is not installed"
    assert "git is not installed" in the_warning(caplog)


def test_before_the_first_commit_it_is_unknown(files, caplog):
    git("init", "--quiet")
    git("add", "--all")
    assert revision().startswith("unknown: ")
    the_warning(caplog)


def test_files_alone_are_of_an_unknown_revision(files, caplog):
    assert revision().startswith("unknown: git: not a git repository")
    the_warning(caplog)


def test_the_repository_of_something_else_is_not_asked(clone, caplog, monkeypatch):
    """Files unpacked somewhere inside another repository."""
    inside = clone / "unpacked"
    shutil.copytree(clone / "src", inside / "src")
    shutil.copy(clone / "params.yaml", inside)
    monkeypatch.chdir(inside)
    assert revision().startswith("unknown: ")
    the_warning(caplog)


def test_an_archive_knows_its_commit(clone, tmp_path_factory, monkeypatch, caplog):
    """GitHub's ZIP files and Zenodo's releases are made by `git archive`."""
    commit = git("rev-parse", "HEAD")[:12]
    folder = tmp_path_factory.mktemp("archive")
    git("archive", "--output", str(folder / "it.tar"), "HEAD")
    subprocess.run(["tar", "-xf", folder / "it.tar", "-C", folder], check=True)
    monkeypatch.chdir(folder)
    assert revision() == f"{commit} (an archive)"
    assert not caplog.records


@pytest.fixture
def trained(project):
    """A function that trains a small run, where there is no git; returns the recorded revision."""
    params = small_params(project, {"batch_size": 32}, {})
    write_data(project, params)
    run = params.run(RUN)
    dataset = load(run.dataset, params.image_kind(run.dataset))

    def train_it() -> str:
        train(run, dataset, device="cpu")
        folder = project / "results" / "checkpoints" / RUN
        record = json.loads((folder / "train.json").read_text())
        shutil.rmtree(folder)
        assert record["stretches"][-1]["git_revision"] == record["git_revision"]
        return record["git_revision"]

    return train_it


def test_a_record_has_the_reason_where_the_revision_is_unknown(trained, caplog, monkeypatch):
    assert trained().startswith("unknown: ")
    the_warning(caplog)
    monkeypatch.setenv("VLAE_REVISION", "known later")  # the finished state is recorded again
    assert trained() == "known later"


def test_a_record_has_the_revision_that_trained_not_the_one_that_records(trained, monkeypatch):
    monkeypatch.setenv("VLAE_REVISION", "elsewhere")
    trained()
    monkeypatch.setenv("VLAE_REVISION", "at home")
    assert trained() == "elsewhere"
