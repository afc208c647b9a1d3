"""The command `vlae`, also started by `python -m vlae`."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line; Ctrl-C and SIGTERM end it with one line at any moment."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    from vlae.cli import main

    status = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done; only Python has to exit
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, so that unfinished files are removed.

    While modules are imported, end the process at once: some modules swallow the exception.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends it without cleaning up
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # often sent right after the first signal
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if "DVC_STAGE" not in os.environ:  # the caller of DVC says so
                os.write(2, b"vlae: interrupted\n")
            # The module may be half imported itself: it has no unfinished file then.
            for path in getattr(sys.modules.get("vlae.storage.write"), "UNFINISHED", ()):
                path.unlink(missing_ok=True)
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
