"""High dynamic range: pictures whose samples tell nits by the curve PQ, which are refused.

Browsers map their brightness to what the screen can show. Read as if they were sRGB they are dark and grey, and have an
answer all the same. Samples of HLG, the other curve, are made to be read as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classifier import boxes
from classifier.boxes import Numbers
from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Transfer characteristics of ITU-T H.273.
PQ = 16
_PNG_COLOUR = b"\0\0\0\4cICP"
_NCLX = b"colrnclx"


def check(kind: str, data: bytes) -> None:
    """Raise ClassifierError("unreadable_image") if ``data``, a file of the format ``kind``, tells that its curve is PQ.

    Raises ValueError for an AVIF or HEIF that is laid out as none may be.
    """
    if kind in _CURVES and PQ in _CURVES[kind](data):
        raise ClassifierError(
            "unreadable_image",
            f"the {kind} image is of high dynamic range (PQ), which 8 bits a sample can't hold; send it as sRGB",
            format=kind,
        )


def _of_png(data: bytes) -> list[int]:
    """Of the chunk cICP, which stands before the samples."""
    at = data.find(_PNG_COLOUR, 0, data.find(b"IDAT"))
    return [] if at < 0 else [data[at + len(_PNG_COLOUR) + 1]]


def _of_boxes(data: bytes) -> list[int]:
    """Of the primary item, and of all tracks. Other items may be of the same picture for other screens."""
    numbers, found = Numbers(data), list[int]()
    for kind, first, last in boxes.boxes(numbers, 0, len(data)):
        if kind == b"meta":
            found += _of_items(numbers, first, last)
        elif kind == b"moov":
            at = data.find(_NCLX, first, last)
            while at >= 0:
                numbers.next(0)  # counts, as each box does
                found += _transfer(data[at + 4 : at + 12])
                at = data.find(_NCLX, at + 1, last)
    return found


def _of_items(numbers: Numbers, begin: int, end: int) -> Iterator[int]:
    meta, primary = list(boxes.boxes(numbers, begin + 4, end)), None
    for kind, first, _ in meta:
        if kind == b"pitm":
            numbers.at = first
            primary = numbers.next(4 if numbers.next(4) >> 24 else 2)
    for item, properties in boxes.properties(numbers, meta):
        for kind, first, last in properties:
            if item == primary and kind == b"colr":
                yield from _transfer(numbers.data[first:last])


def _transfer(colour: bytes) -> list[int]:
    """Of a box colr's content: of a colour profile nothing."""
    return [int.from_bytes(colour[6:8], "big")] if colour[:4] == b"nclx" else []


# What tells the curves of a file, by format; others tell none.
_CURVES = {"PNG": _of_png, "AVIF": _of_boxes, "HEIF": _of_boxes}
