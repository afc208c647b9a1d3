"""PyTorch's containers, of which containers.pyi says what modules are in them.

PyTorch itself says of each only that it is some nn.Module. The type in brackets is known to a
type checker alone: annotations that are evaluated have to stand in quotes.
"""

from torch.nn import ModuleList, Sequential

__all__ = ["ModuleList", "Sequential"]
