"""Recorded results, checkpoints, training states and evaluation blocks that are not as written."""

import contextlib
import copy
import io
import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

import recorded
from fuzzing import FOREIGN, PICKLE, Payload, attempt, cases, empty_folder, hostile
from miniature import PROJECT, small_params, write_data
from vlae.cli import main
from vlae.config.load import load_params
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.evaluation.evaluate import evaluate
from vlae.images import FIXED
from vlae.models.weights import read_model
from vlae.report.site.gather import gather
from vlae.report.tables.code_content import kept_rows
from vlae.report.tables.registry import build_table
from vlae.storage import paths
from vlae.storage.records import (
    curve_file,
    evaluation_file,
    read_curve,
    read_originals,
    read_per_image,
    read_results,
    read_samples,
    training_file,
)
from vlae.training.saved_state import SavedState, load_state, save_state
from vlae.training.train import train

RUN = "static_mnist-vlae"
COLOUR_RUN = "cifar10-narrow_7x4"
IMAGES = 20
PARAMS = load_params(PROJECT / "params.yaml")
PARAMS = replace(PARAMS, runs={run: PARAMS.runs[run] for run in (RUN, COLOUR_RUN)})


# --- Records of results ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    recorded.write_training(root, RUN)
    deep = {"images": 4, "importance_samples": 128, "difference": -0.1, "difference_se": 0.01}
    curve = [{"k": k, "nll": 81.0, "se": 0.2} for k in (1, 2, 4)]
    recorded.write_evaluation(root, RUN, n_test=IMAGES, deep=deep, curve=curve)
    values = np.linspace(-90, -70, IMAGES)
    recorded.write_per_image(root, RUN, values, elbo=(values - 1).astype(np.float32))
    recorded.write_probe(root, RUN, n_test=IMAGES)
    recorded.write_curve(root, RUN, [-100.0, -90.0], [5.0, 6.0], [-101.0, -91.0])
    recorded.write_samples(root, RUN, 16)
    recorded.write_training(root, COLOUR_RUN)
    recorded.write_samples(root, COLOUR_RUN, 4)
    recorded.write_classifier(root, IMAGES)
    return root


def read_everything(root: Path) -> None:
    """All that tables, figures and claims read of a run, and a table of it."""
    _, evaluation = read_results(root, RUN, "static_mnist")
    if evaluation is not None:
        read_per_image(root, evaluation)
    read_curve(root, RUN)
    read_samples(root, RUN)
    read_originals(root, RUN)
    build_table("table1_static_mnist", recorded.params(RUN), root)
    build_table("bookkeeping", recorded.params(RUN), root)
    kept_rows(recorded.params(COLOUR_RUN), root)
    gather(PARAMS, root)


FILES = {
    "train.json": training_file(RUN),
    "evaluation json": evaluation_file(RUN),
    "evaluation npz": evaluation_file(RUN).with_suffix(".npz"),
    "probe json": paths.probe(RUN),
    "curve.csv": curve_file(RUN),
    "samples npz": paths.samples(RUN),
    "colour samples npz": paths.samples(COLOUR_RUN),
    "classifier": paths.classifier("cifar10"),
    "classifier json": paths.classifier("cifar10").with_suffix(".json"),
}


def with_file(results: Path, kind: str, content: bytes):
    with empty_folder() as folder:
        shutil.copytree(results / "results", folder / "results")
        (folder / FILES[kind]).write_bytes(content)
        return attempt(f"result, {kind}", folder, read_everything, folder)


def test_the_results_as_written_are_read(results, tmp_path):
    for kind, path in FILES.items():
        assert with_file(results, kind, (results / path).read_bytes()) is None


@pytest.mark.parametrize("kind", FILES)
@cases(40)
@given(data=st.data())
def test_damaged_results(results, kind, data):
    with_file(results, kind, data.draw(hostile((results / FILES[kind]).read_bytes())))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 2**63, float("nan"), float("inf"), 1e308, -1e308])
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["a\nb", "|" * 5000, "\ud800", "\\input{x}", "$\\frac$"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "kind", ["train.json", "evaluation json", "probe json", "classifier json"]
)
@cases(50)
@given(data=st.data())
def test_records_with_any_value_in_them(results, kind, data):
    record = json.loads((results / FILES[kind]).read_text())
    inner = record
    while True:
        key = data.draw(st.sampled_from(sorted(inner)))
        if not (isinstance(inner[key], dict) and inner[key]) or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(JSON)
    with_file(results, kind, json.dumps(record).encode())


@pytest.mark.parametrize("kind", ["evaluation npz", "samples npz", "colour samples npz"])
@cases(40)
@given(data=st.data())
def test_archives_of_results_with_any_array_in_them(results, kind, data):
    with np.load(results / FILES[kind], allow_pickle=False) as archive:
        arrays = dict(archive)
    name = data.draw(st.sampled_from(sorted(arrays)))
    arrays[name] = data.draw(
        st.sampled_from(
            [
                np.array([Payload()], dtype=object),
                np.array("text"),
                np.array([], np.float32),
                np.full(IMAGES, np.nan),
                np.full(IMAGES, 1e300),
                np.zeros(IMAGES, complex),
                np.zeros((IMAGES, 2)),
                np.zeros(IMAGES, [("a", "f4")]),
                np.zeros(IMAGES, "M8[s]"),
                np.full((16, 28, 28), 2, np.uint8),
                np.zeros((16, 28), np.uint8),
                np.zeros((0, 28, 28), np.uint8),
                np.zeros((0, 3, 32, 32), np.uint8),
                np.zeros((1, 3, 32, 32), np.uint8),
                np.arange(16) - 2**62,
            ]
        )
    )
    content = io.BytesIO()
    np.savez(content, **arrays)
    with_file(results, kind, content.getvalue())


def test_json_that_is_too_deep_and_a_field_that_is_too_long(results):
    for content in (b"[" * 200_000, b'{"run": ' * 100_000, b'{"epochs": 1' + b"0" * 10_000 + b"}"):
        for kind in ("train.json", "evaluation json"):
            assert isinstance(with_file(results, kind, content), VlaeError)
    header = (results / FILES["curve.csv"]).read_bytes().splitlines()[0]
    for row in (b'"' + b"1" * 300_000, b"\0", b"1," * 100_000, b""):
        assert isinstance(with_file(results, "curve.csv", header + b"\n" + row), VlaeError)


@pytest.mark.parametrize("kind", FILES)
def test_results_that_are_no_files(results, tmp_path, kind):
    shutil.copytree(results / "results", tmp_path / "results")
    path = tmp_path / FILES[kind]
    path.unlink()
    path.mkdir()
    outcome = attempt("result, none", tmp_path, read_everything, tmp_path)
    assert isinstance(outcome, VlaeError)


# --- Checkpoints, states and blocks ----------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two small runs trained and one evaluated, and its parameters."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        params = small_params(folder, evaluation={"images": 8, "deep_images": 0})
        write_data(folder, params)
        for name in (RUN, "static_mnist-vae_iaf"):
            run = params.runs[name]
            train(run, load(run.dataset, FIXED), "cpu", "float32")
        evaluate(params.runs[RUN], load("static_mnist", FIXED), "cpu", "float32")
    return folder, params


def checkpoint(folder: Path, name: str = RUN) -> Path:
    return folder / paths.checkpoint(name) / "model.safetensors"


def read_checkpoint(params, content: bytes):
    with empty_folder() as folder:
        path = folder / "model.safetensors"
        path.write_bytes(content)
        outcome = attempt("checkpoint", folder, read_model, RUN, params.runs[RUN].model, path)
    if not isinstance(outcome, VlaeError):
        assert all(weight.isfinite().all() for weight in outcome.parameters())
    return outcome


@cases(50)
@given(data=st.data())
def test_damaged_checkpoints(trained, data):
    folder, params = trained
    read_checkpoint(params, data.draw(hostile(checkpoint(folder).read_bytes())))


def headed(header: object, rest: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


TRAPS = {
    "a pickle": PICKLE,
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + bytes(99),
    "a header of 90 MB": struct.pack("<Q", 90_000_000) + bytes(99),
    "2^62 weights": headed({"w": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64]}}),
    "a size that overflows": headed(
        {"w": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 4]}}
    ),
    "a type that is none": headed({"w": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}),
    "a rare type": headed({"w": {"dtype": "F8_E8M0", "shape": [64], "data_offsets": [0, 64]}}),
    "bits": headed({"w": {"dtype": "F4", "shape": [128], "data_offsets": [0, 64]}}),
    "deep": headed(b'{"a":' * 50_000),
    "text that is none": headed({"__metadata__": {"vlae": 7}}),
}


@pytest.mark.parametrize("name", TRAPS)
def test_checkpoints_and_states_that_are_traps(trained, name):
    assert isinstance(read_checkpoint(trained[1], TRAPS[name]), VlaeError)
    assert isinstance(read_state(TRAPS[name], {}), VlaeError)


def test_a_checkpoint_saved_by_pickle_is_refused(trained, tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    assert isinstance(read_checkpoint(trained[1], content), VlaeError)
    assert isinstance(read_state(content, {}), VlaeError)


def changed_checkpoint(folder: Path, change) -> bytes:
    """With what change(name, weight) makes of one of its tensors in that one's place."""
    tensors = load_file(checkpoint(folder))
    name = sorted(tensors)[0]
    return save(tensors | change(name, tensors.pop(name)), {"run": RUN})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, w: {name: w * torch.nan}, "not finite"),
        (lambda name, w: {name: w.double()}, "is torch.float64 instead of torch.float32"),
        (lambda name, w: {name: w.to(torch.int8)}, "is torch.int8 instead of"),
        (lambda name, w: {name: w[..., None].contiguous()}, "has shape"),
        (lambda name, w: {}, "tensors missing or not part of this model: {name}"),
        (lambda name, w: {name + "x": w}, "missing or not part of this model: {name}, {name}x"),
        (
            lambda name, w: {name: w, "x": w.clone()},
            "tensors missing or not part of this model: x",
        ),
    ],
)
def test_checkpoints_with_other_weights(trained, change, said):
    folder, params = trained
    outcome = read_checkpoint(params, changed_checkpoint(folder, change))
    said = said.format(name=min(load_file(checkpoint(folder))))
    assert isinstance(outcome, VlaeError) and said in str(outcome)


def test_the_checkpoint_of_another_run_of_the_same_shape(trained):
    """Nothing but the name in it tells it from the right one."""
    folder, params = trained
    foreign = save(load_file(checkpoint(folder)), {"run": "static_mnist-vlae_factorized"})
    outcome = read_checkpoint(params, foreign)
    assert isinstance(outcome, VlaeError)
    assert "is a checkpoint of static_mnist-vlae_factorized, not of static_mnist-vlae" in str(
        outcome
    )
    assert not isinstance(read_checkpoint(params, checkpoint(folder).read_bytes()), VlaeError)


def test_one_bit_of_a_checkpoint_stops_every_command(trained, tmp_path, monkeypatch, capfd):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    path = checkpoint(Path())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # the last bits of a number's mantissa: another value, all else the same
    path.write_bytes(content)
    before = {p: p.read_bytes() for p in Path("results").rglob("*") if p.is_file()}
    for command in (f"evaluate {RUN}", f"sample {RUN}", "verify"):
        assert main(command.split()) == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert error.startswith("vlae: error: ") and "model.safetensors" in error
    assert before == {p: p.read_bytes() for p in Path("results").rglob("*") if p.is_file()}


# --- States ----------------------------------------------------------------------------------

IDENTITY = {"format": 1, "run": RUN, "training": {"seed": 0}}
ROW = {"epoch": 1, "step": 10, "loss": 100.5, "elbo": -100.0, "kl": 3.25}
PART = {"from_step": 0, "to_step": 10, "seconds": 1.0, "device": "cpu"}
PART |= {"hardware": "a core", "precision": "float32", "torch": "2"}
TENSORS = {"weights/a": torch.arange(12.0).view(3, 4), "epoch/sums": torch.zeros(3).double()}


def a_state() -> bytes:
    with empty_folder() as folder:
        save_state(folder / "state", SavedState(10, dict(TENSORS), [ROW], [PART]), IDENTITY)
        return (folder / "state").read_bytes()


STATE = a_state()


def read_state(content: bytes, belongs_to: dict = IDENTITY):
    with empty_folder() as folder:
        (folder / "state").write_bytes(content)
        outcome = attempt("training state", folder, load_state, folder / "state", belongs_to)
        assert (folder / "state").read_bytes() == content
    return outcome


@cases(100)
@given(hostile(STATE))
def test_a_damaged_state_is_never_gone_on_with(content):
    """Every bit of it counts: refused, or what was saved."""
    outcome = read_state(content)
    if not isinstance(outcome, VlaeError):
        assert outcome.step == 10 and outcome.curve == [ROW] and outcome.history == [PART]
        for name, tensor in TENSORS.items():
            assert torch.equal(outcome.tensors[name], tensor)


def about_state() -> dict:
    return {"identity": IDENTITY, "step": 10, "curve": [ROW], "history": [PART]}


@cases(100)
@given(data=st.data())
def test_states_without_a_checksum_and_with_any_description(data):
    """As older versions wrote them."""
    about = copy.deepcopy(about_state())
    where = data.draw(st.sampled_from(["top", "curve", "history", "whole"]))
    if where == "whole":
        about = data.draw(JSON)
    else:
        inner = about if where == "top" else about[where][0]
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    with contextlib.suppress(UnicodeError):
        read_state(save(TENSORS, {"vlae": json.dumps(about)}))


def test_a_state_of_before_is_still_read():
    outcome = read_state(save(TENSORS, {"vlae": json.dumps(about_state())}))
    assert isinstance(outcome, SavedState) and outcome.step == 10


@pytest.mark.parametrize("version", [0, 2])
def test_a_state_of_another_version(version):
    about = about_state() | {"identity": IDENTITY | {"format": version}}
    outcome = read_state(save(TENSORS, {"vlae": json.dumps(about)}))
    assert isinstance(outcome, VlaeError) and f"format is 1 here and {version} there" in str(
        outcome
    )


def test_foreign_files_are_no_states():
    for content in FOREIGN:
        assert isinstance(read_state(content), VlaeError)


def test_a_damaged_recipe_is_one_line(trained, tmp_path, monkeypatch, capfd):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    recipe = paths.recipe(RUN, "train")
    recipe.parent.mkdir(parents=True)
    for content in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000):
        recipe.write_bytes(content)
        assert main(["train", RUN, "--device", "cpu"]) == 2
        assert f"vlae: error: {recipe}" in capfd.readouterr().err.splitlines()[-1]


# --- Blocks of an evaluation -----------------------------------------------------------------


@cases(8)
@given(data=st.data())
def test_a_damaged_block_is_computed_again(trained, data):
    """Or taken where the damage is none; the record comes out the same."""
    original, params = trained
    (block,) = (original / paths.scratch(RUN) / "evaluation").glob("images-*.npz")
    content = data.draw(hostile(block.read_bytes()))
    expected = (original / evaluation_file(RUN)).read_text()
    with empty_folder() as folder:
        for name in ("results", "scratch", "data"):
            shutil.copytree(original / name, folder / name)
        (folder / block.relative_to(original)).write_bytes(content)
        with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()):
            dataset = load("static_mnist", FIXED)
            attempt(
                *("evaluation block", folder, evaluate),
                *(params.runs[RUN], dataset, "cpu", "float32"),
            )
        assert (folder / evaluation_file(RUN)).read_text() == expected


@pytest.mark.parametrize("name", ["objects", "fewer images", "other names", "text", "complex"])
def test_a_block_of_other_values_is_computed_again(trained, tmp_path, monkeypatch, name):
    original, params = trained
    shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    (block,) = (paths.scratch(RUN) / "evaluation").glob("images-*.npz")
    with np.load(block, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays |= {
        "objects": {"kl": np.array([Payload()] * 8, dtype=object)},
        "fewer images": {key: arrays[key][:4] for key in arrays if key != "about"},
        "other names": {"more": np.zeros(8)},
        "text": {"kl": np.array(["a"] * 8)},
        "complex": {"kl": np.zeros(8, complex)},
    }[name]
    np.savez(block, **arrays)
    expected = Path(evaluation_file(RUN)).read_text()
    os.remove(evaluation_file(RUN))
    attempt(
        *("evaluation block", tmp_path, evaluate, params.runs[RUN]),
        *(load("static_mnist", FIXED), "cpu", "float32"),
    )
    assert Path(evaluation_file(RUN)).read_text() == expected


def test_a_training_record_is_asked_for_before_hours_are_spent(trained, tmp_path, monkeypatch):
    original, params = trained
    shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shutil.rmtree("scratch")
    dataset = load("static_mnist", FIXED)
    for damage in (lambda path: path.write_text("{}"), os.remove):
        damage(training_file(RUN))
        with pytest.raises(VlaeError, match=r"train\.json"):
            evaluate(params.runs[RUN], dataset, "cpu", "float32")
        assert not Path("scratch").exists()


def test_the_state_of_another_run_is_refused(trained):
    """Under the right name, and saying what differs."""
    folder, _ = trained
    (state,) = (folder / "scratch/static_mnist-vae_iaf").glob("state-*.safetensors")
    about = json.loads(_metadata(state)["vlae"])
    outcome = read_state(state.read_bytes(), about["identity"] | {"run": RUN})
    assert isinstance(outcome, VlaeError)
    assert "run is 'static_mnist-vlae' here and 'static_mnist-vae_iaf' there" in str(outcome)


def _metadata(path: Path) -> dict:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def test_the_written_files_are_read(trained, tmp_path):
    folder, params = trained
    assert read_model(RUN, params.runs[RUN].model, checkpoint(folder))
    save_file(load_file(checkpoint(folder)), tmp_path / "a")  # one without a name in it
    assert read_model(RUN, params.runs[RUN].model, tmp_path / "a")
    assert isinstance(read_state(STATE), SavedState)
