"""A file is parsed only if it has its pinned checksum: the parsers never see another one."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fuzzing import FOREIGN
from miniature import PROJECT
from vlae.data import fetch as fetching
from vlae.data.fetch import fetch
from vlae.data.formats.registry import FORMATS
from vlae.errors import VlaeError

DATASETS = yaml.safe_load((PROJECT / "params.yaml").read_text())["datasets"]
DATASETS = {name: spec for name, spec in DATASETS.items() if "files" in spec}
HOSTILE = {
    "empty": b"",
    "a MATLAB header": b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\xff" * 400,
    "a tar of nothing": bytes(10240),
    **{f"foreign {i}": content for i, content in enumerate(FOREIGN)},
}


@pytest.fixture
def parsed(monkeypatch) -> list:
    """The paths that any parser was given."""
    seen = []

    def noted(raw, spec):
        seen.extend(raw.values())
        raise AssertionError("parsed")

    for name, one in FORMATS.items():
        monkeypatch.setitem(FORMATS, name, replace(one, read=noted))
    return seen


def written(folder: Path, spec: dict, content: bytes) -> None:
    for file in spec["files"].values():
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", DATASETS)
def test_another_file_is_never_parsed(tmp_path, parsed, name, content):
    """Not where the raw files are kept, and not from a mirror."""
    spec = {key: value for key, value in DATASETS[name].items() if key != "alternative"}
    files = {key: file | {"urls": []} for key, file in spec["files"].items()}
    spec = spec | {"files": files}
    written(tmp_path / "data" / "raw", spec, content)
    written(tmp_path / "mirror", spec, content)
    with pytest.raises(VlaeError, match="cannot get"):
        fetch(name, spec, tmp_path, str(tmp_path / "mirror"))
    assert parsed == [] and not (tmp_path / "data" / f"{name}.npz").exists()


def test_the_right_file_is_parsed(tmp_path, parsed, monkeypatch):
    """Otherwise the test above could not fail."""
    spec = DATASETS["caltech101"]
    written(tmp_path / "data" / "raw", spec, b"anything")
    monkeypatch.setattr(fetching, "wrong_sum", lambda path, file: None)
    with pytest.raises(AssertionError, match="parsed"):
        fetch("caltech101", spec, tmp_path)
    assert parsed == [tmp_path / "data" / "raw" / spec["files"]["all"]["path"]]
