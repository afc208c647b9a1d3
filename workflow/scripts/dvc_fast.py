"""`dvc` with two patches, for DVC 3.67:

    python workflow/scripts/dvc_fast.py ARGUMENTS

1. dvc.lock is written beside the old one and takes its place when it is complete. DVC itself
   empties the file and fills it again; killed meanwhile, or out of space, it leaves a part, which
   may even be valid and lack the stages behind it. Replaced:
   dvc.utils.serialize._common._dump_data.
2. dvc.lock is read by libyaml, and of its text only the stages that have changed are written anew,
   by DVC's own means: the bytes are the same. DVC itself reads it twice and writes it once, all of
   it, in pure Python for every stage that it records, and all others wait for its lock meanwhile.
   Replaced: dvc.utils.strictyaml.parse_yaml, dvc.dvcfile.modify_yaml.

tests/workflow/test_patches.py fails when a replaced function is not there any more, or when DVC
writes the file whole by itself.
"""

import os
import sys
from contextlib import contextmanager

import yaml
from dvc import dvcfile
from dvc.cli import main
from dvc.utils import strictyaml
from dvc.utils.serialize import _common, dumps_yaml, modify_yaml, parse_yaml
from ruamel.yaml.resolver import implicit_resolvers

HEAD = "schema: '2.0'\nstages:\n"


def write_whole(path, write):
    """Put what write(file) writes in the place of `path`. The repository's lock is held."""
    path = os.fspath(path)
    new = f"{path}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def dump_whole(path, data, dumper, fs=None, **options):
    """Write a file whole; takes the place of DVC's function of these arguments."""
    write_whole(path, lambda file: dumper(data, file, **options))


class LockLoader(yaml.CSafeLoader):
    """YAML 1.2 as DVC reads it: 12e34 is a number, `yes` is text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML has it


for versions, tag, pattern, first in implicit_resolvers:
    if (1, 2) in versions:
        LockLoader.add_implicit_resolver(tag, pattern, first)


def parse(text, path, typ="safe"):
    """dvc.lock by libyaml; the files that people write by DVC, which explains what is wrong."""
    if typ == "safe" and os.fspath(path).endswith(".lock"):
        try:
            return yaml.load(text, LockLoader) or {}
        except yaml.YAMLError:
            pass
    return parse_yaml(text, path, typ)


@contextmanager
def modify(path, fs=None):
    """DVC's modify_yaml: what is changed in the mapping that this yields is written back."""
    text = read(path)
    content = parse(text, path)
    lines = pieces(text)
    if not lines or lines.keys() != content["stages"].keys():
        with modify_yaml(path, fs=fs) as content:
            yield content
        return
    before = dict(content["stages"])
    yield content
    for name, stage in content["stages"].items():
        if stage is not before.get(name):
            lines[name] = dumps_yaml({"stages": {name: stage}}).removeprefix("stages:\n")
    text = HEAD + "".join(lines[name] for name in content["stages"])
    if content.keys() != {"schema", "stages"}:
        text = dumps_yaml(content)
    write_whole(path, lambda file: file.write(text))


def read(path):
    """The text of a file, "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def pieces(text):
    """The text of each stage in dvc.lock, by name; None if it is not laid out as DVC does."""
    if not text.startswith(HEAD):
        return None
    found, name = {}, None
    for line in text.removeprefix(HEAD).splitlines(keepends=True):
        if not line.startswith("  ") or not line.endswith("\n"):
            return None
        if line[2] != " ":
            name = line[2:].rstrip().removesuffix(":")
            found[name] = ""
        if name is None:
            return None
        found[name] += line
    return found


if not hasattr(_common, "_dump_data"):
    sys.exit("vlae: error: this DVC writes dvc.lock in an unknown way (dvc_fast.py)")
_common._dump_data = dump_whole
strictyaml.parse_yaml = parse
dvcfile.modify_yaml = modify

if __name__ == "__main__":
    sys.exit(main())
