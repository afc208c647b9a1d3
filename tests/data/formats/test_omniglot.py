"""OMNIGLOT rebuilt from Lake's drawings: their scaling, their order, and both ways to them."""

import hashlib
import io
import os
import pickle
import zipfile
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from http_server import Server, body
from vlae.data.dataset import load
from vlae.data.fetch import fetch
from vlae.data.formats import omniglot
from vlae.data.formats.amat import PIXELS
from vlae.data.formats.omniglot import read_lake_npz, read_lake_zip
from vlae.errors import VlaeError
from vlae.images import DYNAMIC

MIRROR = os.environ.get("VLAE_DATA_MIRROR")
SPEC = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())["datasets"][
    "omniglot_rebuilt"
]
BACKGROUND = {"Braille": 2, "Latin": 1}
EVALUATION = {"Glagolitic": 2, "Angelic": 1}
EXAMPLE = omniglot.example(**BACKGROUND, **EVALUATION)
COUNTS = {"train": 85, "valid": 5, "test": 28}  # of 6 characters, 2 of them without a drawing


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


# --- Scaling ---------------------------------------------------------------------------------


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -x * x * x / 2 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def taps(i: int) -> dict[int, Fraction]:
    """The weights of pixel i of 28, as imresize.m of MATLAB goes about it, counting from 1."""
    scale = Fraction(28, 105)
    width = 4 / scale
    u = (i + 1) / scale + (1 - 1 / scale) / 2
    left = floor(u - width / 2)
    weights = {}
    for index in range(left, left + 17):
        inside = index
        while not 1 <= inside <= 105:  # mirrored, the edge pixel twice
            inside = 1 - inside if inside < 1 else 211 - inside
        weight = scale * cubic(scale * (u - index))
        weights[inside - 1] = weights.get(inside - 1, 0) + weight
    total = sum(weights.values())
    return {index: weight / total for index, weight in weights.items()}


def test_the_weights_are_those_of_imresize():
    weights = omniglot.resize_weights()
    assert weights.shape == (28, 105) and weights.dtype.kind == "i"
    for i, row in enumerate(weights.tolist()):
        wanted = taps(i)
        assert [Fraction(w, sum(row)) for w in row] == [wanted.get(j, 0) for j in range(105)]


def test_a_drawing_is_scaled_as_by_a_direct_sum():
    picture = np.zeros((105, 105), np.uint8)
    picture[20:90, 30:36] = picture[84:90, 30:80] = picture[:3, 100:] = 1
    noise = np.unpackbits(EXAMPLE.images[0], axis=1, count=105)
    drawings = np.stack([picture, noise, np.zeros_like(picture), np.ones_like(picture)])
    images = omniglot.resized(np.packbits(drawings, axis=2))
    assert images.shape == (4, 28, 28) and not images[2].any() and (images[3] == 1).all()
    assert images.min() == 0 and images.max() == 1  # clipped
    rows = [taps(i) for i in range(28)]
    for drawing, image in zip(drawings[:2].tolist(), images, strict=False):
        for i in range(0, 28, 3):
            for j in range(28):
                exact = sum(
                    a * b for r, a in rows[i].items() for c, b in rows[j].items() if drawing[r][c]
                )
                assert image[i, j] == pytest.approx(float(min(max(exact, 0), 1)), abs=1e-15)


# --- Order -----------------------------------------------------------------------------------


def test_drawings_stand_by_chunk_alphabet_character_and_drawer():
    order = []
    for chunk in range(4):
        for name, characters in (("Angelic", 1), ("Braille", 2), ("Glagolitic", 2), ("Latin", 1)):
            drawers = [d for d in range(1, 21) if (name, d) != ("Glagolitic", 12)]
            for c in range(1, characters + 1):
                order += [(chunk, name, c, d) for d in drawers[5 * chunk : 5 * chunk + 5]]
    train, test = omniglot.rows(EXAMPLE)
    for rows, wanted in (
        (train, [key[1:] for key in order if key[0] < 3]),
        (test, [key[1:] for key in order if key[0] == 3]),
    ):
        found = [(EXAMPLE.alphabet[r], EXAMPLE.character[r], EXAMPLE.drawer[r]) for r in rows]
        assert found == wanted
    assert ("Glagolitic", 1, 16) in [key[1:] for key in order if key[0] < 3]


def test_the_50_alphabets():
    assert len(omniglot.ALPHABETS) == len(set(omniglot.ALPHABETS)) == 50


# --- Two ways --------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path):
    """The drawings, packed both ways: paths of the two archives, and of the one file."""
    paths = [tmp_path / name for name in ("background.zip", "evaluation.zip", "all.npz")]
    omniglot.write_zip(paths[0], "background", omniglot.example(**BACKGROUND))
    omniglot.write_zip(paths[1], "evaluation", omniglot.example(**EVALUATION))
    omniglot.write_npz(paths[2], EXAMPLE)
    return paths


def test_both_ways_give_the_same_images_held_out_as_in_chardata(packed):
    zips, npz = read_lake_zip(*packed[:2], COUNTS), read_lake_npz(packed[2], COUNTS)
    assert list(zips) == list(npz) == ["train", "valid", "test"]
    for split, count in COUNTS.items():
        assert npz[split].shape == (count, 28, 28) and npz[split].dtype == np.uint8
        assert np.array_equal(zips[split], npz[split])
    train, test = omniglot.rows(EXAMPLE)
    shuffled = train[np.random.RandomState(123).permutation(90)]
    for split, rows in (("train", shuffled[:85]), ("valid", shuffled[85:]), ("test", test)):
        grey = np.rint(255 * omniglot.resized(EXAMPLE.images[rows]))
        assert np.array_equal(npz[split], grey)


def pins(path: Path, name: str, urls: list[str]) -> dict:
    content = path.read_bytes()
    found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return {"path": name, **found, "urls": urls}


def test_fetched_from_the_origin_or_a_mirror(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        zips = {
            key: pins(path, f"omniglot/{path.name}", [f"{server.url}/{path.name}"])
            for key, path in zip(omniglot.ZIP_FILES, packed, strict=False)
        }
        server.routes = {f"/{path.name}": body(path.read_bytes()) for path in packed[:2]}
        other = {"format": "lake_npz", "files": {"all": pins(packed[2], "omniglot/all.npz", [])}}
        spec = SPEC | {"files": zips, "alternative": other, "splits": COUNTS}
        prepared = []
        for where in ("origin", "mirror", "mirror of the archives"):
            mirror = tmp_path / where / "mirror"
            mirror.mkdir(parents=True)
            for path in {"origin": [], "mirror": packed[2:]}.get(where, packed[:2]):
                (mirror / path.name).write_bytes(path.read_bytes())
            fetch("omniglot_rebuilt", spec, tmp_path / where, str(mirror))
            prepared.append((tmp_path / where / "data/omniglot_rebuilt.npz").read_bytes())
            load("omniglot_rebuilt", DYNAMIC, tmp_path / where / "data")
        assert set(server.asked.values()) == {1} and len(server.asked) == 2  # by the first
    assert len(set(prepared)) == 1


# --- What is refused -------------------------------------------------------------------------


def said(read, *paths, counts=COUNTS) -> str:
    with pytest.raises(VlaeError) as caught:
        read(*paths, counts=counts)
    text = str(caught.value)
    assert "\n" not in text
    return text.partition(": ")[2]


def npz(**changes) -> bytes:
    table = {
        "images": EXAMPLE.images,
        "alphabet": np.zeros(120, np.uint8),
        "alphabet_names": np.array(["Greek"]),
        "character": np.repeat(np.arange(1, 7, dtype=np.uint8), 20),
        "drawer": np.tile(np.arange(1, 21, dtype=np.uint8), 6),
    } | changes
    content = io.BytesIO()
    np.savez_compressed(content, **{key: a for key, a in table.items() if a is not None})
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (npz(drawer=None), "drawer missing"),
        (npz(images=np.zeros((120, 105, 13), np.uint8)), "images is uint8 (120, 105, 13) inst"),
        (npz(images=np.uint8(1)), "images is uint8 () instead of uint8 (0, 105, 14)"),
        (npz(images=np.ones((120, 105, 14), np.uint8)), "images has ink beyond pixel 105"),
        (npz(character=np.ones(120)), "character is float64 (120,) instead of uint8 (120,)"),
        (npz(alphabet=np.full(120, 1, np.uint8)), "alphabet 1 has no name"),
        (npz(alphabet_names=np.array([5])), "alphabet_names is int64 (1,) instead of text (1,)"),
        (npz(alphabet_names=np.array(["Klingon"])), "unknown alphabet 'Klingon'"),
        (npz(drawer=np.ones(120, np.uint8)), "not the 20 drawings of each character"),
        (npz(character=np.ones(120, np.uint8)), "not the 20 drawings of each character"),
        (npz(character=np.zeros(120, np.uint8)), "not the 20 drawings of each character"),
        (npz(), "30 test drawings instead of 28"),
        (npz(drawer=np.array([{}])), "not a usable numpy archive (Object arrays can"),
        (pickle.dumps({}), "not a usable numpy archive ("),
        (npz()[:-9], "not a usable numpy archive ("),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path, content, fault):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert said(read_lake_npz, path).startswith(fault)


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind)
    return content.getvalue()


A_DRAWING = "images_background/Braille/character01/0001_07.png"
WHITE = np.full((105, 105), 255, np.uint8)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({A_DRAWING: None}, "not the 20 drawings of each character"),
        ({A_DRAWING: png(WHITE[:, :104])}, f"not a usable zip archive ({A_DRAWING} has 104 x 105"),
        ({A_DRAWING: png(WHITE - 1)}, f"not a usable zip archive ({A_DRAWING} is not black and w"),
        ({A_DRAWING: png(WHITE, "BMP")[:9000]}, "not a usable zip archive (cannot identify ima"),
        ({A_DRAWING: bytes(10_001)}, f"not a usable zip archive ({A_DRAWING} has 10,001 bytes)"),
        ({A_DRAWING: png(WHITE)[:60]}, "not a usable zip archive ("),
        ({A_DRAWING.replace("01/", "02/").replace("07", "21"): png(WHITE)}, "not the 20 drawings"),
        ({A_DRAWING.replace("Braille", "Klingon"): png(WHITE)}, "unknown alphabet 'Klingon'"),
    ],
)
def test_wrong_zips_are_refused(packed, members, fault):
    with zipfile.ZipFile(packed[0]) as archive:
        content = {name: archive.read(name) for name in archive.namelist()} | members
    with zipfile.ZipFile(packed[0], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in content.items():
            if member is not None:
                archive.writestr(name, member)
    assert said(read_lake_zip, *packed[:2]).startswith(fault)


def test_zips_of_more_drawings_than_expected(packed):
    counts = {"train": 20, "valid": 5, "test": 5}
    assert "more than the drawings expected" in said(read_lake_zip, *packed[:2], counts=counts)


def test_other_members_of_a_zip_are_ignored(packed):
    with zipfile.ZipFile(packed[0], "a") as archive:
        for name in (
            "images_background/.DS_Store",
            f"__MACOSX/{A_DRAWING}",
            f"../{A_DRAWING}",
            A_DRAWING.replace("background", "evaluation"),
        ):
            archive.writestr(name, bytes(PIXELS))
    assert len(read_lake_zip(*packed[:2], COUNTS)["train"]) == 85


# --- The real file ---------------------------------------------------------------------------


def test_real_drawings():
    """The same bytes everywhere: other ones would be another data set."""
    (entry,) = SPEC["alternative"]["files"].values()
    path = Path(MIRROR or "/nowhere", entry["path"])
    if not path.is_file():
        pytest.skip(f"VLAE_DATA_MIRROR has no {entry['path']}")
    drawings = omniglot.read_drawings_npz(path, 40_000)
    train, test = omniglot.rows(drawings)
    assert (len(train), len(test)) == (24345, 8070)
    # As they were found independently, in floating point.
    assert [sha256(rows) for rows in (train, test)] == [
        "a9f2a46bb6d8144a168a08a64b758980d5a56b08db43b52f4275fe9061910ad8",
        "c0dd1b019dfa28965e304f12e0fedc55ca515e91e9c07651ece3d018b088b52b",
    ]
    images = omniglot.resized(drawings.images[test])
    assert sha256(images.astype(np.float32)) == (
        "38560a64bfb15c3e76f89b1e4367186e2fd157edb906e044e1d9b2feb8d5dcf1"
    )
    assert sha256(omniglot.resized(drawings.images[train]).astype(np.float32)) == (
        "2a6ec29145675106cc20eb0041a3a4fc969ba9743e71757a539026420a6c2073"
    )
    # Nothing comes near a half, where rounding might be a matter of taste.
    assert np.abs(255 * images % 1 - 0.5).min() > 1e-7
    arrays = read_lake_npz(path, SPEC["splits"])
    assert {split: (len(a), sha256(a)) for split, a in arrays.items()} == {
        "train": (23000, "20cd75348be725b167a9cde814dd8c05fa60cf258c569e2ff839d3635a7d744e"),
        "valid": (1345, "b3d9484c4ed71546258d1b61fb897bf22de0d9960ac7ad44fe9ea4653060a576"),
        "test": (8070, "1eb8c4c4a5f431071207eeb8899238bbf8e78dc5eee375ed58707139371bce7d"),
    }
