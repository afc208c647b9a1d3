"""Lossy files: what is sent is a sample of q(z|x), and the receiver has the very same code."""

import math
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from miniature import PROJECT, made_up_arrays
from published import environment, published_clone
from small_models import small_vlae
from vlae.cli import main
from vlae.coding import relative_entropy
from vlae.coding.codec import decompress
from vlae.coding.container import Reader, is_lossy
from vlae.coding.image_files import image_writer, open_images
from vlae.coding.lossy_codec import compress_lossy, decompress_lossy, file_bytes
from vlae.coding.relative_entropy import (
    choose,
    codebook,
    kl,
    lossy_model,
    pack,
    prior_noise,
    received,
    unpack,
)
from vlae.config.load import load_params
from vlae.errors import VlaeError
from vlae.models.base import Posterior
from vlae.models.vlae import VLAE
from vlae.nn.flow import AutoregressiveFlow
from vlae.nn.flow_sampling import generate_many

GOLDEN = Path(__file__).parent / "golden" / "lossy.vlae"
BITS = made_up_arrays("fixed", 1, 1, 10)["test"]
MODEL = small_vlae("af")


def gaussians(count: int, std: float = 0.7, seed: int = 0) -> Posterior:
    torch.manual_seed(seed)
    mean = 0.8 * torch.randn(count, MODEL.latent_dim)
    return Posterior(mean, torch.full_like(mean, math.log(std)), None)


def log_weights(model, posterior: Posterior, bits: int) -> torch.Tensor:
    """log q(z_i|x) - log p(z_i) of all entries, (images, entries), by the model's own methods."""
    z = torch.cat([z for z, _ in codebook(model, bits)]).double()
    normal = torch.distributions.Normal(posterior.mean.double(), posterior.log_std.double().exp())
    log_q = normal.log_prob(z[:, None]).sum(2).T
    with torch.no_grad():
        return log_q - model.double().log_prior(z)


# --- the codebook ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "hidden", "layers", "activation"),
    [(6, 12, 3, "relu"), (40, 100, 3, "elu"), (33, 20, 2, "relu"), (1, 4, 4, "relu")],
)
def test_many_codes_are_those_of_the_flow(dim, hidden, layers, activation):
    torch.manual_seed(0)
    flow = AutoregressiveFlow(dim, 3, hidden, layers, activation=activation)
    with torch.no_grad():
        for layer in flow.parameters():
            layer.add_(0.3 * torch.randn_like(layer))
    u = torch.randn(50, dim)
    assert torch.allclose(generate_many(flow, u), flow.generate(u), atol=1e-5)
    double = flow.double()
    again, _ = double.normalise(generate_many(double, u.double()))
    assert torch.allclose(again, u.double(), atol=1e-9)


def test_a_flow_that_scales_is_refused():
    with pytest.raises(ValueError, match="only flows that shift"):
        generate_many(AutoregressiveFlow(3, 2, 6, 2, scale=True), torch.zeros(1, 3))


@pytest.mark.parametrize("dim", [1, 6, 8, 9, 64])
def test_entries_can_be_taken_one_by_one(dim):
    together = prior_noise(np.arange(1000), dim)
    picked = np.array([7, 3, 4, 5, 999, 0, 3])
    assert torch.equal(prior_noise(picked, dim), together[picked])
    assert len(together.unique()) > 0.99 * together.numel()  # single precision


def test_entries_are_standard_normal():
    u = prior_noise(np.arange(50_000), 6).double()
    assert u.mean(0).abs().max() < 5 / math.sqrt(50_000)
    assert (u.T.cov() - torch.eye(6)).abs().max() < 7 / math.sqrt(50_000)
    inside = torch.special.ndtr(u).flatten().sort().values
    steps = (torch.arange(len(inside)) + 0.5) / len(inside)
    assert (inside - steps).abs().max() < 1.95 / math.sqrt(len(inside))  # Kolmogorov-Smirnov


# --- the draw --------------------------------------------------------------------------------


def test_entries_are_drawn_by_their_weights(monkeypatch):
    """Many images with one posterior: the counts of 64 entries, by chi-square."""
    monkeypatch.setattr(relative_entropy, "CHUNK", 10)
    one, count, bits = gaussians(1, 0.9), 20_000, 6
    many = Posterior(one.mean.expand(count, -1), one.log_std.expand(count, -1), None)
    found = np.bincount(choose(MODEL, many, bits).index, minlength=2**bits)
    expected = count * log_weights(small_vlae("af"), one, bits)[0].softmax(0).numpy()
    often = expected > 5
    assert often.sum() > 10
    statistic = ((found - expected)[often] ** 2 / expected[often]).sum()
    degrees = often.sum()
    assert abs(statistic - degrees) < 4 * math.sqrt(2 * degrees)
    assert found[~often].sum() < 3 * expected[~often].sum() + 10


def test_the_effective_number_of_entries():
    posterior = gaussians(5)
    share = log_weights(small_vlae("af"), posterior, 13).softmax(1)
    expected = 1 / share.square().sum(1)
    found = choose(MODEL, posterior, 13).effective
    assert found == pytest.approx(expected.numpy(), rel=1e-3)


def test_codes_have_the_mean_and_variance_of_the_posterior():
    one, count = gaussians(1), 5000
    many = Posterior(one.mean.expand(count, -1), one.log_std.expand(count, -1), None)
    chosen = choose(MODEL, many, 16)
    z = received(MODEL, chosen.index)
    # The codebook is one sample: its effective size, not the number of draws, limits this.
    assert chosen.effective[0] > 100
    error = 5 * 0.7 / math.sqrt(chosen.effective[0])
    assert (z.mean(0) - one.mean[0]).abs().max() < error
    assert (z.std(0) - 0.7).abs().max() < error


def test_the_kl_of_gaussians():
    posterior = gaussians(300)
    variance = (2 * posterior.log_std).exp()
    nats = 0.5 * (variance + posterior.mean.square() - 1) - posterior.log_std
    found = kl(small_vlae("gaussian"), posterior)
    expected = nats.sum(1).numpy() / math.log(2)
    assert found.mean() == pytest.approx(expected.mean(), rel=0.02)
    assert found == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("bits", [1, 7, 8, 20, 24])
def test_packed_indices(bits):
    index = np.random.default_rng(0).integers(0, 2**bits, 13)
    index[:2] = 0, 2**bits - 1
    content = pack(index, bits)
    assert len(content) == -(-13 * bits // 8)
    assert unpack(content, 13, bits).tolist() == index.tolist()
    assert content[0] >> 7 == 0 and pack(index[1:2], bits)[0] >> 7 == 1


# --- files -----------------------------------------------------------------------------------


def write(path: Path, format: str, one: int = 255, images=BITS) -> Path:
    if format == "png":
        path.mkdir()
    names = [f"image {i}.png" for i in range(len(images))]
    with image_writer(path, format, len(images), names) as writer:
        writer.write(images * np.uint8(one))
    return path


def read(path: Path) -> np.ndarray:
    with open_images([path]) as found:
        return found.read(0, found.count)


def load(run: str) -> VLAE:
    assert run == "a-run"
    return MODEL


@pytest.fixture
def sent(tmp_path) -> Path:
    images = write(tmp_path / "images", "idx")
    compress_lossy("a-run", MODEL, [images], tmp_path / "file", 9)
    return tmp_path / "file"


@pytest.mark.parametrize("one", [1, 255])
@pytest.mark.parametrize("format", ["png", "idx", "npz"])
def test_files_of_every_format(tmp_path, format, one):
    images = write(tmp_path / "images", format, one)
    file, back = tmp_path / "file", tmp_path / "back"
    done = compress_lossy("a-run", MODEL, [images], file, 9)
    header = decompress_lossy(file, back, load)
    assert (header.images, header.format, header.one) == (len(BITS), format, one)
    assert done.file_bytes == file.stat().st_size == file_bytes(header)
    assert done.file_bytes == done.header_bytes + math.ceil(9 * len(BITS) / 8)
    found = read(back)
    assert found.shape == BITS.shape and set(np.unique(found)) == {0, one}
    if format == "png":
        assert sorted(p.name for p in back.iterdir()) == sorted(p.name for p in images.iterdir())


def test_a_hundred_digits_take_less_than_three_hundred_bytes(sent):
    with open(sent, "rb") as file:
        header = Reader(sent, file).header()
    header = replace(header, run="static_mnist-vlae", images=100, bits=20, format="npz")
    assert file_bytes(header) == 250 + 40


def test_the_receiver_has_the_code_of_the_sender(sent):
    with open(sent, "rb") as file:
        reader = Reader(sent, file)
        header = reader.header()
        index = unpack(reader.indices(math.ceil(9 * header.images / 8)), header.images, 9)
    x = torch.from_numpy(BITS).float()[:, None]
    with torch.no_grad():
        assert index.tolist() == choose(MODEL, MODEL.encode(x), 9).index.tolist()
    z = torch.cat([z for z, _ in codebook(MODEL, 9)])
    assert torch.allclose(received(MODEL, index), z[index], atol=1e-6)


def test_the_seed_changes_the_images_and_nothing_else_does(sent, tmp_path):
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        decompress_lossy(sent, tmp_path / f"{number}", load, seed)
        drawn.append((tmp_path / f"{number}").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_file_of_another_time(tmp_path):
    """Written once; it must be read for ever, and written the same on this kind of machine."""
    images = write(tmp_path / "images", "idx")
    compress_lossy("a-run", MODEL, [images], tmp_path / "file", 9)
    assert (tmp_path / "file").read_bytes() == GOLDEN.read_bytes()
    header = decompress_lossy(GOLDEN, tmp_path / "back", load)
    assert (header.images, header.bits) == (len(BITS), 9)


def test_another_process_draws_the_same_entries(tmp_path):
    """By the command line, with the published run."""
    images = write(tmp_path / "images.idx", "idx")
    variables = os.environ | environment(published_clone(tmp_path / "clone"))

    def vlae(*arguments: str) -> str:
        command = [sys.executable, "-m", "vlae", *arguments]
        done = subprocess.run(
            command, env=variables, cwd=PROJECT, capture_output=True, text=True, check=True
        )
        assert "poor" in done.stderr or arguments[0] == "decompress"
        return done.stdout

    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        options = ("--lossy", "--bits", "10", "-o", str(file))
        said = vlae("compress", "static_mnist-vlae", str(images), *options)
        assert said.startswith(f"{file}: 10 images in {file.stat().st_size} bytes, of which ")
    assert files[0].read_bytes() == files[1].read_bytes()
    back = tmp_path / "back"
    said = vlae("decompress", str(files[0]), "-o", str(back), "--seed", "3")
    assert said == f"{back}: 10 images (idx), drawn by static_mnist-vlae\n"
    assert read(back).shape == BITS.shape


# --- refusals --------------------------------------------------------------------------------


def with_crc(content: bytes) -> bytes:
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def refused(path: Path, tmp_path: Path, said: str, model=MODEL) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VlaeError, match=said):
        decompress_lossy(path, tmp_path / "back", lambda run: model)
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


@pytest.mark.parametrize(
    ("kind", "said"), [("iaf", "has an IAF posterior"), ("no code", "has no latent code")]
)
def test_models_without_such_codes(kind, said, tmp_path):
    images = write(tmp_path / "images", "idx")
    with pytest.raises(VlaeError, match=said):
        compress_lossy("a-run", small_vlae(kind), [images], tmp_path / "file", 9)
    assert not (tmp_path / "file").exists()


def test_other_models_without_such_codes():
    with pytest.raises(VlaeError, match="only binary images"):
        lossy_model("cifar10-vlae", object())
    config = load_params(PROJECT / "params.yaml").run("static_mnist-vlae").model
    scaling = VLAE(replace(config, prior=replace(config.prior, scale=True)))
    with pytest.raises(VlaeError, match="a prior flow that scales"):
        lossy_model("a-run", scaling)


@pytest.mark.parametrize("kind", ["gaussian", "factorized"])
def test_models_without_a_flow(kind, tmp_path):
    images, model = write(tmp_path / "images", "idx"), small_vlae(kind)
    compress_lossy("a-run", model, [images], tmp_path / "file", 9)
    decompress_lossy(tmp_path / "file", tmp_path / "back", lambda run: model)
    assert read(tmp_path / "back").shape == BITS.shape


def test_a_damaged_file(sent, tmp_path):
    content = sent.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        sent.write_bytes(changed)
        refused(sent, tmp_path, "is not a file of vlae compress|is damaged or cut short")
    for end in range(len(content)):
        sent.write_bytes(content[:end])
        refused(sent, tmp_path, "is damaged or cut short|is not a file of vlae compress")


def test_files_that_were_changed_on_purpose(sent, tmp_path):
    content = sent.read_bytes()
    sent.write_bytes(with_crc(content[:-4] + b"\0" + content[-4:]))
    refused(sent, tmp_path, "more follows after its last image")
    sent.write_bytes(with_crc(content[:-5] + content[-4:]))
    refused(sent, tmp_path, "ends before its last image")
    place = content.index(b"a-run") + 5 + 8 + 1 + 2  # after run, weights, images, format and one
    assert content[place] == 9
    for bits in (0, 25, 255):
        sent.write_bytes(with_crc(content[:place] + bytes([bits]) + content[place + 1 :]))
        refused(sent, tmp_path, "its header makes no sense")


def test_other_weights(sent, tmp_path):
    refused(sent, tmp_path, "other weights of a-run", small_vlae("gaussian"))


def test_lossy_and_lossless_files_are_told_apart(sent, tmp_path):
    assert is_lossy(sent) and not is_lossy(GOLDEN.with_name("af.vlae"))
    refused(GOLDEN.with_name("af.vlae"), tmp_path, "is not a lossy file")
    with pytest.raises(VlaeError, match="is a lossy file"):
        decompress(sent, tmp_path / "back", load)


def test_nothing_is_overwritten(sent, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(VlaeError, match="exists already"):
        compress_lossy("a-run", MODEL, [tmp_path / "images"], tmp_path / "there", 9)
    with pytest.raises(VlaeError, match="exists already"):
        decompress_lossy(sent, tmp_path / "there", load)
    assert (tmp_path / "there").read_text() == "mine"


def test_options_that_do_not_belong_together(tmp_path, capsys):
    golden = str(GOLDEN.with_name("af.vlae"))
    assert main(["decompress", golden, "-o", str(tmp_path / "back"), "--seed", "1"]) == 2
    assert "--seed is for lossy files" in capsys.readouterr().err
    arguments = ["compress", "static_mnist-vlae", "x.idx", "-o", str(tmp_path / "file")]
    assert main([*arguments, "--bits", "9"]) == 2
    assert "--bits needs --lossy" in capsys.readouterr().err


def test_a_warning_if_the_images_need_more_bits(tmp_path, caplog):
    images = write(tmp_path / "images", "idx")
    done = compress_lossy("a-run", MODEL, [images], tmp_path / "few", 1)
    assert done.kl_bits > 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"the codes of these images have {done.kl_bits:.1f} bits on average")
