"""Bit depth: samples of more than 8 bits, and signed ones, to 8 bits; refused where a file does not tell the white one.

Most such files are TIFFs, whose 16 bits often hold 12, and whose floats end at 1 or at 255. Read by the wrong one, a
picture is black, and has an answer all the same. So the rule is:

- ``SMaxSampleValue``, or ``MaxSampleValue``, tells white. TIFF 6.0 has it as a statistic, so of integers it only tells
  how many bits are used: 3000 is one of 12 bits. ``SMinSampleValue`` tells black where samples are signed or floats.
- Else 8 and 12 bits are what they say, and samples of 16 bits, 32 bits and floats are of the first range in WHITES of
  which the brightest reaches a quarter; darker ones may be of another, and are refused.
- ``PhotometricInterpretation`` 0, white is zero, inverts; NaN, which stands for no data, is black.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImagePalette, TiffImagePlugin

from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

UNSIGNED, SIGNED, FLOAT = "unsigned", "signed", "float"
# What may be white where the file does not tell, by kind and bits.
WHITES: dict[tuple[str, int], tuple[int, ...]] = {
    (UNSIGNED, 12): (4095,),
    (UNSIGNED, 16): (65535,),
    (UNSIGNED, 32): (255, 65535, 2**32 - 1),
    (SIGNED, 8): (127,),
    (SIGNED, 16): (32767,),
    (SIGNED, 32): (255, 65535, 2**31 - 1),
    (FLOAT, 32): (1, 255),
}
# Numbers of bits that are chosen for the samples, not for the file's format.
_EXACT = (8, 12)
_KINDS = {1: UNSIGNED, 2: SIGNED, 3: FLOAT}
_MAX, _S_MIN, _S_MAX = 281, 340, 341
# What Pillow gives as samples of another kind with the same bits.
_DTYPES = {(SIGNED, 8): "int8", (UNSIGNED, 32): "uint32"}
# libtiff gives samples in the machine's order, and Pillow reads these in the file's.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
# Samples converted at a time, so that a large image needs little memory besides its own.
_BAND = 1 << 20


def eight_bits(image: Image.Image) -> Image.Image:
    """``image`` with samples of 8 bits, itself where it has them. Raises ClassifierError("unreadable_image")."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff(image)
    if image.mode.startswith("I"):  # a PNG, which by its standard uses all 16 bits
        return _grey(image, lambda samples: samples >> 8)
    return image


def unknown(data: bytes) -> str | None:
    """A sentence about the samples of a TIFF that Pillow does not know; None where its directory can't be read."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        kind = _KINDS[tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]]
        samples, colours = (
            tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1),
            tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION],
        )
        shown = f"{samples} {kind} samples a pixel of {', '.join(map(str, bits[:8]))} bits"
        return f"{shown}, with PhotometricInterpretation {colours}, are not read; send 8 bits a sample"
    except Exception:  # Pillow raises whatever a broken file leads it to
        return None


def _tiff(image: TiffImagePlugin.TiffImageFile) -> Image.Image:
    tags = image.tag_v2
    bits: int = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
    kind = _KINDS[tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]]
    if image.mode in ("P", "PA"):
        colours = tags[TiffImagePlugin.COLORMAP]
        if max(colours) < 256:  # written with 8 bits a colour, not 16: all would be black
            image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    elif bits == 16 and image.mode in ("RGB", "RGBA", "CMYK"):
        _check_colour(image)
    elif kind != UNSIGNED or bits > 8:
        image.tile = [tile._replace(args=_in_native_order(tile)) for tile in image.tile]
        return _scaled(image, kind, bits)
    return image


def _in_native_order(tile: Any) -> Any:
    if tile.codec_name != "libtiff":
        return tile.args
    mode, *rest = tile.args
    return (_NATIVE.get(mode, mode), *rest)


def _check_colour(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse 16-bit colour of which Pillow, which keeps the high bytes, loses what can be seen."""
    if image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and image.tile[0].codec_name == "raw":
        raise _refused("its planes of 16-bit samples are read only where they are compressed")
    white = _told(image, _S_MAX) or _told(image, _MAX)
    extremes: Any = image.getextrema()
    brightest = max(high for _, high in extremes[: 4 if image.mode == "CMYK" else 3])  # alpha is none
    if white is None and brightest < 64:
        raise _refused(
            f"its 16-bit samples end below {256 * (brightest + 1)}, so that white may be another than 65535; "
            "send 8 bits a sample"
        )
    if white is not None and white < 32768:
        raise _refused(f"its 16-bit colour tells that it ends at {white:g}; send 8 bits a sample")


def _scaled(image: TiffImagePlugin.TiffImageFile, kind: str, bits: int) -> Image.Image:
    dtype = _DTYPES.get((kind, bits))
    black, white = _range(image, kind, bits, *_extremes(image, dtype))
    inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0

    def convert(samples: NDArray[Any]) -> NDArray[Any]:
        if kind == FLOAT:
            grey = np.rint((samples.astype(np.float64) - black) * (255 / (white - black)))
            grey = np.nan_to_num(grey, nan=0).clip(0, 255)
        else:
            # Of all ranges of a power of two the highest 8 bits.
            grey = (samples.astype(np.int64) - int(black)) * 256 // (int(white) - int(black) + 1)
        return 255 - grey if inverted else grey

    return _grey(image, convert, dtype)


def _range(image: TiffImagePlugin.TiffImageFile, kind: str, bits: int, low: float, high: float) -> tuple[float, float]:
    """Black and white of samples from ``low`` to ``high``. Raises ClassifierError where they can't be known."""
    white, black = _told(image, _S_MAX) or _told(image, _MAX), 0.0
    found = f"its {bits}-bit {kind} samples go from {low:g} to {high:g}"
    if white is not None:
        if kind != UNSIGNED:
            black = _told(image, _S_MIN) or 0.0
        if kind != FLOAT:
            white = min(white, WHITES[kind, bits][-1])
            white = white if black else 2 ** int(white).bit_length() - 1
        if not (black < white and _within(kind, low, high, black, white)):
            raise _refused(f"{found}, and it tells that they go from {black:g} to {white:g}")
        return black, white
    for white in WHITES[kind, bits]:
        if _within(kind, low, high, black, white) and (high >= white / 4 or high == 0 or bits in _EXACT):
            return black, white
    whites = " or ".join(str(white) for white in WHITES[kind, bits])
    tag = "MaxSampleValue" if kind == UNSIGNED else "SMaxSampleValue"
    raise _refused(
        f"{found}, and it does not tell which is white: {whites} is, where none is below 0 and the brightest reaches a "
        f"quarter of it; write {tag}, or send 8 bits a sample"
    )


def _within(kind: str, low: float, high: float, black: float, white: float) -> bool:
    # Of floats, what is under half a grey level is rounding.
    slack = (white - black) / 510 if kind == FLOAT else 0
    return black - slack <= low and high <= white + slack


def _told(image: TiffImagePlugin.TiffImageFile, tag: int) -> float | None:
    """The number in ``tag``, the greatest where each channel has one; None where there is none."""
    value = image.tag_v2.get(tag)
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        return None
    return float(max(numbers))


def _refused(why: str) -> ClassifierError:
    return ClassifierError("unreadable_image", f"the TIFF image can't be read rightly: {why}", format="TIFF")


def _bands(image: Image.Image, dtype: str | None) -> Iterator[tuple[int, NDArray[Any]]]:
    """The samples of ``image``, their bits read as ``dtype``, some rows at a time, each with its first row's number."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        samples = np.asarray(image.crop((0, top, image.width, min(image.height, top + rows))))
        yield top, samples.view(dtype) if dtype else samples


def _extremes(image: Image.Image, dtype: str | None) -> tuple[float, float]:
    """The least and the greatest sample, without what is not a number."""
    low, high = math.nan, math.nan
    for _, samples in _bands(image, dtype):
        low = float(np.fmin(low, np.fmin.reduce(samples, axis=None)))
        high = float(np.fmax(high, np.fmax.reduce(samples, axis=None)))
    return low, high


def _grey(image: Image.Image, convert: Callable[[NDArray[Any]], NDArray[Any]], dtype: str | None = None) -> Image.Image:
    """An image of mode L of what ``convert`` makes of the samples, 0 to 255."""
    grey = np.empty((image.height, image.width), np.uint8)
    for top, samples in _bands(image, dtype):
        grey[top : top + len(samples)] = convert(samples)
    return Image.fromarray(grey)
