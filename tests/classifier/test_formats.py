"""The table of formats: first bytes, suffixes and plugins."""

from __future__ import annotations

import importlib

import pytest
from PIL import Image

from classifier.formats import FORMATS, sniff

SNIFFED = {
    "JPEG": b"\xff\xd8\xff\xe0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF87a",
    "TIFF": b"MM\0*",
    "BMP": b"BM",
    "WEBP": b"RIFF\x24\0\0\0WEBPVP8 ",
    "AVIF": b"\0\0\0\x20ftypavif",
}


@pytest.mark.parametrize(("name", "head"), SNIFFED.items())
def test_heads(name: str, head: bytes) -> None:
    assert sniff(head) == name


def test_other_heads() -> None:
    heads = (b"GIF89a", b"II*\0", b"II+\0", b"MM\0+", b"\0\0\0\x20ftypavis")
    assert [sniff(head) for head in heads] == ["GIF", "TIFF", "TIFF", "TIFF", "AVIF"]


@pytest.mark.parametrize("length", range(17))
def test_bytes_of_any_value_may_stand_between(length: int) -> None:
    """A newline among them is no end."""
    head = b"\n\n\n\nftypavif\n\n\n\n"[:length]
    assert sniff(head) == ("AVIF" if length >= 12 else None)
    assert sniff(b"RIFF\n\0\n\nWEBP"[:length]) == ("WEBP" if length >= 12 else None)


def test_a_format_is_told_by_its_first_bytes_alone() -> None:
    assert sniff(bytes(16) + SNIFFED["JPEG"]) is None


def test_a_suffix_is_of_one_format() -> None:
    suffixes = [suffix for each in FORMATS.values() for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


def test_pillow_has_a_plugin_for_each() -> None:
    for plugin in (plugin for each in FORMATS.values() for plugin in each.plugins):
        importlib.import_module(plugin)
    assert FORMATS.keys() <= Image.OPEN.keys()
