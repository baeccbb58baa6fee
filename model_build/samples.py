"""Images as pixels for calibration and for the accuracy gate, by the same ``decode`` that serves."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from PIL import Image

from classifier import pixels
from classifier.errors import ClassifierError
from model_build import splits
from model_build.folders import MAX_IMAGE_PIXELS
from model_build.listing import FolderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from model_build.weights import Checkpoint

CROPS = 256
# Photographs in scikit-image's wheel (public domain or CC0); the held-out ones are never calibrated on.
CALIBRATION_PHOTOS: tuple[str, ...] = (
    "astronaut.png",
    "brick.png",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "retina.jpg",
)
# Not motorcycle_right.png either: it shows what motorcycle_left.png does.
HELD_OUT_PHOTOS = ("camera.png", "chelsea.png", "coffee.png", "gravel.png", "ihc.png")


class SamplesError(Exception):
    """The given images can't be used; the message says why."""


@dataclass(frozen=True)
class Samples:
    """``pixels`` uint8[N, S, S, 3]; ``classes`` int64[N], the true class of each, or None where unknown."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return len(self.pixels)

    def digest(self) -> str:
        """A short sha256 of the pixels and classes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        digest.update(b"" if self.classes is None else self.classes.tobytes())
        return digest.hexdigest()[:16]


def defaults(checkpoint: Checkpoint) -> tuple[Samples, Samples]:
    """Default samples for calibration and evaluation: seeded crops of scikit-image's photographs."""
    return (
        _crops(checkpoint, CALIBRATION_PHOTOS, 0, "crops of scikit-image's photographs"),
        _crops(checkpoint, HELD_OUT_PHOTOS, 1, "crops of photographs held out from calibration"),
    )


def from_folder(
    checkpoint: Checkpoint,
    path: Path,
    limit: int | None = None,
    notice: Callable[[str], None] = lambda text: None,
    calibrating: bool = False,
) -> Samples:
    """The images of a directory or zip; every k-th of them if there are more than ``limit``.

    Of a set in parts, calibration takes the training part; the gate takes the validation part, else the test part.
    The images' classes are known if the folders have the names of the checkpoint's English labels, or names like just
    one label each. ``notice`` is told the first other folder (unless ``calibrating``), the part that is used, and the
    files that are no images. Images that can't be decoded are an error, because a gate on fewer images than were given
    would hide them. Raises SamplesError.
    """
    try:
        split = splits.find(path)
        part = split.first(splits.TRAIN if calibrating else splits.VALIDATION, splits.TEST)
        folder = split.open(part)
        if part:
            use = "calibrated" if calibrating else "judged"
            notice(f"{path} holds the parts of a set: {folder.name} is what is {use} on")
        if folder.skipped:
            notice(f"{folder.name}: skipped what is no image: {folder.skipped}")
        items = folder.items
        if limit is not None and len(items) > limit:
            items = [items[at * len(items) // limit] for at in range(limit)]
        labels, plain = checkpoint.labels.en, [_plain(label) for label in checkpoint.labels.en]
        exact = {label: number for number, label in enumerate(labels) if labels.count(label) == 1}
        alike = {label: number for number, label in enumerate(plain) if plain.count(label) == 1}
        numbers = [exact.get(name, alike.get(_plain(name))) for name in folder.classes]
        strange = [name for name, number in zip(folder.classes, numbers, strict=True) if number is None]
        labelled = bool(folder.classes) and not strange
        if strange and not calibrating:
            notice(
                f"{folder.name}: the folder {strange[0]!r} is called as none of the {checkpoint.classes} labels "
                f"({len(strange)} of {len(folder.classes)} folders are so): accuracy is not judged, only the agreement "
                "with fp32"
            )

        stacked = _room(path, len(items), checkpoint.preprocessing.size)

        def decode(row: int) -> None:
            name = items[row][0]
            try:
                stacked[row] = pixels.decode(folder.read(name), checkpoint.preprocessing, MAX_IMAGE_PIXELS)
            except (ClassifierError, OSError) as error:
                raise SamplesError(f"{path}: {name!r}: {error}") from None

        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(decode, range(len(items))):
                pass
    except FolderError as error:
        raise SamplesError(str(error)) from None
    source = f"{path.name}/{Path(folder.name).name}" if part else path.name
    if not labelled:
        return Samples(stacked, None, source)
    classes = [numbers[number] for _, number in items if number is not None]
    return Samples(stacked, np.array(classes, np.int64), source)


def _room(path: Path, count: int, size: int) -> NDArray[np.uint8]:
    """An array for ``count`` images. Raises SamplesError, before any is read, if they would not fit into memory."""
    needed, free = count * size * size * 3, psutil.virtual_memory().available
    if needed > free:
        raise SamplesError(
            f"{path}: {count} images of {size}x{size} pixels take {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; give fewer images"
        )
    return np.empty((count, size, size, 3), np.uint8)


def _plain(name: str) -> str:
    # macOS writes the accents in names of files as characters of their own.
    return unicodedata.normalize("NFC", name).strip().lower().replace("_", " ")


def _crops(checkpoint: Checkpoint, names: tuple[str, ...], seed: int, source: str) -> Samples:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    photos = [Image.open(folder / name).convert("RGB") for name in names]
    random = np.random.default_rng(seed)
    rows = []
    for number in range(CROPS):
        photo = photos[number % len(photos)]
        # Anything between a detail and the whole photo, as objects are nearer and farther in users' photos.
        share = random.uniform(0.35, 1.0)
        width, height = (max(8, round(side * share)) for side in photo.size)
        left = int(random.integers(0, photo.width - width + 1))
        top = int(random.integers(0, photo.height - height + 1))
        crop = photo.crop((left, top, left + width, top + height))
        if random.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        crop.save(buffer, "BMP")
        rows.append(pixels.decode(buffer.getvalue(), checkpoint.preprocessing, MAX_IMAGE_PIXELS))
    return Samples(np.stack(rows), None, source)
