"""Builds a model from its configuration; the only module that knows all kinds of models."""

from vlae.config.schema import ColourModelConfig, ModelConfig
from vlae.models.base import Model
from vlae.models.colour_vlae import ColourVLAE
from vlae.models.vlae import VLAE
from vlae.native.library import backend, instructions

MODELS: dict[type, type[Model]] = {ModelConfig: VLAE, ColourModelConfig: ColourVLAE}


def build_model(config: ModelConfig | ColourModelConfig, side: int | None = None) -> Model:
    """Build the uninitialised model. side: height and width in pixels, by default the kind's."""
    model = MODELS[type(config)]
    return model(config) if side is None else model(config, side)


def backend_name(config: ModelConfig | ColourModelConfig, device: str, precision: str) -> str:
    """Return the name of the backend that computes the network, for the record.

    In colour models the C++ core computes only the operations between the convolutions
    (vlae.native.elementwise).
    """
    name = backend(device, precision)
    if MODELS[type(config)] is ColourVLAE and name != "PyTorch":
        return f"PyTorch, between convolutions C++ ({instructions()})"
    return name
