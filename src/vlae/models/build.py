"""The model of a run, by its configuration, and what computes it."""

from vlae.config.params import ColourModelConfig, ModelConfig
from vlae.models.colour_vlae import SIDE, ColourVLAE
from vlae.models.vlae import VLAE
from vlae.native.library import in_use

Model = VLAE | ColourVLAE


def model_of(config: ModelConfig | ColourModelConfig, side: int | None = None) -> Model:
    """The model, not initialised. side: pixels of a colour image's side, if not 32."""
    if isinstance(config, ColourModelConfig):
        return ColourVLAE(config, side or SIDE)
    return VLAE(config)


def core_at_work(config: ModelConfig | ColourModelConfig, device: str, precision: str) -> str:
    """What does the work of the network, for the record. Of colour images the C++ core does what
    stands between the convolutions (vlae.native.elementwise)."""
    core = in_use(device, precision)
    if isinstance(config, ColourModelConfig) and core != "PyTorch":
        return "PyTorch, between convolutions C++ (AVX-512)"
    return core
