"""Image bytes to pixels: ``read`` is the only way an image enters, in serving, calibration and the accuracy gate.

The geometry is torchvision's ``Resize`` then ``CenterCrop``, computed in one resampling of just the part that is kept,
after a JPEG has been decoded at the smallest of its scales that holds it twice over.
Where an image is not 8-bit RGB, the rule is: CMYK and YCbCr by Pillow's conversion; grey is repeated; a PNG's 16-bit
samples keep their high byte; a TIFF's of more than 8 bits, its signed ones and its floats are scaled by what the file
tells of them, or refused (classifier/depth.py); palette and alpha are composed over white; animations give their first
frame (classifier/frames.py); EXIF orientation is applied.
"""

from __future__ import annotations

import importlib
import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from classifier import avif, depth, frames, hdr, resampling, truncation
from classifier.errors import ClassifierError
from classifier.formats import FORMATS, KNOWN, sniff

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from classifier.preprocessing import Preprocessing

# Image.open() imports the plugins of all of Pillow's formats when it meets one that is not there yet.
for _plugin in (plugin for each in FORMATS.values() if not each.package for plugin in each.plugins):
    importlib.import_module(_plugin)

# Pillow warns of damage in words that differ with each file: strangers could fill the log, and the memory in which
# Python keeps what it has warned of.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION = 0x0112
# EXIF orientation → (swap the axes, then mirror x, then mirror y) that brings stored pixels upright.
_UPRIGHT = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


class Decoded(NamedTuple):
    """An image's ``pixels`` uint8[S, S, 3], RGB, and ``warnings``: sentences about what is missing of it."""

    pixels: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()


def decode(
    data: bytes, preprocessing: Preprocessing, max_pixels: int, max_seconds: float = math.inf
) -> NDArray[np.uint8]:
    """The pixels of ``read``, of an image whose file is whole."""
    return read(data, preprocessing, max_pixels, max_seconds).pixels


def read(
    data: bytes,
    preprocessing: Preprocessing,
    max_pixels: int,
    max_seconds: float = math.inf,
    truncated: bool = False,
) -> Decoded:
    """Pixels uint8[S, S, 3], RGB, of an encoded image; S is ``preprocessing.size``.

    An image whose header tells more than ``max_pixels`` is refused before anything is decoded. One that takes longer
    than ``max_seconds`` is given up where its decoder next asks for data, which is every 64 KB at best. ``truncated``:
    that one whose file ends early is decoded as far as it goes, with a warning (classifier/truncation.py). Raises
    ClassifierError: ``unsupported_media_type``, ``image_too_large``, ``decode_timeout`` or ``unreadable_image``.
    """
    if not data:
        raise ClassifierError("unreadable_image", "the image is empty: 0 bytes")
    kind = sniff(data)
    if kind is None:
        raise ClassifierError(
            "unsupported_media_type",
            f"the {len(data)} bytes are no image that this service reads; it reads {', '.join(FORMATS)}",
            allowed=list(FORMATS),
        )
    if kind not in FORMATS:
        missing = KNOWN[kind]
        raise ClassifierError(
            "unsupported_media_type",
            f"the image is {missing.common or kind}, which this service reads where {missing.package} is installed: "
            f"pip install -r requirements/{missing.requirements}.txt; without it, it reads {', '.join(FORMATS)}",
            allowed=list(FORMATS),
        )
    if FORMATS[kind].package:
        _import(kind)
    # A plugin may allocate before it tells the size (a GIF's frame, a TIFF's tile): Pillow stops that at twice this.
    Image.MAX_IMAGE_PIXELS = max_pixels
    file = truncation.File(data, max_seconds, too_slow)
    try:
        with Image.open(file, formats=(kind,)) as image:
            width, height = image.size
            _check_area("", width, height, max_pixels)
            if kind in _CHECKS:
                _CHECKS[kind](image, data, max_pixels)
            hdr.check(kind, data)
            return _decoded(image, file, preprocessing, truncated)
    except ClassifierError:
        raise
    except Image.DecompressionBombError:
        message = f"the {kind} image has more pixels than the limit of {max_pixels}"
        raise ClassifierError("image_too_large", message, limit=max_pixels) from None
    except MemoryError:
        raise ClassifierError("image_too_large", "the image needs more memory than there is") from None
    except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
        samples = depth.unknown(data) if kind == "TIFF" and isinstance(error, UnidentifiedImageError) else None
        raise ClassifierError(
            "unreadable_image", f"the {kind} image can't be decoded: {samples or _reason(error)}", format=kind
        ) from None


def _import(kind: str) -> None:
    """Import what reads a format that Pillow doesn't. Where it is broken, this format alone is not read."""
    try:
        for plugin in FORMATS[kind].plugins:
            importlib.import_module(plugin)
    except Exception as error:  # a wheel for another machine, or a library of its own that is missing
        others = [name for name in FORMATS if name != kind]
        raise ClassifierError(
            "unsupported_media_type",
            f"the image is {FORMATS[kind].common or kind}, and {FORMATS[kind].package}, which reads it, can't be "
            f"loaded here: {type(error).__name__}; this service reads {', '.join(others)}",
            allowed=others,
        ) from None


def _check_area(what: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"{what}{width}x{height} has more pixels than the limit of {max_pixels}"
        raise ClassifierError("image_too_large", message, limit=max_pixels)


def _check_tiles(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse large tiles: libtiff decodes whole ones, which may be of any size, whatever is the image's."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    width, height = (image.tag_v2.get(tag, 0) for tag in _TILE)
    if not (isinstance(width, int) and isinstance(height, int)):  # text times a number would be much text
        raise ClassifierError("unreadable_image", "the TIFF image's tiles have no size", format=image.format)
    _check_area("a tile of ", width, height, max_pixels)


def _check_frames(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse large frames: libavif decodes each at its own size, which need not be the image's."""
    _check_area("a frame of ", *avif.largest_frame(data), max_pixels)


def _check_scans(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse many scans: each may be a few bytes that send libjpeg over all pixels once more.

    That is so in sequential files as in progressive ones. Photographs have about ten.
    """
    scans, limit = data.count(_START_OF_SCAN), max(_MIN_SCANS, _MAX_SCANNED // (image.width * image.height))
    if scans > limit:
        raise ClassifierError(
            "unreadable_image",
            f"the JPEG image has {scans} scans; at {image.width}x{image.height} at most {limit} are read",
            format="JPEG",
        )


# What costs a decoder far more than the image's pixels tell, by format.
_CHECKS = {"TIFF": _check_tiles, "AVIF": _check_frames, "JPEG": _check_scans}
_TILE = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
_START_OF_SCAN = b"\xff\xda"
# Pixels that the scans of a JPEG may pass over: 50 megapixels a hundred times take 4 s.
_MAX_SCANNED = 5_000_000_000
_MIN_SCANS = 100


def too_slow(seconds: float) -> ClassifierError:
    """The refusal of an image that takes longer than ``seconds`` to decode."""
    limit = round(1e3 * seconds)
    return ClassifierError("decode_timeout", f"the image takes longer than {limit} ms to decode", limit=limit)


def _reason(error: Exception) -> str:
    # Pillow's text for a file it can't identify ends in the address of a Python object.
    text = str(error).split(f"<{truncation.__name__}")[0].strip()
    return text[:200] if text else type(error).__name__


def _decoded(image: Image.Image, file: truncation.File, preprocessing: Preprocessing, truncated: bool) -> Decoded:
    # Everything below is in stored, not upright, coordinates; only the rounding of the crop needs the upright ones.
    size, (scaled_width, scaled_height) = preprocessing.size, preprocessing.scaled(*image.size)
    # What is decoded, in its own coordinates: a JPEG may be so at a smaller scale, and then by a fraction of a pixel.
    width, height = resampling.draft(image, preprocessing, (scaled_width, scaled_height))
    # A PNG is decoded when it is asked for its EXIF, which may come last.
    warning = truncation.load(image, file) if truncated else None
    transposed, mirror_x, mirror_y = _orientation(image)
    left_is_right, top_is_bottom = (mirror_y, mirror_x) if transposed else (mirror_x, mirror_y)
    left, top = _crop(scaled_width, size, left_is_right), _crop(scaled_height, size, top_is_bottom)
    image = _opaque(frames.first_frame(image, file))
    x, y = width / scaled_width, height / scaled_height
    box = (left * x, top * y, (left + size) * x, (top + size) * y)
    small = resampling.resample(image, box, preprocessing, (left_is_right, top_is_bottom))
    # A copy, because an array over Pillow's own memory is read-only, which torch warns of.
    pixels = np.array(small if small.mode == "RGB" else small.convert("RGB"))
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    if mirror_x:
        pixels = pixels[:, ::-1]
    if mirror_y:
        pixels = pixels[::-1]
    return Decoded(np.ascontiguousarray(pixels), (warning,) if warning else ())


def _crop(length: int, size: int, mirrored: bool) -> int:
    """Where a centre crop starts, in stored coordinates. torchvision rounds half to even, as Python does."""
    start = round((length - size) / 2)
    return length - size - start if mirrored else start


def _orientation(image: Image.Image) -> tuple[bool, bool, bool]:
    if image.format in FORMATS and FORMATS[image.format].upright:
        return _UPRIGHT[1]
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to refuse the pixels
        value = 1
    return _UPRIGHT.get(value, _UPRIGHT[1])


def _opaque(image: Image.Image) -> Image.Image:
    """``image`` as RGB or L with nothing transparent."""
    image = depth.eight_bits(image)
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("RGB", "L", "1") and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in _ALPHA:
        # Half the memory of alpha_composite(), which wants both of its images and a third in RGBA.
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image.convert("RGB")
