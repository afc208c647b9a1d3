"""Data-parallel training of one run in one job: several processes, each with its own GPU.

Every process has a full copy of the model, draws the global batch and takes an equal shard of
it. Gradients are averaged over the processes. So is the KL, before free bits clamp it. Apart from
rounding, a step equals that of one process with the same global batch. The main process (rank 0)
reads and writes the files.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vlae import logs
from vlae.errors import STOPPED, VlaeError

logger = logging.getLogger(__name__)

LINE = 4096  # maximal bytes of an error message that one process sends to the others
Made = TypeVar("Made")
STOP_SECONDS = 120  # time for the processes to save the state after a request to stop


class ProcessGroup:
    """The processes that train one run together; `rank` is this process's number, 0 the main one.

    With a single process every method returns its argument, and torch.distributed is not used.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.is_main = rank == 0

    def local_shard(self, values: Tensor) -> Tensor:
        """Return this process's shard of a global batch (B, …); B is a multiple of `size`."""
        each = len(values) // self.size
        return values[self.rank * each : (self.rank + 1) * each]

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, equal in all of them and without a gradient."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def mean_with_gradient(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, for a loss.

        Its gradient flows to this process's values only. Averaging the gradients over the
        processes then gives the gradient of the mean.
        """
        return values if self.size == 1 else _MeanWithGradient.apply(values, self)

    def average_gradients(self, weights: list[Tensor]) -> None:
        """Replace each weight's gradient by its mean over the processes, in one message.

        Raises ValueError for a weight without a gradient: the message would be shorter than that
        of the other processes, and its parts would belong to other weights.
        """
        if self.size == 1:
            return
        gradients = [_gradient(weight) for weight in weights]
        flat = self.all_reduce_mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """True if `flag` is true in any process."""
        if self.size == 1:
            return flag
        return self.all_reduce_mean(torch.tensor(float(flag), device=device)).item() > 0

    def agree(self, make: Callable[[], Made], device: torch.device) -> Made:
        """Call make() in every process and return its result.

        If it raises VlaeError in one process, VlaeError is raised in all.
        """
        if self.size == 1:
            return make()
        made: list[Made] = []
        said = b""
        try:
            made.append(make())
        except VlaeError as error:
            said = str(error).encode()[:LINE]
        # Sent as a tensor, because torch.distributed pickles objects.
        line = torch.zeros(LINE, dtype=torch.uint8)
        line[: len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8) if said else 0
        lines = [torch.empty(LINE, dtype=torch.uint8, device=device) for _ in range(self.size)]
        dist.all_gather(lines, line.to(device))
        for said in (bytes(line.tolist()).rstrip(b"\0") for line in lines):
            if said:
                raise VlaeError(said.decode(errors="replace"))
        return made[0]

    def broadcast(self, tensors: list[Tensor]) -> None:
        """Copy the main process's values to all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


def _gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} has no gradient")
    return weight.grad


class _MeanWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: ProcessGroup) -> Tensor:
        return group.all_reduce_mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


SINGLE = ProcessGroup()


def processes_for(gpus: int, device: torch.device) -> int:
    """Return the number of processes for a run that asks for `gpus` GPUs: one per visible GPU.

    On a CPU it is 1, because threads already share the work.
    """
    if device.type != "cuda":
        return 1
    visible = torch.cuda.device_count()
    if visible < gpus:
        logger.info("the run asks for %d GPUs; training on the %d visible here", gpus, visible)
    return min(gpus, visible)


def in_processes(count: int, device: str, work: Callable[..., bool], *arguments: Any) -> bool:
    """Run work(*arguments, group) in `count` processes, as torchrun starts them.

    Returns True if the work is finished, False if a signal or the time limit stopped it. Raises
    VlaeError if one of the processes fails.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="vlae",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=STOP_SECONDS,
    )
    try:
        results = elastic_launch(config, _in_process)(device, work, arguments)
    except SignalException:
        return False
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode == STOPPED:
            return False
        reason = str(failure.message).strip().split("\n")[-1]
        raise VlaeError(f"a training process failed: {reason}") from None
    refused = results[0]
    if refused:
        raise VlaeError(refused)
    return True


def _in_process(device: str, work: Callable[..., bool], arguments: tuple) -> str:
    """Do the work in one of the processes; return "" when it is finished, else a line of error.

    If the work is stopped before its end, the process exits here. PyTorch's launcher then no
    longer asks for the result, and the worker would wait for that for ever.
    """
    logs.to_stderr()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        done = work(*arguments, ProcessGroup(rank, size))
    except VlaeError as error:
        return str(error)
    if not done:
        # The first exit makes the launcher end the others, so wait until the main one has saved.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        dist.barrier()
        sys.stderr.flush()
        os._exit(STOPPED)
    dist.destroy_process_group()
    return ""
