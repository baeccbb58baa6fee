"""How a decoded image becomes the square that a network sees: the geometry that one checkpoint was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Pillow's filters of the same names, which are also torchvision's and timm's.
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """An image is scaled, then cropped to its centre: ``size`` S pixels a side. Raises ValueError.

    ``resize``: what the shorter side is scaled to, in pixels, or with ``squash`` both sides, whatever their ratio.
    ``interpolation``: one of INTERPOLATIONS. ``antialias``: whether shrinking averages all that a pixel covers, as
    Pillow and torchvision do; False looks at four pixels only, as OpenCV and TensorFlow do, and needs "bilinear".

    >>> Preprocessing(224, 256).scaled(4000, 3000)
    (341, 256)
    """

    size: int
    resize: int
    squash: bool = False
    interpolation: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        for name, kind in (("size", int), ("resize", int), ("squash", bool), ("antialias", bool)):
            if type(getattr(self, name)) is not kind:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {kind.__name__}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation {self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}")
        if self.resize < self.size:
            raise ValueError(f"resize {self.resize} is smaller than the crop of {self.size} pixels")
        if not self.antialias and self.interpolation != "bilinear":
            raise ValueError(f"no antialias is known for bilinear alone, not for {self.interpolation}")

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of the whole scaled image, as torchvision's ``Resize`` computes them."""
        if self.squash:
            return self.resize, self.resize
        short = min(width, height)
        return (
            self.resize if width == short else int(self.resize * width / short),
            self.resize if height == short else int(self.resize * height / short),
        )

    def told(self) -> dict[str, Any]:
        """The fields by name, for manifests and versions: beyond size and resize those that aren't the default.

        So what was told before there were others still means the same, and is still called the same.
        """
        usual = vars(Preprocessing(self.size, self.resize))
        differing = {name: value for name, value in vars(self).items() if value != usual[name]}
        return {"size": self.size, "resize": self.resize, **differing}
