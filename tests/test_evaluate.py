"""The K-sample bound against models whose log-likelihood is known, and its streaming."""

import json
import math

import numpy as np
import pytest
import torch

import vlae.evaluate
from miniature import small_params, write_data
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.evaluate import CHUNK, ROWS, curve_points, evaluate, importance_sampled
from vlae.model import Posterior, standard_normal_log_density
from vlae.train import train


class LinearGaussian:
    """z ~ N(0, I), x = W z + noise: p(x) = N(0, W W' + s^2 I), p(z|x) Gaussian as well.

    The proposal is the true posterior with its mean shifted and its deviation stretched.
    """

    latent_dim, noise = 1, 0.5

    def __init__(self, shift=0.0, stretch=1.0):
        torch.manual_seed(0)
        self.weight = torch.randn(8, 1, dtype=torch.float64)
        self.shift, self.stretch = shift, stretch
        self.most_rows = 0

    def exact(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(8).double()
        normal = torch.distributions.MultivariateNormal(torch.zeros(8).double(), covariance)
        return normal.log_prob(x.flatten(1))

    def encode(self, x):
        precision = 1 + (self.weight**2).sum() / self.noise**2
        mean = x.flatten(1) @ self.weight / self.noise**2 / precision
        std = precision**-0.5 * self.stretch
        return Posterior(mean + self.shift * std, torch.full_like(mean, math.log(std)), None)

    def sample_posterior(self, posterior, noise):
        z = posterior.mean + posterior.log_std.exp() * noise
        return z, standard_normal_log_density(noise) - posterior.log_std.sum(-1)

    def log_prior(self, z):
        return standard_normal_log_density(z)

    def log_likelihood(self, x, z):
        self.most_rows = max(self.most_rows, len(x))
        rest = (x.flatten(1) - z @ self.weight.T) / self.noise
        return standard_normal_log_density(rest) - 8 * math.log(self.noise)


def images(count=200):
    torch.manual_seed(1)
    model = LinearGaussian()
    z = torch.randn(count, 1).double()
    x = z @ model.weight.T + model.noise * torch.randn(count, 8).double()
    return x.view(count, 1, 2, 4)


@pytest.mark.parametrize("samples", [1, 5, 40])
def test_with_the_true_posterior_the_bound_is_exact_for_any_k(samples):
    model, x = LinearGaussian(), images()
    result = importance_sampled(model, x, list(range(len(x))), samples, 0, "float32")
    assert torch.allclose(result.log_likelihood, model.exact(x), atol=1e-10)
    assert torch.allclose(result.elbo, model.exact(x), atol=1e-10)
    assert torch.allclose(result.ess, torch.full_like(result.ess, samples), rtol=1e-9)


def test_with_another_proposal_it_converges_to_the_truth_from_below():
    model, x = LinearGaussian(shift=0.7, stretch=1.4), images()
    result = importance_sampled(model, x, list(range(len(x))), 4096, 0, "float32")
    exact = model.exact(x)
    assert (result.log_likelihood - exact).abs().mean() < 0.02
    # E[log w] under q is the truth minus KL(q || p(z|x)), the same for each image here.
    kl = -math.log(1.4) + (1.4**2 + (0.7 * 1.4) ** 2 - 1) / 2
    assert math.isclose((exact - result.elbo).mean().item(), kl, abs_tol=0.01)
    means = result.curve.mean(0)
    assert (means[1:] > means[:-1] - 0.02).all() and means[0] < means[-1] - 0.2
    assert torch.equal(result.curve[:, -1], result.log_likelihood)


def test_one_sample_is_the_elbo():
    model, x = LinearGaussian(shift=0.7), images()
    result = importance_sampled(model, x, list(range(len(x))), 1, 0, "float32")
    assert torch.equal(result.log_likelihood, result.elbo)


def test_curve_and_streaming_do_not_depend_on_the_chunks():
    """The same weights, summed at once."""
    model, x = LinearGaussian(shift=1.0, stretch=0.8), images(7)
    samples = 3 * CHUNK + 5
    result = importance_sampled(model, x, list(range(7)), samples, 3, "float32")
    from vlae.randomness import generator

    log_w = []
    for i in range(7):
        chunks = [
            torch.randn(CHUNK, 1, generator=generator(3, f"image {i}", c)).double()
            for c in range(4)
        ]
        noise = torch.cat(chunks)[:samples]
        one = x[i : i + 1].expand(samples, -1, -1, -1)
        z, log_q = model.sample_posterior(model.encode(one), noise)
        log_w.append(model.log_likelihood(one, z) + model.log_prior(z) - log_q)
    log_w = torch.stack(log_w)
    for column, k in enumerate(curve_points(samples)):
        expected = torch.logsumexp(log_w[:, :k], 1) - math.log(k)
        assert torch.allclose(result.curve[:, column], expected, atol=1e-10)
    weights = torch.softmax(log_w, 1)
    assert torch.allclose(result.ess, 1 / (weights**2).sum(1), rtol=1e-9)


def test_memory_does_not_grow_with_k():
    """No batch is larger for a hundred times the samples."""
    x = images(5)
    rows = []
    for samples in (CHUNK, 100 * CHUNK):
        model = LinearGaussian()
        importance_sampled(model, x, list(range(5)), samples, 0, "float32")
        rows.append(model.most_rows)
    assert rows[0] == rows[1] == 5 * CHUNK <= ROWS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    params = small_params(folder)
    write_data(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("static_mnist-vlae", "dynamic_mnist-pixelcnn"):
            run = params.runs[name]
            dataset = load(run.dataset, params.datasets[run.dataset]["binarization"])
            assert train(run, dataset, precision="float32")
    return folder, params


def evaluated(trained, name, **options):
    _, params = trained
    run = params.runs[name]
    dataset = load(run.dataset, params.datasets[run.dataset]["binarization"])
    return evaluate(run, dataset, precision="float32", **options)


def test_shards_give_the_whole(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setattr(vlae.evaluate, "BLOCK", 7)
    results = []
    for shards in ([], [(1, 3), (3, 3)]):
        monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / str(len(shards))))
        for shard in shards:
            assert evaluated(trained, "static_mnist-vlae", shard=shard) is None
        record = evaluated(trained, "static_mnist-vlae")
        results.append(
            (record["nll"], (folder / "results/evaluations/static_mnist-vlae.npz").read_bytes())
        )
    assert results[0] == results[1]
    assert record["n_test"] == 40 and record["importance_samples"] == 20
    assert math.isclose(-record["elbo"], record["reconstruction"] + record["kl"], rel_tol=1e-9)
    with np.load(folder / "results/evaluations/static_mnist-vlae.npz") as arrays:
        assert math.isclose(-arrays["log_likelihood"].mean(), record["nll"], rel_tol=1e-5)
        error = arrays["log_likelihood"].std(ddof=1) / math.sqrt(40)
        assert math.isclose(error, record["nll_se"], rel_tol=1e-4)


def test_blocks_of_another_checkpoint_are_not_used(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    first = evaluated(trained, "static_mnist-vlae")
    (block,) = (tmp_path / "static_mnist-vlae/evaluation").glob("*.npz")
    with np.load(block) as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays["about"]))
    for key, foreign in (("checkpoint", "0" * 64), ("seed", 99), ("samples", 3)):
        changed = arrays | {
            "about": np.array(json.dumps(about | {key: foreign})),
            "log_likelihood": arrays["log_likelihood"] + 1000,
        }
        np.savez(block, **changed)
        assert evaluated(trained, "static_mnist-vlae")["nll"] == first["nll"]
    block.write_bytes(block.read_bytes()[:100])
    assert evaluated(trained, "static_mnist-vlae")["nll"] == first["nll"]


def test_without_a_latent_the_likelihood_is_exact(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    record = evaluated(trained, "dynamic_mnist-pixelcnn")
    assert record["exact"] and record["importance_samples"] == 1
    assert record["kl"] == 0 and record["nll"] == -record["elbo"]
    spread = [draw["nll"] for draw in record["draws"]]
    assert len(set(spread)) == len(spread) == 5
    assert abs(np.mean(spread) - record["nll"]) < 5 * record["nll_se"]


def test_exact_likelihood_of_all_images_of_a_tiny_canvas_sums_to_one():
    """p(x) of the unconditional PixelCNN over all 2^9 images of 3x3 pixels."""
    from vlae.model import bernoulli_log_likelihood
    from vlae.nn.pixelcnn import PixelCNN

    torch.manual_seed(0)
    model = PixelCNN(0, 4, 7, 2, 2, True).double()
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9).double().view(-1, 1, 3, 3)
    with torch.no_grad():
        total = bernoulli_log_likelihood(model(bits), bits).exp().sum()
    assert math.isclose(total.item(), 1, rel_tol=1e-9)


def test_a_missing_or_damaged_checkpoint_is_one_clear_line(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    with pytest.raises(VlaeError, match="vlae train static_mnist-vae_af"):
        evaluated(trained, "static_mnist-vae_af")
    path = folder / "results/checkpoints/static_mnist-vlae_factorized/model.safetensors"
    path.parent.mkdir(parents=True)
    good = (folder / "results/checkpoints/static_mnist-vlae/model.safetensors").read_bytes()
    for damaged in (b"", good[:1000], b"\x80\x04pickle" * 50, good):
        path.write_bytes(damaged)
        with pytest.raises(VlaeError, match="static_mnist-vlae_factorized"):
            evaluated(trained, "static_mnist-vlae_factorized")
