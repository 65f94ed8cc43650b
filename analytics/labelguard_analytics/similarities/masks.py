"""How alike two painted masks are: brush strokes and bitmasks."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from labelguard_analytics.similarities.items import BadResult, Item, an, value_of

Mask = npt.NDArray[np.bool_]

MOST_PIXELS = 200_000_000
"""A larger mask is refused: a few bytes can ask for any amount of memory."""


def mask_of(item: Item) -> Mask:
    """A brush or bitmask item as a table of picture rows x columns, True where it is painted.

    Raises:
        BadResult: it holds no mask that can be read.
    """
    value = value_of(item)
    if "rle" in value:
        width, height = item.get("original_width"), item.get("original_height")
        if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
            raise BadResult(f"{an(item)} item needs original_width and original_height to be read.")
        if width * height > MOST_PIXELS:
            raise BadResult(f"{an(item)} item has more than the {MOST_PIXELS:,} pixels that can be compared.")
        runs = value["rle"]
        try:
            packed = bytes(runs if isinstance(runs, (list, tuple, bytes)) else [-1])
        except (TypeError, ValueError):
            raise BadResult(f"{an(item)} item must hold a list of bytes as its 'rle'.") from None
        return decode_rle(packed, width, height)
    address = value.get("imageDataURL")
    if not isinstance(address, str) or "," not in address:
        raise BadResult(f"{an(item)} item must hold an 'rle' or an 'imageDataURL'.")
    return _decode_picture(address)


@lru_cache(maxsize=64)
def decode_rle(packed: bytes, width: int, height: int) -> Mask:
    """Label Studio's packed runs (the format of thi.ng/rle-pack, of the picture's RGBA bytes) as a mask.

    The stream has 32 bits for the number of values, 5 for their width less one and four times 4 for the widths of
    run lengths less one; then runs: 1 bit whether all values are equal, 2 bits which width the length (less one)
    has, the length, and the value or the values. A pixel is painted where its fourth value is not 0.

    Raises:
        BadResult: the stream ends too early or does not have four values for each pixel.
    """
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    stream = _Bits(packed)
    total = stream.read(32)
    if total != 4 * width * height:
        raise BadResult(f"A mask has {total} values, but a picture of {width} x {height} has {4 * width * height}.")
    word = stream.read(5) + 1
    widths = [stream.read(4) + 1 for _ in range(4)]
    found = np.zeros(total, dtype=bool)
    at = 0
    while at < total:
        equal = stream.read(1)
        length = stream.read(widths[stream.read(2)]) + 1
        end = min(at + length, total)
        if equal:
            found[at:end] = stream.read(word) != 0
        else:
            values = bits[stream.at : stream.at + (end - at) * word].reshape(-1, word)
            found[at:end] = values.any(axis=1)
            stream.at += (end - at) * word
        at = end
    return found.reshape(height, width, 4)[:, :, 3]


class _Bits:
    """Numbers from a stream of bits."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.at = 0

    def read(self, width: int) -> int:
        end = self.at + width
        if end > 8 * len(self.packed):
            raise BadResult("A mask ends before it is complete.")
        window = int.from_bytes(self.packed[self.at // 8 : (end + 7) // 8], "big")
        self.at = end
        return (window >> (-end % 8)) & ((1 << width) - 1)


@lru_cache(maxsize=64)
def _decode_picture(address: str) -> Mask:
    """A PNG data URL as a mask: True where it is opaque, or, if it is so everywhere, where it is not black."""
    try:
        data = base64.b64decode(address.partition(",")[2], validate=True)
        return _decode_png(data)
    except (binascii.Error, zlib.error, struct.error, IndexError, ValueError) as broken:
        if isinstance(broken, BadResult):
            raise
        raise BadResult("A bitmask must hold a PNG picture as its 'imageDataURL'.") from None


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _decode_png(data: bytes) -> Mask:
    """The painted pixels of a PNG of 1 to 8 bits per channel (ISO/IEC 15948)."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadResult("A bitmask must hold a PNG picture as its 'imageDataURL'.")
    at, packed, palette, palette_alpha = 8, b"", b"", b""
    width = height = depth = colour = interlaced = 0
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        if name == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        elif name == b"IDAT":
            packed += body
        elif name == b"PLTE":
            palette = body
        elif name == b"tRNS":
            palette_alpha = body
    if depth > 8 or interlaced or colour not in _CHANNELS:
        raise BadResult("A bitmask must be a PNG of at most 8 bits per channel, without interlacing.")
    channels = _CHANNELS[colour]
    line = (width * channels * depth + 7) // 8
    rows = _unfiltered(
        np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(height, line + 1), max(channels * depth // 8, 1)
    )
    if depth < 8:
        bits = np.unpackbits(rows, axis=1)[:, : width * depth].reshape(height, width, depth)
        values = (bits * (1 << np.arange(depth)[::-1])).sum(axis=2).astype(np.uint8)[:, :, None]
    else:
        values = rows.reshape(height, width, channels)
    opaque = np.ones((height, width), dtype=bool)
    if colour == 3:
        shown: Mask = np.frombuffer(palette.ljust(768, b"\0"), dtype=np.uint8).reshape(256, 3).max(axis=1) > 0
        alpha = np.frombuffer(palette_alpha.ljust(256, b"\xff"), dtype=np.uint8)
        coloured, opaque = shown[values[:, :, 0]], alpha[values[:, :, 0]] > 0
    else:
        coloured = values[:, :, : 1 if channels < 3 else 3].any(axis=2)
        if channels in (2, 4):
            opaque = values[:, :, -1] > 0
    # Label Studio paints black on a transparent ground; others paint white on black.
    transparent = colour in (4, 6) or bool(palette_alpha)
    return np.asarray(opaque if transparent and not (opaque.all() and coloured.any()) else coloured)


def _unfiltered(lines: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """Undo the prediction of each row from its neighbours."""
    rows = np.zeros((len(lines), lines.shape[1] - 1), dtype=np.uint8)
    above = np.zeros(lines.shape[1] - 1, dtype=np.uint8)
    for number, (kind, body) in enumerate(zip(lines[:, 0].tolist(), lines[:, 1:], strict=True)):
        if kind == 0 or (not body.any() and not above.any()):
            rows[number] = body
        elif kind == 1:
            padded = np.pad(body, (0, -len(body) % step)).reshape(-1, step)
            rows[number] = np.cumsum(padded, axis=0, dtype=np.uint8).ravel()[: len(body)]
        elif kind == 2:
            rows[number] = body + above
        else:
            rows[number] = _predicted(kind, body.tolist(), above.tolist(), step)
        above = rows[number]
    return rows


def _predicted(kind: int, body: list[int], above: list[int], step: int) -> list[int]:
    out: list[int] = []
    for at, value in enumerate(body):
        left = out[at - step] if at >= step else 0
        up = above[at]
        if kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[at - step] if at >= step else 0
            near = left + up - corner
            guess = min((left, up, corner), key=lambda one, near=near: abs(near - one))  # type: ignore[misc]
        out.append((value + guess) & 255)
    return out


def union(masks: Sequence[Mask]) -> Mask:
    """Where any of the masks is painted.

    Raises:
        BadResult: they differ in size.
    """
    check_sizes(masks)
    joint: Mask = np.logical_or.reduce(masks)
    return joint


def check_sizes(masks: Sequence[Mask]) -> None:
    """Masks of one picture must have its size."""
    shapes = {mask.shape for mask in masks}
    if len(shapes) > 1:
        raise BadResult(f"Masks to be compared must be of the same size, but they are {sorted(shapes)}.")


def masks_overlap(one: Sequence[Mask], other: Sequence[Mask]) -> npt.NDArray[np.float64]:
    """Intersection over union of every two masks; two empty ones are alike."""
    check_sizes([*one, *other])
    if not one or not other:
        return np.zeros((len(one), len(other)))
    a, b = (np.stack([mask.ravel() for mask in side]) for side in (one, other))
    size_a, size_b = a.sum(axis=1), b.sum(axis=1)
    shared = np.array([[np.count_nonzero(p & q) for q in b] for p in a], dtype=np.float64)
    both = size_a[:, None] + size_b[None, :] - shared
    return np.asarray(np.where(both > 0, shared / np.maximum(both, 1), 1.0), dtype=np.float64)
