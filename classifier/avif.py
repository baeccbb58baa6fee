"""How large the AV1 frames of an AVIF file are, which need not be what its container tells.

libavif decodes a frame at its own size, up to 268 megapixels, and only then scales it to the container's: a few
kilobytes that call themselves 64x64 would take gigabytes. Pillow lets nobody set that limit.

OBUs are those of the AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classifier import boxes
from classifier.boxes import Bits, Extents, Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes of frames, as a multiple of the file's: items may share them, but not for ever.
_MAX_SHARED = 4
_SEQUENCE_HEADER = 1
# Bytes: 32 operating points of 88 bits at most, and what is before and after them.
_MAX_HEADER = 512


def largest_frame(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of the largest frame that the AVIF file ``data`` has.

    Raises ValueError for a file that has no frame, or is laid out as none may be.
    """
    numbers = Numbers(data)
    sizes = [size for frames in _frames(numbers) for size in _sizes(frames, numbers)]
    if not sizes:
        raise ValueError("it has no frame")
    return max(sizes, key=lambda size: size[0] * size[1])


def _frames(numbers: Numbers) -> Iterator[bytes]:
    """The data of each picture that may be decoded: of the AV1 items, and of each track's first."""
    data, total = numbers.data, 0
    for extents in set(_places(numbers, 0, len(data))):
        total += sum(end - begin for begin, end in extents)
        if total > _MAX_SHARED * len(data):
            raise ValueError("its frames overlap")
        yield b"".join(data[begin:end] for begin, end in extents)


def _places(numbers: Numbers, begin: int, end: int) -> Iterator[Extents]:
    """Where the data of each picture lies: in one or more stretches of the file."""
    for kind, first, last in boxes.boxes(numbers, begin, end):
        if kind == b"meta":
            yield from _items(numbers, first + 4, last)
        elif kind in (b"moov", b"trak", b"mdia", b"minf"):
            yield from _places(numbers, first, last)
        elif kind == b"stbl":
            yield from _first_sample(numbers, first, last)


def _items(numbers: Numbers, begin: int, end: int) -> Iterator[Extents]:
    found = list(boxes.boxes(numbers, begin, end))
    wanted = {each.number for each in boxes.items(numbers, found) if each.kind == b"av01"}
    yield from (extents for number, extents in boxes.locations(numbers, found) if number in wanted)


def _first_sample(numbers: Numbers, begin: int, end: int) -> Iterator[Extents]:
    """A track's first picture: at the begin of its first chunk, as long as its first sample."""
    found = {kind: (first, last) for kind, first, last in boxes.boxes(numbers, begin, end)}
    first, last = found.get(b"stsd", (0, 0))
    chunks, size = (b"stco", 4) if b"stco" in found else (b"co64", 8)
    if b"av01" not in numbers.data[first:last] or not {chunks, b"stsz"} <= found.keys():
        return
    numbers.at = found[chunks][0] + 8
    at = numbers.next(size)
    numbers.at = found[b"stsz"][0] + 4
    # One length for all, or the number of lengths and then they.
    length = numbers.next(4) or (numbers.next(4) and numbers.next(4))
    yield ((at, at + length),)


def _sizes(frames: bytes, numbers: Numbers) -> Iterator[tuple[int, int]]:
    """What the sequence headers among the OBUs ``frames`` say."""
    obus = Numbers(frames)
    obus.left = numbers.left
    while obus.at < len(frames):
        header = obus.next(1)
        if header & 4:
            obus.next(1)
        length = _leb128(obus) if header & 2 else len(frames) - obus.at
        after = obus.at + length
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size(Bits(frames[obus.at : min(after, obus.at + _MAX_HEADER)]))
        obus.at = after
    numbers.left = obus.left


def _leb128(numbers: Numbers) -> int:
    value = 0
    for shift in range(0, 56, 7):
        byte = numbers.next(1)
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value


def _size(bits: Bits) -> tuple[int, int]:
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
