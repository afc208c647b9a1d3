"""`vlae` commands as processes that can be killed, without importing torch anew for each."""

import multiprocessing
import os
import sys
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["vlae.training.train", "vlae.data.dataset", "vlae.cli", "dvclive"]
)


def _run(folder: str, arguments: list[str]) -> None:
    import torch

    from vlae.cli import main

    os.chdir(folder)
    torch.set_num_threads(1)
    with open("stderr.txt", "w") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


class Command:
    """vlae ARGUMENTS, started in `folder`; exit code and standard error once it has ended."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.process = _context.Process(target=_run, args=(str(folder), list(arguments)))
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the command did not end"
        return self.process.exitcode

    def running(self) -> bool:
        return self.process.is_alive()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text()
