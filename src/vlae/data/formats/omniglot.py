"""Reads Lake's drawings of characters (Omniglot) and rebuilds OMNIGLOT's grey images from them.

lake_zip: images_background.zip and images_evaluation.zip as published. They have PNG images of
      105x105 pixels with black ink, FOLDER/ALPHABET/characterNN/LLLL_DD.png; DD is the drawer.
lake_npz: a numpy archive of all drawings:
      images, uint8 (N, 105, 14): rows of 105 pixels packed into 14 bytes, first pixel in the
      highest bit, ink 1;
      alphabet, uint8 (N,): index into alphabet_names;
      character and drawer, uint8 (N,): counted from 1.

Alphabet, character and drawer identify a drawing, so the order in a file does not matter.
docs/data.md gives the known facts about OMNIGLOT's recipe and their sources. Nothing is unpacked
to disk, and nothing is unpickled.
"""

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae.data.formats.splits import Counts, Splits, hold_out
from vlae.errors import VlaeError, one_line
from vlae.images import BINARY_IMAGE as SHAPE
from vlae.storage.read import MIB, read_npz

SIDE = 105  # height and width of a drawing in pixels
PACKED = 14  # bytes of a row of pixels
DRAWERS = 20  # drawers of every character, in the files
CHUNK = 5  # drawers that are adjacent in OMNIGLOT's order
TRAIN_CHUNKS = 3  # number of chunks, of four, that are training images

# chardata.mat orders the alphabets by older, shorter names. For example, Estrangelo was "Syriac"
# and followed "Early Aramaic".
ALPHABETS = (
    "Angelic",
    "Arcadian",
    "Armenian",
    "Asomtavruli_(Georgian)",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Balinese",
    "Bengali",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Braille",
    "Cyrillic",
    "Early_Aramaic",
    "Syriac_(Estrangelo)",
    "Anglo-Saxon_Futhorc",
    "Futurama",
    "Ge_ez",
    "Glagolitic",
    "Grantha",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Hebrew",
    "Japanese_(hiragana)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Malay_(Jawi_-_Arabic)",
    "Kannada",
    "Japanese_(katakana)",
    "Keble",
    "Korean",
    "Latin",
    "Alphabet_of_the_Magi",
    "Malayalam",
    "Manipuri",
    "Mkhedruli_(Georgian)",
    "Mongolian",
    "Burmese_(Myanmar)",
    "N_Ko",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sanskrit",
    "Syriac_(Serto)",
    "Sylheti",
    "Tagalog",
    "Tengwar",
    "Tibetan",
    "Tifinagh",
    "ULOG",
)
# chardata.mat has only 19 drawings per character of this alphabet: this drawer was added later.
LATE = ("Glagolitic", 12)

ZIP_FILES = ("background", "evaluation")  # keys of the files in params.yaml
MEMBER = re.compile(r"images_(\w+)/([^/]+)/character(\d\d)/\d{4}_(\d\d)\.png")
PNG_BYTES = 10_000  # limit for a drawing, which has a few hundred bytes


@dataclass(frozen=True)
class Drawings:
    """N drawings.

    images: packed as in lake_npz. alphabet: N names. character, drawer: int (N,), from 1.
    """

    images: np.ndarray
    alphabet: list[str]
    character: np.ndarray
    drawer: np.ndarray


def read_drawings_npz(path: Path, most: int) -> Drawings:
    """Read at most `most` drawings of a lake_npz file. Raises VlaeError for other content."""
    names = ("images", "alphabet", "alphabet_names", "character", "drawer")
    try:
        with open(path, "rb") as file:
            table = read_npz(file, names, most * (SIDE * PACKED + 8) + MIB)
    except ValueError as error:
        raise VlaeError(f"{path}: not a usable numpy archive ({error})") from None
    missing = [name for name in names if name not in table]
    if missing:
        raise VlaeError(f"{path}: {', '.join(missing)} missing")
    count = len(table["images"]) if table["images"].ndim else 0
    shapes = dict.fromkeys(names, (count,)) | {
        "images": (count, SIDE, PACKED),
        "alphabet_names": table["alphabet_names"].shape[:1],
    }
    for name, shape in shapes.items():
        found = table[name]
        text = name == "alphabet_names"
        typed = found.dtype.kind == "U" if text else found.dtype == np.uint8
        if not typed or found.shape != shape:
            wanted = "text" if text else "uint8"
            raise VlaeError(
                f"{path}: {name} is {found.dtype} {found.shape} instead of {wanted} {shape}"
            )
    if (table["images"][:, :, -1] & (2 ** (8 * PACKED - SIDE) - 1)).any():
        raise VlaeError(f"{path}: images has ink beyond pixel {SIDE} of a row")
    if count and table["alphabet"].max() >= len(table["alphabet_names"]):
        raise VlaeError(f"{path}: alphabet {table['alphabet'].max()} has no name")
    alphabet = table["alphabet_names"][table["alphabet"]].tolist()
    character, drawer = (table[name].astype(int) for name in ("character", "drawer"))
    return Drawings(table["images"], alphabet, character, drawer)


def read_drawings_zip(path: Path, key: str, most: int) -> Drawings:
    """Read at most `most` drawings of one of the published archives; `key` is in ZIP_FILES.

    Other members of the archive are ignored. Raises VlaeError if the archive is damaged.
    """
    images, alphabets, numbers = [], [], []
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = MEMBER.fullmatch(member.filename)
                if name is None or name[1] != key:
                    continue
                if member.filename in seen or len(seen) == most:
                    raise ValueError(f"more than the drawings expected: {member.filename}")
                seen.add(member.filename)
                if member.file_size > PNG_BYTES:
                    raise ValueError(f"{member.filename} has {member.file_size:,} bytes")
                # zipfile reads the member only up to its declared size.
                images.append(_ink(member.filename, archive.read(member)))
                alphabets.append(name[2])
                numbers.append((int(name[3]), int(name[4])))
    except MemoryError:
        raise VlaeError(f"{path}: it does not fit into memory") from None
    except OSError as error:
        if error.filename is not None:  # about the file, not its content
            raise
        raise VlaeError(f"{path}: not a usable zip archive ({one_line(error)})") from None
    except Exception as error:  # zipfile and Pillow raise many types for damaged files
        why = one_line(error) or type(error).__name__
        raise VlaeError(f"{path}: not a usable zip archive ({why})") from None
    character, drawer = np.array(numbers, int).reshape(-1, 2).T
    packed = np.array(images, np.uint8).reshape(-1, SIDE, PACKED)
    return Drawings(packed, alphabets, character, drawer)


def _ink(name: str, content: bytes) -> np.ndarray:
    """Return a black and white PNG image as a packed drawing."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.size != (SIDE, SIDE):  # known from the header, before the pixels are decoded
            raise ValueError(f"{name} has {image.width} x {image.height} pixels")
        grey = np.asarray(image.convert("L"))
    if not np.isin(grey, (0, 255)).all():
        raise ValueError(f"{name} is not black and white")
    return np.packbits(grey == 0, axis=1)


def joined(parts: list[Drawings]) -> Drawings:
    """Concatenate the drawings of several files."""
    return Drawings(
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.alphabet],
        np.concatenate([part.character for part in parts]),
        np.concatenate([part.drawer for part in parts]),
    )


def rows(drawings: Drawings) -> tuple[np.ndarray, np.ndarray]:
    """Return the int64 indices of OMNIGLOT's training and test images, in order before shuffling.

    The order is by chunk of five drawers, then alphabet, character and drawer. Chunks 1-5, 6-10
    and 11-15 are training images, 16-20 test images. Raises ValueError unless `drawings` has all
    20 drawings of each character.
    """
    unknown = sorted(set(drawings.alphabet) - set(ALPHABETS))
    if unknown or not drawings.alphabet:
        raise ValueError(f"unknown alphabet {unknown[0][:100]!r}" if unknown else "no drawings")
    rank = np.array([ALPHABETS.index(name) for name in drawings.alphabet])
    character, drawer = drawings.character, drawings.drawer
    last = {a: int(character[rank == a].max()) for a in np.unique(rank).tolist()}
    wanted = [
        (a, c, d) for a in last for c in range(1, last[a] + 1) for d in range(1, DRAWERS + 1)
    ]
    if sorted(zip(rank.tolist(), character.tolist(), drawer.tolist(), strict=True)) != wanted:
        raise ValueError(f"not the {DRAWERS} drawings of each character")
    late, missing = ALPHABETS.index(LATE[0]), LATE[1]
    place = drawer - 1 - ((rank == late) & (drawer > missing))  # among chardata.mat's drawers
    chunk = place // CHUNK
    order = np.lexsort((place, character, rank, chunk))
    order = order[~((rank == late) & (drawer == missing))[order]]
    training = chunk[order] < TRAIN_CHUNKS
    return order[training], order[~training]


def resize_weights() -> np.ndarray:
    """Return MATLAB's imresize weights from 105 to 28 pixels, times 54,000: int64 (28, 105).

    The kernel is Keys' cubic (a = -0.5), stretched by 3.75 against aliasing and centred on each of
    the 28 pixels; the drawing is mirrored at its edges. A pixel is the weighted sum divided by the
    sum of the weights. In units of 1/30 pixel all positions are integers, and so are the weights.
    """
    beyond = 8  # pixels beyond the edge; the kernel reaches 7.5 to either side
    small, large = np.arange(SHAPE[0])[:, None], np.arange(-beyond, SIDE + beyond)
    k = abs(30 * small + 11 - 8 * large)
    weights = np.where(
        k <= 30,
        3 * k**3 - 150 * k**2 + 54_000,
        np.where(k <= 60, -(k**3) + 150 * k**2 - 7200 * k + 108_000, 0),
    )
    inside = weights[:, beyond:-beyond].copy()
    inside[:, :beyond] += weights[:, beyond - 1 :: -1]
    inside[:, -beyond:] += weights[:, : -beyond - 1 : -1]
    return inside


def resized(packed: np.ndarray) -> np.ndarray:
    """Resize packed drawings (N, 105, 14) to float64 images (N, 28, 28), 0 to 1 (ink).

    The result is the same on every machine. The matrix products sum integers far below 2^53, so
    the order of summation does not matter; a single division follows.
    """
    weights = resize_weights().astype(float)
    total = np.outer(weights.sum(1), weights.sum(1))
    images = np.empty((len(packed), *SHAPE))
    for start in range(0, len(packed), 1000):
        ink = np.unpackbits(packed[start : start + 1000], axis=2, count=SIDE).astype(float)
        images[start : start + 1000] = (weights @ ink @ weights.T).clip(0, total) / total
    return images


def grey_images(path: Path, drawings: Drawings) -> tuple[np.ndarray, np.ndarray]:
    """Return OMNIGLOT's rebuilt training and test images, uint8 (N, 28, 28) with bright ink.

    Raises VlaeError, naming `path`, if drawings are missing or there are others.
    """
    # chardata.mat is rounded in the same way.
    train, test = (
        np.rint(255 * resized(drawings.images[index])).astype(np.uint8)
        for index in _rows(path, drawings)
    )
    return train, test


def _rows(path: Path, drawings: Drawings) -> tuple[np.ndarray, np.ndarray]:
    """Return `rows`; raise VlaeError, naming `path`, instead of ValueError."""
    try:
        return rows(drawings)
    except ValueError as error:
        raise VlaeError(f"{path}: {error}") from None


def write_npz(path: Path, drawings: Drawings) -> None:
    """Write drawings as a lake_npz file."""
    names = sorted(set(drawings.alphabet))
    with open(path, "wb") as file:  # given a path, numpy would change its name
        np.savez_compressed(
            file,
            images=drawings.images,
            alphabet=np.array([names.index(name) for name in drawings.alphabet], np.uint8),
            alphabet_names=np.array(names),
            character=drawings.character.astype(np.uint8),
            drawer=drawings.drawer.astype(np.uint8),
        )


def write_zip(path: Path, key: str, drawings: Drawings) -> None:
    """Write drawings as one of the two published archives, including its folder entries."""
    from PIL import Image

    ink = np.unpackbits(drawings.images, axis=2, count=SIDE)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"images_{key}/", b"")
        for i, alphabet in enumerate(drawings.alphabet):
            character, drawer = drawings.character[i], drawings.drawer[i]
            image = io.BytesIO()
            Image.fromarray(255 * (1 - ink[i])).convert("1").save(image, "PNG")
            name = f"images_{key}/{alphabet}/character{character:02}/0001_{drawer:02}.png"
            archive.writestr(name, image.getvalue())


def example(**characters: int) -> Drawings:
    """Return drawings of fixed noise, 20 per character; `characters` counts them by alphabet."""
    keys = [
        (name, c, d)
        for name, last in characters.items()
        for c in range(1, last + 1)
        for d in range(1, DRAWERS + 1)
    ]
    ink = [hashlib.shake_256(repr(key).encode()).digest(SIDE * PACKED) for key in keys]
    images = np.frombuffer(b"".join(ink), np.uint8).reshape(-1, SIDE, PACKED).copy()
    images[:, :, -1] &= 256 - 2 ** (8 * PACKED - SIDE)
    names, character, drawer = zip(*keys, strict=True)
    return Drawings(images, list(names), np.array(character), np.array(drawer))


def read_lake_npz(path: Path, counts: Counts) -> Splits:
    """Rebuild OMNIGLOT from Lake's drawings: grey values 0 to 255, split as chardata.mat.

    Raises VlaeError unless the file holds exactly the drawings for the splits of `counts`.
    """
    return _rebuilt(path, read_drawings_npz(path, _drawings(counts)), counts)


def read_lake_zip(background: Path, evaluation: Path, counts: Counts) -> Splits:
    """Rebuild OMNIGLOT from the two published archives; see read_lake_npz."""
    paths = dict(zip(ZIP_FILES, (background, evaluation), strict=True))
    parts = [read_drawings_zip(p, key, _drawings(counts)) for key, p in paths.items()]
    return _rebuilt(evaluation, joined(parts), counts)


def read_lake_npz_labels(path: Path, counts: Counts) -> Splits:
    """Read the alphabet of each image of read_lake_npz: split -> uint8 (N,), index in ALPHABETS.

    The order is that of the images. Raises VlaeError as read_lake_npz.
    """
    return _alphabets(path, read_drawings_npz(path, _drawings(counts)), counts)


def read_lake_zip_labels(background: Path, evaluation: Path, counts: Counts) -> Splits:
    """Read the alphabet of each image of read_lake_zip; see read_lake_npz_labels."""
    paths = dict(zip(ZIP_FILES, (background, evaluation), strict=True))
    parts = [read_drawings_zip(p, key, _drawings(counts)) for key, p in paths.items()]
    return _alphabets(evaluation, joined(parts), counts)


def _drawings(counts: Counts) -> int:
    """Return an upper limit for the number of drawings of these images.

    OMNIGLOT omits one of 20 drawings of some characters.
    """
    return sum(counts.values()) * 20 // 19 + 1


def _rebuilt(path: Path, drawings: Drawings, counts: Counts) -> Splits:
    return _divided(path, grey_images(path, drawings), counts)


def _alphabets(path: Path, drawings: Drawings, counts: Counts) -> Splits:
    training, test = _rows(path, drawings)  # raises for an unknown alphabet
    number = np.array([ALPHABETS.index(name) for name in drawings.alphabet], np.uint8)
    return _divided(path, (number[training], number[test]), counts)


def _divided(path: Path, parts: tuple[np.ndarray, np.ndarray], counts: Counts) -> Splits:
    """Return the splits of the training and the test images, or of their labels.

    Raises VlaeError unless they have the numbers of `counts`.
    """
    train, test = parts
    wanted = {"training": counts["train"] + counts["valid"], "test": counts["test"]}
    for (part, count), found in zip(wanted.items(), (train, test), strict=True):
        if len(found) != count:
            raise VlaeError(f"{path}: {len(found):,} {part} drawings instead of {count:,}")
    return hold_out(train, counts["valid"]) | {"test": test}


def example_lake_npz(path: Path) -> Counts:
    """Write a small lake_npz file; return the numbers of images rebuilt from it."""
    write_npz(path, example(Glagolitic=1, Braille=2, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}


def example_lake_zip(background: Path, evaluation: Path) -> Counts:
    """Write two small archives; return the numbers of images rebuilt from them."""
    write_zip(background, "background", example(Braille=2))
    write_zip(evaluation, "evaluation", example(Glagolitic=1, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}
