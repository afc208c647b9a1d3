"""A training step as one CUDA graph, captured once and replayed at each step.

A step of these small networks is about a thousand kernels of a few microseconds. Launched one by
one, they make the CPU the bottleneck. A graph reads and writes the same memory at every replay.
Its inputs are therefore static tensors that are filled before each replay. Everything that it
changes (weights, average, optimizer state, running sums) is changed in place.

Random numbers are drawn outside the graph, from the step's own generator. A resumed run, and a
run without a graph, therefore draw the same numbers.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vlae.config.schema import TrainingConfig
from vlae.data.batches import bits_below, mirrored
from vlae.images import ImageKind, scaled

logger = logging.getLogger(__name__)

WARM_UP = 3  # steps before capture, in which libraries choose kernels and allocate workspaces


class StaticInputs:
    """A batch in fixed memory: image indices (B,) and latent noise (B * K, latent_dim).

    A data set with dynamic binarization adds uniform noise (B, 28, 28), which binarizes the
    images. Drawing the samples whose gradient is taken needs uniform noise (B,), and so does
    mirroring images.
    """

    def __init__(
        self, images: Tensor, kind: ImageKind, training: TrainingConfig, latent_dim: int
    ) -> None:
        on, size = images.device, training.batch_size
        self.images, self.kind = images, kind
        self.indices = torch.zeros(size, dtype=torch.int64, device=on)
        dynamic = kind.binarization == "dynamic"
        self.greys = torch.zeros((size, *images.shape[1:]), device=on) if dynamic else None
        noise = (size * training.bound_samples, latent_dim)
        self.noise = torch.zeros(noise, device=on) if latent_dim else None
        draws = training.bound_gradient == "drawn"
        self.selection = torch.zeros(size, device=on) if draws else None
        self.mirroring = torch.zeros(size, device=on) if training.augment == "flip" else None

    def fill(self, indices: Tensor, random: torch.Generator) -> None:
        """Take the batch `indices` (B,) and draw what a step draws, in the same order."""
        self.indices.copy_(indices)
        for static, draw in (
            (self.greys, torch.rand),
            (self.noise, torch.randn),
            (self.selection, torch.rand),
            (self.mirroring, torch.rand),
        ):
            if static is not None:
                draw(static.shape, generator=random, out=static)

    def x(self) -> Tensor:
        """Return the network input, equal to that of as_input and mirrored."""
        images = self.images[self.indices]
        if self.kind.binarization == "none":
            return mirrored(scaled(images), self.mirroring)
        bits = images.float() if self.greys is None else bits_below(images, self.greys)
        return mirrored(bits.unsqueeze(1), self.mirroring)


@contextmanager
def unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the tensors' values and drop their gradients on exit, even after an exception."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.detach().copy_(value)
            tensor.grad = None


class CapturedStep:
    """step(indices, random) does one training step with a single launch.

    `update(x, noise, selection)` does the work for input x (B, C, H, W), noise (B * K, latent_dim)
    or None, and uniform numbers (B,) or None.
    `changed` lists all tensors that it changes, each in place.
    """

    def __init__(
        self,
        update: Callable[[Tensor, Tensor | None, Tensor | None], None],
        inputs: StaticInputs,
        changed: Sequence[Tensor],
    ) -> None:
        self.update, self.inputs, self.changed = update, inputs, changed
        self.graph: torch.cuda.CUDAGraph | None = None

    def body(self) -> None:
        """Run the work that `capture` records; works on any device."""
        self.update(self.inputs.x(), self.inputs.noise, self.inputs.selection)

    def capture(self) -> "CapturedStep":
        """Capture the graph without changing any tensor; return self.

        Raises RuntimeError if the driver or an operation does not allow capture.
        """
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            # The default stream cannot be captured, hence a side stream. The warm-up uses the
            # same stream, because libraries keep one workspace per stream.
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
        """Do one step with the images `indices` (B,). Raises RuntimeError before `capture`."""
        if self.graph is None:
            raise RuntimeError("this step has not been captured")
        self.inputs.fill(indices, random)
        self.graph.replay()


def captured(step: CapturedStep) -> CapturedStep | None:
    """Return the step with its graph; if capture fails, log the reason and return None."""
    try:
        return step.capture()
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        logger.info("no CUDA graph, so kernels are launched one by one: %s", reason)
        return None
