"""High dynamic range: what tells of PQ is refused; 10 bits and other curves are read."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
import pytest

from classifier import hdr
from tests import hostile
from tests.classifier import test_pixels
from tests.classifier.test_pixels import refused

SDR, PQ, HLG = 13, 16, 18
decode = partial(test_pixels.decode, size=16)


def why_refused(data: bytes) -> str:
    error = refused(data)
    assert error.code == "unreadable_image"
    return error.message


def colour(data: bytes, transfer: int) -> bytes:
    """``data``, an AVIF or HEIF whose colours are told by numbers, with the transfer characteristics ``transfer``."""
    at = data.index(b"colrnclx") + 8
    return data[: at + 2] + struct.pack(">H", transfer) + data[at + 4 :]


@pytest.mark.parametrize("frames", [1, 2])
def test_avif(frames: int) -> None:
    image = hostile.picture()
    more = {"save_all": True, "append_images": [image.rotate(180)]} if frames > 1 else {}
    data = hostile.encode(image, "AVIF", speed=10, **more)
    for transfer in (SDR, HLG):
        np.testing.assert_array_equal(decode(colour(data, transfer)), decode(data))
    assert why_refused(colour(data, PQ)) == (
        "the AVIF image is of high dynamic range (PQ), which 8 bits a sample can't hold; send it as sRGB"
    )


def test_png() -> None:
    rows = b"".join(b"\0" + bytes(3 * hostile.WIDTH) for _ in range(hostile.HEIGHT))
    plain = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows)
    for transfer in (SDR, HLG):
        told = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"cICP", bytes([9, transfer, 0, 1])))
        np.testing.assert_array_equal(decode(told), decode(plain))
    told = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"cICP", bytes([9, PQ, 0, 1])))
    assert why_refused(told).startswith("the PNG image is of high dynamic range (PQ)")
    # Words in a text are no colours.
    text = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"tEXt", b"a\0cICP\x09\x10\0\1"))
    np.testing.assert_array_equal(decode(text), decode(plain))


def test_heif() -> None:
    data = hostile.encode(hostile.picture(width=64, height=64), "HEIF", quality=50)
    np.testing.assert_array_equal(decode(colour(data, SDR)), decode(data))
    assert why_refused(colour(data, PQ)).startswith("the HEIF image is of high dynamic range (PQ)")


def test_many_colours_of_tracks_cost_no_time() -> None:
    """Each counts as a part, of which a file may have so many: a box of them would take 0.1 s a megabyte."""
    free = b"colrnclx" * 200_000
    track = struct.pack(">I4s", 8 + len(free), b"free") + free
    moov = struct.pack(">I4s", 8 + len(track), b"moov") + track
    begin = struct.pack(">I4s8s", 16, b"ftyp", b"avif\0\0\0\0")
    with pytest.raises(ValueError, match="it has too many parts"):
        hdr.check("AVIF", begin + moov)
