"""Truncated files: what there is of a JPEG or a PNG whose file ends early, as browsers show it.

Rows that have not come are white, or transparent where there is alpha. Of a progressive JPEG all rows are there from
the first scan on, and what is missing is detail. An interlaced PNG is refused: its rows come in no such order.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from PIL import Image

from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Callable

# The marker that ends a JPEG.
_END_OF_IMAGE = b"\xff\xd9"
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
        file.ending = _END_OF_IMAGE
        image.load()
        if file.ending:
            file.ending = b""
            return None
        return "the file of the JPEG image ends early: detail is missing"
    if jpeg or png:
        image.im = Image.new(image.mode, image.size, _missing(image)).im
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        if not (jpeg or png) or not _is_end(error, file):
            raise
        image.tile = []  # type: ignore[attr-defined]
        if image.getextrema() == Image.new(image.mode, (1, 1), _missing(image)).getextrema():
            raise
        return f"the file of the {image.format} image ends early: the rows that are missing are white"
    return None


def _missing(image: Image.Image) -> int | tuple[int, ...]:
    if image.mode != "P":
        return _MISSING.get(image.mode, 255)
    # Of a palette the colour that is nearest to white, for lack of another.
    assert image.palette is not None
    colours = image.palette.tobytes()
    return max(range(len(colours) // 3), key=lambda index: sum(colours[3 * index : 3 * index + 3]), default=0)


def _is_end(error: Exception, file: File) -> bool:
    """Whether Pillow has found the file's end too early, and no damage before it."""
    if isinstance(error, SyntaxError):  # the head of a PNG's chunk is cut
        return not file.getbuffer()[file.tell() :]
    return str(error).startswith("image file is truncated")
