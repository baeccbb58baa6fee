"""Truncated files: what there is of a JPEG or a PNG whose file ends early, as browsers show it.

Rows that have not come are white, or transparent where there is alpha; of a palette's image, its lightest colour where
it has 256 others. Of a progressive JPEG all rows are there once the first scan is, and what is missing is detail. An
interlaced PNG is refused: its rows come in no such order.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from PIL import Image, ImagePalette

from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Callable

# The markers that begin a JPEG's scan, and that end the JPEG.
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# What follows 0xFF within a scan: a sample's byte, a marker to restart at, or a fill byte.
_IN_SCAN = frozenset((0x00, *range(0xD0, 0xD8), 0xFF))
# What stands for a missing pixel, by mode.
_MISSING: dict[str, int | tuple[int, ...]] = {
    "LA": (255, 0),
    "RGBA": (255, 255, 255, 0),
    "CMYK": (0, 0, 0, 0),
    "I;16": 65535,
    "RGB": (255, 255, 255),
}


class File(io.BytesIO):
    """Bytes that can be read for ``seconds``; then ``ending``, once, where it has been set."""

    def __init__(self, data: bytes, seconds: float, too_slow: Callable[[float], ClassifierError]) -> None:
        super().__init__(data)
        self._seconds, self._end, self._too_slow = seconds, time.monotonic() + seconds, too_slow
        self.ending = b""

    def beside(self, data: bytes) -> File:
        """Other bytes that can be read as long as these."""
        other = File(data, self._seconds, self._too_slow)
        other._end = self._end
        return other

    def read(self, size: int | None = -1, /) -> bytes:
        """See io.BytesIO. Raises ClassifierError("decode_timeout") after ``seconds``."""
        if time.monotonic() > self._end:
            raise self._too_slow(self._seconds)
        found = super().read(size)
        if not found and self.ending:
            found, self.ending = self.ending, b""
        return found


def load(image: Image.Image, file: File) -> str | None:
    """Decode ``image`` of ``file`` as far as that goes; a sentence about what is missing, None where nothing is.

    Raises what Pillow raises: for other formats, for damage, and where nothing of the picture is there.
    """
    jpeg, png = image.format in ("JPEG", "MPO"), image.format == "PNG" and not image.info.get("interlace")
    if jpeg and image.info.get("progressive"):
        scans, end, ended = _scans(file.getvalue())
        if not ended and scans:
            file.truncate(end)
            file.ending = _END_OF_IMAGE
        image.load()
        return None if ended else "the file of the JPEG image ends early: detail is missing"
    missing = _missing(image) if jpeg or png else 0
    if jpeg or png:
        image.im = Image.new(image.mode, image.size, missing).im
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        if not (jpeg or png) or not _is_end(error, file):
            raise
        image.tile = []  # type: ignore[attr-defined]
        if image.getextrema() == Image.new(image.mode, (1, 1), missing).getextrema():
            raise
        shown = "white" if image.mode != "P" or _colour(image, missing) == b"\xff\xff\xff" else "its lightest colour"
        return f"the file of the {image.format} image ends early: the rows that are missing are {shown}"
    return None


def _scans(data: bytes) -> tuple[int, int, bool]:
    """How many scans of a JPEG are whole, where the last segment that is whole ends, and whether the JPEG does.

    The segments are those of ITU-T T.81, annex B. A scan is whole where another marker follows it. One that is not
    counts as whole for the end, if another is before it: what there is of it is detail.
    """
    at, scans, end = 2, 0, 2
    while 0 <= at <= len(data) - 4:
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):  # what libjpeg passes over, and fill bytes
            at = data.find(b"\xff", at + 1)
            continue
        if data[at : at + 2] == _END_OF_IMAGE:
            return scans, at + 2, True
        start, at = at, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if at > len(data):
            break
        if data[start : start + 2] == _START_OF_SCAN:
            at = data.find(b"\xff", at)
            while 0 <= at < len(data) - 1 and data[at + 1] in _IN_SCAN:
                at = data.find(b"\xff", at + (1 if data[at + 1] == 0xFF else 2))
            if not 0 <= at < len(data) - 1:
                return scans, len(data), False
            scans += 1
        end = at
    return scans, end, at >= 0 and data[at : at + 2] == _END_OF_IMAGE


def _missing(image: Image.Image) -> int | tuple[int, ...]:
    if image.mode != "P":
        return _MISSING.get(image.mode, 255)
    if image.palette is None:
        raise ValueError("it has no palette")
    colours = image.palette.tobytes()
    if len(colours) < 3 * 256:
        image.palette = ImagePalette.raw("RGB", colours + b"\xff\xff\xff")
        return len(colours) // 3
    # The colour that is nearest to white, for lack of another.
    return max(range(256), key=lambda index: sum(_colour(image, index)))


def _colour(image: Image.Image, index: Any) -> bytes:
    assert image.palette is not None, "an image of mode P"
    return image.palette.tobytes()[3 * index : 3 * index + 3]


def _is_end(error: Exception, file: File) -> bool:
    """Whether Pillow has found the file's end too early, and no damage before it."""
    if isinstance(error, SyntaxError):  # the head of a PNG's chunk is cut
        return not file.getbuffer()[file.tell() :]
    return str(error).startswith("image file is truncated")
