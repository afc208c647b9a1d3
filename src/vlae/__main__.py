"""The command `vlae`, and python -m vlae."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line, in which Ctrl-C, and SIGTERM, is one line at any moment."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    from vlae.cli import main

    status = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; only Python itself has to end
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, so that what is half written is removed; but end at once while
    modules are imported: not all of them let an exception through."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second time without waiting for that
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may follow the first signal at once
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if "DVC_STAGE" not in os.environ:  # whoever called DVC says it
                os.write(2, b"vlae: interrupted\n")
            writing = sys.modules.get("vlae.storage.write")
            for path in writing.UNFINISHED if writing else ():
                path.unlink(missing_ok=True)
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
