"""Tests never touch the training states of whoever runs them."""

import os

os.environ.pop("VLAE_SCRATCH", None)


def pytest_sessionfinish() -> None:
    """A long run of the tests with hostile input leaves its tally (tests/fuzzing.py)."""
    if "VLAE_FUZZ" in os.environ:
        import fuzzing

        if fuzzing.TALLY:
            fuzzing.write_report()
