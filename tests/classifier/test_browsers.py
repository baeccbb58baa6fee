"""Rare files beside what browsers show of them: docs/operations.md has the table; each is read so, or refused."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import hostile
from tests.classifier.test_pixels import decode, refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 16
RGB, RLE8, RLE4, BITFIELDS, JPEG, PNG = range(6)
# Four colours as blue, green, red and a byte of nothing: black, blue, green, red.
COLOURS = bytes(4) + b"\xff\0\0\0" + b"\0\xff\0\0" + b"\0\0\xff\0"


def bmp(bits: int, compression: int, body: bytes, colours: bytes = b"", masks: tuple[int, ...] = ()) -> bytes:
    """A BMP of 16x16 pixels, by the fields of its BITMAPINFOHEADER; four ``masks`` are a BITMAPV5HEADER's."""
    more = struct.pack(f"<{len(masks)}I", *masks)
    head = more.ljust(84, b"\0") if len(masks) == 4 else b""
    size = 40 + len(head)
    fields = struct.pack("<IiiHHIIiiII", size, SIDE, SIDE, 1, bits, compression, len(body), 0, 0, len(colours) // 4, 0)
    before = fields + (head or more) + colours
    start = 14 + len(before)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + before + body


def rows(bits: int) -> bytes:
    """Runs of RLE8 or RLE4: each row of one colour, the lowest of the first, and so on in turns."""
    runs = b"".join(bytes([SIDE, (row % 4) * (17 if bits == 4 else 1)]) + b"\0\0" for row in range(SIDE))
    return runs + b"\0\1"


def encoded(kind: str) -> bytes:
    return hostile.encode(Image.new("RGB", (SIDE, SIDE), "red"), kind)


WORDS = np.full((SIDE, SIDE), 0x0F00, np.uint16).tobytes()


@pytest.mark.parametrize(("bits", "compression"), [(8, RLE8), (4, RLE4)])
def test_a_bmp_of_runs_that_are_all_there(bits: int, compression: int) -> None:
    colours = COLOURS.ljust(4 << bits, b"\0")
    array = decode(bmp(bits, compression, rows(bits), colours), SIDE)
    black, blue, green, red = (0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)
    # The first row is the lowest.
    for row, colour in enumerate([black, blue, green, red] * 4):
        assert (array[SIDE - 1 - row] == colour).all()


@pytest.mark.parametrize(
    "data",
    [
        bmp(8, RLE8, b"\x04\x01\0\0" + b"\0\2\x03\x02" + b"\x08\x02\0\0" + b"\0\1", COLOURS.ljust(1024, b"\0")),
        bmp(2, RGB, bytes(SIDE * 4), COLOURS),
        bmp(16, BITFIELDS, WORDS, masks=(0xF00, 0xF0, 0xF)),
        bmp(16, BITFIELDS, WORDS, masks=(0xF00, 0xF0, 0xF, 0xF000)),
        bmp(0, JPEG, encoded("JPEG")),
        bmp(0, PNG, encoded("PNG")),
    ],
    ids=["runs with a gap", "2 bits", "4444", "4444 with alpha", "a JPEG inside", "a PNG inside"],
)
def test_a_bmp_that_is_refused(data: bytes) -> None:
    error = refused(data)
    assert error.code == "unreadable_image"
    assert error.message.startswith("the BMP image can't be decoded: ")


def test_the_alpha_of_a_bmp_of_1555_is_not_read() -> None:
    words = np.full((SIDE, SIDE), 0x7C00, np.uint16).tobytes()
    array = decode(bmp(16, BITFIELDS, words, masks=(0x7C00, 0x3E0, 0x1F, 0x8000)), SIDE)
    assert (array == (255, 0, 0)).all()


def tiff(samples: NDArray[np.float32]) -> bytes:
    """An uncompressed TIFF of one strip, floats float32[H, W] or float32[H, W, C]."""
    height, width, channels = (*samples.shape, 1)[:3]
    body = samples.astype("<f4").tobytes()
    short, long = 3, 4
    tags = [
        (256, long, width),
        (257, long, height),
        (258, short, 32),
        (259, short, 1),
        (262, short, 2 if channels == 3 else 1),
        (273, long, 8),
        (277, short, channels),
        (278, long, height),
        (279, long, len(body)),
        (339, short, 3),
    ]
    after = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    if channels == 3:
        # Three equal numbers need a place of their own; they stand behind the directory.
        where = 8 + len(body) + 2 + 12 * len(tags) + 4
        after = after.replace(struct.pack("<HHII", 258, short, 1, 32), struct.pack("<HHII", 258, short, 3, where))
        after = after.replace(struct.pack("<HHII", 339, short, 1, 3), struct.pack("<HHII", 339, short, 3, where + 6))
    directory = struct.pack("<H", len(tags)) + after + bytes(4)
    numbers = struct.pack("<6H", 32, 32, 32, 3, 3, 3) if channels == 3 else b""
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + numbers


def test_a_tiff_of_floats() -> None:
    grey = np.linspace(0, 1, SIDE, dtype=np.float32)[None].repeat(SIDE, 0)
    array = decode(tiff(grey), SIDE)
    np.testing.assert_array_equal(array[0, :, 0], np.rint(255 * grey[0]).astype(np.uint8))
    error = refused(tiff(np.repeat(grey[..., None], 3, 2)))
    assert error.code == "unreadable_image"
    assert "float" in error.message, error.message


def test_ten_bits_of_a_heif_are_read_as_eight() -> None:
    heif = pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (64, 64), (200, 30, 90))
    samples = (np.asarray(picture).astype("<u2") << 2).astype("<u2") << 6
    file = heif.from_bytes(mode="RGB;16", size=(64, 64), data=samples.tobytes())
    out = io.BytesIO()
    try:
        file.save(out, quality=95, chroma=444, bit_depth=10)
    except Exception as error:
        pytest.skip(f"pillow-heif can't write HEVC here: {error}")
    array = decode(out.getvalue(), SIDE)
    assert np.abs(array.astype(int) - (200, 30, 90)).max() <= 4
