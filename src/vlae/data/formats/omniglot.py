"""Lake's drawings of characters (Omniglot), and OMNIGLOT's grey images rebuilt from them.

lake_zip: images_background.zip and images_evaluation.zip as published: PNG images of 105x105
      pixels, FOLDER/ALPHABET/characterNN/LLLL_DD.png, DD being the drawer; ink is black.
lake_npz: a numpy archive of all of them: images, uint8 (N, 105, 14), each row of 105 pixels
      packed into 14 bytes, first pixel in the highest bit, ink 1; alphabet (N,), uint8, the
      place in alphabet_names; character and drawer (N,), uint8, counted from 1.

A drawing is known by its alphabet, character and drawer, so the order in a file is of no
importance. docs/data.md says what is known of the recipe, and from where. Nothing is unpacked to
the disk, and nothing is ever unpickled.
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

SIDE = 105  # pixels of a drawing
PACKED = 14  # bytes of a row of them
DRAWERS = 20  # of every character, in the files
CHUNK = 5  # the drawers that stand together in OMNIGLOT
TRAIN_CHUNKS = 3  # of the four: those for training

# In chardata.mat the alphabets are in the order of older, shorter names: Estrangelo, say, was
# "Syriac", and stood beside "Early Aramaic".
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
# Of this alphabet there were 19 drawings a character: this drawer's came later.
LATE = ("Glagolitic", 12)

ZIP_FILES = ("background", "evaluation")  # as params.yaml names them
MEMBER = re.compile(r"images_(\w+)/([^/]+)/character(\d\d)/\d{4}_(\d\d)\.png")
PNG_BYTES = 10_000  # no drawing is larger; they have some hundreds


@dataclass(frozen=True)
class Drawings:
    """N drawings: `images`, packed as in lake_npz; `alphabet`, their names; `character` and
    `drawer`, int (N,), counted from 1."""

    images: np.ndarray
    alphabet: list[str]
    character: np.ndarray
    drawer: np.ndarray


def read_drawings_npz(path: Path, most: int) -> Drawings:
    """The drawings of a lake_npz file, `most` at most; VlaeError if it is none."""
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
    """The drawings of one of the two published archives, `most` at most, by its `key` of
    ZIP_FILES. What is no drawing in it is passed over. VlaeError if it is damaged."""
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
                # Read up to the size declared for it and no further.
                images.append(_ink(member.filename, archive.read(member)))
                alphabets.append(name[2])
                numbers.append((int(name[3]), int(name[4])))
    except MemoryError:
        raise VlaeError(f"{path}: larger than the memory") from None
    except OSError as error:
        if error.filename is not None:  # the file itself, not what is in it
            raise
        raise VlaeError(f"{path}: not a usable zip archive ({one_line(error)})") from None
    except Exception as error:  # zipfile and Pillow raise a different type for every damage
        why = one_line(error) or type(error).__name__
        raise VlaeError(f"{path}: not a usable zip archive ({why})") from None
    character, drawer = np.array(numbers, int).reshape(-1, 2).T
    packed = np.array(images, np.uint8).reshape(-1, SIDE, PACKED)
    return Drawings(packed, alphabets, character, drawer)


def _ink(name: str, content: bytes) -> np.ndarray:
    """A black and white PNG image as a packed drawing."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.size != (SIDE, SIDE):  # known from its head, before it takes any memory
            raise ValueError(f"{name} has {image.width} x {image.height} pixels")
        grey = np.asarray(image.convert("L"))
    if not np.isin(grey, (0, 255)).all():
        raise ValueError(f"{name} is not black and white")
    return np.packbits(grey == 0, axis=1)


def joined(parts: list[Drawings]) -> Drawings:
    """All drawings of several files."""
    return Drawings(
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.alphabet],
        np.concatenate([part.character for part in parts]),
        np.concatenate([part.drawer for part in parts]),
    )


def rows(drawings: Drawings) -> tuple[np.ndarray, np.ndarray]:
    """Return the drawings that are OMNIGLOT's training and test images, in its order before the
    shuffle, as int64 indices.

    They stand by chunks of five drawers, 1-5, 6-10, 11-15 for training and 16-20 for testing;
    in a chunk by alphabet, then character, then drawer. Raises ValueError unless there are all 20
    drawings of each character.
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
    place = drawer - 1 - ((rank == late) & (drawer > missing))  # among the drawers of then
    chunk = place // CHUNK
    order = np.lexsort((place, character, rank, chunk))
    order = order[~((rank == late) & (drawer == missing))[order]]
    training = chunk[order] < TRAIN_CHUNKS
    return order[training], order[~training]


def resize_weights() -> np.ndarray:
    """The weights of MATLAB's imresize from 105 to 28 pixels, times 54,000: int64 (28, 105).

    That is Keys' cubic (a = -0.5), stretched by 3.75 against aliasing, around the centre of each
    of the 28, the drawing being mirrored at its edges; a pixel is the sum over its weights
    divided by the sum of them. In units of 1/30 all places are whole numbers, and so are the
    weights.
    """
    beyond = 8  # pixels: the kernel reaches 7.5 to either side
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
    """Packed drawings, (N, 105, 14), as 28x28 images, float64 (N, 28, 28), 0 to 1 (ink).

    The same on every machine: whatever a matrix product does in which order, its sums are of
    integers far below 2^53, and one division of two of them follows.
    """
    weights = resize_weights().astype(float)
    total = np.outer(weights.sum(1), weights.sum(1))
    images = np.empty((len(packed), *SHAPE))
    for start in range(0, len(packed), 1000):
        ink = np.unpackbits(packed[start : start + 1000], axis=2, count=SIDE).astype(float)
        images[start : start + 1000] = (weights @ ink @ weights.T).clip(0, total) / total
    return images


def grey_images(path: Path, drawings: Drawings) -> tuple[np.ndarray, np.ndarray]:
    """OMNIGLOT's training and test images, rebuilt: uint8 (N, 28, 28), ink bright; `path` is for
    the message if drawings are missing or there are others."""
    try:
        indices = rows(drawings)
    except ValueError as error:
        raise VlaeError(f"{path}: {error}") from None
    # Rounded as chardata.mat is.
    train, test = (
        np.rint(255 * resized(drawings.images[index])).astype(np.uint8) for index in indices
    )
    return train, test


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
    """Write drawings as one of the two published archives, with the folders it has too."""
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
    """Fixed noise: the 20 drawings of so many characters of each alphabet."""
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
    """OMNIGLOT rebuilt from Lake's drawings: grey values 0 to 255,
    held out as in chardata.mat.

    Raises VlaeError unless the file holds exactly the drawings that make the splits of `counts`.
    """
    return _rebuilt(path, read_drawings_npz(path, _drawings(counts)), counts)


def read_lake_zip(background: Path, evaluation: Path, counts: Counts) -> Splits:
    """The same from the two archives as they are published."""
    paths = dict(zip(ZIP_FILES, (background, evaluation), strict=True))
    parts = [read_drawings_zip(p, key, _drawings(counts)) for key, p in paths.items()]
    return _rebuilt(evaluation, joined(parts), counts)


def _drawings(counts: Counts) -> int:
    """Return how many drawings may make so many images: one of 20 is left out of some
    characters."""
    return sum(counts.values()) * 20 // 19 + 1


def _rebuilt(path: Path, drawings: Drawings, counts: Counts) -> Splits:
    train, test = grey_images(path, drawings)
    wanted = {"training": counts["train"] + counts["valid"], "test": counts["test"]}
    for (part, count), found in zip(wanted.items(), (train, test), strict=True):
        if len(found) != count:
            raise VlaeError(f"{path}: {len(found):,} {part} drawings instead of {count:,}")
    return hold_out(train, counts["valid"]) | {"test": test}


def example_lake_npz(path: Path) -> Counts:
    """Write a small lake_npz file; returns how many images it makes."""
    write_npz(path, example(Glagolitic=1, Braille=2, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}


def example_lake_zip(background: Path, evaluation: Path) -> Counts:
    """Write two small archives; returns how many images they make."""
    write_zip(background, "background", example(Braille=2))
    write_zip(evaluation, "evaluation", example(Glagolitic=1, Angelic=1))
    return {"train": 54, "valid": 6, "test": 19}
