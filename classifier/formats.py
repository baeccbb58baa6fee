"""The image formats that are read. Whatever lists formats reads this table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

_HEAD_BYTES = 16


@dataclass(frozen=True)
class Format:
    """An image format.

    ``name``: Pillow's. ``plugins``: the modules that make Pillow read it. ``magic``: a pattern of its first bytes,
    without capturing groups. ``suffixes``: what its files end in, in small letters. ``upright``: that Pillow turns its
    images by their EXIF orientation by itself. ``package``: what must be installed for it besides Pillow, by
    requirements/``requirements``.txt; its plugins are imported when the first such image comes. ``common``: what people
    call it, where that is another name.
    """

    name: str
    plugins: tuple[str, ...]
    magic: bytes
    suffixes: tuple[str, ...]
    upright: bool = False
    package: str = ""
    requirements: str = ""
    common: str = ""


KNOWN = {
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
        Format(
            "HEIF",
            plugins=("classifier.heif",),
            magic=rb".{4}ftyp(?:he[iv][cxms]|mif1|msf1)",
            suffixes=(".heic", ".heif", ".hif", ".heics", ".heifs"),
            upright=True,
            package="pillow_heif",
            requirements="heif",
            common="HEIC",
        ),
    )
}
# Those that this environment can read.
FORMATS = {name: each for name, each in KNOWN.items() if not each.package or find_spec(each.package)}
_MAGIC = re.compile(b"|".join(b"(?P<%b>%b)" % (each.name.encode(), each.magic) for each in KNOWN.values()), re.DOTALL)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes tell, one of KNOWN, or None."""
    found = _MAGIC.match(data[:_HEAD_BYTES])
    return found.lastgroup if found else None
