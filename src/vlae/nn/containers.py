"""PyTorch's containers; containers.pyi declares the type of the modules that they hold.

PyTorch types every element as nn.Module. Only a type checker knows the type in brackets, so
annotations that Python evaluates must be quoted.
"""

from torch.nn import ModuleList, Sequential

__all__ = ["ModuleList", "Sequential"]
