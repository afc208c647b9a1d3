"""The settings of runs as frozen dataclasses. Each field has its range.

The defaults are in params.yaml.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from vlae.data.spec import MOST_IMAGES
from vlae.errors import VlaeError, suggestion
from vlae.images import COLOUR, ImageKind, image_kind
from vlae.options import MOST_BITS

# Limits far above sensible values, against typing errors and hostile files.
WIDEST = 100_000  # units of a layer
MOST_MAPS = 10_000
DEEPEST = 1000  # layers, blocks, steps of a flow
MOST_EPOCHS = 10_000_000
LARGEST_BATCH = 100_000  # images in one step
MOST_SAMPLES = 1_000_000  # importance samples of an image
MOST_BOUND_SAMPLES = 10_000  # of an image in one training step
MOST_FREE_BITS = math.ceil(COLOUR.uniform_loss)  # nats; more than an image can have
CODE_SIDE = 8  # side of the latent maps of a colour image, a quarter of its side


def _range(
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    unsaid: float | None = None,
) -> Any:
    return field(metadata={"low": low, "high": high, "above": above, "unsaid": unsaid})


def _choice(*choices: str, unsaid: str | None = None) -> Any:
    """Return a field with these choices.

    unsaid: the value that `as_dict` omits. A setting that is newer than recorded results has one,
    so that those results keep their settings.
    """
    return field(metadata={"choices": choices, "unsaid": unsaid})


def _name(unsaid: str) -> Any:
    return field(metadata={"unsaid": unsaid})


def _flag(unsaid: bool | None = None) -> Any:
    return field(metadata={"unsaid": unsaid})


def _part() -> Any:
    """Return a field with nested settings."""
    return field()


@dataclass(frozen=True)
class FlowConfig:
    """A flow in the prior or after the posterior: `steps` MADEs.

    Each has `layers` weight layers and `hidden` units per hidden layer. scale: False if the steps
    only shift.
    activation: "published" is ReLU in an AF prior (section 4.1) and ELU in an IAF posterior
    (Kingma et al. 2016).
    """

    flow: str = _choice("none", "af", "iaf")
    steps: int = _range(low=1, high=DEEPEST)
    hidden: int = _range(low=1, high=WIDEST)
    layers: int = _range(low=2, high=DEEPEST)
    scale: bool = _flag()
    activation: str = _choice("published", "relu", "elu", unsaid="published")

    @property
    def hidden_activation(self) -> str:
        """The activation of the hidden units, "relu" or "elu"."""
        published = "elu" if self.flow == "iaf" else "relu"
        return published if self.activation == "published" else self.activation


@dataclass(frozen=True)
class DecoderConfig:
    """p(x|z) of binary images: a PixelCNN with a local window (docs/readings.md), or independent
    Bernoulli distributions."""

    kind: str = _choice("pixelcnn", "factorized")
    maps: int = _range(low=1, high=MOST_MAPS)
    filters: int = _range(low=1, high=MOST_MAPS)
    first_kernel: int = _range(low=3, high=55)  # an image has 28 x 28 pixels
    masked_blocks: int = _range(low=0, high=DEEPEST)
    pointwise_blocks: int = _range(low=0, high=DEEPEST)
    tied: bool = _flag()
    last_masked: bool = _flag(unsaid=False)


@dataclass(frozen=True)
class ModelConfig:
    """A model of binary images (section 4.1). latent_dim 0: no latent variable."""

    latent_dim: int = _range(low=0, high=WIDEST)
    trunk_maps: tuple[int, ...] = _range(low=1, high=MOST_MAPS)
    trunk_hidden: int = _range(low=1, high=WIDEST)
    prior: FlowConfig = _part()
    posterior: FlowConfig = _part()
    decoder: DecoderConfig = _part()


@dataclass(frozen=True)
class ColourModelConfig:
    """A model of colour images. Brackets give the paper's values, if any (appendix B)."""

    trunk: str = _choice("resnet", "densenet")
    widths: tuple[int, ...] = _range(low=6, high=MOST_MAPS)  # at 32x32, 16x16, 8x8 [48, 96, 96]
    latent_maps: int = _range(low=1, high=MOST_MAPS)  # of 8x8 [16]
    flow_steps: int = _range(low=1, high=DEEPEST)  # [6]
    flow_maps: int = _range(low=1, high=MOST_MAPS)  # of the flow's hidden layers [128]
    flow_layers: int = _range(low=1, high=DEEPEST)  # hidden layers [2]
    flow_scale: bool = _flag()
    window: str = _choice("4x2", "5x3", "7x4")  # of the decoder
    grayscale: bool = _flag()  # the decoder sees only the luma of the window
    blocks: int = _range(low=1, high=DEEPEST)  # parallel blocks of the decoder [4]
    maps: int = _range(low=1, high=MOST_MAPS)  # feature maps of each block [64]
    mixtures: int = _range(low=1, high=MOST_MAPS)  # logistic distributions

    @property
    def latent_dim(self) -> int:
        """The number of latent dimensions."""
        return self.latent_maps * CODE_SIDE**2


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run's training; free_bits in nats per image.

    bound_samples: samples of each image in the importance-weighted bound; 1: the ELBO
    (vlae.models.objective). bound_gradient: of all these samples, or of one that is drawn with its
    importance weight. augment: flip mirrors every image, left and right, with probability 1/2 at
    each visit. start_from: the run whose weights it begins with, "" for random ones
    (vlae.training.start).
    """

    epochs: int = _range(low=1, high=MOST_EPOCHS)
    decay_epochs: int = _range(low=0, high=MOST_EPOCHS, unsaid=0)  # the last epochs
    decay: str = _choice("linear", "cosine", unsaid="linear")  # vlae.training.schedule
    batch_size: int = _range(low=1, high=LARGEST_BATCH)
    optimizer: str = _choice("adamax", "adam", unsaid="adamax")  # vlae.training.optimizer
    learning_rate: float = _range(above=0, high=1)
    betas: tuple[float, ...] = _range(low=0, high=1)
    polyak: float = _range(low=0, high=1)
    free_bits: float = _range(low=0, high=MOST_FREE_BITS)  # vlae.config.rules
    bound_samples: int = _range(low=1, high=MOST_BOUND_SAMPLES, unsaid=1)
    bound_gradient: str = _choice("all", "drawn", unsaid="all")
    augment: str = _choice("none", "flip", unsaid="none")
    start_from: str = _name(unsaid="")
    split: str = _choice("train", "train+valid")
    init_images: int = _range(low=2, high=LARGEST_BATCH)
    seed: int = _range(low=0)


@dataclass(frozen=True)
class ColourTrainingConfig(TrainingConfig):
    """Settings of a training with soft free bits (appendix C).

    `free_bits` is their floor. gamma is updated after every `gamma_steps` steps, by the mean KL of
    these steps.
    """

    gamma_steps: int = _range(low=1, high=MOST_EPOCHS)


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation (docs/evaluation.md).

    importance_samples: samples for each of the first `images` test images (0: all).
    deep_samples: samples for each of `deep_images` of them.
    adaptive_samples: most samples of an image whose weights need more (0: off).
    proposal_scale: factor of the standard deviations of q(z|x) in the proposal.
    """

    importance_samples: int = _range(low=1, high=MOST_SAMPLES)
    seed: int = _range(low=0)
    binarization_seed: int = _range(low=0)
    images: int = _range(low=0, high=MOST_IMAGES)
    deep_images: int = _range(low=0, high=MOST_IMAGES)
    deep_samples: int = _range(low=1, high=MOST_SAMPLES)
    adaptive_samples: int = _range(low=0, high=MOST_SAMPLES, unsaid=0)
    proposal_scale: float = _range(low=0.1, high=10, unsaid=1.0)


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of the classifier that judges decompressions (vlae.evaluation.classifier)."""

    epochs: int = _range(low=1, high=MOST_EPOCHS)
    batch_size: int = _range(low=2, high=LARGEST_BATCH)
    learning_rate: float = _range(above=0, high=1)
    seed: int = _range(low=0)


@dataclass(frozen=True)
class CodelengthConfig:
    """Which test images a run compresses (vlae.coding.codelength).

    dataset: of binary images; the run's own, or another one. images: how many of its first test
    images; 0: all.
    """

    dataset: str
    images: int = _range(low=0, high=MOST_IMAGES)


@dataclass(frozen=True)
class LossyConfig:
    """Which test images a run sends with loss (vlae.coding.lossy).

    dataset: of binary images. images: how many of its test images. bits: of each code.
    """

    dataset: str
    images: int = _range(low=1, high=MOST_IMAGES)
    bits: int = _range(low=1, high=MOST_BITS)


@dataclass(frozen=True)
class ProbeConfig:
    """Which labelled data set a run's code is probed on: its own (vlae.evaluation.probe)."""

    dataset: str


@dataclass(frozen=True)
class Run:
    """A run: a model, its data set, and the settings of training and evaluation.

    repeats: the run that this one repeats with another training seed, or None.
    gpus: the number of GPUs that train it together. It does not change the result.
    comparison: the name of a comparison whose runs are drawn apart from other runs, or "".
    start: the run whose weights its training begins with (training.start_from), or None.
    """

    name: str
    dataset: str
    model: ModelConfig | ColourModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    repeats: str | None
    gpus: int
    comparison: str = ""
    start: "Run | None" = None

    @property
    def block(self) -> str:
        """The place of its settings in params.yaml, for messages."""
        return f"{'refined' if self.training.start_from else 'runs'}.{self.name}"


@dataclass(frozen=True)
class Params:
    """The content of params.yaml.

    datasets: name -> plain mapping, as in the file. labels: data set -> plain mapping likewise.
    runs: name -> Run, of `runs:` and `refined:`. classifiers: data set -> ClassifierConfig.
    codelengths: run -> CodelengthConfig. lossy: run -> LossyConfig. probes: run -> ProbeConfig.
    defaults: kind of images -> plain mapping, as in the file.
    """

    datasets: dict[str, dict]
    labels: dict[str, dict]
    runs: dict[str, Run]
    classifiers: dict[str, ClassifierConfig]
    codelengths: dict[str, CodelengthConfig]
    lossy: dict[str, LossyConfig]
    probes: dict[str, ProbeConfig]
    defaults: dict[str, dict]

    def run(self, name: str) -> Run:
        """Return run `name`. Raises VlaeError with the known names."""
        if name not in self.runs:
            raise VlaeError(f"no run {name!r} in params.yaml; {suggestion(name, self.runs)}")
        return self.runs[name]

    def why_not_trained(self, name: str) -> str:
        """Return why run `name` cannot be trained, according to its data set, or ""."""
        return self.datasets[self.runs[name].dataset].get("unavailable", "")

    def image_kind(self, name: str) -> ImageKind:
        """Return the kind of images of data set `name`."""
        return image_kind(self.datasets[name])

    def repetitions(self, name: str) -> list[str]:
        """Return the runs that repeat run `name` with other seeds, in the order of the file."""
        return [run.name for run in self.runs.values() if run.repeats == name]

    def classifier(self, name: str) -> ClassifierConfig:
        """Return the classifier of data set `name`. Raises VlaeError with the known names."""
        if name not in self.classifiers:
            hint = suggestion(name, self.classifiers)
            raise VlaeError(f"no classifier of {name!r} in params.yaml; {hint}")
        return self.classifiers[name]

    def codelength(self, name: str) -> CodelengthConfig:
        """Return what run `name` compresses. Raises VlaeError with the known names."""
        if name not in self.codelengths:
            hint = suggestion(name, self.codelengths)
            raise VlaeError(f"no code length of {name!r} in params.yaml; {hint}")
        return self.codelengths[name]

    def probe(self, name: str) -> ProbeConfig:
        """Return what run `name` is probed on. Raises VlaeError with the known names."""
        if name not in self.probes:
            raise VlaeError(
                f"no probe of {name!r} in params.yaml; {suggestion(name, self.probes)}"
            )
        return self.probes[name]

    def labels_of(self, name: str) -> dict:
        """Return the block of data set `name` in `labels:`. Raises VlaeError with the known
        names."""
        if name not in self.labels:
            hint = suggestion(name, self.labels)
            raise VlaeError(f"no labels of {name!r} in params.yaml; {hint}")
        return self.labels[name]

    def lossy_config(self, name: str) -> LossyConfig:
        """Return what run `name` sends with loss. Raises VlaeError with the known names."""
        if name not in self.lossy:
            hint = suggestion(name, self.lossy)
            raise VlaeError(f"no lossy file of {name!r} in params.yaml; {hint}")
        return self.lossy[name]

    def dataset(self, name: str) -> dict:
        """Return the block of data set `name`. Raises VlaeError with the known names."""
        if name not in self.datasets:
            hint = suggestion(name, self.datasets)
            raise VlaeError(f"no data set {name!r} in params.yaml; {hint}")
        return self.datasets[name]


def as_dict(config: Any) -> dict:
    """Convert a configuration to plain JSON types, without settings at their `unsaid` value."""
    plain = {}
    for one in fields(config):
        value = getattr(config, one.name)
        unsaid = one.metadata.get("unsaid")
        if unsaid is None or value != unsaid:
            plain[one.name] = _plain(value)
    return plain


def _plain(value: object) -> object:
    if is_dataclass(value):
        return as_dict(value)
    return list(value) if isinstance(value, tuple) else value
