"""The Python in README.md and docs/extending.md runs as it is printed, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from miniature import PROJECT
from published import environment, published_clone
from vlae.config.load import load_params
from vlae.models.build import build_model

needs_data = pytest.mark.skipif(
    "VLAE_DATA_MIRROR" not in os.environ, reason="no mirror of the data sets"
)


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> dict:
    return os.environ | environment(published_clone(tmp_path_factory.mktemp("home") / "clone"))


def run(page: str, env: dict, folder: Path) -> str:
    """Run the only block of Python on a page in `folder`; return what it prints."""
    (block,) = re.findall(r"```python\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_data
def test_the_readmes_python_runs(env, tmp_path):
    assert "static_mnist-vlae" in run("README.md", env, tmp_path)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size[0] > 10 * 28


@needs_data
def test_a_trained_model_is_trained_further(env, tmp_path):
    run("docs/extending.md", env, tmp_path)
    further = torch.load(tmp_path / "further.pt", weights_only=True)
    model = build_model(load_params(PROJECT / "params.yaml").run("static_mnist-vlae").model)
    model.load_state_dict(further)
