"""Images of every format and mode that the service reads, and files made to hurt a decoder; all of them by code."""

from __future__ import annotations

import base64
import functools
import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

import classifier.heif  # noqa: F401 -- so that Pillow reads and writes HEIF

WIDTH, HEIGHT = 24, 20

# Two arithmetic-coded JPEGs of 24x20, sequential and progressive, which Pillow reads and can't write: the left half is
# (200, 30, 60), the right one (0, 120, 240).
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIU"
    "FRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAUABgDAREA"
    "AhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AM5Amzs2wzABQ1oSHHaTM2bpfGq4xZpqn+WbM7ZUu4OgNwi4Nq2CRCXqNxuPfHQZIWNvTeQm"
    "Vh4Wz2vhklj74aHF8s/ifNGTdFD9MJ9xBAzV/wAS+VvGfxHygP/Z"
)
ARITHMETIC_PROGRESSIVE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIU"
    "FRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/ygARCAAUABgDAREA"
    "AhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf8AnH81Ib4fuLal/MeNSOe6umsbvH1bHcKChm6ia3HnDOUg/8wABBAF/9oACAEBAAEFAvNhrzn/zAAE"
    "EQX/2gAIAQMBAT8B7sXLKnJ6tT1+fk/CbYpZCcz/zAAEEQX/2gAIAQIBAT8B87SCTCDjtJm/khm1wFifWP/MAAQQBf/aAAgBAQAGPwLxn//MAAQQBf/a"
    "AAgBAQABPyGnTBHcgP/aAAwDAQACAAMAAAAQ+PI1EP/MAAQRBf/aAAgBAwEBPxDS8jQ80Oj/zAAEEQX/2gAIAQIBAT8Q1Fn0CHK4/8wABBAF/9oACAEB"
    "AAE/ENLxgAOFIv/Z"
)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """``image`` as a file of ``kind``."""
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)  # an image keeps what its last encoder was told
    return buffer.getvalue()


def picture(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A smooth picture of ``mode``, different in every corner."""
    x, y = np.linspace(0, 255, width)[None], np.linspace(0, 255, height)[:, None]
    bands = np.stack(np.broadcast_arrays(x, y, (x + y) / 2, 255 - x / 2), axis=-1)
    colour = Image.fromarray(bands[..., :3].astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((bands[..., 2] * 257).astype(np.uint16))
    if mode == "I":
        return Image.fromarray((bands[..., 2] * 257).astype(np.int32))
    if mode == "F":
        return Image.fromarray(bands[..., 2].astype(np.float32))
    if mode == "LAB":
        return Image.merge("LAB", colour.split())
    if mode == "PA":
        image = colour.convert("P").convert("PA")
        image.putalpha(Image.fromarray(bands[..., 3].astype(np.uint8)))
        return image
    image = colour.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(bands[..., 3].astype(np.uint8)))
    return image


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, colour_type: int, body: bytes, *chunks: bytes, depth: int = 8) -> bytes:
    """A PNG whose pixel data inflate to ``body``, with ``chunks`` before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND")


def ifd(entries: dict[int, tuple[int, int, int]], after: int = 0) -> bytes:
    """A little-endian TIFF directory of tag → (type, count, value or offset), and the offset of the next one."""
    packed = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", after)


def tiff(
    width: int,
    height: int,
    body: bytes,
    *,
    tile: tuple[int, int] | None = None,
    more: dict[int, tuple[int, int, int]] | None = None,
    after: int = 0,
) -> bytes:
    """A grey TIFF of a deflated strip or tile, ``body``, with ``more`` tags; ``after``: where a second directory is."""
    short, long = 3, 4
    entries = {256: (long, 1, width), 257: (long, 1, height), 258: (short, 1, 8), 259: (short, 1, 8)}
    entries |= {262: (short, 1, 1), 277: (short, 1, 1)} | (more or {})
    start = 8 + 2 + 12 * (len(entries) + (4 if tile else 3)) + 4
    if tile:
        entries |= {322: (long, 1, tile[0]), 323: (long, 1, tile[1]), 324: (long, 1, start), 325: (long, 1, len(body))}
    else:
        entries |= {273: (long, 1, start), 278: (long, 1, height), 279: (long, 1, len(body))}
    return b"II*\0" + struct.pack("<I", 8) + ifd(entries, after) + body


def exif(entries: dict[int, tuple[int, int, int]], after: int = 0, body: bytes = b"") -> bytes:
    """EXIF as it stands in a JPEG: one directory, and what follows it."""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd(entries, after) + body


def gif(width: int, height: int, frame: tuple[int, int, int, int], disposal: int = 0) -> bytes:
    """A GIF of a screen and one frame (left, top, width, height) with hardly any pixel data."""
    control = b"\x21\xf9\x04" + bytes([disposal << 2]) + b"\0\0\0\0"
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + control + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\0;"


def box(kind: str, *parts: bytes, full: bool = False) -> bytes:
    """A box of the ISO base media file format; a ``full`` one has a version and flags of 0."""
    content = (b"\0\0\0\0" if full else b"") + b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind.encode()) + content


@functools.cache
def hevc(side: int) -> tuple[bytes, bytes]:
    """The decoder's configuration, and the data, of an HEVC picture of ``side`` pixels a side."""
    data = encode(picture(width=side, height=side), "HEIF", quality=50)
    at, begin = data.index(b"hvcC"), data.index(b"mdat")
    return data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")], data[begin + 4 :]


def heif(
    side: int,
    told: tuple[int, int],
    *,
    grid: tuple[int, int] | None = None,
    data: bytes | None = None,
    entries: dict[bytes, bytes] | None = None,
    references: bytes = b"",
    more: bytes = b"",
    primary: int = 1,
) -> bytes:
    """A HEIF of a picture of ``side`` pixels a side that calls itself ``told``; ``data``: other data for it.

    ``grid``: columns and rows of a grid of that size, all of whose tiles are that picture. ``entries``: more items, by
    type and rest of their entry, without data. ``references``: boxes of iref. ``more``: boxes of meta.
    """
    configuration, own = hevc(side)
    content = [(own if data is None else data)]
    kinds = [b"hvc1\0"]
    size = [box("ispe", struct.pack(">II", side, side) if grid else struct.pack(">II", *told), full=True)]
    lists = [struct.pack(">HBBB", 1, 2, 1, 0x82)]
    if grid:
        columns, rows = grid
        content.append(bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", *told))
        kinds.append(b"grid\0")
        size.append(box("ispe", struct.pack(">II", *told), full=True))
        lists.append(struct.pack(">HBB", 2, 1, 3))
        references += box("dimg", struct.pack(">HH", 2, columns * rows), struct.pack(">H", 1) * (columns * rows))
        primary = 2
    kinds += [kind + rest for kind, rest in (entries or {}).items()]
    names = [box("infe", b"\2\0\0\0", struct.pack(">HH", number, 0), kind) for number, kind in enumerate(kinds, 1)]
    properties = box("ipco", size[0], box("hvcC", configuration), *size[1:])
    meta = [
        box("hdlr", bytes(4), b"pict", bytes(13), full=True),
        box("pitm", struct.pack(">H", primary), full=True),
        box("iinf", struct.pack(">H", len(names)), *names, full=True),
        box("iprp", properties, box("ipma", struct.pack(">I", len(lists)), *lists, full=True)),
        *([box("iref", references, full=True)] if references else []),
        more,
    ]
    begin, places = 0, b""
    head = box("ftyp", b"heic\0\0\0\0mif1heic")
    for _ in range(2):  # first for its length
        at, places = begin, b""
        for number, one in enumerate(content, 1):
            places += struct.pack(">HHHII", number, 0, 1, at, len(one))
            at += len(one)
        iloc = box("iloc", b"\x44\0", struct.pack(">H", len(content)), places, full=True)
        whole = head + box("meta", *meta, iloc, full=True)
        begin = len(whole) + 8
    return whole + box("mdat", *content)


def frames() -> dict[str, Any]:
    """Options of encode() for three frames."""
    return {"save_all": True, "append_images": [picture().rotate(90 * turn) for turn in (1, 2)]}


def seeds() -> dict[str, bytes]:
    """A valid small image of every format, mode and variant that the service reads, by name."""
    image = picture()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {
        "JPEG": encode(image, "JPEG", exif=turned, icc_profile=profile, comment=b"hello", dpi=(72, 72)),
        "JPEG grey": encode(picture("L"), "JPEG"),
        "JPEG CMYK": encode(picture("CMYK"), "JPEG"),
        "JPEG progressive": encode(image, "JPEG", progressive=True, subsampling=0),
        "JPEG with restarts": encode(image, "JPEG", restart_marker_rows=1, subsampling=2),
        "JPEG arithmetic": ARITHMETIC,
        "JPEG arithmetic progressive": ARITHMETIC_PROGRESSIVE,
        "MPO": encode(image, "MPO", **frames()),
        "PNG transparent colour": encode(image, "PNG", transparency=(0, 0, 0)),
        "PNG palette with alpha": encode(picture("P"), "PNG", transparency=bytes(range(256))),
        "PNG metadata": encode(image, "PNG", exif=turned, icc_profile=profile, dpi=(72, 72)),
        "PNG 16 bits": png(WIDTH, HEIGHT, 2, (b"\0" + bytes(range(144))) * HEIGHT, depth=16),
        "PNG 16 bits alpha": png(WIDTH, HEIGHT, 6, (b"\0" + bytes(range(192))) * HEIGHT, depth=16),
        "PNG 2 bits": png(WIDTH, HEIGHT, 0, (b"\0" + bytes(range(6))) * HEIGHT, depth=2),
        "APNG": encode(image, "PNG", **frames()),
        "WEBP": encode(image, "WEBP", exif=turned, icc_profile=profile),
        "WEBP lossless": encode(image, "WEBP", lossless=True),
        "WEBP alpha": encode(picture("RGBA"), "WEBP"),
        "WEBP animated": encode(image, "WEBP", **frames()),
        "GIF transparent": encode(picture("P"), "GIF", transparency=0),
        "GIF animated": encode(image, "GIF", **frames(), disposal=2),
        "BMP 32 bits": encode(picture("RGBA"), "BMP"),
        "AVIF alpha": encode(picture("RGBA"), "AVIF"),
        "AVIF animated": encode(image, "AVIF", **frames()),
        "HEIF alpha": encode(picture("RGBA"), "HEIF"),
        "HEIF grid": encode(picture(width=200, height=150), "HEIF", tile_size=128),
        "HEIF several": encode(image, "HEIF", **frames()),
        "HEIF turned": encode(image, "HEIF", exif=turned.tobytes(), icc_profile=profile),
        "TIFF 12 bits": tiff(WIDTH, HEIGHT, bytes(range(240)) * 3, more={258: (3, 1, 12), 259: (3, 1, 1)}),
        "TIFF tiled": tiff(WIDTH, HEIGHT, zlib.compress(bytes(32 * 32)), tile=(32, 32)),
        "TIFF pages": encode(image, "TIFF", **frames(), exif=turned),
        "TIFF CCITT": encode(picture("1"), "TIFF", compression="group4"),
    }
    modes = {"PNG": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"), "GIF": ("L", "P"), "BMP": ("1", "L", "P", "RGB")}
    modes["AVIF"] = modes["HEIF"] = ("L", "RGB")
    modes["TIFF"] = ("1", "L", "LA", "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")
    found |= {f"{kind} {mode}": encode(picture(mode), kind) for kind, some in modes.items() for mode in some}
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        found[f"TIFF {name}"] = encode(image, "TIFF", compression=name)
    return found


PIXELS, BROKEN, TOO_LARGE, NO_IMAGE = "pixels", "unreadable_image", "image_too_large", "unsupported_media_type"


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that would cost a naive decoder much: by name, what must come of them at 1,000,000 pixels."""
    jpeg, plain = encode(picture(), "JPEG"), encode(picture(), "PNG")
    start, rows = jpeg[:2], (b"\0" + bytes(3 * WIDTH)) * HEIGHT
    webp = encode(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)])
    canvas = webp.index(b"VP8X") + 12
    zeros = zlib.compress(bytes(50_000_000))
    sof = jpeg.index(b"\xff\xc0") + 5
    scans = encode(picture(width=1000, height=1000), "JPEG", progressive=True)
    scan = scans.rindex(b"\xff\xda")
    many = dict.fromkeys(range(1000, 6000), (1, 60_000, 26))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")

    def marker(code: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data

    return {
        "GIF frame far over its screen": (TOO_LARGE, gif(1, 1, (0, 0, 65535, 65535), disposal=2)),
        "GIF frame far away": (TOO_LARGE, gif(9, 9, (65535, 65535, 9, 9), disposal=2)),
        "GIF of no size": (BROKEN, gif(0, 0, (0, 0, 0, 0))),
        "TIFF tile over its image": (
            TOO_LARGE,
            tiff(64, 64, zlib.compress(bytes(9_000_000)), tile=(30_000, 30_000)),
        ),
        "TIFF whose tile is a text times a number": (
            BROKEN,
            tiff(64, 64, b"", more={322: (2, 4, int.from_bytes(b"AAA\0", "little")), 323: (4, 1, 2**31)}),
        ),
        "TIFF strip of too much": (PIXELS, tiff(64, 64, zeros)),
        "TIFF whose next page is itself": (PIXELS, tiff(8, 8, zlib.compress(bytes(64)), after=8)),
        "TIFF of no size": (BROKEN, tiff(0, 0, b"")),
        "TIFF of 2^32 pixels a side": (TOO_LARGE, tiff(2**32 - 1, 2**32 - 1, b"")),
        "WEBP canvas of 2^31": (TOO_LARGE, webp[:canvas] + b"\xff\xff\xff\x7f\0\0" + webp[canvas + 6 :]),
        "PNG of too many pixels": (TOO_LARGE, png(60_000, 60_000, 2, b"")),
        "PNG of no width": (BROKEN, png(0, 10, 2, b"")),
        "PNG IDAT bomb": (PIXELS, plain[:33] + chunk(b"IDAT", zeros) + plain[-12:]),
        "PNG iCCP bomb": (BROKEN, png(WIDTH, HEIGHT, 2, rows, chunk(b"iCCP", b"a\0\0" + zeros))),
        "PNG zTXt bomb": (BROKEN, png(WIDTH, HEIGHT, 2, rows, chunk(b"zTXt", b"a\0\0" + zeros))),
        "PNG iTXt bomb": (BROKEN, png(WIDTH, HEIGHT, 2, rows, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros))),
        "PNG text of 100 MB in all": (
            BROKEN,
            png(WIDTH, HEIGHT, 2, rows, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(999_999)))] * 100),
        ),
        "PNG of 100,000 chunks": (PIXELS, plain[:33] + chunk(b"aaAa") * 100_000 + plain[33:]),
        "PNG EXIF of overlapping values": (PIXELS, png(WIDTH, HEIGHT, 2, rows, chunk(b"eXIf", exif(many)[6:]))),
        "JPEG EXIF of overlapping values": (PIXELS, start + marker(0xE1, exif(many)) + jpeg[2:]),
        "JPEG EXIF directory in itself": (PIXELS, start + marker(0xE1, exif({0x8769: (4, 1, 8)}, after=8)) + jpeg[2:]),
        "JPEG EXIF that is junk": (PIXELS, start + marker(0xE1, b"Exif\0\0" + bytes(range(256)) * 200) + jpeg[2:]),
        "JPEG ICC that is junk": (PIXELS, start + marker(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(256))) + jpeg[2:]),
        "JPEG ICC parts that lack": (PIXELS, start + marker(0xE2, b"ICC_PROFILE\0\7\xff" + bytes(99)) + jpeg[2:]),
        "JPEG of 100,000 segments": (PIXELS, start + marker(0xFE, b"") * 100_000 + jpeg[2:]),
        "JPEG of 10,000 scans": (BROKEN, scans[:scan] + scans[scan:-2] * 10_000 + scans[-2:]),
        "JPEG of 10,000 scans, sequential": (BROKEN, _many_scans(10_000)),
        "JPEG of no size": (BROKEN, jpeg[:sof] + bytes(4) + jpeg[sof + 4 :]),
        "JPEG of 65535 pixels a side": (TOO_LARGE, jpeg[:sof] + b"\xff" * 4 + jpeg[sof + 4 :]),
        "BMP of negative width": (TOO_LARGE, _bmp(-8, 8, 24)),
        "BMP of 2^31 pixels a side": (TOO_LARGE, _bmp(2**31 - 1, 2**31 - 1, 24)),
        "BMP of 2^31 colours": (BROKEN, _bmp(8, 8, 8, colours=2**31 - 1)),
        "AVIF frame over its picture": (TOO_LARGE, _avif(1200, 64)),
        "AVIF sequence of frames over its picture": (TOO_LARGE, _avif(1200, 64, frames=2)),
        "AVIF of a head alone": (BROKEN, b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B"),
        "HEIF picture over its image": (TOO_LARGE, heif(1200, (64, 64))),
        "HEIF grid of one tile 900 times": (TOO_LARGE, heif(512, (999, 999), grid=(30, 30))),
        "HEIF of many pictures in one": (BROKEN, heif(512, (512, 512), data=hevc(512)[1] * 500)),
        "HEIF of compressed metadata": (BROKEN, heif(64, (64, 64), entries={b"mime": b"\0a/b\0deflate\0"})),
        "HEIF of an image put together of others": (BROKEN, heif(64, (64, 64), entries={b"iovl": b"\0"}, primary=2)),
        "HEIF of a head alone": (BROKEN, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        "JPEG that is a ZIP too": (PIXELS, jpeg + archive.getvalue()),
        "ZIP that holds a JPEG": (NO_IMAGE, archive.getvalue() + jpeg),
        "PNG that is HTML too": (PIXELS, png(WIDTH, HEIGHT, 2, rows, chunk(b"tEXt", b"a\0<script>alert(1)</script>"))),
        "GIF that is JavaScript too": (BROKEN, b"GIF89a/*" + bytes(5) + b"*/=1;alert(1)//"),
        "PDF that holds a JPEG": (NO_IMAGE, b"%PDF-1.7\n1 0 obj\nstream\n" + jpeg + b"\nendstream"),
        "JPEG after a line of PDF": (NO_IMAGE, b"%PDF-1.7\n" + jpeg),
        "SVG": (NO_IMAGE, b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    }


def _avif(side: int, told: int, frames: int = 1) -> bytes:
    """An AVIF whose frames have another size than its container tells."""
    image = picture(width=side, height=side)
    data = encode(image, "AVIF", speed=10, save_all=frames > 1, append_images=[image.rotate(90)] * (frames - 1))
    for name, size in ((b"ispe\0\0\0\0", ">II"), (b"av01" + bytes(24), ">HH")):
        data = data.replace(name + struct.pack(size, side, side), name + struct.pack(size, told, told))
    return data.replace(struct.pack(">II", side << 16, side << 16), struct.pack(">II", told << 16, told << 16))


def _many_scans(count: int) -> bytes:
    """A sequential JPEG that goes over one of its components again and again, without any data."""
    jpeg = encode(picture(width=1000, height=1000), "JPEG", subsampling=0)
    scan = jpeg.index(b"\xff\xda")
    return jpeg[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * count + b"\xff\xd9"


def _bmp(width: int, height: int, bits: int, colours: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(head), 0, 0, 14 + len(head)) + head
