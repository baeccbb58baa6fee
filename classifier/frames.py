"""The first frame of an animation, as browsers show it: where the canvas is larger than the frame, it is white."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from PIL import GifImagePlugin, Image, PngImagePlugin

from classifier import depth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from classifier.truncation import File

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks without which a frame's samples can't be read.
_NEEDED = (b"PLTE", b"tRNS")


def first_frame(image: Image.Image, file: File) -> Image.Image:
    """``image``, opened from ``file``, or its first frame on a canvas of its size.

    The first frame may be smaller in a GIF; in a PNG it may be another picture than the one that programs without
    animations show, and smaller as well. Raises what Pillow raises.
    """
    if isinstance(image, GifImagePlugin.GifImageFile):
        extents = image.dispose_extent
        if extents is not None and extents != (0, 0, *image.size):
            return _over_white(image.crop(extents), image.size, extents[:2])
    if isinstance(image, PngImagePlugin.PngImageFile) and image.default_image:
        found = _apng(file.getvalue())
        if found is not None:
            frame, at = found
            with Image.open(file.beside(frame), formats=("PNG",)) as opened:
                if at[0] + opened.width > image.width or at[1] + opened.height > image.height:
                    raise ValueError("its first frame is larger than its canvas")
                return _over_white(depth.eight_bits(opened), image.size, at)
    return image


def _over_white(frame: Image.Image, size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    canvas, frame = Image.new("RGB", size, "white"), frame.convert("RGBA")
    canvas.paste(frame, at, frame)
    return canvas


def _apng(data: bytes) -> tuple[bytes, tuple[int, int]] | None:
    """The animation's first frame as a PNG of its own, and where it lies on the canvas; None where there is none.

    The chunks are those of the PNG Specification (Third Edition), 11.3.6.
    """
    header, needed, pieces, control = b"", [], [], None
    for kind, content in _chunks(data):
        if kind == b"IHDR":
            header = content
        elif kind in _NEEDED:
            needed.append(_chunk(kind, content))
        elif kind == b"fcTL":
            if control is not None:
                break
            control = struct.unpack(">4x4I", content[:20])
        elif kind == b"fdAT" and control is not None:
            pieces.append(content[4:])
    if control is None or not pieces:
        return None
    width, height, left, top = control
    whole = [_chunk(b"IHDR", struct.pack(">II", width, height) + header[8:]), *needed]
    whole += [_chunk(b"IDAT", b"".join(pieces)), _chunk(b"IEND")]
    return _SIGNATURE + b"".join(whole), (left, top)


def _chunks(data: bytes) -> Iterator[tuple[bytes, Any]]:
    view, at = memoryview(data), len(_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + bytes(content)))
