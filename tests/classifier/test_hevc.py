"""What is read of HEIF files before libheif sees them: the sizes of their pictures, and nothing that costs much."""

from __future__ import annotations

import functools
import struct
from typing import Any

import pytest

from classifier import hevc, pixels
from classifier.errors import ClassifierError
from classifier.preprocessing import Preprocessing
from tests import hostile
from tests.hostile import box

GOOD = hostile.heif(64, (64, 64))


@pytest.mark.parametrize("size", [(64, 64), (129, 100), (700, 500)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_what_an_encoder_writes(size: tuple[int, int], mode: str) -> None:
    """HEVC pictures are multiples of 8 pixels."""
    found = hevc.pictures(hostile.encode(hostile.picture(mode, *size), "HEIF"))
    assert found == [(-(-size[0] // 8) * 8, -(-size[1] // 8) * 8)] * (2 if mode == "RGBA" else 1)


def test_a_grid_counts_with_each_of_its_tiles() -> None:
    data = hostile.encode(hostile.picture(width=200, height=150), "HEIF", tile_size=128)
    assert hevc.pictures(data) == [(200, 150)] + [(128, 128)] * 4


def test_only_the_primary_image_counts() -> None:
    data = hostile.encode(hostile.picture(width=64, height=64), "HEIF", **hostile.frames())
    assert hevc.pictures(data) == [(64, 64)]


def test_files_made_here_are_read() -> None:
    for data in (GOOD, hostile.heif(128, (250, 200), grid=(2, 2))):
        assert pixels.decode(data, Preprocessing(8, 8), 1_000_000).shape == (8, 8, 3)


def test_a_picture_is_taken_at_its_own_size() -> None:
    assert hevc.pictures(hostile.heif(512, (64, 64))) == [(512, 512)]
    with pytest.raises(ClassifierError, match="a picture of 512x512 has more pixels than the limit of 10000") as raised:
        pixels.decode(hostile.heif(512, (64, 64)), Preprocessing(8, 8), 10_000)
    assert (raised.value.code, raised.value.facts) == ("image_too_large", {"limit": 10_000})


def test_a_tile_counts_as_often_as_a_grid_names_it() -> None:
    """Four kilobytes that take libheif three seconds."""
    data = hostile.heif(512, (999, 999), grid=(30, 30))
    assert len(data) < 5_000
    with pytest.raises(ClassifierError, match="its 901 pictures have 236927601 pixels together; at most 4000000 are"):
        pixels.decode(data, Preprocessing(8, 8), 1_000_000)


def unit(kind: int, begins: bool = True) -> bytes:
    """A NAL unit after its length."""
    return struct.pack(">I", 4) + bytes([kind << 1, 1, 128 * begins, 0])


def reference(kind: str, origin: int, *targets: int) -> bytes:
    return box(kind, struct.pack(f">HH{len(targets)}H", origin, len(targets), *targets))


ODD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no primary image"),
    "a sequence alone": (box("ftyp", b"hevc\0\0\0\0") + box("moov", bytes(99)), "no primary image"),
    "a file that is cut": (GOOD[:-5], "ends too early"),
    "two pictures": (hostile.heif(64, (64, 64), data=hostile.hevc(64)[1] * 2), "2 pictures of 2 slices"),
    "many slices": (
        hostile.heif(64, (64, 64), data=unit(19) + unit(19, begins=False) * 99),
        "1 pictures of 100 slices",
    ),
    "a picture that needs others": (hostile.heif(64, (64, 64), data=unit(1)), "NAL units of type 1"),
    "a NAL unit longer than its item": (hostile.heif(64, (64, 64), data=b"\xff" * 8), "ends too early"),
    "an item of no length": (hostile.heif(64, (64, 64), data=b""), "a part without a length"),
    "compressed metadata": (
        hostile.heif(64, (64, 64), entries={b"mime": b"\0a/b\0deflate\0"}),
        "metadata is compressed",
    ),
    "an image made of others": (hostile.heif(64, (64, 64), entries={b"iovl": b"\0"}, primary=2), "of type 'iovl'"),
    "a primary image that is not there": (hostile.heif(64, (64, 64), primary=9), "its item 9 is of type ''"),
    "a low-overhead box": (GOOD + box("mini", bytes(9)), "a box 'mini'"),
    "two primary images": (hostile.heif(64, (64, 64), more=box("pitm", b"\0\1", full=True)), "two boxes 'pitm'"),
    "alpha of itself": (hostile.heif(64, (64, 64), references=reference("auxl", 1, 1)), "too deep in one another"),
    "a grid made twice": (
        hostile.heif(64, (64, 64), grid=(1, 1), references=reference("dimg", 2, 1)),
        "item 2 is made twice",
    ),
    "a grid of grids": (
        hostile.heif(64, (64, 64), grid=(1, 1), references=reference("dimg", 7, 2)).replace(
            reference("dimg", 2, 1), reference("dimg", 2, 2)
        ),
        "a tile is no HEVC picture",
    ),
    "metadata of a thousand images": (
        hostile.heif(64, (64, 64), data=bytes(2000), references=reference("cdsc", 1, *range(1000))),
        "share too many bytes",
    ),
    "two boxes of properties": (hostile.heif(64, (64, 64), more=box("iprp")), "two boxes 'iprp'"),
    "millions of boxes": (box("free") * 2_000_000, "too many parts"),
}


@pytest.mark.parametrize(("data", "said"), ODD.values(), ids=ODD)
def test_odd_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hevc.pictures(data)


@pytest.mark.parametrize("layers", [0, 1, 6])
@pytest.mark.parametrize("chroma", [1, 3])
def test_every_form_of_a_sequence_parameter_set(layers: int, chroma: int) -> None:
    def golomb(number: int) -> str:
        return f"{number + 1:b}".zfill(2 * (number + 1).bit_length() - 1)

    out = "0000" + f"{layers:03b}" + "1" + "01" * 48
    out += "11" * layers + ("00" * (8 - layers) if layers else "") + "01" * 48 * layers
    out += golomb(0) + golomb(chroma) + ("0" if chroma == 3 else "") + golomb(1000) + golomb(700) + "1" * 20
    content = int(out + "0" * (-len(out) % 8), 2).to_bytes((len(out) + 7) // 8, "big")
    escaped = functools.reduce(
        lambda done, byte: done + (b"\3" if done[-2:] == b"\0\0" else b"") + byte, _bytes(content)
    )
    own = struct.pack(">I", len(escaped) + 2) + bytes([33 << 1, 1]) + escaped
    found: Any = hevc.pictures(hostile.heif(64, (64, 64), data=own + unit(20)))
    assert found == [(1000, 700)]


def _bytes(content: bytes) -> list[bytes]:
    return [bytes([each]) for each in content]


def test_a_property_counts_for_each_item_that_has_it() -> None:
    """A colour profile is copied for each image."""
    lists = b"".join(struct.pack(">HBB", item, 1, 1) for item in range(900))
    ipma = box("ipma", struct.pack(">I", 900), lists, full=True)
    for length, said in ((10, "no primary image"), (5000, "share too many bytes")):
        properties = box("iprp", box("ipco", box("colr", bytes(length))), ipma)
        with pytest.raises(ValueError, match=said):
            hevc.pictures(box("meta", properties, full=True))


def test_an_image_of_another_size_than_it_told_is_refused() -> None:
    """Everything else goes by that size. The refusal is libheif's; should it mend the size instead, this tells."""
    with pytest.raises(ClassifierError, match="does not have the size signaled") as raised:
        pixels.decode(hostile.heif(64, (40, 30)), Preprocessing(8, 8), 1_000_000)
    assert raised.value.code == "unreadable_image"
