"""Each kind of sample that a TIFF can have: the grey levels it was made of, or a refusal that says what was found."""

from __future__ import annotations

import io
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from tests import hostile

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Every grey level once.
RAMP = np.arange(256).reshape(16, 16)
MAX, S_MIN, S_MAX = 281, 340, 341
SHORT, FLOAT, DOUBLE, SLONG = 3, 11, 12, 9


def tiff(samples: NDArray[Any], *tags: tuple[int, int, float], **options: Any) -> bytes:
    """A TIFF of ``samples`` with ``tags``: number, type and value."""
    buffer = io.BytesIO()
    extra = [(number, kind, 1, value, True) for number, kind, value in tags]
    tifffile.imwrite(buffer, samples, extratags=extra, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.int64]:
    """The pixels of a 16x16 image as they are, RGB."""
    return pixels.decode(data, Preprocessing(16, 16), 1_000_000).astype(np.int64)


def grey(data: bytes) -> NDArray[np.int64]:
    found = decode(data)
    assert (found[:, :, 0] == found[:, :, 1]).all()
    assert (found[:, :, 0] == found[:, :, 2]).all()
    return found[:, :, 0]


def refusal(data: bytes) -> str:
    with pytest.raises(ClassifierError) as error:
        decode(data)
    assert error.value.code == "unreadable_image"
    return error.value.message


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("u1", 1),
        ("u2", 257),
        ("u2", 128.5),
        ("i2", 128.5),
        ("i4", 1),
        ("i4", 257),
        ("i4", 8_421_504),
        ("f4", 1),
        ("f4", 1 / 255),
    ],
)
def test_the_levels_that_were_written(kind: str, scale: float, order: str, compression: str | None) -> None:
    data = tiff((RAMP * scale).astype(kind), byteorder=order, compression=compression)
    half = kind == "u2" and scale < 200  # as dark as is read without being told
    np.testing.assert_array_equal(grey(data), RAMP // 2 if half else RAMP)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_unsigned_32_bits_are_not_negative_from_their_half_on(compression: str | None) -> None:
    np.testing.assert_array_equal(
        grey(tiff((RAMP * 16_843_009).astype("u4"), byteorder="<", compression=compression)), RAMP
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_8_bits_end_at_127(order: str) -> None:
    found = grey(tiff((RAMP // 2).astype("i1"), byteorder=order))
    np.testing.assert_array_equal(found, RAMP // 2 * 2)
    assert "from -1 to 126" in refusal(tiff((RAMP // 2 - 1).astype("i1"), byteorder=order))


@pytest.mark.parametrize(("kind", "scale"), [("u1", 1), ("u2", 257), ("f4", 1), ("f4", 1 / 255)])
def test_white_is_zero(kind: str, scale: float) -> None:
    data = tiff((RAMP * scale).astype(kind), byteorder="<", photometric="miniswhite")
    np.testing.assert_array_equal(grey(data), 255 - RAMP)


def test_12_bits_packed() -> None:
    # Two samples in three bytes, the highest bits first; the lowest four of each are noise.
    packed = b"".join((level << 16 | 5 << 12 | (level + 1) << 4 | 9).to_bytes(3, "big") for level in range(0, 256, 2))
    data = hostile.tiff(16, 16, packed, more={258: (SHORT, 1, 12), 259: (SHORT, 1, 1)})
    np.testing.assert_array_equal(grey(data), RAMP)
    dark = hostile.tiff(16, 16, bytes(383) + b"\x20", more={258: (SHORT, 1, 12), 259: (SHORT, 1, 1)})
    assert grey(dark).max() == 2


@pytest.mark.parametrize(
    ("kind", "scale", "tags"),
    [
        ("u2", 16, [(MAX, SHORT, 4095)]),
        ("u2", 16, [(S_MAX, SHORT, 4095)]),
        ("u2", 16, [(MAX, SHORT, 4080)]),  # the greatest of 12 bits that occurs
        ("u2", 1, [(MAX, SHORT, 255)]),
        ("u2", 257, [(S_MAX, DOUBLE, 1e300)]),  # no more than there are bits
        ("i2", 16, [(S_MAX, SHORT, 4095)]),
        ("i4", 4, [(S_MAX, SLONG, 1023)]),
        ("f4", 4, [(S_MAX, FLOAT, 1020.0)]),
        ("f4", 1 / 510, [(S_MAX, FLOAT, 0.5)]),
        ("f4", 257, [(MAX, SHORT, 65535)]),
    ],
)
def test_white_that_is_told(kind: str, scale: float, tags: list[tuple[int, int, float]]) -> None:
    np.testing.assert_array_equal(grey(tiff((RAMP * scale).astype(kind), *tags)), RAMP)


def test_black_that_is_told() -> None:
    tomograph = tiff((RAMP * 16 - 1024).astype("i2"), (S_MIN, SLONG, -1024), (S_MAX, SLONG, 3071))
    np.testing.assert_array_equal(grey(tomograph), RAMP)
    heights = tiff((RAMP * 4 - 500.0).astype("f4"), (S_MIN, FLOAT, -500.0), (S_MAX, FLOAT, 520.0))
    np.testing.assert_array_equal(grey(heights), RAMP)


@pytest.mark.parametrize(
    ("kind", "scale", "shift", "found"),
    [
        ("u2", 16, 0, "16-bit unsigned samples go from 0 to 4080"),  # 12 in 16
        ("u2", 4, 0, "from 0 to 1020"),
        ("u2", 64, 0, "from 0 to 16320"),
        ("u2", 1, 0, "from 0 to 255"),
        ("i2", 16, 0, "16-bit signed samples go from 0 to 4080"),
        ("i2", 16, -1024, "from -1024 to 3056"),
        ("i4", 16, 0, "from 0 to 4080"),
        ("i4", 300, 0, "from 0 to 76500"),
        ("f4", 4, 0, "32-bit float samples go from 0 to 1020"),
        ("f4", 1 / 255, -0.5, "from -0.5 to 0.5"),
        ("f4", 1 / 85, 0, "from 0 to 3"),  # light in a scene, whose white is 1, or a dark 0 to 255
        ("f4", 1 / 2550, 0, "from 0 to 0.1"),
    ],
)
def test_white_that_can_t_be_known_is_refused(kind: str, scale: float, shift: float, found: str) -> None:
    told = refusal(tiff((RAMP * scale + shift).astype(kind)))
    assert found in told
    assert "does not tell which is white" in told
    assert "MaxSampleValue" in told


@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
def test_all_black_is_black_whatever_white_is(kind: str) -> None:
    assert not grey(tiff(np.zeros((16, 16), kind))).any()


def test_what_contradicts_itself_is_refused() -> None:
    told = refusal(tiff((RAMP * 16).astype("u2"), (MAX, SHORT, 255)))
    assert "from 0 to 4080" in told
    assert "that they go from 0 to 255" in told
    assert "from 3 to 3" in refusal(tiff(np.full((16, 16), 3, "f4"), (S_MIN, FLOAT, 3.0), (S_MAX, FLOAT, 3.0)))


def test_no_data_is_black_and_infinity_is_refused() -> None:
    samples = (RAMP / 255).astype("f4")
    samples[3, 3] = np.nan
    found = grey(tiff(samples))
    assert found[3, 3] == 0
    np.testing.assert_array_equal(np.delete(found.ravel(), 51), np.delete(RAMP.ravel(), 51))
    samples[3, 3] = np.inf
    assert "from 0 to inf" in refusal(tiff(samples))
    assert "nan" in refusal(tiff(np.full((16, 16), np.nan, "f4")))


def test_rounding_beyond_the_range_is_none() -> None:
    samples = (RAMP / 255 * 1.0000001 - 1e-8).astype("f4")
    np.testing.assert_array_equal(grey(tiff(samples)), RAMP)
    np.testing.assert_array_equal(grey(tiff(samples, (S_MAX, FLOAT, 1.0))), RAMP)


@pytest.mark.parametrize("kind", ["not a number", "text", "no number at all"])
def test_white_that_is_told_as_nonsense_is_not_told(kind: str) -> None:
    value: Any = {"not a number": (FLOAT, 1, float("nan")), "text": (2, 4, "abc"), "no number at all": (FLOAT, 0, ())}
    tag, count, told = value[kind]
    buffer = io.BytesIO()
    extra = [(S_MAX, tag, count, told, True)] if count else []
    tifffile.imwrite(buffer, (RAMP / 255).astype("f4"), extratags=extra, photometric="minisblack")
    np.testing.assert_array_equal(grey(buffer.getvalue()), RAMP)


class TestColour:
    """Of 16-bit colour Pillow keeps the high bytes."""

    LEVELS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_the_levels_that_were_written(self, order: str, compression: str | None) -> None:
        samples = (self.LEVELS * 257).astype("u2")
        data = tiff(samples, photometric="rgb", byteorder=order, compression=compression)
        np.testing.assert_array_equal(decode(data), self.LEVELS)

    def test_fewer_bits_in_16_are_refused(self) -> None:
        for scale in (1, 4, 16, 64):
            assert "16-bit samples end below" in refusal(tiff((self.LEVELS * scale).astype("u2"), photometric="rgb"))
        told = refusal(tiff((self.LEVELS * 16).astype("u2"), (MAX, SHORT, 4095), photometric="rgb"))
        assert "ends at 4095" in told

    def test_dark_colour_that_says_that_it_has_16_bits(self) -> None:
        data = tiff((self.LEVELS // 8 * 257).astype("u2"), (MAX, SHORT, 65535), photometric="rgb")
        np.testing.assert_array_equal(decode(data), self.LEVELS // 8)

    def test_alpha_makes_no_picture_bright(self) -> None:
        samples = np.concatenate([self.LEVELS * 16, np.full((16, 16, 1), 65535)], axis=2).astype("u2")
        assert "16-bit samples end below" in refusal(tiff(samples, photometric="rgb", extrasamples=["unassalpha"]))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_planes(self, compression: str | None) -> None:
        samples = np.moveaxis(self.LEVELS * 257, 2, 0).astype("u2")
        data = tiff(samples, photometric="rgb", planarconfig="separate", compression=compression)
        if compression:
            np.testing.assert_array_equal(decode(data), self.LEVELS)
        else:  # Pillow 13.0.0 takes each half of a sample for one
            assert "planes" in refusal(data)


@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette_of_8_bits_is_not_black(scale: int) -> None:
    colours = np.stack([RAMP.ravel(), RAMP.ravel()[::-1], RAMP.ravel() // 2])
    data = tiff(RAMP.astype("u1"), photometric="palette", colormap=(colours * scale).astype("u2"))
    np.testing.assert_array_equal(decode(data), colours.T[RAMP])


def test_a_large_image_needs_little_memory_besides_its_own() -> None:
    data = tiff(np.ones((4096, 4096), "f4"), compression="zlib")
    # numpy's memory is what tracemalloc sees; the 64 MB of the image itself are Pillow's.
    tracemalloc.start()
    found = pixels.decode(data, Preprocessing(16, 16), 20_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found == 255).all()
    assert peak < 64e6
