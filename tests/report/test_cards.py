"""Model cards say what the records say, and every published checkpoint has one."""

import re
from pathlib import Path

import pytest

import recorded
from miniature import PROJECT
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.library.project import Project
from vlae.report.cards import card, dataset_facts
from vlae.report.doubt import doubt
from vlae.report.summaries import run_inputs
from vlae.storage.records import read_results

PARAMS = load_params(PROJECT / "params.yaml")
RUN = "static_mnist-vlae"
MODEL = PARAMS.defaults["binary"]["model"]
TRAINED = {
    "config": {"model": MODEL},
    "checkpoint_sha256": "c" * 64,
    "seconds": 7200.0,
    "seed": 3,
    "epochs": 30,
}
PARETO = {"samples": 64, "k_median": 0.25, "k_most": 0.7, "failing": 0.375}


def rows(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.MULTILINE))


def made(root, run=RUN, training=None, **evaluation) -> str:
    recorded.write_training(root, run, **TRAINED | (training or {}))
    recorded.write_evaluation(root, run, **evaluation)
    return card(PARAMS, PARAMS.runs[run], root)


def test_facts_are_those_of_the_records(tmp_path):
    text = made(tmp_path, nll=81.237, nll_se=0.25, kl=12.125, ess=7.25, pareto=PARETO)
    found = rows(text)
    assert found["NLL, nats per image"] == "81.24 ± 0.25" and "**81.24 ± 0.25 nats" in text
    assert found["KL, nats per image"].startswith("12.12 ±")
    assert found["NLL in the paper, nats per image"] == "79.03"
    assert found["Effective samples (ESS)"] == "7.2 of 64"
    assert found["Pareto k-hat"] == "median 0.25; above 0.70 for 37.5% of the images"
    assert found["SHA-256 of the checkpoint"] == f"`{'c' * 64}`"
    assert (found["Epochs"], found["Hours"], found["Seed"]) == ("30", "2.00", "3")
    assert found["Trained on"] == "train+valid, 60,000 images"
    assert "window of 402 pixels" in text and "It is one training." in text


def test_what_is_not_reliable_is_said_at_the_top_and_among_the_limits(tmp_path):
    remark = doubt({"exact": False, "pareto": PARETO})
    assert made(tmp_path, pareto=PARETO).count(f"The estimate of the NLL is {remark}.") == 2
    assert "The estimate" not in made(tmp_path, pareto=PARETO | {"failing": 0.01})


def test_a_window_is_that_of_the_record_not_of_the_settings_as_they_are_now(tmp_path):
    model = MODEL | {"decoder": MODEL["decoder"] | {"masked_blocks": 3}}
    assert "window of 159 pixels" in made(tmp_path, training={"config": {"model": model}})


def test_without_records_there_is_no_card_and_a_damaged_one_is_named(tmp_path):
    with pytest.raises(VlaeError, match="not trained"):
        card(PARAMS, PARAMS.runs[RUN], tmp_path)
    with pytest.raises(VlaeError, match=r"train\.json"):
        made(tmp_path, training={"config": {}})


def test_every_published_checkpoint_has_a_card():
    cards, inputs = 0, [Path(path) for run in PARAMS.runs for path in run_inputs(run)]
    with Project(PROJECT).files(inputs) as root:
        for name, run in PARAMS.runs.items():
            training, evaluation = read_results(root, name, run.dataset)
            if training is None:
                continue
            cards, text = cards + 1, card(PARAMS, run, root)
            found = rows(text)
            assert found["SHA-256 of the checkpoint"] == f"`{evaluation['checkpoint_sha256']}`"
            assert found["NLL, bits per dimension"] == f"{evaluation['bits_per_dim']:.4f}"
            assert f'vlae.load("{name}")' in text
            assert found["Parameters"] == f"{training['parameters']:,}"
    assert cards >= 28


def test_origins_agree_with_the_page_on_data_sets():
    page = (PROJECT / "docs" / "data.md").read_text()
    assert dataset_facts().keys() <= PARAMS.datasets.keys()
    for name, facts in dataset_facts().items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        names = re.findall(r"[A-Z]\w+(?='s)|`[\w.]+`", facts["origin"])
        assert names and all(one in row for one in names[:1])
        if facts["terms"]:
            assert "MIT" in facts["terms"] and "Brenden Lake" in page


def test_seeds_lead_to_each_other(tmp_path):
    decoder = {"config": {"model": MODEL | {"latent_dim": 0}}}
    again = [f"caltech101-pixelcnn_seed{seed}" for seed in (1, 2)]
    first = made(tmp_path, "caltech101-pixelcnn", decoder, exact=True)
    links = ", ".join(f"[{run}]({run}.md)" for run in again)
    assert f"Repeated with other seeds: {links}; tables show the mean." in first
    second = made(tmp_path, again[0], decoder, exact=True)
    assert "It repeats [caltech101-pixelcnn](caltech101-pixelcnn.md) with another seed." in second
    alone = made(tmp_path)
    assert "Repeated with" not in alone and "It repeats" not in alone


def test_a_revision_with_changes_is_explained(tmp_path):
    assert rows(made(tmp_path, training={"git_revision": "bb40e2"}))["Revision"] == "`bb40e2`"
    changed = rows(made(tmp_path, training={"git_revision": "bb40e2+"}))["Revision"]
    assert changed == "`bb40e2+` (+: with changes that were not committed)"
