"""Hostile input by the hundreds: what damages it, what watches the code that reads it, the tally.

A case is one input given to the real code. It is accepted, or refused by a VlaeError of one
line; any other exception is a crash and fails the test. While a case runs, an audit hook of the
interpreter sees to it that nothing is unpickled or started, and nothing written outside the
case's folder.

`VLAE_FUZZ=10` tries ten times as many cases as the usual suite and records the tally in
results/reliability/hostile_input.json. Of some of the tests' files, it replaces the rows of
their kinds of input and keeps the others. Any other number tries so many and records nothing.
"""

import os
import pickle
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import reliability
from vlae.errors import VlaeError

PROJECT = Path(__file__).resolve().parents[2]
TIMES = int(os.environ.get("VLAE_FUZZ", "1"))
RECORDED = 10  # times: all rows of the report are of the same effort

LONGEST_LINE = 2000  # characters of a message, the paths in it included
MOST_SECONDS = 20  # of one case, on a busy machine
MOST_MEMORY = 64 * 1024 * 1024  # bytes that one case may add to the process


def cases(examples: int):
    """The settings of a test that tries so many examples, the same ones every time."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# --- What the code under test must not do ----------------------------------------------------

STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn"}
UNPICKLES = {"pickle.find_class", "marshal.loads"}
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod"}


class Watch:
    """Notes every forbidden event between `armed` and its end."""

    def __init__(self):
        self.folder: Path | None = None
        self.seen: list[str] = []
        self._importing = 0
        sys.addaudithook(self._hook)  # for good: there is no way to take one off again

    @contextmanager
    def armed(self, folder: Path):
        self.folder, self.seen = folder.resolve(), []
        try:
            yield
        finally:
            self.folder = None
        assert not self.seen, f"hostile input made the program do this: {self.seen}"

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event in STARTS or (event in UNPICKLES and not _importing()):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes):
                self._place(event, path)
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | bytes):
                    self._place(event, path)

    def _place(self, event: str, path: str | bytes) -> None:
        folder, self.folder = self.folder, None  # what follows raises events itself
        place = Path(os.fsdecode(path)).resolve()
        self.folder = folder
        fine = place.is_relative_to(folder) or "__pycache__" in place.parts
        if not fine and place != Path(os.devnull):
            self.seen.append(f"{event} {place}")


def _importing() -> bool:
    """Whether an import is under way, which unmarshals compiled code."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


WATCH = Watch()


# --- Trying and counting ---------------------------------------------------------------------


@dataclass
class Count:
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: int = 0
    seconds: float = 0.0
    memory: int = 0


TALLY: defaultdict[str, Count] = defaultdict(Count)


def attempt(kind: str, folder: Path, call, *arguments):
    """Give a case of this kind to `call`; what it returns, or the VlaeError that refused it.

    Fails the test if anything else is raised, the message is not one bounded line, anything
    was executed or written elsewhere, or it took too long or too much memory.
    """
    count = TALLY[kind]
    count.tried += 1
    before, started = _peak_memory(reset=True), time.monotonic()
    count.crashes += 1  # until it has ended well
    try:
        with WATCH.armed(folder):
            outcome = call(*arguments)
    except VlaeError as error:
        outcome = error
        line = str(error)
        assert line and "\n" not in line and "\r" not in line, repr(line)
        assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:300]}"
        assert line.isprintable(), repr(line)
    seconds, memory = time.monotonic() - started, _peak_memory() - before
    assert seconds < MOST_SECONDS, f"{seconds:.1f} s"
    assert memory < MOST_MEMORY, f"{memory / 2**20:.0f} MiB"
    count.crashes -= 1
    count.seconds = max(count.seconds, seconds)
    count.memory = max(count.memory, memory)
    if isinstance(outcome, VlaeError):
        count.refused += 1
    else:
        count.accepted += 1
    return outcome


def _peak_memory(reset: bool = False) -> int:
    """Bytes: the largest resident size since the last reset, or at it."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no VmHWM in /proc/self/status")


@contextmanager
def empty_folder():
    """A folder for one case: pytest's are for a whole test."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def write_report() -> None:
    """The tally in its section of the report on reliability."""
    if TIMES != RECORDED:
        return
    known = {row["Input"]: row for row in reliability.rows_of("hostile_input")}
    known.pop("all", None)
    known |= {
        kind: {
            "Input": kind,
            "Cases": c.tried,
            "Refused in one line": c.refused,
            "Accepted": c.accepted,
            "Crashes": c.crashes,
            "Slowest (s)": round(c.seconds, 2),
            "Most memory (MiB)": round(c.memory / 2**20, 1),
        }
        for kind, c in TALLY.items()
    }
    rows = list(known.values())
    columns = list(rows[0])[1:]
    whole = [sum(row[c] for row in rows) for c in columns[:4]]
    whole += [max(row[c] for row in rows) for c in columns[4:]]
    rows.append({"Input": "all", **dict(zip(columns, whole, strict=True))})
    introduction = (
        "A case is accepted where the damage does not matter or cannot be seen, such as in a "
        "comment, or where another valid input came out; what may then be read is bounded. "
        "During every case an audit hook of the interpreter checks that nothing is unpickled, "
        "no program is started and nothing is written outside the case's folder. "
        f"Made by `VLAE_FUZZ={TIMES} pytest tests/hostile/`; the usual suite tries "
        f"1 / {TIMES} of the generated cases."
    )
    reliability.write_section("hostile_input", "Hostile input", introduction, rows)


# --- Damage ----------------------------------------------------------------------------------


class Payload:
    """Unpickled, it starts a program: the audit hook would see it."""

    def __reduce__(self):
        return os.system, ("exit 1",)


PICKLE = pickle.dumps(Payload())
FOREIGN = [
    b"",
    b"\0",
    b"<!DOCTYPE html><html></html>",
    PICKLE,
    b"\x1f\x8b",
    b"PK\x05\x06" + bytes(18),  # an empty zip file
    b"{}",
    b"[" * 100_000,
    b"\x89HDF\r\n\x1a\n" + bytes(99),
    bytes(10_000),
    b"\xff" * 10_000,
]
# What lengths, counts and offsets are made into.
EXTREMES = [
    number.to_bytes(size, order)
    for size, numbers in (
        (2, (0, 1, 2**15, 2**16 - 1)),
        (4, (0, 1, 2**28, 2**31 - 1, 2**31, 2**32 - 1)),
        (8, (0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1)),
    )
    for number in numbers
    for order in ("little", "big")
]


@st.composite
def damaged(draw, content: bytes):
    """The content truncated, with bits flipped, bytes replaced, put in or left out, a number made
    absurd, or something else altogether."""
    ends = min(600, len(content))  # where headers and directories are
    place = st.one_of(
        st.integers(0, ends), st.integers(len(content) - ends, len(content)),
        st.integers(0, len(content)),
    )  # fmt: skip
    how = draw(st.sampled_from(["cut", "flip", "flip", "replace", "extreme", "insert", "omit"]))
    if how == "cut":
        return content[: draw(place)]
    if how == "flip":
        changed = bytearray(content)
        for at in draw(st.lists(place, min_size=1, max_size=6)):
            if at < len(changed):
                changed[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    at = draw(place)
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=40)) + content[at:]
    if how == "omit":
        return content[:at] + content[at + draw(st.integers(1, 100)) :]
    new = draw(st.sampled_from(EXTREMES) if how == "extreme" else st.binary(min_size=1))
    return content[:at] + new + content[at + len(new) :]


def hostile(content: bytes):
    """Damaged content, or now and then something else altogether."""
    return st.one_of(damaged(content), damaged(content), st.sampled_from(FOREIGN))
