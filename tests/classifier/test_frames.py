"""The first frame: what browsers show of an animation whose first frame is smaller than its canvas, or another one."""

from __future__ import annotations

import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from classifier.errors import ClassifierError
from tests import hostile
from tests.classifier import test_pixels
from tests.hostile import chunk

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


decode = partial(test_pixels.decode, size=16)


def gif(frame: tuple[int, int, int, int], *, transparency: int | None = None, background: int = 1) -> bytes:
    """16x16, of which ``frame`` (left, top, right, bottom) is red above and blue below."""
    left, top, right, bottom = frame
    image = Image.new("P", (right - left, bottom - top), 0)
    image.paste(1, (0, (bottom - top) // 2, right - left, bottom - top))
    image.putpalette([*RED, *BLUE])
    data = bytearray(hostile.encode(image, "GIF", optimize=False))
    data[6:10] = struct.pack("<HH", 16, 16)
    data[11] = background
    at = data.index(b",", 13 + (3 << (data[10] & 7) + 1))
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    if transparency is not None:
        data[at:at] = b"\x21\xf9\x04\x01\0\0" + bytes([transparency]) + b"\0"
    return bytes(data)


def test_a_gif_s_canvas_is_white_where_its_first_frame_is_not() -> None:
    array = decode(gif((4, 2, 12, 10)))
    expected = np.full((16, 16, 3), WHITE, np.uint8)
    expected[2:6, 4:12], expected[6:10, 4:12] = RED, BLUE
    np.testing.assert_array_equal(array, expected)


def test_a_gif_s_transparent_colour_is_white_within_its_frame_too() -> None:
    array = decode(gif((4, 2, 12, 10), transparency=0))
    expected = np.full((16, 16, 3), WHITE, np.uint8)
    expected[6:10, 4:12] = BLUE
    np.testing.assert_array_equal(array, expected)


def test_a_gif_whose_frame_is_all_of_it_is_as_it_was() -> None:
    array = decode(gif((0, 0, 16, 16)))
    np.testing.assert_array_equal(array[[0, 7, 8, 15], 0], [RED, RED, BLUE, BLUE])


def rows(colour: tuple[int, ...], width: int, height: int) -> bytes:
    return (b"\0" + bytes(colour) * width) * height


def frame_control(number: int, width: int, height: int, left: int, top: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, left, top, 1, 10, 0, 1))


def apng(*, shown_first: bool, box: tuple[int, int, int, int] = (16, 16, 0, 0), first: tuple[int, ...] = BLUE) -> bytes:
    """A red default image, and then a frame of ``first``; ``shown_first``: the default image is of the animation."""
    kind = 6 if len(first) == 4 else 2
    control = [frame_control(0, 16, 16, 0, 0)] if shown_first else []
    count = 1 + shown_first
    still = hostile.png(
        16, 16, kind, rows((*RED, 255)[: len(first)], 16, 16), chunk(b"acTL", struct.pack(">II", count, 0)), *control
    )
    number = len(control)
    data = zlib.compress(rows(first, box[0], box[1]))
    half = len(data) // 2
    frame = frame_control(number, *box)
    for piece in (data[:half], data[half:]):
        number += 1
        frame += chunk(b"fdAT", struct.pack(">I", number) + piece)
    return still[:-12] + frame + still[-12:]


def test_a_default_image_that_is_not_of_the_animation_is_not_what_is_seen() -> None:
    assert (decode(apng(shown_first=False)) == BLUE).all()
    assert (decode(apng(shown_first=True)) == RED).all()


def test_an_animation_s_first_frame_may_be_smaller_and_transparent() -> None:
    array = decode(apng(shown_first=False, box=(8, 4, 2, 6)))
    expected = np.full((16, 16, 3), WHITE, np.uint8)
    expected[6:10, 2:10] = BLUE
    np.testing.assert_array_equal(array, expected)
    expected[6:10, 2:10] = (204, 204, 255)
    np.testing.assert_array_equal(decode(apng(shown_first=False, box=(8, 4, 2, 6), first=(*BLUE, 51))), expected)


@pytest.mark.parametrize("box", [(17, 4, 0, 0), (8, 8, 9, 9), (2**31 - 1, 2**31 - 1, 0, 0)])
def test_a_frame_larger_than_its_canvas_is_refused(box: tuple[int, int, int, int]) -> None:
    data = apng(shown_first=False, box=(1, 1, 0, 0))
    told = frame_control(0, *box)
    at = data.index(b"fcTL") - 4
    with pytest.raises(ClassifierError) as raised:
        decode(data[:at] + told + data[at + len(told) :])
    assert raised.value.code in ("unreadable_image", "image_too_large")


def test_an_animation_without_frames_gives_its_default_image() -> None:
    data = apng(shown_first=False)
    assert (decode(data[: data.index(b"fcTL") - 4] + data[-12:]) == RED).all()


def test_a_frame_of_16_bits() -> None:
    """The high byte of grey, as of a PNG that is not animated; the frame comes from the decoder of its own."""
    grey = np.full((16, 16), 0x5A00, np.uint16)
    still, first = (hostile.encode(Image.fromarray(each), "PNG") for each in (grey + 0x2000, grey))
    begin = first.index(b"IDAT")
    length = int.from_bytes(first[begin - 4 : begin], "big")
    frame = frame_control(0, 16, 16, 0, 0) + chunk(
        b"fdAT", struct.pack(">I", 1) + first[begin + 4 : begin + 4 + length]
    )
    at = still.index(b"IDAT") - 4
    data = still[:at] + chunk(b"acTL", struct.pack(">II", 1, 0)) + still[at:-12] + frame + still[-12:]
    assert (decode(data) == 0x5A).all()
