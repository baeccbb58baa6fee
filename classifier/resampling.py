"""From a decoded image to the network's square in one resampling, by the filter the checkpoint was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from classifier.preprocessing import INTERPOLATIONS

if TYPE_CHECKING:
    from classifier.preprocessing import Preprocessing

_FILTERS = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
# Filters whose weights fall to nothing hardly notice whether what they weigh was averaged before. A box has an edge:
# at 32 px it would be off by 6 grey levels where these are by 2. Nearest has no width at all.
_SMOOTH = ("bilinear", "bicubic", "hamming", "lanczos")
# JPEG's own scaling averages boxes where the filter weighs triangles. Kept this far from the target it costs 3 ms more
# at 12 MP and brings the worst photo's mean difference from torchvision from 2.0 grey levels to 0.2.
_DRAFT_MARGIN = 2
# A huge photo is first shrunk by whole factors to this many times the target, then filtered: a third of the time.
_REDUCING_GAP = 3.0
# Halfway between two pixels the right one is taken, which in a mirrored image is the left one: pixels to move by.
_TIE = 1e-6


def draft(image: Image.Image, preprocessing: Preprocessing, scaled: tuple[int, int]) -> tuple[float, float]:
    """Let a JPEG be decoded at the smallest scale that serves; the width and height, in fractions of a pixel, of that.

    ``scaled``: width and height in pixels that the whole of it will be resampled to.
    """
    if image.format in ("JPEG", "MPO") and _is_smooth(preprocessing):
        drafted = image.draft(None, (_DRAFT_MARGIN * scaled[0], _DRAFT_MARGIN * scaled[1]))
        if drafted is not None:
            width, height = drafted[1][2:]
            return width, height
    return float(image.width), float(image.height)


def resample(
    image: Image.Image,
    box: tuple[float, float, float, float],
    preprocessing: Preprocessing,
    mirrored: tuple[bool, bool],
) -> Image.Image:
    """``box`` (left, top, right, bottom, in pixels) of ``image``, L or RGB, as S x S pixels.

    ``mirrored``: whether the x and the y axis will be mirrored afterwards.
    """
    side = (preprocessing.size, preprocessing.size)
    resampling = _FILTERS[preprocessing.interpolation]
    if _is_smooth(preprocessing):
        return image.resize(side, resampling, box=box, reducing_gap=_REDUCING_GAP)
    if preprocessing.interpolation == "box":
        return image.resize(side, resampling, box=box)
    x, y = _TIE * mirrored[0], _TIE * mirrored[1]
    extent = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
    return image.transform(side, Image.Transform.EXTENT, extent, resampling)


def _is_smooth(preprocessing: Preprocessing) -> bool:
    return preprocessing.antialias and preprocessing.interpolation in _SMOOTH
