"""Reads params.yaml and checks all its keys and values."""

import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import yaml

from vlae.config.rules import check_run, check_start
from vlae.config.schema import (
    ClassifierConfig,
    CodelengthConfig,
    ColourModelConfig,
    ColourTrainingConfig,
    EvaluationConfig,
    LossyConfig,
    ModelConfig,
    Params,
    ProbeConfig,
    Run,
    TrainingConfig,
)
from vlae.data.spec import check_dataset, check_labels
from vlae.errors import VlaeError, nearest, suggestion
from vlae.images import COLOUR, image_kind
from vlae.storage.checked import check_name, checked, mapping
from vlae.storage.read import read_text, shown

MOST_TEXT = 1024 * 1024  # bytes of the file
LONGEST_SCALAR = 10_000  # characters of one value in the file

# The settings of a run, by the kind of its images.
SECTIONS = {"datasets", "labels", "defaults", "runs", "classifiers", "codelengths", "lossy"}
SECTIONS |= {"probes", "refined"}
PARTS = ("model", "training", "evaluation")
SETTINGS = {
    "binary": dict(zip(PARTS, (ModelConfig, TrainingConfig, EvaluationConfig), strict=True)),
    "colour": dict(
        zip(PARTS, (ColourModelConfig, ColourTrainingConfig, EvaluationConfig), strict=True)
    ),
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """Loads safe YAML without duplicate keys, aliases and very long scalars.

    YAML itself would keep the last of duplicate keys. Aliases can make a small file a huge value.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        fault = None
        if isinstance(event, yaml.AliasEvent):
            fault = f"an alias (*{event.anchor}) is not allowed here"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_SCALAR:
            fault = f"a value has more than {LONGEST_SCALAR:,} characters"
        if fault:
            raise yaml.composer.ComposerError(None, None, fault, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
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

    Raises VlaeError, in one line that names the file and the key: for a missing file, for invalid
    YAML or aliases, for an unknown, missing or duplicate key, and for a value of the wrong type or
    out of range.
    """
    path = Path(path)
    text = read_text(path, MOST_TEXT)
    try:
        tree = yaml.load(text, _UniqueKeyLoader)
    except Exception as error:  # explicit tags (`!!bool maybe`) make the parser raise many types
        raise VlaeError(f"{path} is not valid YAML: {error}") from error
    try:
        return _params(tree)
    except VlaeError as error:
        raise VlaeError(f"{path}: {error}") from None


def _params(tree: object) -> Params:
    top = mapping(tree, "the file", SECTIONS)
    datasets = mapping(top["datasets"], "datasets")
    for name, spec in datasets.items():
        check_name(name, "datasets")
        check_dataset(spec, f"datasets.{name}")
    labels = mapping(top["labels"], "labels")
    for name, block in labels.items():
        where = f"labels.{shown(name)}"
        if not isinstance(name, str) or name not in datasets:
            raise VlaeError(f"{where}: no data set of that name; {suggestion(name, datasets)}")
        check_labels(block, datasets[name], where)
    kinds = SETTINGS.keys() & mapping(top["defaults"], "defaults").keys()
    defaults = mapping(top["defaults"], "defaults", {"gpus", *kinds})
    blocks = mapping(top["runs"], "runs")
    originals = {
        name: _run(name, block, defaults, datasets)
        for name, block in blocks.items()
        if "repeats" not in mapping(block, f"runs.{shown(name)}")
    }
    runs = dict(originals)
    seeds = {name: {run.training.seed: name} for name, run in originals.items()}
    for name, block in blocks.items():
        if name not in originals:
            runs[name] = _repetition(name, block, originals, seeds)
    refined = mapping(top["refined"], "refined")
    for name, block in refined.items():
        if name in runs:
            raise VlaeError(f"refined.{name}: runs has a run of that name")
        runs[name] = _run(name, block, defaults, datasets, "refined")
    runs = {name: runs[name] for name in [*blocks, *refined]}
    for name, run in runs.items():
        check_start(run, "refined" if name in refined else "runs", runs)
    for name in runs:
        _link(name, runs)
    classifiers = {
        name: _classifier(name, block, datasets)
        for name, block in mapping(top["classifiers"], "classifiers").items()
    }
    codelengths, lossy = (
        {
            name: _coded(section, schema, name, block, (runs, datasets))
            for name, block in mapping(top[section], section).items()
        }
        for section, schema in (("codelengths", CodelengthConfig), ("lossy", LossyConfig))
    )
    probes = {
        name: _probe(name, block, runs, labels)
        for name, block in mapping(top["probes"], "probes").items()
    }
    inherited = {kind: defaults[kind] for kind in kinds}
    return Params(datasets, labels, runs, classifiers, codelengths, lossy, probes, inherited)


def _link(name: str, runs: dict[str, Run]) -> Run:
    """Set `start` of a run, and of all before it, to the runs that they begin with."""
    run = runs[name]
    if run.training.start_from and run.start is None:
        runs[name] = run = replace(run, start=_link(run.training.start_from, runs))
    return run


def _run(
    name: typing.Any,
    block: dict,
    defaults: dict,
    datasets: dict[str, dict],
    section: str = "runs",
) -> Run:
    check_name(name, section)
    where = f"{section}.{name}"
    optional = {"gpus": defaults["gpus"], "comparison": ""}
    block = mapping(optional | block, where, {"dataset", *optional, *PARTS})
    if not isinstance(block["dataset"], str) or block["dataset"] not in datasets:
        name, hint = block["dataset"], suggestion(block["dataset"], datasets)
        raise VlaeError(f"{where}.dataset: no data set {shown(name)} under datasets; {hint}")
    kind = image_kind(datasets[block["dataset"]]).name
    if kind not in defaults:
        raise VlaeError(
            f"{where}.dataset: {block['dataset']} is one of {kind} images, whose runs need "
            f"defaults.{kind}"
        )
    inherited = mapping(defaults[kind], f"defaults.{kind}", set(PARTS))
    settings: dict[str, typing.Any] = {
        part: _build(
            SETTINGS[kind][part],
            _merge(inherited[part], block[part], f"{where}.{part}"),
            f"{where}.{part}",
        )
        for part in PARTS
    }
    gpus = checked(int, block["gpus"], f"{where}.gpus", {"low": 1, "high": 64})
    comparison = checked(str, block["comparison"], f"{where}.comparison")
    run = Run(name, block["dataset"], **settings, repeats=None, gpus=gpus, comparison=comparison)
    check_run(run, where)
    return run


def _classifier(name: object, block: object, datasets: dict[str, dict]) -> ClassifierConfig:
    where = f"classifiers.{shown(name)}"
    if not isinstance(name, str) or name not in datasets:
        raise VlaeError(f"{where}: no data set of that name; {suggestion(name, datasets)}")
    if image_kind(datasets[name]) is not COLOUR:
        raise VlaeError(f"{where}: only colour data sets have labels")
    return _build(ClassifierConfig, block, where)


def _coded(
    section: str, schema: typing.Any, name: object, block: object, known: tuple[dict, dict]
) -> typing.Any:
    """Return which test images a run compresses; known: runs and data sets by name."""
    runs, datasets = known
    where = f"{section}.{shown(name)}"
    if not isinstance(name, str) or name not in runs:
        raise VlaeError(f"{where}: no run of that name; {suggestion(name, runs)}")
    config = _build(schema, block, where)
    if config.dataset not in datasets:
        hint = suggestion(config.dataset, datasets)
        raise VlaeError(f"{where}.dataset: no data set {shown(config.dataset)}; {hint}")
    if COLOUR in (image_kind(datasets[n]) for n in (config.dataset, runs[name].dataset)):
        raise VlaeError(f"{where}: only binary images can be compressed")
    return config


def _probe(name: object, block: object, runs: dict[str, Run], labels: dict) -> ProbeConfig:
    where = f"probes.{shown(name)}"
    if not isinstance(name, str) or name not in runs:
        raise VlaeError(f"{where}: no run of that name; {suggestion(name, runs)}")
    config, own = _build(ProbeConfig, block, where), runs[name].dataset
    if config.dataset != own:
        raise VlaeError(f"{where}.dataset must be {own}, on which the run is trained")
    if own not in labels:
        raise VlaeError(f"{where}: {own} has no block under labels")
    if not runs[name].model.latent_dim:
        raise VlaeError(f"{where}: the run's model has no code to probe")
    return config


def _repetition(name: str, block: dict, originals: dict[str, Run], seeds: dict) -> Run:
    """Return a repetition of a run, and add its seed to `seeds`: run -> seed -> name."""
    where = f"runs.{name}"
    # The data set follows from `repeats`, but dvc.yaml reads it here.
    block = mapping(block, where, {"dataset", "repeats", "seed"})
    repeats = checked(str, block["repeats"], f"{where}.repeats")
    if repeats not in originals:
        hint = suggestion(repeats, originals)
        raise VlaeError(f"{where}.repeats: no run {shown(repeats)} to repeat; {hint}")
    original = originals[repeats]
    if block["dataset"] != original.dataset:
        raise VlaeError(
            f"{where}.dataset must be {original.dataset}, as in {repeats}, "
            f"not {shown(block['dataset'])}"
        )
    seed = checked(int, block["seed"], f"{where}.seed", {"low": 0})
    if seed in seeds[repeats]:
        raise VlaeError(f"{where}.seed: {seed} is the seed of {seeds[repeats][seed]} already")
    seeds[repeats][seed] = name
    training = replace(original.training, seed=seed)
    return replace(original, name=name, training=training, repeats=repeats)


def _merge(defaults: object, changes: object, where: str) -> dict:
    """Replace defaults by a run's changes, recursively; every key must exist in the defaults."""
    defaults = mapping(defaults, "defaults of " + where)
    changes = mapping(changes, where)
    merged = dict(defaults)
    for key, value in changes.items():
        if key not in defaults:
            known = ", ".join(k if isinstance(k, str) else shown(k) for k in defaults)
            hint = "; ".join(filter(None, (f"known: {known}", nearest(key, defaults))))
            raise VlaeError(f"{where}: unknown key {shown(key)}; {hint}")
        nested = isinstance(defaults[key], dict)
        merged[key] = _merge(defaults[key], value, f"{where}.{key}") if nested else value
    return merged


def _build(schema: typing.Any, values: object, where: str) -> typing.Any:
    """Return an instance of the dataclass `schema`, with checked fields."""
    known = {f.name: f for f in fields(schema)}
    values = mapping(values, where, set(known))
    types = typing.get_type_hints(schema)
    built = {}
    for name, value in values.items():
        at = f"{where}.{name}"
        kind = types[name]
        built[name] = (
            _build(kind, value, at)
            if is_dataclass(kind)
            else checked(kind, value, at, known[name].metadata)
        )
    return schema(**built)


def inherited_evaluation(params: Params, dataset: str) -> EvaluationConfig:
    """Return the default settings of evaluations on a data set, without those of any run."""
    kind = params.image_kind(dataset).name
    return _build(
        EvaluationConfig, params.defaults[kind]["evaluation"], f"defaults.{kind}.evaluation"
    )


def recorded_model(config: dict, where: str) -> ModelConfig | ColourModelConfig:
    """Return the configuration of a model from the `config` in its train.json.

    Settings that are newer than the record get the value that they had implicitly. Raises
    VlaeError, naming `where`, the path of the record, if it is not a valid configuration.
    """
    values = mapping(config.get("model"), where)
    schema = ModelConfig if "decoder" in values else ColourModelConfig
    return _build(schema, _with_unsaid(schema, values), where)


def _with_unsaid(schema: typing.Any, values: dict) -> dict:
    """Add the settings that records omit (vlae.config.schema.as_dict)."""
    types = typing.get_type_hints(schema)
    whole = dict(values)
    for one in fields(schema):
        if is_dataclass(types[one.name]) and isinstance(values.get(one.name), dict):
            whole[one.name] = _with_unsaid(types[one.name], values[one.name])
        elif one.name not in values and one.metadata.get("unsaid") is not None:
            whole[one.name] = one.metadata["unsaid"]
    return whole
