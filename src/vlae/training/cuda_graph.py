"""A training step as one CUDA graph: recorded once, then launched as a whole each step.

A step of these small networks is some thousand kernels of a few microseconds; launched one
by one, the processor is the bottleneck. A graph reads and writes the same memory at every
replay, so its inputs lie in static tensors that are filled before, and everything that
it changes (weights, average, the optimizer's state, running sums) is changed in place.

Random numbers are drawn outside the graph, from the step's own generator: a resumed run, and
one without a graph, draws the very same.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vlae.data.batches import bits_below
from vlae.images import ImageKind, scaled

logger = logging.getLogger(__name__)

WARM_UP = 3  # steps before capture, in which libraries choose kernels and take workspaces


class StaticInputs:
    """A batch in fixed memory: the numbers of its images (B,), the uniform draws (B, 28, 28)
    that binarize them where the data set is dynamic, and latent noise (B, latent_dim)."""

    def __init__(self, images: Tensor, kind: ImageKind, size: int, latent_dim: int) -> None:
        on = images.device
        self.images, self.kind = images, kind
        self.indices = torch.zeros(size, dtype=torch.int64, device=on)
        dynamic = kind.binarization == "dynamic"
        self.uniform = torch.zeros((size, *images.shape[1:]), device=on) if dynamic else None
        self.noise = torch.zeros((size, latent_dim), device=on) if latent_dim else None

    def fill(self, indices: Tensor, random: torch.Generator) -> None:
        """Take the batch `indices` (B,) and draw what as_input and latent_noise draw."""
        self.indices.copy_(indices)
        for static, draw in ((self.uniform, torch.rand), (self.noise, torch.randn)):
            if static is not None:
                draw(static.shape, generator=random, out=static)

    def x(self) -> Tensor:
        """Network input, the same as as_input's."""
        images = self.images[self.indices]
        if self.kind.binarization == "none":
            return scaled(images)
        bits = images.float() if self.uniform is None else bits_below(images, self.uniform)
        return bits.unsqueeze(1)


@contextmanager
def unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the tensors' values at the end, whatever happens inside, and drop their
    gradients."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.detach().copy_(value)
            tensor.grad = None


class CapturedStep:
    """step(indices, random): one training step, by a single launch.

    `update(x, noise)` does the work on the input (B, C, H, W) and the noise (B, latent_dim) or
    None; `changed` are all tensors that it changes, each in place.
    """

    def __init__(
        self,
        update: Callable[[Tensor, Tensor | None], None],
        inputs: StaticInputs,
        changed: Sequence[Tensor],
    ) -> None:
        self.update, self.inputs, self.changed = update, inputs, changed
        self.graph: torch.cuda.CUDAGraph | None = None

    def body(self) -> None:
        """Run what is captured; works on any device."""
        self.update(self.inputs.x(), self.inputs.noise)

    def capture(self) -> "CapturedStep":
        """Record the graph, leaving all tensors as they are; returns self.

        Raises RuntimeError where the driver or an operation does not allow it.
        """
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            # A side stream, since the default one cannot be captured; the warm-up takes the
            # same, for libraries keep a workspace for each stream.
            with torch.cuda.stream(side), unchanged(self.changed):
                for _ in range(WARM_UP):
                    self.body()
                with torch.cuda.graph(graph, stream=side):
                    self.body()
        finally:
            torch.cuda.current_stream().wait_stream(side)
        self.graph = graph
        return self

    def __call__(self, indices: Tensor, random: torch.Generator) -> None:
        """One step with the images `indices` (B,). Raises RuntimeError before `capture`."""
        if self.graph is None:
            raise RuntimeError("this step has not been captured")
        self.inputs.fill(indices, random)
        self.graph.replay()


def captured(step: CapturedStep) -> CapturedStep | None:
    """The step with its graph, or None where it cannot be captured, saying why in one line."""
    try:
        return step.capture()
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        logger.info("no CUDA graph, steps are launched one by one: %s", reason)
        return None
