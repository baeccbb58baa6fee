"""The photographs that every benchmark sends, as JPEG bytes."""

from __future__ import annotations

import io
from pathlib import Path

from benchmarks.peers import ROOT

_SHARED = ROOT.parent / "shared" / "images" / "photos"
# Photographs that lie beside the repository, where there are any; else scikit-image's.
FOLDER = _SHARED if _SHARED.is_dir() else None
# Camera photographs that scikit-image carries in its package; the rest of its pictures are scans and test charts.
_PACKAGED = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


def read(folder: Path | None) -> dict[str, bytes]:
    """Every JPEG of ``folder`` by name; without a folder, scikit-image's photographs. Raises ValueError."""
    if folder is None:
        return _packaged()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise ValueError(f"{str(folder)!r} holds no .jpg or .jpeg file")
    return {path.name: path.read_bytes() for path in files}


def _packaged() -> dict[str, bytes]:
    import skimage
    from PIL import Image

    photos = {}
    for name in _PACKAGED:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=92)
        photos[Path(name).with_suffix(".jpg").name] = buffer.getvalue()
    return photos
