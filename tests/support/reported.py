"""A project with a few runs' results by hand, and the tables and figures drawn from them."""

import shutil
from pathlib import Path

import numpy as np

import recorded
from miniature import PROJECT
from vlae.config.load import load_params
from vlae.report.figures.registry import write_figure
from vlae.report.tables.registry import write_table

PARAMS = load_params(PROJECT / "params.yaml")
VLAE, ALONE, COLOUR = "static_mnist-vlae", "dynamic_mnist-pixelcnn", "cifar10-vlae_7x4"
DYNAMIC, AF, UNEVALUATED = "dynamic_mnist-vlae", "static_mnist-vae_af", "caltech101-vlae"
TRAINED = (VLAE, ALONE, COLOUR, DYNAMIC, AF, UNEVALUATED)
TABLES = ("headline", "table1_static_mnist", "table2_dynamic_mnist", "claims")
FIGURES = ("figure1_static_mnist",)
HOSTILE = "<img src=x onerror=alert(1)> & \"'</script>"
IMAGES = 400  # test images


def write_results(root: Path) -> Path:
    """The results of TRAINED, with the drawings of TABLES and FIGURES."""
    for name in ("README.md", "dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, root / name)
    random = np.random.default_rng(0)
    for run in TRAINED:
        recorded.write_training(
            root, run, hardware=HOSTILE, torch="2.1", seed=0, git_revision="abc123"
        )
        elbo = np.linspace(-120, -80, 30)
        kl = np.zeros(30) if run == ALONE else np.linspace(8, 11, 30)
        recorded.write_curve(root, run, elbo, kl, elbo if run == AF else None)
        if run == UNEVALUATED:
            continue
        exact = run == ALONE
        curve = [{"k": k, "nll": 82 - k / 64, "se": 0.25} for k in (1, 2, 4, 64, 128)]
        ll = random.normal(-80, 10, IMAGES)
        recorded.write_evaluation(
            root,
            run,
            nll=float(-ll.mean()),
            exact=exact,
            n_test=IMAGES,
            data_sha256="d" * 64,
            ess=21.25,
            curve=[] if exact else curve,
            pareto=None
            if exact
            else {"samples": 64, "k_median": 0.4, "k_most": 0.7, "failing": 0.02},
        )
        ess = random.uniform(1, 64, IMAGES).astype(np.float32)
        k = random.uniform(0, 1, IMAGES).astype(np.float32)
        k[:6] = np.nan, np.nan, np.nan, np.inf, np.nan, np.nan  # of too few samples
        more = {"pareto_k": k} if run == COLOUR else {}
        recorded.write_per_image(root, run, ll, random.uniform(5, 15, IMAGES), ess=ess, **more)
        none = np.zeros((0, *recorded.write_samples(root, run)["samples"].shape[1:]), np.uint8)
        if exact:  # a run without a code has samples only
            noise = random.integers(0, 2, (100, 28, 28), dtype=np.uint8)
            recorded.write_samples(
                root, run, 0, originals=none, decompressions=none, samples=noise
            )
    for name in TABLES:
        write_table(name, PARAMS, root)
    for name in FIGURES:
        write_figure(name, PARAMS, root)
    return root
