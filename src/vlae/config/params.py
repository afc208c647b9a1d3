"""params.yaml, read and checked: every key known, every value of its type and in its range.

The dataclasses below are the schema. They hold no defaults: those stand in params.yaml.
"""

import re
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path

import yaml

from vlae.errors import VlaeError
from vlae.storage.read import read_text, shown

NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*(-[a-z0-9_]+)?")
LONGEST_NAME = 100
RAW_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*")

# Nothing sensible comes near these; a slip of the finger or a hostile file does.
MOST_TEXT = 1024 * 1024  # bytes of the file
LONGEST_SCALAR = 10_000  # characters of one value in it
MOST_BYTES = 2**40  # of a raw file
MOST_IMAGES = 10_000_000  # of a split; also epochs, samples, and images of an evaluation
WIDEST = 100_000  # units of a layer
MOST_MAPS = 10_000
DEEPEST = 1000  # layers, blocks, steps of a flow
CODE_SIDE = 8  # of the latent maps of a colour image, a quarter of its side

# The raw formats (vlae.data): with a file for each split, with one file for all of them, and
# with files that together hold them.
SPLIT_FORMATS = ("amat", "idx")
WHOLE_FORMATS = ("silhouettes_mat", "chardata_mat", "lake_npz", "cifar10_tar")
PART_FORMATS = {
    "lake_zip": ("background", "evaluation"),
    "cifar10_bin": (*(f"train_{i}" for i in range(1, 6)), "test"),
}


def _range(low: float | None = None, high: float | None = None, above: float | None = None):
    return field(metadata={"low": low, "high": high, "above": above})


def _choice(*choices: str):
    return field(metadata={"choices": choices})


@dataclass(frozen=True)
class FlowConfig:
    flow: str = _choice("none", "af", "iaf")
    steps: int = _range(low=1, high=DEEPEST)
    hidden: int = _range(low=1, high=WIDEST)
    layers: int = _range(low=2, high=DEEPEST)
    scale: bool = field()


@dataclass(frozen=True)
class DecoderConfig:
    kind: str = _choice("pixelcnn", "factorized")
    maps: int = _range(low=1, high=MOST_MAPS)
    filters: int = _range(low=1, high=MOST_MAPS)
    first_kernel: int = _range(low=3, high=55)  # an image has 28 x 28 pixels
    masked_blocks: int = _range(low=0, high=DEEPEST)
    pointwise_blocks: int = _range(low=0, high=DEEPEST)
    tied: bool = field()


@dataclass(frozen=True)
class ModelConfig:
    latent_dim: int = _range(low=0, high=WIDEST)
    trunk_maps: tuple[int, ...] = _range(low=1, high=MOST_MAPS)
    trunk_hidden: int = _range(low=1, high=WIDEST)
    prior: FlowConfig = field()
    posterior: FlowConfig = field()
    decoder: DecoderConfig = field()


@dataclass(frozen=True)
class ColourModelConfig:
    """Of a colour data set; the paper's values (appendix B), where it has them, in brackets."""

    trunk: str = _choice("resnet", "densenet")
    widths: tuple[int, ...] = _range(low=6, high=MOST_MAPS)  # at 32x32, 16x16, 8x8 [48, 96, 96]
    latent_maps: int = _range(low=1, high=MOST_MAPS)  # of a quarter of the image's side [16]
    flow_steps: int = _range(low=1, high=DEEPEST)  # [6]
    flow_maps: int = _range(low=1, high=MOST_MAPS)  # of a flow's hidden layers [128]
    flow_layers: int = _range(low=1, high=DEEPEST)  # hidden ones [2]
    flow_scale: bool = field()
    window: str = _choice("4x2", "5x3", "7x4")  # of the decoder
    grayscale: bool = field()  # the window's pixels by their luma only
    blocks: int = _range(low=1, high=DEEPEST)  # of the decoder, side by side [4]
    maps: int = _range(low=1, high=MOST_MAPS)  # feature maps of each [64]
    mixtures: int = _range(low=1, high=MOST_MAPS)  # logistic distributions

    @property
    def latent_dim(self) -> int:
        """Numbers in the code of an image."""
        return self.latent_maps * CODE_SIDE**2


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int = _range(low=1, high=MOST_IMAGES)
    decay_epochs: int = _range(low=0, high=MOST_IMAGES)  # the last ones (vlae.training.schedule)
    batch_size: int = _range(low=1, high=MOST_IMAGES)
    learning_rate: float = _range(above=0)
    betas: tuple[float, ...] = _range(low=0, high=1)
    polyak: float = _range(low=0, high=1)
    free_bits: float = _range(low=0)
    split: str = _choice("train", "train+valid")
    init_images: int = _range(low=2, high=MOST_IMAGES)
    seed: int = _range(low=0)


@dataclass(frozen=True)
class ColourTrainingConfig(TrainingConfig):
    """With soft free bits (appendix C): `free_bits` is their floor, and gamma is updated after
    every `gamma_steps` steps, by the mean KL of those."""

    gamma_steps: int = _range(low=1, high=MOST_IMAGES)


@dataclass(frozen=True)
class EvaluationConfig:
    importance_samples: int = _range(low=1, high=MOST_IMAGES)
    seed: int = _range(low=0)
    binarization_seed: int = _range(low=0)
    images: int = _range(low=0, high=MOST_IMAGES)
    deep_images: int = _range(low=0, high=MOST_IMAGES)
    deep_samples: int = _range(low=1, high=MOST_IMAGES)


@dataclass(frozen=True)
class ClassifierConfig:
    """Of a colour data set; it judges decompressions (vlae.evaluation.classifier)."""

    epochs: int = _range(low=1, high=MOST_IMAGES)
    batch_size: int = _range(low=2, high=MOST_IMAGES)
    learning_rate: float = _range(above=0)
    seed: int = _range(low=0)


@dataclass(frozen=True)
class Run:
    """`repeats`: the run of which this one is a repetition with another training seed, or None.
    `gpus`: how many train it together, which does not change what comes out."""

    name: str
    dataset: str
    model: ModelConfig | ColourModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    repeats: str | None
    gpus: int


@dataclass(frozen=True)
class Params:
    """`datasets`: name -> plain mapping as in the file; `runs`: name -> Run; `classifiers`: data
    set -> ClassifierConfig."""

    datasets: dict[str, dict]
    runs: dict[str, Run]
    classifiers: dict[str, ClassifierConfig]

    def run(self, name: str) -> Run:
        """The run of that name. Raises VlaeError with the known names."""
        if name not in self.runs:
            raise VlaeError(f"no run {name!r} in params.yaml; there are: {', '.join(self.runs)}")
        return self.runs[name]

    def why_not_trained(self, name: str) -> str:
        """Why run `name` could not be trained, or "": what its data set says of itself."""
        return self.datasets[self.runs[name].dataset].get("unavailable", "")

    def is_colour(self, name: str) -> bool:
        """Whether the data set of that name is one of colour images."""
        return self.datasets[name]["binarization"] == "none"

    def repetitions(self, name: str) -> list[str]:
        """The runs that repeat run `name` with other seeds, in the order of the file."""
        return [run.name for run in self.runs.values() if run.repeats == name]

    def dataset(self, name: str) -> dict:
        """The data set of that name. Raises VlaeError with the known names."""
        if name not in self.datasets:
            known = ", ".join(self.datasets)
            raise VlaeError(f"no data set {name!r} in params.yaml; there are: {known}")
        return self.datasets[name]


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last, and what makes a
    small file a huge or endless value: aliases, and scalars beyond all measure."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        fault = None
        if isinstance(event, yaml.AliasEvent):
            fault = f"an alias (*{event.anchor}) is not allowed here"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_SCALAR:
            fault = f"a value has more than {LONGEST_SCALAR:,} characters"
        if fault:
            raise yaml.composer.ComposerError(None, None, fault, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises VlaeError, one line naming the file and the key, for a missing file, YAML that
    does not parse or has aliases, an unknown, missing or doubled key, and a value of the
    wrong type or out of range.
    """
    path = Path(path)
    text = read_text(path, MOST_TEXT)
    try:
        tree = yaml.load(text, _UniqueKeyLoader)
    except Exception as error:  # explicit tags (`!!bool maybe`) make the parser raise anything
        raise VlaeError(f"{path} is not valid YAML: {error}") from error
    try:
        return _params(tree)
    except VlaeError as error:
        raise VlaeError(f"{path}: {error}") from None


def _params(tree: object) -> Params:
    top = _mapping(tree, "the file", {"datasets", "defaults", "runs", "classifiers"})
    datasets = _mapping(top["datasets"], "datasets")
    for name, spec in datasets.items():
        _check_name(name, "datasets")
        _check_dataset(spec, f"datasets.{name}")
    parts = {"model", "training", "evaluation"}
    colour = {"colour"} & _mapping(top["defaults"], "defaults").keys()
    defaults = _mapping(top["defaults"], "defaults", {*parts, "gpus", *colour})
    colour_defaults = _mapping(defaults["colour"], "defaults.colour", parts) if colour else None
    runs = {}
    blocks = _mapping(top["runs"], "runs")
    for name, block in blocks.items():
        _check_name(name, "runs")
        where = f"runs.{name}"
        if "repeats" in _mapping(block, where):
            continue
        block = _mapping({"gpus": defaults["gpus"]} | block, where, {"dataset", "gpus", *parts})
        if not isinstance(block["dataset"], str) or block["dataset"] not in datasets:
            raise VlaeError(
                f"{where}.dataset: no data set {shown(block['dataset'])} under datasets"
            )
        inherited, schema = defaults, (ModelConfig, TrainingConfig)
        if datasets[block["dataset"]]["binarization"] == "none":
            inherited, schema = colour_defaults, (ColourModelConfig, ColourTrainingConfig)
            if inherited is None:
                raise VlaeError(
                    f"{where}.dataset: {block['dataset']} is one of colour images, whose runs "
                    "need defaults.colour"
                )
        merged = {
            part: _merge(inherited[part], block[part], f"{where}.{part}") for part in sorted(parts)
        }
        runs[name] = Run(
            name=name,
            dataset=block["dataset"],
            model=_build(schema[0], merged["model"], f"{where}.model"),
            training=_build(schema[1], merged["training"], f"{where}.training"),
            evaluation=_build(EvaluationConfig, merged["evaluation"], f"{where}.evaluation"),
            repeats=None,
            gpus=_value(int, block["gpus"], f"{where}.gpus", {"low": 1, "high": 64}),
        )
        _check_run(runs[name], where)
    originals = dict(runs)
    seeds = {name: {run.training.seed: name} for name, run in originals.items()}
    for name, block in blocks.items():
        if "repeats" in block:
            runs[name] = _repetition(name, block, originals, seeds)
    classifiers = {}
    for name, block in _mapping(top["classifiers"], "classifiers").items():
        where = f"classifiers.{shown(name)}"
        if not isinstance(name, str) or name not in datasets:
            raise VlaeError(f"{where}: no data set of that name")
        if datasets[name]["binarization"] != "none":
            raise VlaeError(f"{where}: only colour data sets have labels")
        classifiers[name] = _build(ClassifierConfig, block, where)
    return Params(datasets, {name: runs[name] for name in blocks}, classifiers)


def _repetition(name: str, block: dict, originals: dict[str, Run], seeds: dict) -> Run:
    """A run again with another seed; `seeds`: run -> seed -> who has it, added to."""
    where = f"runs.{name}"
    # The data set follows from `repeats`; it is written down too because dvc.yaml reads it.
    block = _mapping(block, where, {"dataset", "repeats", "seed"})
    repeats = _value(str, block["repeats"], f"{where}.repeats", {})
    if repeats not in originals:
        known = ", ".join(originals)
        raise VlaeError(f"{where}.repeats: no run {shown(repeats)} to repeat; there are: {known}")
    original = originals[repeats]
    if block["dataset"] != original.dataset:
        raise VlaeError(
            f"{where}.dataset must be {original.dataset}, as in {repeats}, "
            f"not {shown(block['dataset'])}"
        )
    seed = _value(int, block["seed"], f"{where}.seed", {"low": 0})
    if seed in seeds[repeats]:
        raise VlaeError(f"{where}.seed: {seed} is the seed of {seeds[repeats][seed]} already")
    seeds[repeats][seed] = name
    training = replace(original.training, seed=seed)
    return replace(original, name=name, training=training, repeats=repeats)


def as_dict(config: object) -> dict:
    """A configuration dataclass as plain JSON types."""
    plain = asdict(config)
    return {k: _plain(v) for k, v in plain.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise VlaeError(
            f"{where}: {shown(name)} is no valid name (lower case, digits, _ and one -): "
            "it becomes part of file names"
        )


def _mapping(value: object, where: str, keys: set[str] | None = None) -> dict:
    if not isinstance(value, dict):
        raise VlaeError(f"{where} must be a mapping, not {shown(value)}")
    if keys is not None:
        for key in value:
            if key not in keys:
                known = ", ".join(sorted(keys))
                raise VlaeError(f"{where}: unknown key {shown(key)}; known: {known}")
        for key in sorted(keys):
            if key not in value:
                raise VlaeError(f"{where}: key {key!r} is missing")
    return value


def _merge(defaults: object, changes: object, where: str) -> dict:
    """Defaults overlaid with a run's changes, recursively; a key must exist in the defaults."""
    defaults = _mapping(defaults, "defaults of " + where)
    changes = _mapping(changes, where)
    merged = dict(defaults)
    for key, value in changes.items():
        if key not in defaults:
            known = ", ".join(k if isinstance(k, str) else shown(k) for k in defaults)
            raise VlaeError(f"{where}: unknown key {shown(key)}; known: {known}")
        nested = isinstance(defaults[key], dict)
        merged[key] = _merge(defaults[key], value, f"{where}.{key}") if nested else value
    return merged


def _build(schema: type, values: object, where: str):
    known = {f.name: f for f in fields(schema)}
    values = _mapping(values, where, set(known))
    types = typing.get_type_hints(schema)
    built = {}
    for name, value in values.items():
        at = f"{where}.{name}"
        kind = types[name]
        built[name] = (
            _build(kind, value, at)
            if is_dataclass(kind)
            else _value(kind, value, at, known[name].metadata)
        )
    return schema(**built)


def _value(kind: type, value: object, where: str, limits: typing.Mapping):
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            raise VlaeError(f"{where} must be a list, not {shown(value)}")
        item = typing.get_args(kind)[0]
        return tuple(_value(item, v, f"{where}[{i}]", limits) for i, v in enumerate(value))
    if type(value) is int and abs(value) >= 2**63:
        raise VlaeError(f"{where} must be a number of 64 bits, not {shown(value)}")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if kind is float else ""
        raise VlaeError(f"{where} must be {kind.__name__}, not {shown(value)}{hint}")
    if kind is str and not value.isprintable():
        raise VlaeError(f"{where} must be printable text, not {shown(value)}")
    if kind is float and value != value:
        raise VlaeError(f"{where} must be a number, not {shown(value)}")
    if "choices" in limits and value not in limits["choices"]:
        choices = ", ".join(limits["choices"])
        raise VlaeError(f"{where} must be one of {choices}, not {shown(value)}")
    low, high, above = (limits.get(k) for k in ("low", "high", "above"))
    if low is not None and value < low:
        raise VlaeError(f"{where} must be at least {low}, not {shown(value)}")
    if high is not None and value > high:
        raise VlaeError(f"{where} must be at most {high}, not {shown(value)}")
    if above is not None and not above < value < float("inf"):
        raise VlaeError(f"{where} must be greater than {above} and finite, not {shown(value)}")
    if kind is float and value == float("inf"):
        raise VlaeError(f"{where} must be finite, not {shown(value)}")
    return value


def _check_dataset(spec: object, where: str) -> None:
    required = {"title", "binarization", "format", "files", "splits"}
    optional = {"unavailable", "alternative"} & _mapping(spec, where).keys()
    spec = _mapping(spec, where, required | optional)
    if "unavailable" in spec:  # why no run on it could be trained, for the tables
        _value(str, spec["unavailable"], f"{where}.unavailable", {})
    binarizations = ("fixed", "dynamic", "none")
    _value(str, spec["binarization"], f"{where}.binarization", {"choices": binarizations})
    _value(str, spec["title"], f"{where}.title", {})
    splits = _mapping(spec["splits"], f"{where}.splits", {"train", "valid", "test"})
    for split, count in splits.items():
        _value(int, count, f"{where}.splits.{split}", {"low": 1, "high": MOST_IMAGES})
    _check_files(spec, where)
    if "alternative" in spec:  # other files that give the same arrays (vlae.data.fetch)
        where = f"{where}.alternative"
        _check_files(_mapping(spec["alternative"], where, {"format", "files"}), where)
        for key, entry in spec["alternative"]["files"].items():
            if entry["urls"]:
                raise VlaeError(f"{where}.files.{key}.urls must be empty: only a mirror has it")


def _check_files(spec: dict, where: str) -> None:
    """`spec` has a `format`, and `files` that it takes."""
    formats = (*SPLIT_FORMATS, *WHOLE_FORMATS, *PART_FORMATS)
    _value(str, spec["format"], f"{where}.format", {"choices": formats})
    files = _mapping(spec["files"], f"{where}.files")
    known, needed = ("train", "valid", "test"), ("train", "test")
    if spec["format"] not in SPLIT_FORMATS:
        known = needed = PART_FORMATS.get(spec["format"], ("all",))
    for key in files:
        if key not in known:
            raise VlaeError(f"{where}.files: unknown key {shown(key)}; known: {', '.join(known)}")
    for key in needed:
        if key not in files:
            raise VlaeError(f"{where}.files: key {key!r} is missing")
    for split, entry in files.items():
        at = f"{where}.files.{split}"
        # Where the sha256 or the size of a file was never published, others stand for them.
        sums = {"md5": 32, "git_blob": 40} if "md5" in _mapping(entry, at) else {"sha256": 64}
        size = "max_bytes" if "max_bytes" in entry else "bytes"
        entry = _mapping(entry, at, {"path", "urls", size, *sums})
        path = _value(str, entry["path"], f"{at}.path", {})
        parts = path.split("/")
        if not RAW_PATH.fullmatch(path) or {".", ".."} & set(parts) or len(path) > LONGEST_NAME:
            raise VlaeError(
                f"{at}.path must stay below data/raw (letters, digits, ._-), not {shown(path)}"
            )
        for kind, digits in sums.items():
            digest = _value(str, entry[kind], f"{at}.{kind}", {})
            if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest):
                raise VlaeError(
                    f"{at}.{kind} must be {digits} hexadecimal digits, not {shown(digest)}"
                )
        _value(int, entry[size], f"{at}.{size}", {"low": 1, "high": MOST_BYTES})
        if not isinstance(entry["urls"], list):
            raise VlaeError(f"{at}.urls must be a list, not {shown(entry['urls'])}")
        for i, url in enumerate(entry["urls"]):
            if not re.match(r"https?://", _value(str, url, f"{at}.urls[{i}]", {})):
                raise VlaeError(f"{at}.urls[{i}] must start with http:// or https://")


def _check_run(run: Run, where: str) -> None:
    """What a single value's range cannot say."""
    if isinstance(run.model, ColourModelConfig):
        _check_colour_model(run.model, f"{where}.model")
    else:
        _check_binary_model(run.model, f"{where}.model")
    if run.training.decay_epochs > run.training.epochs:
        raise VlaeError(
            f"{where}.training.decay_epochs must be at most epochs ({run.training.epochs}), not "
            f"{run.training.decay_epochs}"
        )
    if len(run.training.betas) != 2 or max(run.training.betas) >= 1:
        raise VlaeError(f"{where}.training.betas must be two numbers below 1")
    if run.training.polyak >= 1:
        raise VlaeError(f"{where}.training.polyak must be below 1")
    evaluation = run.evaluation
    for key, images in (("images", evaluation.images), ("deep_images", evaluation.deep_images)):
        if images == 1:
            raise VlaeError(
                f"{where}.evaluation.{key} must be 0 or at least 2, not 1: "
                "one image has no standard error"
            )
    if evaluation.deep_images and evaluation.deep_samples < evaluation.importance_samples:
        raise VlaeError(
            f"{where}.evaluation.deep_samples must be at least importance_samples "
            f"({evaluation.importance_samples}), not {evaluation.deep_samples}"
        )


def _check_binary_model(model: ModelConfig, where: str) -> None:
    if model.prior.flow == "iaf":
        raise VlaeError(f"{where}.prior.flow must be af or none, not 'iaf'")
    if model.posterior.flow == "af":
        raise VlaeError(f"{where}.posterior.flow must be iaf or none, not 'af'")
    if model.decoder.first_kernel % 2 == 0:
        raise VlaeError(f"{where}.decoder.first_kernel must be odd")
    if len(model.trunk_maps) != 3:
        raise VlaeError(f"{where}.trunk_maps must have three entries (28 - 14 - 7 - 4)")
    if model.latent_dim == 0:
        if model.decoder.kind != "pixelcnn":
            raise VlaeError(f"{where}: a factorized decoder needs latent_dim of 1 or more")
        if model.prior.flow != "none" or model.posterior.flow != "none":
            raise VlaeError(f"{where}: latent_dim 0 leaves nothing for a flow")
    for side, flow in (("prior", model.prior), ("posterior", model.posterior)):
        if flow.flow != "none" and flow.hidden < model.latent_dim:
            raise VlaeError(f"{where}.{side}.hidden must be latent_dim or more")


def _check_colour_model(model: ColourModelConfig, where: str) -> None:
    if len(model.widths) != 3:
        raise VlaeError(f"{where}.widths must have three entries (32x32, 16x16, 8x8)")
    if model.flow_maps < model.latent_maps:
        raise VlaeError(f"{where}.flow_maps must be latent_maps or more")
