"""Kinds of models, each with its name and its colour."""

from dataclasses import dataclass

from vlae.config.schema import ColourModelConfig, ModelConfig


@dataclass(frozen=True)
class ModelKind:
    """A kind of model. light, dark: its colour on a light and on a dark background."""

    key: str
    title: str
    light: str
    dark: str


# From Okabe and Ito's palette for colour-blind readers; on dark backgrounds lighter.
VLAE = ModelKind("vlae", "VLAE, AF prior", "#0072b2", "#56b4e9")
VLAE_GAUSSIAN = ModelKind("vlae-gaussian", "VLAE, Gaussian prior", "#009e73", "#3ecfa3")
VLAE_IAF = ModelKind("vlae-iaf", "VLAE, IAF posterior", "#8a5a00", "#e8c15a")
VAE = ModelKind("vae", "VAE, factorized decoder", "#c44e00", "#ff8a4c")
ALONE = ModelKind("alone", "Decoder alone, no code", "#a84a86", "#e39cc7")
KINDS = (VLAE, VLAE_GAUSSIAN, VLAE_IAF, VAE, ALONE)


def model_kind(model: ModelConfig | ColourModelConfig) -> ModelKind:
    """Return the kind of a configured model."""
    if isinstance(model, ColourModelConfig):
        return VLAE
    if model.latent_dim == 0:
        return ALONE
    if model.decoder.kind == "factorized":
        return VAE
    if model.posterior.flow != "none":
        return VLAE_IAF
    return VLAE_GAUSSIAN if model.prior.flow == "none" else VLAE
