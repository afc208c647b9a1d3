"""Variational Lossy Autoencoder (Chen et al., ICLR 2017): trained models as a library.

    import vlae
    vlae.runs()                                        # a table of all runs
    model = vlae.load("static_mnist-vlae")
    x = vlae.test_images("static_mnist", 10)
    vlae.save_grid("out.png", x, model.decompress(x, seed=0), model.sample(10, seed=0))

Training, evaluation and the paper's tables and figures are the commands of `vlae --help`. The
pipeline around them is the Snakefile of the repository.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlae.evaluation.picture import save_grid
    from vlae.library.images import test_images
    from vlae.library.pretrained import Encoding, Pretrained, load
    from vlae.library.runs import runs

__version__ = "0.3.0"
__all__ = ["Encoding", "Pretrained", "load", "runs", "save_grid", "test_images"]

# Names are imported on first use, so that `import vlae` and quick commands do not load PyTorch.
_PLACES = {
    "Encoding": "vlae.library.pretrained",
    "Pretrained": "vlae.library.pretrained",
    "load": "vlae.library.pretrained",
    "runs": "vlae.library.runs",
    "save_grid": "vlae.evaluation.picture",
    "test_images": "vlae.library.images",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
