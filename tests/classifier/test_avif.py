"""What is read of AVIF files before libavif sees them: the sizes of their frames, and nothing that costs much."""

from __future__ import annotations

import functools
import itertools
import struct
from typing import Any

import pytest

from classifier import avif, pixels
from classifier.preprocessing import Preprocessing
from tests import hostile

SIZE = (1000, 700)


def box(kind: str, *parts: bytes, long: bool = False) -> bytes:
    content = b"".join(parts)
    if long:
        return struct.pack(">I4sQ", 1, kind.encode(), 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind.encode()) + content


def obu(kind: int, content: bytes) -> bytes:
    """An OBU that tells its size."""
    return bytes([kind << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def header(
    *,
    reduced: bool = True,
    timing: bool = False,
    delays: bool = False,
    points: int = 1,
    size: tuple[int, int] = SIZE,
    bits: tuple[int, int] = (10, 10),
) -> bytes:
    """A sequence header OBU, written bit by bit."""
    out = "000" + "1" + str(int(reduced))
    if reduced:
        out += "00000"
    else:
        out += str(int(timing))
        if timing:
            out += "0" * 64 + "1" + "001" + "01"  # one 32nd of a second, 4 ticks a picture
            out += str(int(delays)) + ("00110" + "0" * 42 if delays else "")
        out += "1" + f"{points - 1:05b}"
        for number in range(points):
            level = 9 if number % 2 else 4
            out += "0" * 12 + f"{level:05b}" + ("1" if level > 7 else "")
            out += ("1" + "0" * 15 if delays else "") + "1" + "0101"
    out += "".join(f"{count - 1:04b}" for count in bits)
    out += "".join(f"{length - 1:0{count}b}" for length, count in zip(size, bits, strict=True))
    out += "0" * 40
    return obu(1, int(out + "0" * (-len(out) % 8), 2).to_bytes((len(out) + 7) // 8, "big"))


FRAME = obu(2, b"") + header() + obu(6, bytes(300))


def file(
    frame: bytes = FRAME,
    *,
    version: int = 0,
    inside: bool = False,
    long: bool = False,
    cuts: tuple[int, ...] = (),
    times: int = 1,
    extra: bytes = b"",
) -> bytes:
    """An AVIF of one picture, whose data lie in ``idat`` or ``mdat`` in pieces, told several ``times``.

    ``extra`` is at the end of ``meta``.
    """
    infe = [
        b"\2\0\0\0" + struct.pack(">HH4s", number, 0, kind) + b"\0" for number, kind in ((1, b"Exif"), (2, b"av01"))
    ]
    iinf = box("iinf", b"\0\0\0\0", struct.pack(">H", 2), *(box("infe", one) for one in infe))
    pieces = [(begin, end - begin) for begin, end in itertools.pairwise((0, *cuts, len(frame)))] * times
    number = "I" if version == 2 else "H"

    def head(base: int) -> bytes:
        places = b"".join(struct.pack(">II", offset, length) for offset, length in pieces)
        method = struct.pack(">H", int(inside)) if version else b""
        item = struct.pack(f">{number}", 2) + method + struct.pack(">HIH", 0, base, len(pieces)) + places
        iloc = box("iloc", bytes([version, 0, 0, 0, 0x44, 0x40]), struct.pack(f">{number}", 1), item)
        meta = box("meta", b"\0\0\0\0", iinf, iloc, box("idat", frame) if inside else b"", extra, long=long)
        return box("ftyp", b"avif\0\0\0\0") + meta

    return head(0) if inside else head(len(head(0)) + 8) + box("mdat", frame)


@pytest.mark.parametrize("size", [(16, 16), (64, 33), (1, 1), (1025, 511)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("many", [False, True])
def test_what_pillow_writes(size: tuple[int, int], mode: str, many: bool) -> None:
    image = hostile.picture(mode, *size)
    options: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(180)]} if many else {}
    assert avif.largest_frame(hostile.encode(image, "AVIF", speed=10, **options)) == size


@pytest.mark.parametrize(("version", "inside"), [(0, False), (1, False), (1, True), (2, False), (2, True)])
@pytest.mark.parametrize("cuts", [(), (5,), (4, 6, 30)])
@pytest.mark.parametrize("long", [False, True])
def test_every_way_to_say_where_a_picture_is(version: int, inside: bool, cuts: tuple[int, ...], long: bool) -> None:
    assert avif.largest_frame(file(version=version, inside=inside, cuts=cuts, long=long)) == SIZE


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("delays", [False, True])
@pytest.mark.parametrize("points", [1, 2, 32])
def test_every_form_of_a_sequence_header(timing: bool, delays: bool, points: int) -> None:
    frame = header(reduced=False, timing=timing, delays=timing and delays, points=points)
    assert avif.largest_frame(file(frame)) == SIZE


@pytest.mark.parametrize("more", [b"\0", b"\xff" * 99, box("mdat", bytes(99))[:50], bytes(1000)])
def test_anything_may_follow(more: bytes) -> None:
    image = hostile.encode(hostile.picture(), "AVIF") + more
    assert pixels.decode(image, Preprocessing(8, 8), 1_000_000).shape == (8, 8, 3)


def test_the_largest_of_several_counts() -> None:
    frame = header(size=(10, 10)) + header(size=(900, 500)) + header(size=(30, 20))
    assert avif.largest_frame(file(frame)) == (900, 500)


def test_a_size_that_frames_may_tell_themselves_is_taken_at_half() -> None:
    assert avif.largest_frame(file(header(size=(64, 64), bits=(16, 16)))) == (64, 64)
    assert avif.largest_frame(file(header(reduced=False, size=(64, 64), bits=(16, 15)))) == (32768, 16384)


ODD = {
    "nothing": (b"", "no frame"),
    "no box": (b"\0\0\0", "no frame"),
    "a box larger than the file": (b"\0\0\1\0ftyp", "no frame"),
    "a box smaller than its head": (b"\0\0\0\7ftyp", "a box has 7 bytes"),
    "a file that is cut": (file()[:110], "ends too early"),
    "no sequence header": (file(obu(6, b"abc")), "no frame"),
    "a sequence header that is cut": (file(bytes([0x0A, 2]) + header()[3:5]), "ends too early"),
    "two places of items": (file(extra=box("iloc", bytes(8))), "two boxes"),
    "millions of OBUs": (file(b"\x12\0" * 5_000_000), "too many parts"),
    "millions of boxes": (box("free") * 2_000_000, "too many parts"),
    "a picture that is the file many times": (file(FRAME * 10, times=10), "overlap"),
    "millions of pieces": (file(cuts=(0,) * 60_000), "too many parts"),
    "boxes in boxes in boxes": (functools.reduce(lambda inner, _: box("moov", inner), range(5000), b""), "recursion"),
}


@pytest.mark.parametrize(("data", "said"), ODD.values(), ids=ODD)
def test_odd_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises((ValueError, RecursionError), match=said):
        avif.largest_frame(data)
