"""The photographs that are sent, as JPEG bytes, and where they come from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "images" / "photos"
# The photographs beside the repository; None, which stands for scikit-image's, where there are none.
FOLDER = _SHARED if _SHARED.is_dir() else None
# Camera photographs that scikit-image carries in its package; the rest of its pictures are scans and test charts.
_PACKAGED = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
# What users upload: a screen, a telephone's upright picture scaled by its app, a thumbnail, and a camera's 12 MP.
SIZES = ((1920, 1080), (1200, 1600), (800, 600), (4000, 3000))


@dataclass(frozen=True)
class Photographs:
    """JPEGs by name. ``source``: where they come from, in words."""

    files: dict[str, bytes]
    source: str

    def __str__(self) -> str:
        return f"{len(self.files)} of {self.source}"

    @property
    def bodies(self) -> list[bytes]:
        """The JPEGs alone."""
        return list(self.files.values())


def read(folder: Path | None = FOLDER) -> Photographs:
    """Every JPEG of ``folder``; without a folder, scikit-image's photographs. Raises ValueError."""
    if folder is None:
        return _packaged()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise ValueError(f"{str(folder)!r} holds no .jpg or .jpeg file")
    name = "../shared/images/photos" if folder == _SHARED else str(folder)
    return Photographs({path.name: path.read_bytes() for path in files}, name)


def resized(photographs: Photographs, each: int = 3) -> Photographs:
    """The first ``each`` of them, stretched to every one of SIZES. Stretching may change their labels."""
    from PIL import Image

    files = {}
    for name, photo in list(photographs.files.items())[:each]:
        with Image.open(io.BytesIO(photo)) as image:
            rgb = image.convert("RGB")
        for width, height in SIZES:
            files[f"{Path(name).stem}-{width}x{height}.jpg"] = _jpeg(rgb.resize((width, height)), 85)
    return Photographs(files, f"{photographs.source}, resized")


def _packaged() -> Photographs:
    import skimage
    from PIL import Image

    files = {}
    for name in _PACKAGED:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            files[Path(name).with_suffix(".jpg").name] = _jpeg(image.convert("RGB"), 92)
    return Photographs(files, f"scikit-image {version('scikit-image')}")


def _jpeg(image: Picture, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
