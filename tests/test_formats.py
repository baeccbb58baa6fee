"""What each format and each orientation gives on a running server; and that no other plugin of Pillow's is reached."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classifier import pixels
from classifier.errors import ClassifierError
from classifier.formats import FORMATS
from classifier.preprocessing import Preprocessing
from tests import hostile
from tests.conftest import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Server

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated:DeprecationWarning")
# Plugins that Pillow registers, and what they would read: everything but FORMATS.
Image.init()
FOREIGN = sorted({*Image.OPEN, *Image.SAVE} - {*FORMATS, "MPO"})
# The first bytes of formats that Pillow reads and can't write.
HEADS = {
    "BUFR": b"BUFR\0\0\0\0",
    "CUR": b"\0\0\2\0\1\0" + bytes(16),
    "DCX": b"\xb1\x68\xde\x3a" + bytes(16),
    "FITS": b"SIMPLE  =                    T",
    "FLI": bytes(4) + b"\x11\xaf" + bytes(122),
    "FTEX": b"FTEX\0\0\0\0",
    "GBR": b"\0\0\0\x1c\0\0\0\2" + bytes(24),
    "GRIB": b"GRIB\0\0\0\1",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "IMT": b"*\x0a*x 8\n*y 8\n*z 1\n\x0c",
    "IPTC": b"\x1c\x03\x3c\0\1\0",
    "MCIDAS": b"\0\0\0\0\0\0\0\4" + bytes(248),
    "MPEG": b"\0\0\1\xb3\x01\0\x10\x13",
    "PCD": bytes(2048) + b"PCD_IPI",
    "PIXAR": b"\x80\xe8\0\0" + bytes(508),
    "PSD": b"8BPS\0\1" + bytes(20),
    "SUN": b"\x59\xa6\x6a\x95" + bytes(28),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(38),
    "XPM": b"/* XPM */\nstatic char *a[] = {\n",
    "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n8 8 255\n",
}


def sample(kind: str) -> bytes:
    """A file of ``kind``: as Pillow writes it where it can, else its head."""
    for mode in ("RGB", "L", "P", "1", "F"):
        try:
            return hostile.encode(hostile.picture(mode, 32, 32), kind)
        except (OSError, ValueError, KeyError):
            continue
    return HEADS[kind]


@pytest.mark.parametrize("kind", FOREIGN)
def test_every_other_format_of_pillow_s_is_415(server: Server, kind: str) -> None:
    data = sample(kind)
    # DIB is BMP without its head, and an ICNS or ICO holds PNGs: what is inside must not be found.
    for headers in ({"content-type": "image/png"}, {"content-type": "application/octet-stream"}):
        response = server.client.post("/classify", content=data, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_the_samples_are_what_they_say() -> None:
    """Most can be identified by Pillow, so that the refusals are ours and not for want of a format."""
    known = 0
    for kind in FOREIGN:
        try:
            with Image.open(io.BytesIO(sample(kind)), formats=[kind]) as image:
                known += image.format == kind
        except (OSError, KeyError, ValueError):  # formats that need a handler, and heads without a body
            continue
    assert known >= 15


def test_a_format_inside_another_s_name_is_judged_by_content(server: Server) -> None:
    """A Content-Type and a file name are no evidence, in either direction."""
    eps = sample("EPS")
    response = server.client.post("/classify", files={"image": ("photo.jpg", eps, "image/jpeg")})
    assert response.status_code == 415
    jpeg = hostile.encode(hostile.picture(), "JPEG")
    response = server.client.post("/classify", files={"image": ("photo.eps", jpeg, "application/postscript")})
    assert response.status_code == 200


def test_only_the_plugins_of_what_is_read_are_imported() -> None:
    """PPM's comes with Pillow's own start and is reached by no name that is asked for."""
    code = (
        "import sys, pickle\n"
        "from classifier import pixels\n"
        "from classifier.preprocessing import Preprocessing\n"
        "for data in pickle.load(sys.stdin.buffer):\n"
        "    pixels.decode(data, Preprocessing(8, 8), 1_000_000)\n"
        "from PIL import Image\n"
        "print(*sorted(Image.OPEN))\n"
    )
    images = pickle.dumps(list(hostile.seeds().values()))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), input=images, capture_output=True)
    assert done.stderr == b""
    # MPO is found by the JPEG plugin, DIB is what a BMP is inside.
    assert set(done.stdout.decode().split()) == {*FORMATS, "DIB", "PPM"}


def test_pillow_s_warnings_reach_neither_log_nor_memory() -> None:
    """Each broken file would be warned of in words of its own: kept for ever, and printed."""
    code = (
        "import struct, sys, warnings\n"
        "from PIL import TiffImagePlugin\n"
        "from classifier import pixels\n"
        "from classifier.preprocessing import Preprocessing\n"
        "from tests import hostile\n"
        "jpeg = hostile.encode(hostile.picture(), 'JPEG')\n"
        "for number in range(50):\n"
        "    exif = hostile.exif({0x0112: (3, 1, 1), 0x010F: (2, 1000 + number, 9)})\n"
        "    data = jpeg[:2] + struct.pack('>BBH', 255, 225, len(exif) + 2) + exif + jpeg[2:]\n"
        "    pixels.decode(data, Preprocessing(8, 8), 1000)\n"
        "kept = getattr(TiffImagePlugin, '__warningregistry__', {})\n"
        "print(len(kept.keys() - {'version'}))\n"
        "if 'unfiltered' in sys.argv:\n"
        "    warnings.resetwarnings()\n"
        "    pixels.decode(data, Preprocessing(8, 8), 1000)\n"
    )
    command = [sys.executable, "-c", code]
    quiet = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (quiet.stdout, quiet.stderr) == ("0\n", "")
    heard = subprocess.run([*command, "unfiltered"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert "UserWarning" in heard.stderr  # the files are such that Pillow would warn


@pytest.mark.parametrize("progressive", [False, True])
def test_arithmetic_jpeg(progressive: bool) -> None:
    data = hostile.ARITHMETIC_PROGRESSIVE if progressive else hostile.ARITHMETIC
    array = pixels.decode(data, Preprocessing(20, 20), 1000)
    np.testing.assert_allclose(array[:, :8], np.broadcast_to([200, 30, 60], (20, 8, 3)), atol=4)
    np.testing.assert_allclose(array[:, 12:], np.broadcast_to([0, 120, 240], (20, 8, 3)), atol=4)


def test_cmyk_jpeg_of_adobe_s_is_not_inverted(shared: Path) -> None:
    """Pillow's own pair of samples: the same photograph in CMYK and in RGB."""
    folder = shared / "images" / "hostile"
    cmyk, rgb = (
        pixels.decode((folder / f"pil_sample_{name}.jpg").read_bytes(), Preprocessing(64, 64), 10**7).astype(int)
        for name in ("cmyk", "rgb")
    )
    assert np.abs(cmyk - rgb).mean() < 12
    assert np.abs(255 - cmyk - rgb).mean() > 60


def test_mpo_is_read_by_content_and_a_bad_mpo_header_is_a_jpeg(server: Server, shared: Path) -> None:
    mpo = hostile.seeds()["MPO"]
    jpeg = hostile.encode(hostile.picture(), "JPEG")
    replies = [
        server.client.post("/classify", content=data, headers={"content-type": "application/octet-stream"}).json()
        for data in (mpo, jpeg)
    ]
    one, other = ([prediction["class_id"] for prediction in reply["predictions"]] for reply in replies)
    assert one == other
    bad = (shared / "images" / "hostile" / "sugarshack_bad_mpo_header.jpg").read_bytes()
    response = server.client.post("/classify", content=bad, headers={"content-type": "image/jpeg"})
    assert response.status_code == 200


def test_the_eight_orientations_of_one_photo_give_the_same_top_1(server: Server, shared: Path) -> None:
    answers: list[Any] = []
    for number in range(9):
        data = (shared / "images" / "orientation" / f"Landscape_{number}.jpg").read_bytes()
        reply = server.client.post("/classify", content=data, headers={"content-type": "image/jpeg"}).json()
        answers.append(reply["predictions"][0])
    assert len({answer["class_id"] for answer in answers}) == 1
    # Turned wrongly, the photograph is another picture: without its EXIF, not all eight agree to two digits.
    spread = max(answer["probability"] for answer in answers) - min(answer["probability"] for answer in answers)
    assert spread < 0.05


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("tile", hostile.tiff(64, 64, b"", tile=(30_000, 30_000)), "image_too_large"),
        ("frame", hostile.gif(1, 1, (0, 0, 65535, 65535), disposal=2), "image_too_large"),
    ],
)
def test_what_is_larger_inside_than_its_head_tells(kind: str, data: bytes, code: str) -> None:
    with pytest.raises(ClassifierError, match="more pixels than the limit of 1000000") as raised:
        pixels.decode(data, Preprocessing(8, 8), 1_000_000)
    assert (raised.value.code, raised.value.facts) == (code, {"limit": 1_000_000}), kind


def test_scans_are_counted_by_what_they_pass_over() -> None:
    small = hostile.encode(Image.new("L", (24, 20), 77), "JPEG", progressive=True)
    scan = small.rindex(b"\xff\xda")
    many = small[:scan] + small[scan:-2] * 400 + small[-2:]
    np.testing.assert_array_equal(
        pixels.decode(many, Preprocessing(8, 8), 10**6), pixels.decode(small, Preprocessing(8, 8), 10**6)
    )
    large = hostile.encode(Image.new("L", (7000, 7000)), "JPEG", progressive=True)
    scan = large.rindex(b"\xff\xda")
    many = large[:scan] + large[scan:-2] * 400 + large[-2:]
    with pytest.raises(ClassifierError, match="scans; at 7000x7000 at most 102 are read"):
        pixels.decode(many, Preprocessing(8, 8), 10**8)
