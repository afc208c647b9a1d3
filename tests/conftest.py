"""Tests never touch the training states of whoever runs them."""

import os

import pytest

import reliability
import small_disk
from vlae import logs
from vlae.native import network

os.environ.pop("VLAE_SCRATCH", None)
logs.to_stderr()  # as on the command line

# Started first, so that several processes (pytest-xdist) end at about the same time.
LONGEST = (
    "test_workflow",
    "test_cluster",
    "test_refined",
    "test_distributed",
    "test_train",
    "test_gestures",
    "test_own_data",
)


def pytest_collection_modifyitems(items) -> None:
    def order(item) -> int:
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=order)


def pytest_sessionfinish() -> None:
    """A long run of the tests with hostile input leaves its tally (tests/support/fuzzing.py)."""
    if "VLAE_FUZZ" in os.environ:
        import fuzzing

        if fuzzing.TALLY:
            fuzzing.write_report()


def pytest_addoption(parser):
    parser.addoption(
        "--record-figures",
        action="store_true",
        help="write what the tests of reliability measure to results/reliability.md",
    )


@pytest.fixture(scope="session")
def record(request):
    """reliability.record, if the figures are to be written."""
    if request.config.getoption("--record-figures"):
        return reliability.record
    return lambda *row: None


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder, in which the test is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLAE_SCRATCH", raising=False)
    return tmp_path


@pytest.fixture
def small(tmp_path):
    """A folder that is a small file system of its own (tests/support/small_disk.py)."""
    with small_disk.mounted(tmp_path / "small") as folder:
        yield folder


@pytest.fixture
def without_core(monkeypatch):
    """A function that runs another one as if there were no core."""

    def run(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(network, "library", lambda: None)
            return function(*arguments)

    return run
