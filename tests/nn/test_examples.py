"""The examples in the layers' docstrings give what they print."""

import doctest
from importlib import import_module

import pytest
import torch

# What is to be used by itself, with an example each.
LAYERS = {
    "vlae.nn.pixelcnn": {"MaskedConv2d", "PixelCNN"},
    "vlae.nn.made": {"MADE"},
    "vlae.nn.flow": {"AutoregressiveFlow"},
    "vlae.nn.local_pixelcnn": {"LocalPixelCNN"},
    "vlae.nn.logistic_mixture": {"bin_log_mass", "mixture_log_likelihood"},
}


@pytest.mark.parametrize("module", LAYERS)
def test_examples(module):
    torch.manual_seed(0)
    found = doctest.DocTestFinder(recurse=True).find(import_module(module))
    tests = {test.name.removeprefix(f"{module}."): test for test in found if test.examples}
    assert LAYERS[module] <= tests.keys()
    runner = doctest.DocTestRunner()
    for test in tests.values():
        output: list[str] = []
        runner.run(test, out=output.append)
        assert output == [], "".join(output)
