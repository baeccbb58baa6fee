"""The preprocessing in the metadata of a checkpoint's file, in this project's names or in timm's."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from classifier.preprocessing import INTERPOLATIONS
from model_build.preprocessing import SCALED_SIDES, SIDES, Given, normalisation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_build.preprocessing import Channels


def read(metadata: Mapping[str, Any]) -> Given:
    """The preprocessing in a file's ``metadata``, whose values are JSON values or text. Raises ValueError.

    Keys: input_size, resize, crop_pct, squash or crop_mode, interpolation, antialias, upsample, mean, std, bgr; and
    pretrained_cfg, timm's JSON object of the same names. The file's own keys override it.
    """
    if "pretrained_cfg" in metadata:
        config = metadata["pretrained_cfg"]
        try:
            config = json.loads(config) if isinstance(config, str) else config
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise ValueError("pretrained_cfg must be a JSON object")
        metadata = config | dict(metadata)

    def told(name: str, read: Any, *bounds: Any) -> Any:
        value = metadata.get(name)
        return None if value is None else read(name, value, *bounds)

    squash = told("squash", _flag)
    if squash is None and (mode := metadata.get("crop_mode")) is not None:
        if mode not in ("center", "squash"):
            raise ValueError(f"crop_mode {mode!r} must be one of center, squash")
        squash = mode == "squash"
    mean, std = normalisation(told("mean", _channels), told("std", _channels))
    return Given(
        size=told("input_size", _input_size),
        resize=told("resize", _side, *SCALED_SIDES),
        crop=told("crop_pct", _share),
        squash=squash,
        interpolation=told("interpolation", _interpolation),
        antialias=told("antialias", _flag),
        upsample=told("upsample", _side, *SCALED_SIDES),
        mean=mean,
        std=std,
        bgr=told("bgr", _flag),
    )


def channels(text: Any) -> Channels:
    """Three finite numbers, or one, separated by commas. Raises ValueError."""
    found = tuple(numbers(text))
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise ValueError("not one or three finite numbers")
    return found


def numbers(value: Any) -> list[float]:
    """The numbers in "1,2", "[1, 2]" or "(1, 2)", or in a list. Raises ValueError."""
    return [float(part) for part in str(value).strip("()[] ").split(",")]


def _channels(name: str, value: Any) -> Channels:
    try:
        return channels(value)
    except ValueError:
        raise ValueError(f"{name} {value!r} must be three finite numbers, of R, G, B, or one of grey") from None


def _side(name: str, value: Any, low: int, high: int) -> int:
    try:
        (side,) = numbers(value)
    except ValueError:
        side = 0.0
    if not low <= side <= high or side != int(side):
        raise ValueError(f"{name} {value!r} must be a whole number of pixels from {low} to {high}")
    return int(side)


def _input_size(name: str, value: Any) -> int:
    """S, or timm's (3, S, S); (1, S, S) of grey."""
    sides = str(value).strip("()[] ").split(",")
    if len(sides) == 3 and sides[0].strip() in ("1", "3") and sides[1].strip() == sides[2].strip():
        return _side(name, sides[1], *SIDES)
    return _side(name, value, *SIDES)


def _share(name: str, value: Any) -> float:
    try:
        (share,) = numbers(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{name} {value!r} must be more than 0 and at most 1")
    return share


def _flag(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name} {value!r} must be true or false")
    return text == "true"


def _interpolation(name: str, value: Any) -> str:
    if value not in INTERPOLATIONS:
        raise ValueError(f"{name} {value!r} must be one of {', '.join(INTERPOLATIONS)}")
    return str(value)
