"""Boxes and items of the ISO base media file format, which AVIF and HEIF files are made of.

Boxes are those of ISO/IEC 14496-12, items those of ISO/IEC 23008-12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Numbers that are read of one file at most, which takes 0.1 s. A photograph has about a hundred.
MAX_NUMBERS = 100_000
_ONCE = (
    *(b"meta", b"pitm", b"iinf", b"iloc", b"idat", b"iref", b"iprp", b"ipco"),
    *(b"moov", b"mdia", b"minf", b"stbl", b"stsd", b"stco", b"co64", b"stsz"),
)

Extents = tuple[tuple[int, int], ...]
# Type, begin and end of the content.
Box = tuple[bytes, int, int]


@dataclass(frozen=True)
class Item:
    """An item's number, its four-letter type, and the rest of its entry: its name, and what its type adds."""

    number: int
    kind: bytes
    rest: bytes


class Numbers:
    """Big-endian numbers of ``data``; raises ValueError where it ends, or where too many were read of the file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.left = data, 0, MAX_NUMBERS

    def next(self, size: int) -> int:
        """The next ``size`` bytes as a number."""
        self.left -= 1
        self.at += size
        if self.left < 0 or self.at > len(self.data):
            raise ValueError("it has too many parts" if self.left < 0 else "it ends too early")
        return int.from_bytes(self.data[self.at - size : self.at], "big")


def boxes(numbers: Numbers, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of the content of each box between ``begin`` and ``end``. Raises ValueError for a second one.

    Only of tracks and of items' entries may there be many: of two others, a decoder might take the one not seen here.
    """
    seen = set()
    while end - begin >= 8:
        numbers.at = begin
        size, kind = numbers.next(4), numbers.next(4).to_bytes(4, "big")
        if size == 1:
            size = numbers.next(8)
        # Behind what libavif needs there may be anything, a box that is cut short among it.
        content, begin = numbers.at, min(begin + size, end) if size else end
        if begin < content:
            raise ValueError(f"a box has {size} bytes")
        if kind in seen and kind in _ONCE:
            raise ValueError(f"it has two boxes {kind.decode()!r} in one place")
        seen.add(kind)
        yield kind, content, begin


def items(numbers: Numbers, meta: list[Box]) -> Iterator[Item]:
    """The items of the boxes ``meta``."""
    for kind, begin, end in meta:
        if kind != b"iinf":
            continue
        numbers.at = begin
        long = numbers.next(4) >> 24
        numbers.next(4 if long else 2)
        for entry, first, last in boxes(numbers, numbers.at, end):
            if entry == b"infe":
                numbers.at = first
                size = 4 if numbers.next(4) >> 24 == 3 else 2
                number = numbers.next(size)
                numbers.next(2)
                yield Item(number, numbers.next(4).to_bytes(4, "big"), numbers.data[numbers.at : last])


def locations(numbers: Numbers, meta: list[Box]) -> Iterator[tuple[int, Extents]]:
    """Each item's number, and where its data lies: in one or more stretches of the file."""
    inside = next((first for kind, first, _ in meta if kind == b"idat"), 0)
    for kind, first, _ in meta:
        if kind != b"iloc":
            continue
        numbers.at = first
        version = numbers.next(4) >> 24
        sizes = numbers.next(2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        for _ in range(numbers.next(4 if version == 2 else 2)):
            item = numbers.next(4 if version == 2 else 2)
            method = numbers.next(2) & 15 if version else 0
            numbers.next(2)  # the file it is in: always this one
            base = numbers.next(base_size) + (inside if method == 1 else 0)
            extents = []
            for _ in range(numbers.next(2)):
                numbers.next(index_size if version else 0)
                at = base + numbers.next(offset_size)
                extents.append((at, at + numbers.next(length_size)))
            yield item, tuple(extents)


def properties(numbers: Numbers, meta: list[Box]) -> list[tuple[int, list[Box]]]:
    """Items' numbers, and the properties that are listed for each."""
    found = []
    for kind, begin, end in meta:
        if kind != b"iprp":
            continue
        inside = list(boxes(numbers, begin, end))
        known = [box for name, first, last in inside if name == b"ipco" for box in boxes(numbers, first, last)]
        for name, first, _ in inside:
            if name != b"ipma":
                continue
            numbers.at = first
            flags = numbers.next(4)
            for _ in range(numbers.next(4)):
                item = numbers.next(4 if flags >> 24 else 2)
                size, mask = (2, 0x7FFF) if flags & 1 else (1, 0x7F)
                indices = [numbers.next(size) & mask for _ in range(numbers.next(1))]
                found.append((item, [known[index - 1] for index in indices if 0 < index <= len(known)]))
    return found


class Bits:
    """The bits of ``data``, highest first; raises ValueError where it ends."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def next(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header ends too early")
        return self._value >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        """The next number in unsigned Exp-Golomb code, of 32 bits at most; raises ValueError for a longer one."""
        zeros = 0
        while not self.next(1):
            zeros += 1
        if zeros > 31:
            raise ValueError("a number has too many bits")
        return (1 << zeros) - 1 + self.next(zeros)
