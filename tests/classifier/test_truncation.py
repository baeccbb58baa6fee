"""Truncated files: refused by default; accepted, they give the rows that are there, over white."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from tests import hostile

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Server

SIDE = 128
WHITE = (255, 255, 255)


def read(data: bytes, truncated: bool = True) -> pixels.Decoded:
    return pixels.read(data, Preprocessing(SIDE, SIDE), 1_000_000, truncated=truncated)


@pytest.fixture(scope="module")
def picture(photograph: Callable[[int, int], Image.Image]) -> Image.Image:
    image = photograph(SIDE, SIDE)
    image.info.clear()  # its colour profile is larger than a small PNG's samples
    return image


def rows_there(data: bytes, part: float = 0.5, bound: int = 0) -> tuple[int, tuple[str, ...]]:
    """How many rows of the whole picture the first ``part`` of ``data`` gives; the rest is white. And the warnings."""
    whole, cut = read(data), read(data[: int(part * len(data))])
    assert whole.warnings == ()
    difference = np.abs(whole.pixels.astype(int) - cut.pixels).max(axis=(1, 2))
    same = int(np.argmax(difference > bound)) if (difference > bound).any() else SIDE
    assert (cut.pixels[same + 1 :] == WHITE).all()
    return same, cut.warnings


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 90, "subsampling": 0}),
        ("JPEG", "L", {"quality": 90}),
        ("JPEG", "CMYK", {"quality": 90}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "1", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
    ],
)
def test_the_rows_that_are_there(picture: Image.Image, kind: str, mode: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "P":
        image = picture.quantize(255)
        image.putpalette([*(image.getpalette() or [])[: 3 * 255], *WHITE])
    elif mode != "I;16":
        image = picture.convert(mode)
    data = hostile.encode(image, kind, **options)
    same, warnings = rows_there(data)
    assert SIDE // 8 <= same < SIDE - SIDE // 8
    assert warnings == (f"the file of the {kind} image ends early: the rows that are missing are white",)


def test_more_of_the_file_is_more_of_the_picture(picture: Image.Image) -> None:
    for kind in ("JPEG", "PNG"):
        data = hostile.encode(picture, kind)
        found = [rows_there(data, part)[0] for part in (0.3, 0.5, 0.7, 0.9)]
        assert found == sorted(set(found))


def test_a_progressive_jpeg_is_all_there_and_coarse(picture: Image.Image) -> None:
    data = hostile.encode(picture, "JPEG", quality=90, progressive=True)
    whole, cut = read(data), read(data[: int(0.6 * len(data))])
    assert whole.warnings == ()
    assert cut.warnings == ("the file of the JPEG image ends early: detail is missing",)
    difference = np.abs(whole.pixels.astype(int) - cut.pixels)
    assert 0 < difference.mean() < 8
    assert difference[-16:].mean() < 16, "the last rows are there"


def blocks(array: Any) -> Any:
    """The means of blocks of 16 pixels a side: what a coarse picture shows rightly."""
    return array.reshape(SIDE // 16, 16, SIDE // 16, 16, 3).mean(axis=(1, 3))


def markers(data: bytes) -> list[tuple[int, int]]:
    """Where each segment behind a JPEG's first scan begins, and its marker."""
    found = [(at, data[at + 1]) for at in range(data.index(b"\xff\xda") + 2, len(data) - 1) if data[at] == 0xFF]
    return [(at, marker) for at, marker in found if marker in (0xC4, 0xDA)]


@pytest.mark.parametrize("kept", [0, 3, 20])
def test_a_progressive_jpeg_cut_within_a_segment_between_scans(picture: Image.Image, kept: int) -> None:
    data = hostile.encode(picture, "JPEG", quality=90, progressive=True)
    whole = read(data).pixels
    for at, marker in markers(data)[2:5]:
        assert marker in (0xC4, 0xDA)
        cut = read(data[: at + kept])
        assert cut.warnings == ("the file of the JPEG image ends early: detail is missing",)
        assert np.abs(blocks(whole) - blocks(cut.pixels)).mean() < 4


def test_a_progressive_jpeg_whose_first_scan_is_cut_is_nothing(picture: Image.Image) -> None:
    """Its rest would be grey, and be answered."""
    data = hostile.encode(picture, "JPEG", quality=90, progressive=True)
    second = markers(data)[0][0]
    read(data[: second + 2])
    for cut in (second, second - 1, (data.index(b"\xff\xda") + second) // 2):
        assert "truncated" in refused(data[:cut])


def test_what_decoders_pass_over_ends_no_jpeg(picture: Image.Image) -> None:
    data = hostile.encode(picture, "JPEG", quality=90, progressive=True)
    (at, _), *_ = markers(data)
    odd = data[:at] + b"\xff\xff" + data[at:]
    assert read(odd).warnings == ()
    np.testing.assert_array_equal(read(odd).pixels, read(data).pixels)
    assert read(data + bytes(50)).warnings == ()


@pytest.mark.parametrize(
    ("colours", "shown"), [(16, "white"), (200, "white"), (256, "its lightest colour")], ids=lambda value: str(value)
)
def test_the_missing_rows_of_a_palette_without_white(picture: Image.Image, colours: int, shown: str) -> None:
    image = Image.fromarray(np.asarray(picture) // 2).quantize(colours)
    data = hostile.encode(image, "PNG")
    cut = read(data[: len(data) // 2])
    assert cut.warnings == (f"the file of the PNG image ends early: the rows that are missing are {shown}",)
    assert (cut.pixels[-1] == WHITE).all() == (shown == "white")
    assert (cut.pixels[-1] == cut.pixels[-1, 0]).all()
    np.testing.assert_array_equal(read(data).pixels, read(data, truncated=False).pixels)


def test_a_palette_that_is_missing(picture: Image.Image) -> None:
    data = hostile.encode(picture.quantize(16), "PNG")
    at = data.index(b"PLTE") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    refused(data[:at] + data[at + length : -200])


def test_what_is_whole_has_the_pixels_that_it_has_by_default(picture: Image.Image) -> None:
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {})):
        data = hostile.encode(picture, kind, **options)
        accepted, refused = read(data), read(data, truncated=False)
        assert accepted.warnings == refused.warnings == ()
        np.testing.assert_array_equal(accepted.pixels, refused.pixels)


def test_one_byte_less_is_told(picture: Image.Image) -> None:
    data = hostile.encode(picture, "JPEG")
    assert read(data[:-2]).warnings
    # All samples of this PNG are there, and browsers show it without a word.
    png = hostile.encode(picture, "PNG")
    np.testing.assert_array_equal(read(png[:-12]).pixels, read(png).pixels)


def refused(data: bytes, truncated: bool = True) -> str:
    with pytest.raises(ClassifierError) as raised:
        read(data, truncated)
    assert raised.value.code == "unreadable_image"
    return raised.value.message


def test_by_default_they_are_refused(picture: Image.Image) -> None:
    for kind in ("JPEG", "PNG"):
        data = hostile.encode(picture, kind)
        assert "truncated" in refused(data[: len(data) // 2], truncated=False)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_other_formats_are_refused(picture: Image.Image, kind: str) -> None:
    data = hostile.encode(picture, kind)
    refused(data[: len(data) // 2])


def test_damage_is_no_truncation_and_nothing_is_no_picture(picture: Image.Image) -> None:
    png = hostile.encode(picture, "PNG")
    begin = png.index(b"IDAT") + 4
    assert "data stream" in refused(png[: begin + 500] + b"\xff" * 200 + png[begin + 700 :])
    refused(png[: begin + 20])
    refused(png[: begin - 6])
    jpeg = hostile.encode(picture, "JPEG")
    for cut in (20, jpeg.index(b"\xff\xda") + 16):
        refused(jpeg[:cut])


def test_an_interlaced_png_is_refused(picture: Image.Image) -> None:
    """Pillow can't write one; this one has all seven passes, of the filter None."""
    import zlib

    array = np.asarray(picture)
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    body = b"".join(b"\0" + row.tobytes() for top, left, down, right in steps for row in array[top::down, left::right])
    data = bytearray(hostile.png(SIDE, SIDE, 2, body))
    data[28] = 1
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    np.testing.assert_array_equal(read(bytes(data)).pixels, array)
    assert "truncated" in refused(bytes(data[: len(data) // 2]))


@pytest.mark.parametrize("decoder", ["inline", "contained"])
def test_a_service_says_what_is_missing(
    launch: Callable[..., Server], server: Server, picture: Image.Image, decoder: str
) -> None:
    accepting = launch(truncated="accept", decoder=decoder, cache_mb="1").wait()
    data = hostile.encode(picture, "JPEG")
    cut, jpeg = data[: len(data) // 2], {"content-type": "image/jpeg"}
    expected = ["the file of the JPEG image ends early: the rows that are missing are white"]
    for _ in range(2):
        reply = accepting.client.post("/classify", content=cut, headers=jpeg).json()
        assert reply["warnings"] == expected and "cached" not in reply
    assert "warnings" not in accepting.client.post("/classify", content=data, headers=jpeg).json()
    files = [("images", data), ("images", cut), ("images", cut)]
    results = accepting.client.post("/classify_batch", files=files).json()["results"]
    assert [one.get("warnings") for one in results] == [None, expected, expected]
    assert [one.get("cached") for one in results] == [True, None, True]
    assert server.client.post("/classify", content=cut, headers=jpeg).status_code == 400
    # Protocols without a place for them in an answer.
    scores = accepting.client.post("/predictions/resnet18", content=cut, headers=jpeg)
    assert scores.headers["x-warnings"] == expected[0]
    assert len(scores.json()) == 5
    assert "x-warnings" not in accepting.client.post("/predictions/resnet18", content=data, headers=jpeg).headers
    tensor = {"name": "bytes", "shape": [2], "datatype": "BYTES"}
    for images, parameters in (((data, cut), {"warnings": f"image 1: {expected[0]}"}), ((data, data), None)):
        body = {"inputs": [tensor | {"data": [base64.b64encode(image).decode() for image in images]}]}
        reply = accepting.client.post("/v2/models/resnet18/infer", json=body).json()
        assert reply.get("parameters") == parameters
        assert len(reply["outputs"]) == 2
