"""How large the AV1 frames of an AVIF file are, which need not be what its container tells.

libavif decodes a frame at its own size, up to 268 megapixels, and only then scales it to the container's: a few
kilobytes that call themselves 64x64 would take gigabytes. Pillow lets nobody set that limit.

Boxes are those of ISO/IEC 14496-12, items those of ISO/IEC 23008-12, OBUs those of the AV1 Bitstream & Decoding
Process Specification, 5.3 to 5.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Numbers that are read of one file at most, which takes 0.1 s. A photograph has about a hundred.
_MAX_NUMBERS = 100_000
# Bytes of frames, as a multiple of the file's: items may share them, but not for ever.
_MAX_SHARED = 4
_ONCE = (b"meta", b"iinf", b"iloc", b"idat", b"moov", b"mdia", b"minf", b"stbl", b"stsd", b"stco", b"co64", b"stsz")
_SEQUENCE_HEADER = 1
# Bytes: 32 operating points of 88 bits at most, and what is before and after them.
_MAX_HEADER = 512

_Extents = tuple[tuple[int, int], ...]


class _Numbers:
    """Big-endian numbers of ``data``; raises ValueError where it ends, or where too many were read of the file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.left = data, 0, _MAX_NUMBERS

    def next(self, size: int) -> int:
        """The next ``size`` bytes as a number."""
        self.left -= 1
        self.at += size
        if self.left < 0 or self.at > len(self.data):
            raise ValueError("it has too many parts" if self.left < 0 else "it ends too early")
        return int.from_bytes(self.data[self.at - size : self.at], "big")


def largest_frame(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of the largest frame that the AVIF file ``data`` has.

    Raises ValueError for a file that has no frame, or is laid out as none may be.
    """
    numbers = _Numbers(data)
    sizes = [size for frames in _frames(numbers) for size in _sizes(frames, numbers)]
    if not sizes:
        raise ValueError("it has no frame")
    return max(sizes, key=lambda size: size[0] * size[1])


def _boxes(numbers: _Numbers, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
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


def _frames(numbers: _Numbers) -> Iterator[bytes]:
    """The data of each picture that may be decoded: of the AV1 items, and of each track's first."""
    data, total = numbers.data, 0
    for extents in set(_places(numbers, 0, len(data))):
        total += sum(end - begin for begin, end in extents)
        if total > _MAX_SHARED * len(data):
            raise ValueError("its frames overlap")
        yield b"".join(data[begin:end] for begin, end in extents)


def _places(numbers: _Numbers, begin: int, end: int) -> Iterator[_Extents]:
    """Where the data of each picture lies: in one or more stretches of the file."""
    for kind, first, last in _boxes(numbers, begin, end):
        if kind == b"meta":
            yield from _items(numbers, first + 4, last)
        elif kind in (b"moov", b"trak", b"mdia", b"minf"):
            yield from _places(numbers, first, last)
        elif kind == b"stbl":
            yield from _first_sample(numbers, first, last)


def _items(numbers: _Numbers, begin: int, end: int) -> Iterator[_Extents]:
    boxes = list(_boxes(numbers, begin, end))
    wanted = {number for kind, first, last in boxes if kind == b"iinf" for number in _av1_items(numbers, first, last)}
    inside = next((first for kind, first, _ in boxes if kind == b"idat"), 0)
    for kind, first, _ in boxes:
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
            if item in wanted:
                yield tuple(extents)


def _av1_items(numbers: _Numbers, begin: int, end: int) -> Iterator[int]:
    """The numbers of the items that are AV1 pictures."""
    numbers.at = begin
    long = numbers.next(4) >> 24
    numbers.next(4 if long else 2)
    for kind, first, _ in _boxes(numbers, numbers.at, end):
        if kind == b"infe":
            numbers.at = first
            size = 4 if numbers.next(4) >> 24 == 3 else 2
            item = numbers.next(size)
            numbers.next(2)
            if numbers.next(4) == int.from_bytes(b"av01", "big"):
                yield item


def _first_sample(numbers: _Numbers, begin: int, end: int) -> Iterator[_Extents]:
    """A track's first picture: at the begin of its first chunk, as long as its first sample."""
    boxes = {kind: (first, last) for kind, first, last in _boxes(numbers, begin, end)}
    first, last = boxes.get(b"stsd", (0, 0))
    chunks, size = (b"stco", 4) if b"stco" in boxes else (b"co64", 8)
    if b"av01" not in numbers.data[first:last] or not {chunks, b"stsz"} <= boxes.keys():
        return
    numbers.at = boxes[chunks][0] + 8
    at = numbers.next(size)
    numbers.at = boxes[b"stsz"][0] + 4
    # One length for all, or the number of lengths and then they.
    length = numbers.next(4) or (numbers.next(4) and numbers.next(4))
    yield ((at, at + length),)


def _sizes(frames: bytes, numbers: _Numbers) -> Iterator[tuple[int, int]]:
    """What the sequence headers among the OBUs ``frames`` say."""
    obus = _Numbers(frames)
    obus.left = numbers.left
    while obus.at < len(frames):
        header = obus.next(1)
        if header & 4:
            obus.next(1)
        length = _leb128(obus) if header & 2 else len(frames) - obus.at
        after = obus.at + length
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size(_Bits(frames[obus.at : min(after, obus.at + _MAX_HEADER)]))
        obus.at = after
    numbers.left = obus.left


def _leb128(numbers: _Numbers) -> int:
    value = 0
    for shift in range(0, 56, 7):
        byte = numbers.next(1)
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value


class _Bits:
    """The bits of ``data``, highest first; raises ValueError where it ends."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def next(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header ends too early")
        return self._value >> self._left & (1 << count) - 1


def _size(bits: _Bits) -> tuple[int, int]:
    """The largest width and height of frames, of a sequence header (5.5.1 of the specification).

    A frame's own header may tell any size that so many bits can hold, and decoders believe it. No encoder uses more
    bits than the largest frame needs, so what it may tell is taken at half: it is less than twice what is returned.
    """
    bits.next(4)  # seq_profile, still_picture
    reduced = bits.next(1)
    if reduced:
        bits.next(5)  # seq_level_idx
    else:
        delays = 0
        if bits.next(1):  # timing_info
            bits.next(64)
            if bits.next(1):  # equal_picture_interval, then num_ticks_per_picture in Exp-Golomb code
                zeros = 0
                while not bits.next(1):
                    zeros += 1
                bits.next(zeros if zeros < 32 else 0)
            if bits.next(1):  # decoder_model_info
                delays = bits.next(5) + 1
                bits.next(42)
        display_delays = bits.next(1)
        for _ in range(bits.next(5) + 1):
            bits.next(12)
            if bits.next(5) > 7:  # seq_level_idx
                bits.next(1)
            if delays and bits.next(1):
                bits.next(2 * delays + 1)
            if display_delays and bits.next(1):
                bits.next(4)
    width_bits, height_bits = bits.next(4) + 1, bits.next(4) + 1
    width, height = bits.next(width_bits) + 1, bits.next(height_bits) + 1
    return (width, height) if reduced else (max(width, 1 << width_bits - 1), max(height, 1 << height_bits - 1))
