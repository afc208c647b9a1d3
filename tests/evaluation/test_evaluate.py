"""The K-sample bound against models whose log-likelihood is known, and its streaming."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

import vlae.evaluation.blocks
import vlae.recipes
from linear_gaussian import LinearGaussian, images
from miniature import small_params, write_data
from vlae.cli import main
from vlae.data.dataset import load
from vlae.errors import VlaeError
from vlae.evaluation.evaluate import evaluate
from vlae.evaluation.likelihood import CHUNK, ROWS, curve_points, importance_sampled
from vlae.evaluation.two_level import deep_subset, two_level
from vlae.images import DYNAMIC, FIXED
from vlae.recipes import run_recipes
from vlae.training.train import train


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
    assert rows[0] == rows[1] == 5 * CHUNK <= ROWS["binary"]


# --- the two levels --------------------------------------------------------------------------


def nll(model, x, numbers, samples):
    """Of images `numbers` of x, nats: a float64 array, and its curve."""
    result = importance_sampled(model, x[numbers], list(numbers), samples, 0, "float32")
    return -result.log_likelihood.numpy(), -result.curve.numpy()


def test_the_first_samples_of_the_deep_level_are_those_of_the_first():
    model, x, index = LinearGaussian(shift=1.0, stretch=0.8), images(30), [17, 4, 29]
    few, _ = nll(model, x, range(30), 64)
    _, curve = nll(model, x, index, 500)
    at_64 = curve[:, curve_points(500).index(64)]
    assert np.allclose(at_64, few[index], rtol=0, atol=1e-12)
    # K need not be one of the curve's points nor fill its chunk.
    few, _ = nll(model, x, range(30), 37)
    samples = [nll(model, x, index, k)[0] for k in (37, 38)]
    assert np.allclose(samples[0], few[index], rtol=0, atol=1e-12)
    assert not np.allclose(samples[1], few[index], rtol=0, atol=1e-6)


def test_two_levels_give_what_the_samples_of_all_images_would():
    model, x = LinearGaussian(shift=1.2, stretch=1.4), images(300)
    first, _ = nll(model, x, range(300), 1)
    full, _ = nll(model, x, range(300), 512)
    index = deep_subset(300, 100, 0)
    few, _ = nll(model, x, index, 512)
    both = two_level(first, few, index)
    # The first level is off by far more than the correction is uncertain.
    assert first.mean() - full.mean() > 5 * both.difference_se
    assert abs(both.nll - full.mean()) < 2 * both.difference_se
    assert abs(both.nll + model.exact(x).mean().item()) < 2 * both.difference_se
    assert math.isclose(both.nll, first.mean() + both.difference, rel_tol=1e-12)


def test_a_deep_level_of_all_images_is_their_mean_and_its_error():
    model, x = LinearGaussian(shift=1.2, stretch=1.4), images(50)
    first, _ = nll(model, x, range(50), 8)
    index = deep_subset(50, 1000, 0)
    full, _ = nll(model, x, index, 100)
    both = two_level(first, full, index)
    assert math.isclose(both.nll, full.mean(), rel_tol=1e-13)
    assert math.isclose(both.nll_se, full.std(ddof=1) / math.sqrt(50), rel_tol=1e-11)


def test_standard_errors_are_the_spreads_of_the_estimates():
    """Over many test sets and subsets; the poor proposal makes the two means covary a lot."""
    model, x = LinearGaussian(shift=1.5, stretch=1.0), images(3000)
    first, _ = nll(model, x, range(3000), 1)
    deep, _ = nll(model, x, range(3000), CHUNK)
    count, few = 200, 100
    random = np.random.default_rng(0)
    estimates, without_covariance = [], []
    for repetition in range(2000):
        test_set = random.integers(0, 3000, count)
        index = deep_subset(count, few, repetition)
        a, d = first[test_set], (deep - first)[test_set]
        estimates.append(two_level(a, deep[test_set][index], index))
        without_covariance.append(math.sqrt(a.var() / count + d.var() / few))
    for value, error in (("nll", "nll_se"), ("difference", "difference_se")):
        spread = np.std([getattr(e, value) for e in estimates])
        said = np.mean([getattr(e, error) for e in estimates])
        assert math.isclose(said, spread, rel_tol=0.05), value
    assert np.mean(without_covariance) > 1.1 * np.std([e.nll for e in estimates])
    values = [e.nll for e in estimates]
    assert abs(np.mean(values) - deep.mean()) < 3 * np.std(values) / math.sqrt(2000)


def test_over_subsets_of_one_test_set_only_the_correction_varies():
    model, x = LinearGaussian(shift=1.0, stretch=1.3), images(400)
    first, _ = nll(model, x, range(400), 4)
    deep, _ = nll(model, x, range(400), 64)
    index = [deep_subset(400, 40, seed) for seed in range(2000)]
    estimates = [two_level(first, deep[i], i) for i in index]
    spread = np.std([e.nll for e in estimates])
    said = np.mean([e.difference_se for e in estimates])
    # Drawn without replacement: a tenth of the test set leaves nine tenths of the variance.
    assert math.isclose(said * math.sqrt(1 - 40 / 400), spread, rel_tol=0.05)
    assert abs(np.mean([e.nll for e in estimates]) - deep.mean()) < 4 * spread / math.sqrt(2000)


def test_the_subset_is_drawn_at_random_and_fixed_by_the_seed():
    subset = deep_subset(10000, 200, 0)
    assert subset == deep_subset(10000, 200, 0) != deep_subset(10000, 200, 1)
    assert len(set(subset)) == 200 and all(0 <= i < 10000 for i in subset)
    assert deep_subset(10000, 300, 0)[:200] == subset
    assert sorted(deep_subset(40, 200, 0)) == list(range(40)) and deep_subset(40, 0, 0) == []
    # Of a test set sorted by class every tenth has its share: 200 drawn, 20 expected.
    shares = np.bincount(np.array(subset) // 1000, minlength=10)
    assert ((shares - 20) ** 2 / 20).sum() < 27.9  # chi-squared, 9 degrees, one in a thousand
    # Over the seeds every image has the same chance.
    chances = np.bincount(np.concatenate([deep_subset(40, 10, s) for s in range(4000)]))
    assert np.abs(chances - 1000).max() < 5 * math.sqrt(4000 * 0.25 * 0.75)


# --- a run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    params = small_params(folder)
    write_data(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("static_mnist-vlae", "dynamic_mnist-pixelcnn", "dynamic_mnist-vlae"):
            run = params.runs[name]
            dataset = load(run.dataset, params.image_kind(run.dataset))
            assert train(run, dataset, precision="float32")
    return folder, params


def evaluated(trained, name, config=(), **options):
    """The record of a run, with changes to its evaluation's configuration."""
    _, params = trained
    run = params.runs[name]
    run = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, **dict(config)))
    dataset = load(run.dataset, params.image_kind(run.dataset))
    return evaluate(run, dataset, precision="float32", **options)


def test_shards_give_the_whole(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setattr(vlae.evaluation.blocks, "BLOCK", 7)
    monkeypatch.setattr(vlae.evaluation.blocks, "DEEP_BLOCK", 5)
    results = []
    for shards in ([], [(1, 3), (3, 3)], [(2, 2), (1, 2)]):
        scratch = tmp_path / str(len(results))
        monkeypatch.setenv("VLAE_SCRATCH", str(scratch))
        for shard in shards:
            assert evaluated(trained, "static_mnist-vlae", shard=shard) is None
            for level in ("images", "deep"):  # every shard has its share of both
                assert list(scratch.glob(f"*/evaluation/{level}-*"))
        record = evaluated(trained, "static_mnist-vlae")
        results.append(written(folder))
    for block in ("images-00007-00014", "deep-00005-00010"):  # interrupted there
        (scratch / f"static_mnist-vlae/evaluation/{block}.npz").unlink()
    assert evaluated(trained, "static_mnist-vlae") == record
    results.append(written(folder))
    assert results[1:] == results[:1] * 3
    assert len(list(scratch.glob("*/evaluation/*"))) == 6 + 3
    assert record["n_test"] == 40 and record["importance_samples"] == 20
    assert math.isclose(-record["elbo"], record["reconstruction"] + record["kl"], rel_tol=1e-9)


def written(folder, run="static_mnist-vlae"):
    """The record and the arrays of an evaluation, as bytes."""
    base = folder / "results/evaluations"
    return (base / f"{run}.json").read_bytes(), (base / f"{run}.npz").read_bytes()


def test_the_record_follows_from_the_values_of_each_image(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    record = evaluated(trained, "static_mnist-vlae")
    with np.load(folder / "results/evaluations/static_mnist-vlae.npz") as archive:
        arrays = dict(archive)
    first, index = -arrays["log_likelihood"].astype(float), arrays["deep_index"]
    assert index.tolist() == deep_subset(40, 12, 0)
    difference = -arrays["deep_log_likelihood"].astype(float) - first[index]
    deep = record["deep"]
    assert (deep["images"], deep["importance_samples"]) == (12, 50)
    assert math.isclose(difference.mean(), deep["difference"], abs_tol=1e-4)
    assert math.isclose(difference.std(ddof=1) / 12**0.5, deep["difference_se"], rel_tol=1e-3)
    assert math.isclose(first.mean(), record["nll_first_level"], rel_tol=1e-6)
    assert math.isclose(first.std(ddof=1) / 40**0.5, record["nll_first_level_se"], rel_tol=1e-4)
    assert record["estimator"] == "two-level" and not record["exact"]
    assert record["nll"] == record["nll_first_level"] + deep["difference"]
    variance = record["nll_first_level_se"] ** 2 + deep["difference_se"] ** 2
    variance += 2 * np.cov(first[index], difference)[0, 1] / 40
    assert math.isclose(record["nll_se"], math.sqrt(variance), rel_tol=1e-4)
    assert math.isclose(record["bits_per_dim"], record["nll"] / 784 / math.log(2))
    assert ((arrays["deep_ess"] >= 1) & (arrays["deep_ess"] <= 50)).all()
    curve = {point["k"]: point for point in record["curve"]}
    assert list(curve) == [1, 2, 4, 8, 16, 20, 32, 50]
    assert curve[20]["nll"] == record["nll_first_level"]
    assert (curve[50]["nll"], curve[50]["se"]) == (record["nll"], record["nll_se"])
    at_16 = curve_points(50).index(16)  # of the deep level, whose first samples are the same
    assert np.allclose(arrays["deep_curve"][:, at_16], arrays["curve"][index, 4], atol=1e-2)


def test_two_levels_of_a_run_against_all_images_with_as_many_samples(
    trained, monkeypatch, tmp_path
):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    asked = evaluated(trained, "static_mnist-vlae", samples=50)  # leaves the deep level out
    assert (asked["estimator"], asked["deep"]) == ("importance sampling", None)
    assert asked["nll"] == asked["nll_first_level"] and asked["importance_samples"] == 50
    all_deep = evaluated(trained, "static_mnist-vlae", {"deep_images": 1000})
    assert all_deep["deep"]["images"] == 40
    assert math.isclose(all_deep["nll"], asked["nll"], rel_tol=1e-6)
    assert math.isclose(all_deep["nll_se"], asked["nll_se"], rel_tol=1e-4)
    some = evaluated(trained, "static_mnist-vlae")
    assert abs(some["nll"] - asked["nll"]) < 3 * some["deep"]["difference_se"]
    off = evaluated(trained, "static_mnist-vlae", {"deep_images": 0})
    assert off["deep"] is None and off["nll"] == some["nll_first_level"]
    with np.load(folder / "results/evaluations/static_mnist-vlae.npz") as arrays:
        assert not [name for name in arrays.files if name.startswith("deep")]


def test_more_deep_images_go_on_from_those_that_are_there(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    monkeypatch.setattr(vlae.evaluation.blocks, "DEEP_BLOCK", 4)

    def blocks():
        return {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*/evaluation/*.npz")}

    evaluated(trained, "static_mnist-vlae", {"deep_images": 8})
    before = blocks()
    evaluated(trained, "static_mnist-vlae", {"deep_images": 12})
    assert blocks().items() > before.items()
    assert blocks().keys() - before.keys() == {"deep-00008-00012.npz"}
    # Of fewer test images others are drawn, and other samples are other values.
    for change in ({"images": 30}, {"deep_samples": 60}):
        kept = blocks()
        evaluated(trained, "static_mnist-vlae", change)
        deep = {name for name in kept if name.startswith("deep")}
        assert all(blocks()[name] != kept[name] for name in deep)


def test_blocks_of_another_checkpoint_are_not_used(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    first = evaluated(trained, "static_mnist-vlae")
    for name in ("images-00000-00040.npz", "deep-00008-00012.npz"):
        block = tmp_path / "static_mnist-vlae/evaluation" / name
        with np.load(block) as archive:
            arrays = dict(archive)
        about = json.loads(str(arrays["about"]))
        for key, foreign in (
            ("checkpoint", "0" * 64),
            ("seed", 99),
            ("samples", 3),
            ("images", [1, 2, 3, 4]),
        ):
            if key not in about:
                continue
            changed = arrays | {
                "about": np.array(json.dumps(about | {key: foreign})),
                "log_likelihood": arrays["log_likelihood"] + 1000,
            }
            np.savez(block, **changed)
            assert evaluated(trained, "static_mnist-vlae") == first
        block.write_bytes(block.read_bytes()[:100])
        assert evaluated(trained, "static_mnist-vlae") == first


def test_the_record_says_whether_the_weights_can_be_trusted(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    record = evaluated(trained, "static_mnist-vlae")
    with np.load(folder / "results/evaluations/static_mnist-vlae.npz") as archive:
        k, first = archive["deep_pareto_k"], archive["pareto_k"]
    limit = 1 - 1 / math.log10(50)
    assert record["pareto"] == {
        "images": 12,
        "samples": 50,
        "k_median": pytest.approx(np.median(k), rel=1e-5),
        "k_most": pytest.approx(limit),
        "failing": pytest.approx((k > limit).mean()),
        "ess_median": pytest.approx(record["pareto"]["ess_median"]),
    }
    assert len(first) == 40 and np.isnan(first).all()  # 20 samples have no tail
    assert evaluated(trained, "static_mnist-vlae", {"deep_images": 0})["pareto"] is None
    assert evaluated(trained, "dynamic_mnist-pixelcnn")["pareto"] is None
    json.dumps(record, allow_nan=False)


def test_other_settings_by_hand_are_computed_and_not_recorded(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    record = evaluated(trained, "static_mnist-vlae")
    recorded = written(folder)
    assert "proposal_scale" not in record["config"] and "adaptive_samples" not in record["config"]
    for changes in ({"proposal_scale": 1.1}, {"adaptive_samples": 400}):
        other = evaluated(trained, "static_mnist-vlae", changes=changes)
        assert other["config"] == record["config"] | changes and other["nll"] != record["nll"]
        assert written(folder) == recorded
        configured = evaluated(trained, "static_mnist-vlae", changes)  # as in params.yaml
        assert configured["nll"] == other["nll"]
        assert evaluated(trained, "static_mnist-vlae") == record  # other blocks are not its own
        assert written(folder) == recorded
    assert other["pareto"]["samples"] == 400


def test_without_a_latent_the_likelihood_is_exact(trained, monkeypatch, tmp_path):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    record = evaluated(trained, "dynamic_mnist-pixelcnn")
    assert (record["estimator"], record["deep"]) == ("exact", None)
    assert (record["nll"], record["nll_se"]) == (
        record["nll_first_level"],
        record["nll_first_level_se"],
    )
    assert not list(tmp_path.glob("*/evaluation/deep*"))
    assert record["exact"] and record["importance_samples"] == 1
    assert record["kl"] == 0 and record["nll"] == -record["elbo"]
    spread = [draw["nll"] for draw in record["draws"]]
    assert len(set(spread)) == len(spread) == 5
    assert abs(np.mean(spread) - record["nll"]) < 5 * record["nll_se"]
    # Another draw as the fixed one is that draw, exactly.
    for draw in record["draws"][:2]:
        other = evaluated(trained, "dynamic_mnist-pixelcnn", {"binarization_seed": draw["seed"]})
        assert other["nll"] == pytest.approx(draw["nll"], rel=1e-6)


def test_other_draws_of_a_dynamic_test_set(trained, monkeypatch, tmp_path):
    """The NLL moves by as much as the bound with few samples does from draw to draw."""
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    monkeypatch.setattr(vlae.evaluation.blocks, "DRAW_BLOCK", 15)
    name, few = "dynamic_mnist-vlae", {"importance_samples": 8, "deep_images": 0}
    assert evaluated(trained, name, shard=(1, 2)) is None  # shards share them
    assert list(tmp_path.glob("*/evaluation/draw-3-*"))
    record = evaluated(trained, name)
    assert len(list(tmp_path.glob("*/evaluation/draw-*"))) == 5 * 3
    assert [(d["seed"], d["importance_samples"]) for d in record["draws"]] == [
        (seed, 8) for seed in range(5)
    ]
    fixed = evaluated(trained, name, few)
    for draw in record["draws"][:2]:
        other = evaluated(trained, name, few | {"binarization_seed": draw["seed"]})
        moved = other["nll"] - fixed["nll"]
        assert draw["nll"] - record["nll"] == pytest.approx(moved, abs=1e-3) and abs(moved) > 0.1
    assert "draws" not in evaluated(trained, "static_mnist-vlae")


def test_the_recipe_knows_what_the_deep_level_means(trained, monkeypatch):
    _, params = trained
    run = params.runs["static_mnist-vlae"]
    recipe = run_recipes(run, FIXED)["evaluate"]
    off = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, deep_images=0))
    assert run_recipes(off, FIXED)["evaluate"] == {
        key: value for key, value in recipe.items() if key != "deep"
    }

    def changed(function, other):
        with monkeypatch.context() as patch:
            patch.setattr(vlae.recipes, function, other)
            again = run_recipes(run, FIXED)["evaluate"]
        assert again.keys() == recipe.keys()
        return {key for key in recipe if again[key] != recipe[key]}

    def first_ones(images, wanted, seed):
        return list(range(wanted))

    def uncorrected(nll, deep, index):
        return dataclasses.replace(two_level(nll, deep, index), nll=nll.mean())

    other = dataclasses.replace(run.evaluation, proposal_scale=1.1, adaptive_samples=50)
    further = run_recipes(dataclasses.replace(run, evaluation=other), FIXED)["evaluate"]
    assert further["curve"] != recipe["curve"] and further.keys() - recipe.keys() == {"adaptive"}
    assert changed("deep_subset", first_ones) == {"deep"}
    assert changed("two_level", uncorrected) == {"deep"}
    exact = params.runs["dynamic_mnist-pixelcnn"]
    assert set(run_recipes(exact, DYNAMIC)["evaluate"]) == {"exact", "draws"}


def test_exact_likelihood_of_all_images_of_a_tiny_canvas_sums_to_one():
    """p(x) of the unconditional PixelCNN over all 2^9 images of 3x3 pixels."""
    from vlae.models.vlae import bernoulli_log_likelihood
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


def recorded_files(folder):
    return {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["static_mnist-vlae", "dynamic_mnist-pixelcnn"])
def test_other_settings_by_hand_are_printed_and_not_recorded(
    trained, monkeypatch, tmp_path, capsys, name
):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path))
    assert main(["evaluate", name, "--precision", "float32"]) == 0
    assert f"recorded in results/evaluations/{name}.json" in capsys.readouterr().out
    before, blocks = recorded_files(folder), set((tmp_path / name).rglob("images-*"))
    out = tmp_path / "elsewhere.json"
    for options in (
        ["--samples", "3"],
        ["--samples", "20"],
        ["--samples", "3", "--out", str(out)],
    ):
        assert main(["evaluate", name, *options]) == 0
        said = capsys.readouterr().out
        assert f"{name}: NLL" in said and "nothing recorded" in said
        assert recorded_files(folder) == before
    assert json.loads(out.read_text())["config"]["importance_samples"] == 3
    # The blocks of the recorded configuration are still there for an evaluation that goes on.
    assert {p for p in (tmp_path / name).rglob("images-*") if "by-hand" not in p.parts} == blocks
    assert main(["evaluate", name, "--out", str(out)]) == 0
    recorded = json.loads((folder / f"results/evaluations/{name}.json").read_text())
    assert json.loads(out.read_text()) == recorded
    assert recorded_files(folder) == before


def test_validation_images_are_evaluated_in_place_of_test_images(monkeypatch, tmp_path, capsys):
    """The numbers are those of a data set whose test images they are; nothing records them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / "scratch"))
    name, out = "static_mnist-vlae", tmp_path / "valid.json"
    params = small_params(tmp_path, training={"split": "train"})
    write_data(tmp_path, params)
    run = params.runs[name]
    dataset = load(run.dataset, params.image_kind(run.dataset))
    assert train(run, dataset, precision="float32")
    before = recorded_files(tmp_path)
    options = ["--split", "valid", "--precision", "float32", "--out", str(out)]
    evaluate(run, dataset, precision="float32", by_hand=True)  # saves blocks of the test images
    assert main(["evaluate", name, *options]) == 0
    assert f"{len(dataset.valid)} validation images" in capsys.readouterr().out
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / "other"))
    moved = dataclasses.replace(dataset, test=dataset.valid)
    expected = evaluate(run, moved, precision="float32", by_hand=True)
    assert json.loads(out.read_text()) == expected | {"split": "valid"}
    assert recorded_files(tmp_path) == before


def test_images_of_the_training_are_no_validation_images(trained, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.chdir(folder)
    assert main(["evaluate", "static_mnist-vlae", "--split", "valid"]) == 2
    assert "was trained on the validation images too; set training.split of runs.static" in (
        capsys.readouterr().err
    )


def test_another_params_file_records_nothing_of_a_run_that_is_configured_otherwise(
    trained, monkeypatch, tmp_path, capsys
):
    folder, _ = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLAE_SCRATCH", str(tmp_path / "scratch"))
    name, other = "static_mnist-vlae", tmp_path / "params.yaml"
    small_params(tmp_path, evaluation={"importance_samples": 4})
    before = recorded_files(folder)
    assert main(["evaluate", name, "--params", str(other)]) == 0
    assert "nothing recorded" in capsys.readouterr().out
    for command in ("train", "sample"):
        assert main([command, name, "--params", str(other)]) == 2
        assert "is not as in params.yaml" in capsys.readouterr().err
    assert recorded_files(folder) == before
