"""Model cards: what each published checkpoint is, made from and good for (results/cards).

All facts come from the records, params.yaml, paper.yaml and datasets.yaml; nothing is typed here.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vlae.config.load import recorded_model
from vlae.config.schema import ColourModelConfig, ModelConfig
from vlae.errors import VlaeError
from vlae.receptive_field import decoder_kernels, reach
from vlae.report.doubt import doubt
from vlae.report.paper import printed_kl, printed_nll
from vlae.storage.records import (
    check_record,
    estimator,
    evaluation_file,
    read_results,
    training_file,
)
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params, Run

CARDS = Path("results/cards")
AnyModel = ModelConfig | ColourModelConfig
# Keys of records that cards show, with their types; older records lack some.
TRAINING: dict[str, type] = {
    **dict.fromkeys(("steps", "images_seen", "seed", "parameters"), int),
    **dict.fromkeys(("core", "precision", "torch", "git_revision"), str),
    **dict.fromkeys(("training_sha256", "data_sha256", "checkpoint_sha256"), str),
    "seconds": float,
}
EVALUATION: dict[str, type] = {"ess": float, "checkpoint_sha256": str}

CARD = """\
# {run}

{summary}

## How to load it

```python
import vlae

model = vlae.load("{run}")  # its checksum is verified
images = model.sample(16, seed=0)
```

## Intended use

Research and teaching: likelihoods, codes and samples of images like those of {title}, and
comparison with Chen et al. 2017. The model knows one data set of {size} images: of images of
another kind, its likelihoods and codes say nothing. It is not made for decisions about people.

## Data

{data}

Files, checksums and preparation: [data sets](../../docs/data.md).

## Training

{training}

## Evaluation

{evaluation}

How these are estimated, and when they can be trusted: [evaluation](../../docs/evaluation.md).

## Limits

{limits}
"""


def card_file(run: str) -> Path:
    """Return the path of a run's model card, relative to the project's directory."""
    return CARDS / f"{run}.md"


def card(params: "Params", run: "Run", root: Path) -> str:
    """The model card of `run`, in Markdown, from the records under `root`. Raises VlaeError for a
    run that is not trained and evaluated, and for a record that cannot be used."""
    training, evaluation = read_results(root, run.name, run.dataset)
    if training is None or evaluation is None:
        raise VlaeError(f"{run.name} is not trained and evaluated: it has no model card")
    dataset, kind = params.dataset(run.dataset), params.image_kind(run.dataset)
    path = Path(root, training_file(run.name))
    check_record(path, training, {}, {"config": dict} | _present(training, TRAINING))
    path_of_evaluation = Path(root, evaluation_file(run.name))
    check_record(path_of_evaluation, evaluation, {}, _present(evaluation, EVALUATION))
    model = recorded_model(training["config"], str(path))
    return CARD.format(
        run=run.name,
        summary=_summary(params, run, model, evaluation),
        title=dataset["title"],
        size="x".join(map(str, kind.shape[-2:])),
        data=_table(_data(params, run, training)),
        training=_table(_training(training, evaluation)),
        evaluation=_table(_evaluation(params, run, evaluation)),
        limits="\n".join(f"* {limit}" for limit in _limits(params, run, model, evaluation)),
    )


def _present(record: dict, fields: dict[str, type]) -> dict[str, type]:
    return {key: kind for key, kind in fields.items() if key in record}


def _summary(params: "Params", run: "Run", model: AnyModel, evaluation: dict) -> str:
    unit = params.image_kind(run.dataset).unit
    nll, error = (evaluation[key] * unit.per_nat for key in ("nll", "nll_se"))
    text = (
        f"{_what(model)} of {params.dataset(run.dataset)['title']}. Its test NLL is "
        f"**{rounded(nll)} ± {rounded_error(error)} {unit.name}**"
    )
    printed = printed_nll(run.name)
    text += f"; the paper prints {rounded(printed)}." if printed is not None else "."
    return " ".join(filter(None, (text, _seeds(params, run), _remark(evaluation))))


def _seeds(params: "Params", run: "Run") -> str:
    """Return which runs repeat this one with other seeds, or which one it repeats."""
    if run.repeats:
        return f"It repeats {_card_link(run.repeats)} with another seed."
    again = params.repetitions(run.name)
    if not again:
        return ""
    return f"Repeated with other seeds: {', '.join(map(_card_link, again))}; tables show the mean."


def _card_link(run: str) -> str:
    return f"[{run}]({run}.md)"


def _what(model: AnyModel) -> str:
    if not model.latent_dim:
        return "A decoder without a code,"
    return f"A variational autoencoder with {model.latent_dim} latent variables,"


def _data(params: "Params", run: "Run", training: dict) -> Iterator[tuple[str, object]]:
    dataset, facts = params.dataset(run.dataset), dataset_facts().get(run.dataset, {})
    yield "Data set", f"{dataset['title']} (`{run.dataset}`)"
    yield "Origin", facts.get("origin") or "the block of this name in `params.yaml`"
    yield "Polarity", facts.get("polarity")
    yield "Terms", facts.get("terms") or "none are recorded here; ask the publisher"
    trained_on = sum(dataset["splits"].get(part, 0) for part in training["split"].split("+"))
    yield "Trained on", f"{training['split']}, {trained_on:,} images"
    yield "SHA-256 of the training images", _code(training.get("training_sha256"))
    yield "SHA-256 of the prepared data", _code(training.get("data_sha256"))


def _training(training: dict, evaluation: dict) -> Iterator[tuple[str, object]]:
    yield "Epochs", training["epochs"]
    if isinstance(start := training.get("start"), dict):
        yield "Begun with the weights of", f"`{start.get('run')}`, {start.get('epochs')} epochs"
    yield "Steps", training.get("steps")
    yield "Images seen", training.get("images_seen")
    yield "Hours", rounded(training["seconds"] / 3600) if "seconds" in training else None
    yield "Hardware", training["hardware"]
    yield "Computed by", training.get("core")
    yield "Precision", training.get("precision")
    yield "PyTorch", training.get("torch")
    yield "Revision", _revision(training.get("git_revision"))
    yield "Seed", training.get("seed")
    yield "Parameters", training.get("parameters")
    digest = training.get("checkpoint_sha256") or evaluation.get("checkpoint_sha256")
    yield "SHA-256 of the checkpoint", _code(digest)


def _revision(name: str | None) -> str | None:
    """Return a revision as code, with what its "+" means (vlae.revision)."""
    code = _code(name)
    return f"{code} (+: with changes that were not committed)" if name and "+" in name else code


def _evaluation(params: "Params", run: "Run", record: dict) -> Iterator[tuple[str, object]]:
    unit, samples = params.image_kind(run.dataset).unit, record["importance_samples"]
    for name, key in (("NLL", "nll"), ("KL", "kl")):
        nats, error = rounded(record[key]), rounded_error(record[f"{key}_se"])
        yield f"{name}, nats per image", f"{nats} ± {error}"
    yield "NLL, bits per dimension", f"{record['bits_per_dim']:.4f}"
    yield f"NLL in the paper, {unit.name}", rounded(printed_nll(run.name))
    yield "KL in the paper, nats per image", rounded(printed_kl(run.name))
    yield "Test images", record["n_test"]
    draws = [rounded(draw["nll"]) for draw in record.get("draws", [])]
    yield "NLL of other draws of the bits", ", ".join(draws)
    yield "Estimator", estimator(record)
    if not record["exact"]:
        ess = record.get("ess")
        yield "Effective samples (ESS)", ess and f"{ess:.1f} of {samples}"
        pareto = record.get("pareto")
        yield (
            "Pareto k-hat",
            f"median {pareto['k_median']:.2f}; above {pareto['k_most']:.2f} for "
            f"{pareto['failing']:.1%} of the images"
            if pareto
            else "not recorded",
        )
    yield "Reliable", doubt(record) or ("exact" if record["exact"] else "no sign of the contrary")
    yield "Hardware", record["hardware"]


def _limits(params: "Params", run: "Run", model: AnyModel, evaluation: dict) -> Iterator[str]:
    yield _window(model)
    if model.latent_dim:
        kl, printed = rounded(evaluation["kl"]), printed_kl(run.name)
        said = f"; in the paper {rounded(printed)}" if printed is not None else ""
        yield f"The code holds {kl} nats of an image (KL){said}."
    else:
        yield "It has no code: `encode` and `decompress` raise ValueError."
    if remark := _remark(evaluation):
        yield remark
    if others := params.repetitions(run.name):
        yield f"Other seeds: {', '.join(f'`{other}`' for other in others)}."
    elif not run.repeats:
        yield "It is one training. The standard error does not cover what other seeds would give."
    if run.comparison:
        yield f"It is made for a comparison ({run.comparison}), with the others of it only."
    if run.repeats:
        yield f"It repeats `{run.repeats}` with another seed."
    if limit := dataset_facts().get(run.dataset, {}).get("limit"):
        yield limit


def _window(model: AnyModel) -> str:
    code = "beside the code" if model.latent_dim else "and nothing else"
    if isinstance(model, ColourModelConfig):
        grey = " by its grey values" if model.grayscale else ""
        window = f"of {model.window} pixels{grey}"
    elif model.decoder.kind == "factorized":
        return "Given the code, the pixels are independent: the code has to keep all they share."
    else:
        decoder = model.decoder
        kernels = (decoder.first_kernel, decoder.masked_blocks, decoder.last_masked)
        window = f"of {len(reach(decoder_kernels(*kernels)))} pixels"
    why = ". What the window shows, the code need not keep" if model.latent_dim else ""
    return (
        f"For each pixel, the decoder sees a window {window} {code}{why} "
        "([readings](../../docs/readings.md))."
    )


def _remark(evaluation: dict) -> str:
    remark = doubt(evaluation)
    return f"The estimate of the NLL is {remark}." if remark else ""


def _table(rows: Iterator[tuple[str, object]]) -> str:
    """Two columns in Markdown, without the rows that have no value."""
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows if value not in (None, "")]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|")


def _code(value: str | None) -> str | None:
    return f"`{value}`" if value else None


@cache
def dataset_facts() -> dict[str, dict]:
    """Return the parsed datasets.yaml."""
    return yaml.safe_load(files("vlae.report").joinpath("datasets.yaml").read_text("utf-8"))
