"""The images: handwritten digits that come with scikit-learn, with what is right about each.

The data are a copy of the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak,
1998, https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

_ENLARGED = 8
"""Pixels for each of the 8 x 8 pixels; enlarged smoothly, as a scan looks, and still a small address."""
_LOOPS = frozenset({0, 6, 8, 9})


@dataclass(frozen=True, slots=True)
class Digit:
    """One image and the digit that its writer meant."""

    number: int
    """Its place in the data set."""
    label: int
    image: str
    """The image as a ``data:`` address, so that no file has to be served."""


def digits(count: int, random: Random) -> list[Digit]:
    """Images in random order, no two of them the same."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = random.sample(range(len(data.target)), count)
    return [Digit(i, int(data.target[i]), _png_address(data.images[i])) for i in chosen]


def traits_of(label: int) -> tuple[str, ...]:
    """What is true of a digit: ``even`` or ``odd``, and ``loop`` where its line closes."""
    return ("odd" if label % 2 else "even", *(("loop",) if label in _LOOPS else ()))


def _png_address(ink: npt.NDArray[np.float64]) -> str:
    """Ink from 0 to 16 as an enlarged grey PNG, black on white."""
    from scipy.ndimage import zoom

    enlarged = np.clip(zoom(ink, _ENLARGED, order=3, mode="nearest"), 0, 16)
    grey = (255 - np.rint(enlarged * 255 / 16)).astype(np.uint8)
    height, width = grey.shape
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            # https://www.w3.org/TR/png/#11IHDR: width, height, 8 bits, grey, and the only methods there are.
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            # Each line begins with its filter, 0 for none.
            (b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in grey), 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
