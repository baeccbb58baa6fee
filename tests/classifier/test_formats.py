"""The table of formats: first bytes, suffixes and plugins."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from PIL import Image

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.formats import FORMATS, KNOWN, sniff
from classifier.preprocessing import Preprocessing
from tests.conftest import ROOT, environment

SNIFFED = {
    "JPEG": b"\xff\xd8\xff\xe0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF87a",
    "TIFF": b"MM\0*",
    "BMP": b"BM",
    "WEBP": b"RIFF\x24\0\0\0WEBPVP8 ",
    "AVIF": b"\0\0\0\x20ftypavif",
    "HEIF": b"\0\0\0\x18ftypheic",
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
    assert KNOWN.keys() == FORMATS.keys() <= Image.OPEN.keys()


@pytest.mark.parametrize("brand", ["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"])
def test_brands_of_heif(brand: str) -> None:
    assert sniff(b"\0\0\0\x18ftyp" + brand.encode()) == "HEIF"


WITHOUT = """
import json, sys
sys.modules["pillow_heif"] = None
from classifier import pixels
from classifier.errors import ClassifierError
from classifier.formats import FORMATS
from classifier.preprocessing import Preprocessing
from model_build.listing import SUFFIXES, _kind_of
head = b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0"
try:
    pixels.decode(head, Preprocessing(8, 8), 1000)
except ClassifierError as error:
    print(json.dumps([error.code, error.message, error.facts, [*FORMATS], ".heic" in SUFFIXES, _kind_of(head)]))
"""


def test_a_format_whose_package_is_missing_is_named_with_what_would_read_it() -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    code, message, facts, formats, listed, kind = json.loads(done.stdout)
    assert (code, facts, listed, kind) == ("unsupported_media_type", {"allowed": formats}, False, "HEIC")
    assert message.startswith("the image is HEIC, which this service reads where pillow_heif is installed: ")
    assert "pip install -r requirements/heif.txt" in message
    assert set(KNOWN) - set(formats) == {"HEIF"}


def test_a_package_that_does_not_load_is_no_failing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed, so HEIC is known; but it was built for another machine, say."""
    monkeypatch.setitem(sys.modules, "classifier.heif", None)
    with pytest.raises(ClassifierError) as raised:
        pixels.decode(b"\0\0\0\x18ftypheic\0\0\0\0", Preprocessing(8, 8), 1000)
    error = raised.value
    assert error.code == "unsupported_media_type"
    assert error.message.startswith(
        "the image is HEIC, and pillow_heif, which reads it, can't be loaded here: ModuleNotFoundError; this service"
    )
    assert error.facts == {"allowed": [name for name in FORMATS if name != "HEIF"]}


def test_a_package_of_its_own_is_imported_with_the_first_such_image() -> None:
    """classifier/heif.py takes 25 to 40 ms, which no start is to wait for."""
    code = "import sys, classifier.pixels; print('pillow_heif' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
