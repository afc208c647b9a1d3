"""The README's Python runs as it is printed, in a folder of its own."""

import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from miniature import PROJECT
from published import environment, published_clone

(BLOCK,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)


@pytest.mark.skipif("VLAE_DATA_MIRROR" not in os.environ, reason="no mirror of the data sets")
def test_the_readmes_python_runs(tmp_path):
    env = os.environ | environment(published_clone(tmp_path / "clone"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BLOCK], cwd=elsewhere, env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert "static_mnist-vlae" in done.stdout
    with Image.open(elsewhere / "out.png") as picture:
        assert picture.size[0] > 10 * 28
