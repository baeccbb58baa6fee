"""Each way of scaling an image: torchvision's pixels, whatever its format, ratio and orientation."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classifier import pixels
from classifier.preprocessing import INTERPOLATIONS, Preprocessing
from tests.classifier.test_pixels import LIMIT, STORED_AS, difference, encode

if TYPE_CHECKING:
    from pathlib import Path

# Mean absolute difference from torchvision, in grey levels, of the worst photograph: what docs/results.md states.
# torch rounds where Pillow cuts off, half a grey level without antialias.
BOUND = {
    Preprocessing(224, 256, interpolation="bicubic"): 0.5,
    Preprocessing(224, 235, interpolation="bicubic"): 0.5,
    Preprocessing(224, 256, interpolation="lanczos"): 0.5,
    Preprocessing(224, 256, interpolation="hamming"): 0.5,
    Preprocessing(224, 256, interpolation="box"): 0.5,
    Preprocessing(224, 256, interpolation="nearest"): 0.5,
    Preprocessing(224, 256, antialias=False): 0.6,
    Preprocessing(224, 224, squash=True): 0.5,
    Preprocessing(224, 256, squash=True): 0.5,
    Preprocessing(224, 224, squash=True, interpolation="bicubic"): 0.5,
    Preprocessing(224, 224, squash=True, interpolation="nearest"): 0.5,
    Preprocessing(224, 224, squash=True, antialias=False): 0.6,
    Preprocessing(32, 32, interpolation="bicubic"): 2.0,
    Preprocessing(32, 32, interpolation="lanczos"): 2.0,
    Preprocessing(32, 32, interpolation="hamming"): 2.0,
    Preprocessing(32, 32, interpolation="box"): 0.6,
    Preprocessing(32, 32, interpolation="nearest"): 0.5,
    Preprocessing(32, 32, squash=True): 2.0,
    Preprocessing(32, 32, squash=True, antialias=False): 0.6,
}
# In an image that is stored mirrored, what lies halfway between two pixels may be rounded to the other.
MIRRORED = {"nearest": 1.0, "box": 1.5}


def name(preprocessing: Preprocessing) -> str:
    return "-".join(str(value) for value in preprocessing.told().values())


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", BOUND, ids=name)
def test_photographs(photos: list[Path], torchvision_pixels: Any, preprocessing: Preprocessing) -> None:
    worst = {}
    for path in photos:
        data = path.read_bytes()
        ours = pixels.decode(data, preprocessing, LIMIT)
        assert ours.shape == (preprocessing.size, preprocessing.size, 3)
        assert ours.flags["C_CONTIGUOUS"]
        worst[path.name] = difference(ours, torchvision_pixels(data, preprocessing))
    assert len(worst) >= 50
    assert {photo: value for photo, value in worst.items() if value > BOUND[preprocessing]} == {}


@pytest.mark.parametrize("preprocessing", BOUND, ids=name)
@pytest.mark.parametrize("shape", [(4000, 3000), (3000, 500), (801, 1401)], ids=str)
def test_large_jpegs(
    photograph: Any, torchvision_pixels: Any, shape: tuple[int, int], preprocessing: Preprocessing
) -> None:
    """Which libjpeg may decode at a scale: twice 32 of 500 pixels is another one than twice 32 of 3000."""
    data = encode(photograph(*shape), "JPEG", quality=85)
    theirs = torchvision_pixels(data, preprocessing)
    assert difference(pixels.decode(data, preprocessing, LIMIT), theirs) <= BOUND[preprocessing]


@pytest.mark.parametrize("preprocessing", BOUND, ids=name)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_stored_turned(
    photograph: Any, torchvision_pixels: Any, orientation: int, preprocessing: Preprocessing
) -> None:
    """640 is a multiple of 32: nearest then chooses between two pixels that are equally near, everywhere."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(640, 480).transpose(STORED_AS[orientation]), "JPEG", quality=90, exif=exif)
    theirs = torchvision_pixels(data, preprocessing)
    bound = max(BOUND[preprocessing], MIRRORED.get(preprocessing.interpolation, 0))
    assert difference(pixels.decode(data, preprocessing, LIMIT), theirs) <= bound


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_each_is_its_own(photograph: Any, torchvision_pixels: Any, kind: str, interpolation: str) -> None:
    """Nothing else would pass for it: another interpolation's pixels are farther from torchvision's than ours."""
    data = encode(photograph(900, 700), kind)
    ours = pixels.decode(data, Preprocessing(64, 73, interpolation=interpolation), LIMIT)
    theirs = {other: torchvision_pixels(data, Preprocessing(64, 73, interpolation=other)) for other in INTERPOLATIONS}
    distances = {other: difference(ours, theirs[other]) for other in INTERPOLATIONS}
    assert min(distances, key=lambda other: distances[other]) == interpolation


def test_no_antialias_is_opencvs_linear(photograph: Any) -> None:
    """Four pixels by their distance from the centre of the pixel that they make, as cv2.INTER_LINEAR weighs them."""
    image = photograph(300, 200)
    ours = pixels.decode(encode(image, "PNG"), Preprocessing(40, 40, squash=True, antialias=False), LIMIT)
    source = np.asarray(image, float)
    y, x = (np.arange(40) + 0.5) * 5 - 0.5, (np.arange(40) + 0.5) * 7.5 - 0.5
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = (y - top)[:, None, None], (x - left)[None, :, None]
    rows = [source[at][:, left] * (1 - right) + source[at][:, left + 1] * right for at in (top, top + 1)]
    np.testing.assert_allclose(ours, rows[0] * (1 - down) + rows[1] * down, atol=1)


def test_upscaling(photograph: Any, torchvision_pixels: Any) -> None:
    for preprocessing in BOUND:
        data = encode(photograph(30, 20), "PNG")
        assert difference(pixels.decode(data, preprocessing, LIMIT), torchvision_pixels(data, preprocessing)) <= 1.0


def test_modes_other_than_rgb(torchvision_pixels: Any) -> None:
    """Grey goes through each of the ways as one channel."""
    grey = Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(64, 48))
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    for preprocessing in BOUND:
        ours = pixels.decode(buffer.getvalue(), preprocessing, LIMIT)
        assert (ours[..., 0] == ours[..., 2]).all()
        assert difference(ours, torchvision_pixels(buffer.getvalue(), preprocessing)) <= 1.0
