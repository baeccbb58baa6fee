"""The preprocessing of a checkpoint: from the command line, the checkpoint's file, or the defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifier.preprocessing import Preprocessing

if TYPE_CHECKING:
    from model_build.weights import Checkpoint

    Triple = tuple[float, float, float]
    Channels = tuple[float, ...]  # three, or one of grey

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE = 224
SIDES, SCALED_SIDES = (8, 1024), (8, 2048)
LEAST_STD = 0.001


@dataclass(frozen=True)
class Given:
    """The values of one source, the command line or a file's metadata; None for a value that it does not give.

    ``size``, ``resize``, ``squash``, ``interpolation``, ``antialias``: see ``Preprocessing``. ``crop``: the share of
    the scaled image's shorter side that the crop keeps, timm's ``crop_pct``: resize is the whole part of size/crop.
    ``upsample``: the side in pixels that the graph enlarges S to. ``mean``, ``std``: of R, G, B, or one number of grey,
    for pixels of 0 to 1. ``bgr``: the network was trained on blue, green, red.
    """

    size: int | None = None
    resize: int | None = None
    crop: float | None = None
    squash: bool | None = None
    interpolation: str | None = None
    antialias: bool | None = None
    upsample: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    bgr: bool | None = None


def default_resize(size: int) -> int:
    """The shorter side before the crop: ImageNet's 256/224 for photographs, the whole image for tiny inputs."""
    return round(size * 256 / 224) if size >= 64 else size


def resolve(given: Given, stored: Given, default_size: int = SIZE, grey: bool = False) -> dict[str, Any]:
    """The fields of a ``Checkpoint`` that tell its preprocessing: ``given`` first, then ``stored``, then the default.

    ``grey``: the network sees one channel; it has no default of mean and std, and both become three equal numbers. A
    stored resize or upsample belongs to the stored size, and a stored resize to the stored squash. Raises ValueError;
    its text begins with the option at fault, if there is one.
    """
    sources: dict[str, str] = {}

    def pick(name: str, default: Any, option: str = "") -> Any:
        choices = ((given, option or f"--{name}"), (stored, "file"))
        for told, source in choices:
            if (value := getattr(told, name)) is not None:
                sources[name] = source
                return value
        sources[name] = "default"
        return default

    size, squash = pick("size", default_size), pick("squash", False, "--no-squash" if given.squash is False else "")
    own_size, own_shape = size == (stored.size or default_size), squash == bool(stored.squash)
    if given.resize is not None:
        resize, source = given.resize, "--resize"
    elif given.crop is not None:
        resize, source = _scaled(size, given.crop, "--crop"), "--crop"
    elif stored.resize is not None and own_size and own_shape:
        resize, source = stored.resize, "file"
    elif stored.crop is not None and own_shape:
        resize, source = _scaled(size, stored.crop, "crop_pct"), "file"
    elif squash:
        resize, source = size, sources["squash"]
    else:
        resize, source = default_resize(size), "default"
    sources["resize"] = source
    named = "--resize" if source.startswith("--") else "resize"
    if resize < size:
        raise ValueError(f"{named} {resize} is smaller than the crop of {size} pixels")
    interpolation = pick("interpolation", "bilinear")
    antialias = pick("antialias", True, "--no-antialias" if given.antialias is False else "")
    if not antialias and interpolation != "bilinear":
        told = "--no-antialias" if given.antialias is False else "antialias false"
        raise ValueError(f"{told} goes with bilinear alone, not with {interpolation}; --antialias is possible")
    mean, std = pick("mean", None if grey else IMAGENET_MEAN), pick("std", None if grey else IMAGENET_STD)
    bgr = pick("bgr", False, "--rgb" if given.bgr is False else "")
    if grey and bgr:
        raise ValueError(f"{'--bgr' if given.bgr else 'bgr'} is of networks that see colours; this one sees grey")
    return {
        "preprocessing": Preprocessing(size, resize, squash, interpolation, antialias),
        "upsample": stored.upsample if own_size and stored.upsample != size else None,
        "mean": _three("mean", mean, sources["mean"], grey),
        "std": _three("std", std, sources["std"], grey),
        "bgr": bgr,
        "sources": sources,
    }


def _scaled(size: int, crop: float, name: str) -> int:
    """The whole part of size/crop, in pixels. Raises ValueError, which begins with ``name``, if it is too large."""
    scaled = size / crop  # infinite for the smallest shares
    if scaled >= SCALED_SIDES[1] + 1:
        raise ValueError(
            f"{name} {crop} scales to {scaled:.6g} pixels for a crop of {size}; at most {SCALED_SIDES[1]} are possible"
        )
    return math.floor(scaled)


def _three(name: str, values: Channels | None, source: str, grey: bool) -> Triple:
    """``values`` as three; of grey they are one number, or three equal ones. Raises ValueError."""
    option = f"--{name}" if source.startswith("--") else name
    if values is None:
        raise ValueError(
            f"the network sees grey images, and nothing tells their {name}: give --mean M and --std S, one number each"
        )
    if grey and len(set(values)) > 1:
        raise ValueError(f"{option} {_text(values)} must be one number, as the network sees grey images")
    if not grey and len(values) == 1:
        raise ValueError(f"{option} {_text(values)} must be three numbers, of R, G, B")
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


def line(checkpoint: Checkpoint) -> str:
    """A checkpoint's preprocessing in a line, each value with its source: an option, file, default."""
    preprocessing = checkpoint.preprocessing
    whole = preprocessing.squash and preprocessing.resize == preprocessing.size
    grey = checkpoint.structure.channels == 1
    shown = 1 if grey else 3
    told = {
        "size": preprocessing.size,
        "resize": preprocessing.resize,
        "squash": "yes" if preprocessing.squash else "no",
        "crop": "none" if whole else f"centre {preprocessing.size}x{preprocessing.size}",
        "interpolation": preprocessing.interpolation,
        "antialias": "yes" if preprocessing.antialias else "no",
        "mean": ",".join(f"{value:.6g}" for value in checkpoint.mean[:shown]),
        "std": ",".join(f"{value:.6g}" for value in checkpoint.std[:shown]),
        "bgr": "grey" if grey else "BGR" if checkpoint.bgr else "RGB",
    }
    parts = [
        f"{'channels' if name == 'bgr' else name} {value}"
        + (f" ({checkpoint.sources[name]})" if name in checkpoint.sources else "")
        for name, value in told.items()
    ]
    return f"preprocessing: {', '.join(parts)}"


def normalisation(
    mean: Channels | None, std: Channels | None, prefix: str = ""
) -> tuple[Channels | None, Channels | None]:
    """``mean`` and ``std`` for pixels of 0 to 1. If a value is over 1, both are for 0 to 255, and are divided.

    ``prefix`` stands before their names in messages. Raises ValueError.
    """
    if std is not None and min(std) < LEAST_STD:
        raise ValueError(f"{prefix}std {_text(std)} must be at least {LEAST_STD}")
    if mean is not None and not 0 <= min(mean) <= max(mean) <= 255:
        raise ValueError(f"{prefix}mean {_text(mean)} must be from 0 to 1, or to 255 where {prefix}std is, too")
    if std is not None and max(std) > 255:
        raise ValueError(f"{prefix}std {_text(std)} must be at most 1, or 255 where {prefix}mean is for 0 to 255, too")
    if max((mean or ()) + (std or ()), default=0) <= 1:
        return mean, std
    if mean is None or std is None:
        one, other = ("std", std) if mean is None else ("mean", mean)
        missing = "mean, 0,0,0" if mean is None else "std, 1,1,1"
        raise ValueError(
            f"{prefix}{one} {_text(other or ())} is for pixels of 0 to 255: give {prefix}{missing} where there is "
            "none, as well, or divide it by 255"
        )
    # A pipeline of 0 to 255 that only subtracts has a std of 1; none has one that is less.
    if min(std) < 1 or any(0 < value < 1 for value in mean):
        raise ValueError(
            f"{prefix}mean {_text(mean)} and {prefix}std {_text(std)} must both be for pixels of 0 to 1, or both for "
            "pixels of 0 to 255"
        )
    return _divided(mean), _divided(std)


def _divided(values: Channels) -> Channels:
    return tuple(value / 255 for value in values)


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
