"""The options of a build for preparing images, and their common meaning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from classifier.preprocessing import INTERPOLATIONS
from model_build.metadata import channels
from model_build.preprocessing import SCALED_SIDES, SIDES, Given, normalisation
from model_build.structure import ACTIVATIONS, STRIDES, Choice

if TYPE_CHECKING:
    from collections.abc import Callable


def finite(_: click.Context, option: click.Parameter, value: float) -> float:
    """``value``, which FloatRange lets be NaN: then nothing would ever miss the threshold."""
    if math.isnan(value):
        raise click.BadParameter(f"{value} is no threshold; a number is needed", param=option)
    return value


class LabelsFile(click.Path):
    """A file of labels, or the word ``imagenet`` for the packaged one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The file's path; of the word, that of the packaged file."""
        if value == "imagenet":
            from model_build.weights import IMAGENET_LABELS

            value = IMAGENET_LABELS
        return super().convert(value, param, ctx)


class _Channels(click.ParamType[Any]):
    """Three numbers, separated by commas, or one."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers as floats."""
        try:
            return channels(value)
        except ValueError:
            said = "must be three numbers, of red, green and blue, such as 0.485,0.456,0.406, or one for a grey network"
            self.fail(f"{value!r} {said}", param, ctx)


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
        type=_Channels(),
        help="What is subtracted from pixels of 0 to 1, always red first; one number for a network of grey images. "
        "With a value over 1, --mean and --std are both of pixels of 0 to 255.  "
        "[default: the checkpoint's, else ImageNet's]",
    ),
    click.option(
        "--std",
        type=_Channels(),
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


_STRUCTURE = (
    click.option(
        "--max-pool/--no-max-pool",
        "pool",
        default=None,
        help="Whether a max-pool follows the first convolution, which no shape tells.  "
        "[default: the checkpoint's, else yes; no for a 3x3 convolution, as CIFAR's ResNets have]",
    ),
    click.option(
        "--stem-stride",
        "stride",
        type=click.Choice([str(stride) for stride in STRIDES]),
        help="The stride of the first convolution.  [default: the checkpoint's, else 2; 1 for a 3x3 convolution]",
    ),
    click.option(
        "--head-activation",
        "activation",
        type=click.Choice(list(ACTIVATIONS)),
        help="What stands between the layers of a head of several.  [default: the checkpoint's, else relu]",
    ),
)


def structure(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what a file of weights doesn't tell of its network; ``choice`` takes their values by name."""
    for option in reversed(_STRUCTURE):
        command = option(command)
    return command


def choice(pool: bool | None, stride: str | None, activation: str | None) -> Choice:
    """The common meaning of the options of ``structure``."""
    return Choice(pool, None if stride is None else int(stride), activation)


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
