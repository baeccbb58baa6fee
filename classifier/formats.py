"""The image formats that are read. Whatever lists formats reads this table."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD_BYTES = 16


@dataclass(frozen=True)
class Format:
    """An image format.

    ``name``: Pillow's. ``plugins``: the modules that make Pillow read it. ``magic``: a pattern of its first bytes,
    without capturing groups. ``suffixes``: what its files end in, in small letters. ``upright``: that Pillow turns its
    images by their EXIF orientation by itself.
    """

    name: str
    plugins: tuple[str, ...]
    magic: bytes
    suffixes: tuple[str, ...]
    upright: bool = False


FORMATS = {
    each.name: each
    for each in (
        Format(
            "JPEG",
            # The JPEG plugin hands pictures of several images on to the other.
            plugins=("PIL.JpegImagePlugin", "PIL.MpoImagePlugin"),
            magic=rb"\xff\xd8\xff",
            suffixes=(".jpg", ".jpeg", ".jfif", ".jpe"),
        ),
        Format("PNG", plugins=("PIL.PngImagePlugin",), magic=rb"\x89PNG\r\n\x1a\n", suffixes=(".png",)),
        Format("WEBP", plugins=("PIL.WebPImagePlugin",), magic=rb"RIFF.{4}WEBP", suffixes=(".webp",)),
        Format("GIF", plugins=("PIL.GifImagePlugin",), magic=rb"GIF8[79]a", suffixes=(".gif",)),
        Format("BMP", plugins=("PIL.BmpImagePlugin",), magic=rb"BM", suffixes=(".bmp",)),
        Format(
            "TIFF",
            plugins=("PIL.TiffImagePlugin",),
            magic=rb"II[*+]\0|MM\0[*+]",
            suffixes=(".tif", ".tiff"),
            upright=True,
        ),
        Format("AVIF", plugins=("PIL.AvifImagePlugin",), magic=rb".{4}ftypavi[fs]", suffixes=(".avif",)),
    )
}
_MAGIC = re.compile(b"|".join(b"(?P<%b>%b)" % (each.name.encode(), each.magic) for each in FORMATS.values()), re.DOTALL)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes tell, one of FORMATS, or None."""
    found = _MAGIC.match(data[:_HEAD_BYTES])
    return found.lastgroup if found else None
