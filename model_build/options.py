"""The options of a build for preparing images, and their common meaning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from classifier.preprocessing import INTERPOLATIONS
from model_build.metadata import triple
from model_build.preprocessing import SCALED_SIDES, SIDES, Given, normalisation

if TYPE_CHECKING:
    from collections.abc import Callable


class _Triple(click.ParamType[Any]):
    """Three numbers, separated by commas."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers as floats."""
        try:
            return triple(value)
        except ValueError:
            self.fail(f"{value!r} must be three numbers, of red, green and blue, such as 0.485,0.456,0.406", param, ctx)


_OPTIONS = (
    click.option(
        "--size",
        type=click.IntRange(*SIDES),
        help="Side in pixels of the square the network sees.  [default: the checkpoint's, else 224]",
    ),
    click.option(
        "--resize",
        type=click.IntRange(*SCALED_SIDES),
        help="Shorter side in pixels before the centre crop of --size.  "
        "[default: the checkpoint's, else 256/224 of --size]",
    ),
    click.option(
        "--crop",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="FRACTION",
        help="In place of --resize: the share of the shorter side that the crop keeps, timm's crop_pct.",
    ),
    click.option(
        "--squash/--no-squash",
        default=None,
        help="Scale both sides to --size, whatever their ratio, and crop nothing; with --resize or --crop, both sides "
        "to that, then the crop.  [default: the checkpoint's, else no]",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(INTERPOLATIONS),
        help="How pixels are scaled.  [default: the checkpoint's, else bilinear]",
    ),
    click.option(
        "--antialias/--no-antialias",
        default=None,
        help="Whether shrinking looks at all pixels. --no-antialias, for bilinear, is as OpenCV, Albumentations and "
        "TensorFlow shrink.  [default: the checkpoint's, else yes]",
    ),
    click.option(
        "--mean",
        type=_Triple(),
        help="What is subtracted from pixels of 0 to 1, always red first. With a value over 1, --mean and --std are "
        "both of pixels of 0 to 255.  [default: the checkpoint's, else ImageNet's]",
    ),
    click.option(
        "--std",
        type=_Triple(),
        help="What they are then divided by, always red first.  [default: the checkpoint's, else ImageNet's]",
    ),
    click.option(
        "--bgr/--rgb",
        default=None,
        help="The channels the network was trained on: OpenCV's, blue first, or red first.  "
        "[default: the checkpoint's, else rgb]",
    ),
)


def preprocessing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to ``command``; ``given`` takes their values by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(**values: Any) -> Given:
    """The common meaning of the options. Raises UsageError."""
    if values["crop"] is not None and math.isnan(values["crop"]):
        raise click.UsageError("--crop nan is no share of an image; more than 0 and at most 1 is")
    if values["crop"] is not None and values["resize"] is not None:
        raise click.UsageError(
            f"--crop {values['crop']:g} and --resize {values['resize']} both say what is cropped; give one of them"
        )
    try:
        mean, std = normalisation(values["mean"], values["std"], "--")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Given(**values | {"mean": mean, "std": std})
