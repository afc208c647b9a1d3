"""Probes of codes: against other libraries, closed forms and data that can be separated."""

import json
import math

import numpy as np
import pytest
import torch

from miniature import small_params, write_data
from small_models import small_vlae
from vlae.config.load import inherited_evaluation
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.evaluation import probe
from vlae.images import FIXED
from vlae.storage import paths
from vlae.storage.write import write_npz

RUN = "static_mnist-vlae"


def splits(values, train=300, valid=100):
    parts = {"train": values[:train], "valid": values[train : train + valid]}
    return parts | {"test": values[train + valid :]}


def bits(count=5):
    random = torch.Generator().manual_seed(0)
    return (torch.rand((count, 1, 28, 28), generator=random) < 0.3).double()


def test_entropy_of_a_gaussian_is_that_of_pytorch():
    model = small_vlae("gaussian").double()
    posterior = model.encode(bits())
    normal = torch.distributions.Normal(posterior.mean, posterior.log_std.exp())
    wanted = normal.entropy().sum(-1).tolist()
    assert probe.posterior_entropy(model, bits(), 0) == pytest.approx(wanted, rel=1e-12)


def test_entropy_of_an_iaf_by_the_change_of_variables(monkeypatch):
    """H(z) = H(noise through the Gaussian) + E[log |det dz/dy|], the Jacobian by autograd."""
    monkeypatch.setattr(probe, "ENTROPY_DRAWS", 200)
    model, x = small_vlae("iaf").double(), bits(2)
    found = probe.posterior_entropy(model, x, 0)
    posterior = model.encode(x)
    gaussian = posterior.log_std.sum(-1) + 0.5 * model.latent_dim * math.log(2 * math.pi * math.e)
    random = torch.Generator().manual_seed(1)
    for image in range(2):
        one = type(posterior)(*(part[image : image + 1] for part in vars(posterior).values()))
        dets = []
        for _ in range(200):
            noise = torch.randn((1, model.latent_dim), generator=random, dtype=torch.float64)
            jacobian = torch.autograd.functional.jacobian(
                lambda e, one=one: model.sample_posterior(one, e)[0][0], noise
            )[:, 0]
            dets.append(torch.linalg.slogdet(jacobian)[1] - one.log_std.sum())
        wanted = gaussian[image] + torch.stack(dets).mean()
        scatter = math.sqrt(model.latent_dim / 2 / 200) + torch.stack(dets).std() / math.sqrt(200)
        assert found[image] == pytest.approx(wanted.item(), abs=5 * scatter.item())


def test_a_code_without_noise_is_the_mean():
    model = small_vlae("gaussian").double()
    mean = model.encode(bits()).mean.detach().numpy()
    assert np.allclose(probe.codes(model, bits()), mean, rtol=1e-12)
    drawn = probe.codes(model, bits(), torch.Generator().manual_seed(0))
    assert not np.allclose(drawn, mean)


def test_classes_that_can_be_separated_and_noise():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500).astype(np.uint8)
    apart = np.eye(3)[labels] * [100, 1, 1] + 0.01 * random.normal(size=(500, 3))
    found = probe.classified(splits(apart), splits(labels))
    assert found["linear"] == found["neighbours"] == 1 and found["linear_se"] == 0
    found = probe.classified(splits(random.normal(size=(500, 3))), splits(labels))
    assert found["linear"] < 0.55 and found["neighbours"] < 0.55
    assert found["linear_setting"] in probe.PENALTIES


def test_r2_of_a_linear_target_with_noise():
    random = np.random.default_rng(0)
    x = random.normal(size=(20_400, 3))
    target = x @ [1.0, 2.0, -2.0]  # variance 9
    share, error = probe.regressed(splits(x), splits(target))
    assert share == pytest.approx(1, abs=1e-6)
    share, error = probe.regressed(splits(x), splits(target + 3 * random.normal(size=len(x))))
    assert share == pytest.approx(0.5, abs=5 * error + 0.01) and 0 < error < 0.01


def test_components_keep_the_largest_variances():
    values = np.random.default_rng(0).normal(size=(500, 4)) * [1, 9, 3, 2]
    kept = probe.components(splits(values), 2)
    assert kept["train"].shape == (300, 2)
    eigenvalues = np.linalg.eigvalsh(np.cov(values[:300].T))[::-1]
    assert kept["train"].var(0, ddof=1) == pytest.approx(eigenvalues[:2])


def test_the_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    write_data(tmp_path, params)
    dataset = load("static_mnist", FIXED)
    counts = {s: len(getattr(dataset, s)) for s in ("train", "valid", "test")}
    labels = {f"{s}_labels": (np.arange(n) % 3).astype(np.uint8) for s, n in counts.items()}
    write_npz(paths.labels("static_mnist"), **labels)
    config = inherited_evaluation(params, "static_mnist")
    record = probe.write_pixel_probe(dataset, config)
    assert json.loads(paths.probe("static_mnist").read_text()) == record
    assert record["most_frequent"] == pytest.approx(14 / 40) and record["n_test"] == 40
    with pytest.raises(VlaeError, match="is missing; train it"):
        probe.write_probe(params.run(RUN), params.probe(RUN), dataset)
    data = probe.labelled(dataset, config)
    found = probe.probes_of(small_vlae("af"), data, 0)
    assert found == probe.probes_of(small_vlae("af"), data, 0)
    assert set(found) == {"latent_dim", "code", "drawn", "pca"}
    labels["test_labels"] = labels["test_labels"][1:]
    write_npz(paths.labels("static_mnist"), **labels)
    with pytest.raises(VlaeError, match="39 labels for 40 images of test; run `vlae labels"):
        probe.labelled(dataset, config)
