"""The library from any folder: recorded models are found, checked and used."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
import yaml
from PIL import Image

import s3_store
import vlae
from miniature import PROJECT, small_params, write_data
from vlae.config.load import recorded_model
from vlae.errors import VlaeError
from vlae.evaluation.likelihood import estimates
from vlae.images import COLOUR, FIXED
from vlae.library.images import check_images
from vlae.library.project import find_project
from vlae.storage.read import read_json

RUN = "static_mnist-vlae"
DECODER = "dynamic_mnist-pixelcnn"
MODEL = f"results/checkpoints/{RUN}/model.safetensors"
RECORD = f"results/checkpoints/{RUN}/train.json"


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What a fresh clone has: no results in their place, published objects in artifacts/."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".dvc").mkdir()
    for name in ("params.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "artifacts").symlink_to(PROJECT / "artifacts")
    return folder


@pytest.fixture(scope="module")
def model(clone):
    return vlae.load(RUN, home=clone, precision="float32")


@pytest.fixture(scope="module")
def images(clone):
    samples = find_project(clone).file(Path(f"results/samples/{RUN}.npz"))
    with np.load(samples, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["originals"])[:8]


def copy_of(clone: Path, folder: Path) -> Path:
    shutil.copytree(clone, folder, symlinks=True)
    return folder


def test_importing_it_loads_no_torch():
    code = "import sys, vlae; dir(vlae); sys.exit('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_all_names_are_there():
    for name in vlae.__all__:
        assert getattr(vlae, name) is not None
    assert not set(vlae.__all__) - set(dir(vlae))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        vlae.lode  # noqa: B018


def test_the_likelihood_is_the_evaluations(model, images):
    found = model.log_likelihood(images, samples=16, seed=3)
    x = images.float().unsqueeze(1)
    theirs = estimates(model.model, x, range(len(x)), 16, 3, "float32")["log_likelihood"]
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), theirs)
    assert -130 < found.min() <= found.max() < -30  # nats: a trained model of digits


def test_the_standard_error_is_the_spread_over_seeds(model, images):
    """By the delta method, with many samples of few images: within a third."""
    values, errors = zip(
        *(model.log_likelihood(images[:4], 64, seed, standard_error=True) for seed in range(24)),
        strict=True,
    )
    spread, told = torch.stack(values).std(0), torch.stack(errors).mean(0)
    assert (told / spread > 0.5).all()
    assert (told / spread < 1.6).all()
    assert model.log_likelihood(images[:1], 1, standard_error=True)[1].isnan()


def test_codes_decompressions_and_samples(model, images):
    q = model.encode(images)
    assert q.mean.shape == q.log_std.shape == (8, 64)
    again, new = model.decompress(images, seed=1), model.sample(5, seed=1)
    for drawn, count in ((again, 8), (new, 5)):
        assert drawn.dtype == torch.uint8
        assert drawn.shape == (count, 28, 28)
        assert set(drawn.unique().tolist()) == {0, 1}
    assert torch.equal(again, model.decompress(images, seed=1))
    assert not torch.equal(new, model.sample(5, seed=2))
    # A decompression resembles its own image more than the others.
    distance = (images[:, None].float() - again.float()).abs().mean((2, 3))
    assert (distance.argmin(1) == torch.arange(8)).float().mean() > 0.7


def test_codes_are_drawn_and_decoded(model, images):
    z = model.sample_posterior(images, seed=1)
    assert z.shape == (8, 64)
    assert torch.equal(model.decode(z, seed=1), model.decompress(images, seed=1))
    # The VLAE's posterior is a Gaussian: the spread of its samples is that of the encoder.
    q = model.encode(images[:1])
    drawn = torch.cat([model.sample_posterior(images[:1], seed) for seed in range(400)])
    assert torch.allclose(drawn.mean(0), q.mean[0], atol=0.25)
    assert torch.allclose(drawn.std(0).log(), q.log_std[0], atol=0.2)
    new = model.sample_prior(3, seed=1)
    assert torch.equal(new, model.sample_prior(3, seed=1)) and new.shape == (3, 64)
    assert model.decode(new.double().numpy()).shape == (3, 28, 28)


@pytest.mark.parametrize(
    "codes", [torch.zeros(64), torch.zeros(1, 63), torch.zeros(1, 64).int(), torch.zeros(0, 64)]
)
def test_other_codes_are_refused(model, codes):
    with pytest.raises(ValueError, match="codes must be"):
        model.decode(codes)


def test_a_decoder_without_a_code(clone, images):
    decoder = vlae.load(DECODER, home=clone, precision="float32")
    value, error = decoder.log_likelihood(images, standard_error=True)
    assert (error == 0).all()
    assert torch.equal(value, decoder.log_likelihood(images, samples=1, seed=9))
    for use in (decoder.encode, decoder.decompress, decoder.sample_posterior, decoder.decode):
        with pytest.raises(ValueError, match="a decoder without a code"):
            use(images)


def test_colour_images(clone):
    model = vlae.load("cifar10-narrow_4x2", home=clone, precision="float32")
    new = model.sample(2)
    assert new.shape == (2, 3, 32, 32)
    assert new.dtype == torch.uint8
    assert model.log_likelihood(new, samples=2).shape == (2,)
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\) of integers 0 to 255, not torch.flo"):
        model.encode(new / 255)


@pytest.mark.parametrize(
    "images",
    [
        np.eye(28, dtype=np.uint16)[None],
        np.eye(28, dtype=bool)[None, None],
        torch.eye(28, dtype=torch.float64)[None],
        [np.eye(28).tolist()],
    ],
)
def test_forms_of_binary_images(images):
    assert torch.equal(check_images(images, FIXED), torch.eye(28, dtype=torch.uint8)[None])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"must be \(N, 28, 28\), not \(28, 28\)"),
        (torch.zeros(0, 28, 28), "N of at least 1"),
        (torch.zeros(1, 3, 28, 28), r"not \(1, 3, 28, 28\)"),
        (torch.full((1, 28, 28), 2), "0 and 1 only"),
        (torch.full((1, 28, 28), 257), "0 and 1 only"),
        (torch.full((1, 28, 28), -1), "0 and 1 only"),
        (torch.full((1, 28, 28), 0.5), "0 and 1 only; .* for example, x > 0.5"),
        (torch.full((1, 28, 28), torch.nan), "0 and 1 only"),
        (torch.full((1, 28, 28), 1j), "not torch.complex64"),
        ("digits", "not <U6"),
        ([None], "not object"),
    ],
)
def test_other_images_are_refused_in_a_line(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images, FIXED)


def test_colour_values_are_checked():
    with pytest.raises(ValueError, match="0 to 255 only"):
        check_images(torch.full((1, 3, 32, 32), 256), COLOUR)


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", True])
def test_other_counts_are_refused(model, images, count):
    with pytest.raises(ValueError, match=f"at least 1, is {count!r}"):
        model.sample(count)
    with pytest.raises(ValueError, match=f"at least 1, is {count!r}"):
        model.log_likelihood(images, samples=count)


def test_the_model_is_found_from_any_folder(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLAE_HOME", str(clone))
    assert vlae.load(DECODER).name == DECODER
    monkeypatch.delenv("VLAE_HOME")
    (clone / "below").mkdir()
    monkeypatch.chdir(clone / "below")
    assert find_project().root == clone


def test_a_place_that_is_no_clone_is_named(tmp_path):
    with pytest.raises(VlaeError, match="is no clone of the vlae repository"):
        vlae.load(RUN, home=tmp_path)


def test_weights_in_a_folder_of_their_own(clone, model, images, tmp_path):
    project = find_project(clone)
    for name in ("model.safetensors", "train.json"):
        shutil.copy(project.file(Path(f"results/checkpoints/{RUN}/{name}")), tmp_path / name)
    other = vlae.load(RUN, tmp_path, precision="float32")
    assert torch.equal(other.encode(images).mean, model.encode(images).mean)
    with pytest.raises(VlaeError, match="is a record of run"):
        vlae.load(DECODER, tmp_path)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(VlaeError, match=r"is not the checkpoint that its train\.json describes"):
        vlae.load(RUN, tmp_path)
    weights.unlink()
    with pytest.raises(VlaeError, match=r"model.safetensors is missing"):
        vlae.load(RUN, tmp_path)


def test_an_object_that_has_changed_is_refused(clone, tmp_path):
    project = find_project(copy_of(clone, tmp_path / "clone"))
    path = Path(f"results/checkpoints/{RUN}/train.json")
    md5 = project.recorded_md5(path)
    damaged = project.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{}")
    with pytest.raises(VlaeError, match="has changed since it was recorded"):
        vlae.load(RUN, home=project.root)


def test_weights_that_older_records_do_not_describe(clone, tmp_path):
    """dvc.lock vouches for them; weights that are in their place by hand are refused."""
    old = "caltech101-pixelcnn"
    assert "checkpoint_sha256" not in vlae.load(old, home=clone).record
    home = copy_of(clone, tmp_path / "clone")
    place = home / "results" / "checkpoints" / old
    place.mkdir(parents=True)
    source = find_project(clone).file(Path(f"results/checkpoints/{old}/model.safetensors"))
    shutil.copy(source, place / "model.safetensors")
    assert vlae.load(old, home=home).name == old
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (place / "model.safetensors").write_bytes(content)
    with pytest.raises(VlaeError, match="is not the checkpoint"):
        vlae.load(old, home=home)


def test_what_is_not_there_is_named(clone, tmp_path):
    home = copy_of(clone, tmp_path / "clone")
    with pytest.raises(VlaeError, match="no run 'static_mnist-vale'"):
        vlae.load("static_mnist-vale", home=home)
    with pytest.raises(VlaeError, match="is not trained in"):
        vlae.load("omniglot-vlae", home=home)
    for option in ({"device": "gpu"}, {"device": "cpu:0"}, {"precision": "fp16"}):
        ((name, value),) = option.items()
        with pytest.raises(VlaeError, match=f"{name} must be one of auto, .*, not '{value}'"):
            vlae.load(RUN, home=home, **option)
    if not torch.cuda.is_available():
        with pytest.raises(VlaeError, match="device cuda: PyTorch sees no CUDA device here"):
            vlae.load(RUN, home=home, device="cuda:1")
    (home / "dvc.lock").write_text("stages: [1]\n")
    with pytest.raises(VlaeError, match=r"dvc\.lock cannot be read"):
        vlae.load(RUN, home=home)


@pytest.fixture(scope="module")
def bucket(clone) -> Iterator[str]:
    """The address of a store that has the results of a run, and nothing else."""
    project = find_project(clone)
    with s3_store.store() as address:
        for path in map(Path, (MODEL, RECORD)):
            md5 = project.recorded_md5(path)
            url = f"{address}/vlae/files/md5/{md5[:2]}/{md5[2:]}"
            content = project.file(path).read_bytes()
            requests.put(url, content, headers=s3_store.SIGNED, timeout=30).raise_for_status()
        yield address


@pytest.fixture
def away(clone, tmp_path, monkeypatch) -> Path:
    """A clone whose results are in a store of another kind than a folder."""
    home = copy_of(clone, tmp_path / "away")
    (home / "artifacts").unlink()
    shutil.copy(PROJECT / "dvc.yaml", home)
    subprocess.run(["git", "init", "--quiet", home], check=True)
    for name, value in s3_store.VARIABLES.items():
        monkeypatch.setenv(name, value)
    return home


def test_weights_come_from_a_remote_of_any_kind(away, bucket, model, images, monkeypatch):
    """By way of DVC's cache, which the settings of the user may have put anywhere."""
    settings = away.parent / "settings"
    settings.mkdir()
    (settings / "config").write_text(f"[cache]\n    dir = {settings / 'cache'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(settings))
    (away / ".dvc" / "config.local").write_text(s3_store.config(bucket))
    found = vlae.load(RUN, home=away, precision="float32")
    assert torch.equal(found.encode(images).mean, model.encode(images).mean)
    assert not (away / "results").exists()
    (away / ".dvc" / "config.local").unlink()
    assert find_project(away).file(Path(MODEL)).is_relative_to(settings / "cache")


@pytest.mark.slow
def test_weights_that_the_remote_does_not_have(away, bucket):
    (away / ".dvc" / "config.local").write_text(s3_store.config(bucket))
    with pytest.raises(VlaeError, match=rf"{DECODER}/model.safetensors is recorded .* no remote"):
        vlae.load(DECODER, home=away)


def test_a_remote_that_dvc_cannot_read_is_one_line(away):
    (away / ".dvc" / "config.local").write_text("[core]\n    remote = nowhere\n")
    with pytest.raises(VlaeError, match=rf"DVC cannot read the remote of {away}: .*nowhere"):
        vlae.load(RUN, home=away)


def test_without_dvc_the_line_says_what_is_missing(away, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvc", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(VlaeError, match=rf"^{MODEL}: recorded, but .* DVC .* is not installed"):
        vlae.load(RUN, home=away)
    with pytest.raises(VlaeError, match=r" and \d+ more: recorded, but"):
        vlae.runs(away)


def test_the_runs_are_what_is_recorded(clone, tmp_path):
    table = vlae.runs(clone)
    project = find_project(clone)
    assert list(table.index) == list(project.params.runs)
    record = read_json(project.file(Path(f"results/evaluations/{RUN}.json")))
    row = table.loc[RUN]
    assert row.nll == record["nll"]
    assert (row.dataset, row.unit, row.paper) == ("static_mnist", "nats", 79.03)
    colour = read_json(project.file(Path("results/evaluations/cifar10-vlae_7x4.json")))
    assert table.loc["cifar10-vlae_7x4"].nll == pytest.approx(colour["bits_per_dim"])
    untrained = table.loc["omniglot-vlae"]
    assert math.isnan(untrained.nll)
    assert untrained.epochs == 0
    assert untrained.state.startswith("not trained")
    # Results that lie in their place are read there.
    home = copy_of(clone, tmp_path / "clone")
    for path in (f"results/evaluations/{RUN}.json", f"results/checkpoints/{RUN}/train.json"):
        (home / path).parent.mkdir(parents=True)
        shutil.copy(project.file(Path(path)), home / path)
    (home / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert vlae.runs(home).nll.count() == 1


def test_a_picture_of_all_of_it(model, images, tmp_path):
    path = tmp_path / "out.png"
    vlae.save_grid(path, images, model.decompress(images), model.sample(len(images)))
    with Image.open(path) as picture:
        assert picture.size[1] > 3 * 28


def test_test_images_are_evenly_spaced_and_the_recorded_draw(tmp_path):
    write_data(tmp_path, small_params(tmp_path))
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    everything = vlae.test_images("static_mnist", home=tmp_path)
    assert everything.dtype == torch.uint8
    few = vlae.test_images("static_mnist", 3, home=tmp_path)
    last = len(everything) - 1
    assert torch.equal(few, everything[[0, round(last / 2), last]])
    with pytest.raises(ValueError, match=f"count must be 1 to {last + 1}"):
        vlae.test_images("static_mnist", last + 2, home=tmp_path)
    with pytest.raises(VlaeError, match="no data set 'mnist'"):
        vlae.test_images("mnist", home=tmp_path)


def test_no_run_changes_the_test_images(tmp_path):
    """A run that evaluates few images with another draw, and a data set without any run."""
    write_data(tmp_path, small_params(tmp_path))
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    names = ("static_mnist", "dynamic_mnist")
    before = [vlae.test_images(name, home=tmp_path) for name in names]
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["runs"] = {k: v for k, v in params["runs"].items() if "repeats" not in v}
    for run in params["runs"].values():
        run.setdefault("evaluation", {}).update(images=2, binarization_seed=1)
    params["runs"] = {k: v for k, v in params["runs"].items() if v["dataset"] != names[0]}
    of_runs = ("refined", "codelengths", "probes", "lossy")
    params |= {key: {} for key in of_runs}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name, images in zip(names, before, strict=True):
        assert torch.equal(vlae.test_images(name, home=tmp_path), images)


def test_every_recorded_model_is_described_by_its_record(clone):
    """The configuration in train.json is the one in params.yaml, for all recorded runs."""
    project = find_project(clone)
    recorded = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    runs = [name for name in project.params.runs if f"train@{name}" in recorded]
    assert len(runs) > 20
    for name in runs:
        record = read_json(project.file(Path(f"results/checkpoints/{name}/train.json")))
        assert recorded_model(record["config"], name) == project.params.runs[name].model
