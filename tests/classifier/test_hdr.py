"""High dynamic range: what tells of PQ is refused; 10 bits and other curves are read."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from tests import hostile

SDR, PQ, HLG = 13, 16, 18


def decode(data: bytes) -> object:
    return pixels.decode(data, Preprocessing(16, 16), 1_000_000)


def refused(data: bytes) -> str:
    with pytest.raises(ClassifierError) as raised:
        decode(data)
    assert raised.value.code == "unreadable_image"
    return raised.value.message


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
    assert refused(colour(data, PQ)) == (
        "the AVIF image is of high dynamic range (PQ), which 8 bits a sample can't hold; send it as sRGB"
    )


def test_png() -> None:
    rows = b"".join(b"\0" + bytes(3 * hostile.WIDTH) for _ in range(hostile.HEIGHT))
    plain = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows)
    for transfer in (SDR, HLG):
        told = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"cICP", bytes([9, transfer, 0, 1])))
        np.testing.assert_array_equal(decode(told), decode(plain))
    told = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"cICP", bytes([9, PQ, 0, 1])))
    assert refused(told).startswith("the PNG image is of high dynamic range (PQ)")
    # Words in a text are no colours.
    text = hostile.png(hostile.WIDTH, hostile.HEIGHT, 2, rows, hostile.chunk(b"tEXt", b"a\0cICP\x09\x10\0\1"))
    np.testing.assert_array_equal(decode(text), decode(plain))


def test_heif() -> None:
    data = hostile.encode(hostile.picture(width=64, height=64), "HEIF", quality=50)
    np.testing.assert_array_equal(decode(colour(data, SDR)), decode(data))
    assert refused(colour(data, PQ)).startswith("the HEIF image is of high dynamic range (PQ)")
