"""params.yaml that nobody in their senses would write."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import attempt, cases, damaged, empty_folder
from miniature import PROJECT
from vlae.cli import main
from vlae.config.load import _merge, _params, load_params
from vlae.config.schema import Params
from vlae.errors import VlaeError

TEXT = (PROJECT / "params.yaml").read_bytes()
TREE = yaml.safe_load(TEXT)
for part, few in (
    ("datasets", ("static_mnist", "omniglot")),
    ("runs", ("static_mnist-vlae", "omniglot-vlae")),
):
    TREE[part] = {name: TREE[part][name] for name in few}
KIND = "params.yaml"

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -(10**400)]),
    st.just("huge").map(lambda _: 2**20_000),  # Hypothesis could not print the number itself
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "../x", "a\0b", "\ud800", "a\nb", "x" * 5000, "1e-3", "/etc/passwd"]),
    st.binary(max_size=9),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """The path of every key and item."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


PLACES = places(TREE)


class Dumper(yaml.SafeDumper):
    """Writes integers that are too long for decimal digits as hexadecimal ones."""


def _integer(dumper, number):
    text = str(number) if abs(number) < 10**4000 else hex(number)
    return dumper.represent_scalar("tag:yaml.org,2002:int", text)


Dumper.add_representer(int, _integer)
Dumper.ignore_aliases = lambda *_: True


def read(content: bytes):
    with empty_folder() as folder:
        path = folder / "params.yaml"
        path.write_bytes(content)
        outcome = attempt(KIND, folder, load_params, path)
        assert isinstance(outcome, Params | VlaeError)
        return outcome


@cases(40)
@given(damaged(TEXT))
def test_damaged_text(content):
    read(content)


@cases(70)
@given(st.sampled_from(PLACES), VALUES, st.booleans())
def test_any_value_at_any_place(place, value, as_key):
    tree = copy.deepcopy(TREE)
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    if as_key and isinstance(inner, dict):
        if isinstance(value, dict | list):
            value = tuple(map(type, value))[:0]  # a key that is a list, in YAML
        inner[value] = inner.pop(place[-1])
    else:
        inner[place[-1]] = value
    try:
        content = yaml.dump(tree, Dumper=Dumper, allow_unicode=False)
    except (yaml.YAMLError, TypeError, ValueError):
        return  # cannot be written: not a case
    read(content.encode("utf-8", "surrogatepass"))


@cases(40)
@given(st.text(alphabet=st.sampled_from("{}[]&*!<>:?-|#%@`'\"\\ \n\tab01"), max_size=80))
def test_text_of_signs(text):
    read(text.encode())


LAUGHS = "\n".join(
    ["datasets:", " a0: &a0 [x]"]
    + [f" a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    + ["defaults: *a11", "runs: {}"]
)
BOMBS = {
    "a billion laughs": LAUGHS,
    "a mapping in itself": "datasets: &d {a: *d}\ndefaults: &a {model: *a}\nruns: {}\n",
    "a list in itself": "&a [*a]",
    "merged again and again": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}\n",
    "deep": "[" * 50_000,
    "deep mapping": "{a: " * 50_000,
    "long": "a: " + "x" * 3_000_000,
    "many lines": "- 1\n" * 800_000,
    "base 60": "a: " + ":".join(["1"] * 300_000),
    "a number of a million digits": "a: 0x" + "f" * 900_000,
    "binary": "a: !!binary " + "A" * 900_000,
    "python": "!!python/object/apply:os.system ['exit 1']",
    "python, inside": "runs: !!python/object/new:subprocess.Popen [[true]]",
    "python module": "a: !!python/module:antigravity",
    "another encoding": "a: 1".encode("utf-16-be"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    content = BOMBS[name]
    outcome = read(content if isinstance(content, bytes) else content.encode())
    assert isinstance(outcome, VlaeError)


@pytest.mark.parametrize("what", ["a folder", "a loop", "endless"])
def test_no_file_at_all(tmp_path, what):
    path = tmp_path / "params.yaml"
    if what == "a folder":
        path.mkdir()
    elif what == "a loop":
        path.symlink_to(path)
    else:
        path.symlink_to("/dev/zero")
    assert isinstance(attempt(KIND, tmp_path, load_params, path), VlaeError)


def test_every_command_says_it_in_one_line(tmp_path, capfd):
    path = tmp_path / "params.yaml"
    path.write_text(BOMBS["a billion laughs"])
    commands = ("fetch x", "train x", "evaluate x", "sample x", "recipe", "table x", "figure x")
    for command in (*commands, "verify"):
        assert main([*command.split(), "--params", str(path)]) == 2
        said = capfd.readouterr()
        assert said.out == "" and said.err.startswith(f"vlae: error: {path}")
        assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("key", [2**20_000, (1, 2), None, 1.5], ids=["huge", "two", "none", "1.5"])
def test_a_key_that_is_no_text_among_the_defaults(tmp_path, key):
    """Python does not print numbers of more than 4,300 digits, not even to name the known keys."""
    defaults = {key: 1, "epochs": 1}
    with pytest.raises(VlaeError, match=r"unknown key 'epoch'; known: .*epochs"):
        _merge(defaults, {"epoch": 2}, "runs.a.training")


@pytest.mark.parametrize("section", ["datasets", "runs"])
def test_a_name_that_is_a_huge_number(section):
    tree = yaml.safe_load(TEXT)
    tree[section][2**20_000] = tree[section].pop(next(reversed(tree[section])))
    with pytest.raises(VlaeError, match="is not a valid name"):
        _params(tree)


def test_the_file_itself_is_accepted():
    assert isinstance(load_params(Path(PROJECT, "params.yaml")), Params)
