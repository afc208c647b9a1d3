"""Variational Lossy Autoencoder (Chen et al., ICLR 2017): trained models as a library.

    import vlae
    model = vlae.load("static_mnist-vlae")
    x = vlae.test_images("static_mnist", 10)
    again = model.decompress(x, seed=0)

Training, evaluation and the paper's tables and figures are the commands of `vlae --help`. The
pipeline around them is the Snakefile of the repository.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlae.library.images import test_images
    from vlae.library.pretrained import Encoding, Pretrained, load

__version__ = "0.1.0"
__all__ = ["Encoding", "Pretrained", "load", "test_images"]

# Names are imported when they are used: `import vlae` and the quick commands do without PyTorch.
_PLACES = {
    "Encoding": "pretrained",
    "Pretrained": "pretrained",
    "load": "pretrained",
    "test_images": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vlae.library.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
