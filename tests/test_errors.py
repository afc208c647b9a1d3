"""A wrong name is answered with those that it resembles."""

import pytest

from miniature import PROJECT
from vlae.cli import main
from vlae.config.load import load_params
from vlae.errors import nearest, suggestion

NAMES = ["static_mnist-vlae", "static_mnist-vlae_iaf", "dynamic_mnist-vlae", "cifar10-vlae_7x4"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("static_mnist-vle", "static_mnist-vlae"),
        ("Static_MNIST-VLAE", "static_mnist-vlae"),
        ("static-mnist-vlae", "static_mnist-vlae"),
        ("7x4", "cifar10-vlae_7x4"),
    ],
)
def test_the_nearest_name_comes_first(name, meant):
    assert nearest(name, NAMES).startswith(f"did you mean {meant!r}")


@pytest.mark.parametrize("name", ["", "zzz", None, 3, ["static_mnist-vlae"], "x" * 100_000])
def test_a_name_like_no_other_gets_the_whole_list(name):
    assert nearest(name, NAMES) == ""
    assert suggestion(name, NAMES) == f"there are: {', '.join(NAMES)}"
    assert suggestion(name, []) == "there are: none"


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("train static_mnist-vle", "static_mnist-vlae"),
        ("evaluate dynamic_mnist-vale", "dynamic_mnist-vlae"),
        ("sample cifar10-narow_4x2", "cifar10-narrow_4x2"),
        ("show caltech-vlae", "caltech101-vlae"),
        ("fetch static-mnist", "static_mnist"),
        ("classifier cifar", "cifar10"),
        ("table claim", "claims"),
        ("table tabel4_caltech101", "table4_caltech101"),
        ("figure learning-curves", "learning_curves"),
    ],
)
def test_every_command_suggests_the_name_that_was_meant(monkeypatch, capsys, command, meant):
    monkeypatch.chdir(PROJECT)
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"did you mean {meant!r}" in line


def test_every_name_of_the_project_is_found_with_a_slip_of_the_finger():
    params = load_params(PROJECT / "params.yaml")
    for names in (params.runs, params.datasets):
        for name in names:
            assert repr(name) in nearest(name[:2] + name[3:], names)
