"""What a ResNet18 may be beyond torchvision's: another stem, grey images, a head of several layers.

The shapes of a state dict tell the convolution's kernel, the channels and the head's layers. They don't tell the stem's
stride, whether a max-pool follows, and which activation stands between the head's layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model_build.errors import FileError
from model_build.heads import ACTIVATION, FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from model_build.heads import Head, Layer

# By their options' names, torch.nn's classes.
ACTIVATIONS = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "elu": "ELU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "none": "Identity",
}
WIDTH = 64
# Side in pixels of the images that networks with the small stem are made for: CIFAR's.
SMALL = 32
STRIDES = (1, 2)
# The options that set a Choice.
CHOICES = "--max-pool, --stem-stride and --head-activation"


@dataclass(frozen=True)
class Choice:
    """What shapes don't tell, as the command line or a file's metadata does; None for what it doesn't."""

    pool: bool | None = None
    stride: int | None = None
    activation: str | None = None


@dataclass(frozen=True)
class Structure:
    """A ResNet18's stem and head; torchvision's own by default.

    ``channels``: of the images it sees, 3 or 1; ``kernel``, ``stride``: of the first convolution; ``pool``: whether the
    max-pool follows; ``head``: the head's layers before the last; ``activation``: what stands in their places for one.
    """

    channels: int = 3
    kernel: int = 7
    stride: int = 2
    pool: bool = True
    head: tuple[Layer, ...] = ()
    activation: str = "relu"

    @property
    def output(self) -> str:
        """The module of the last layer: "fc", or "fc.3" in a Sequential."""
        return f"fc.{len(self.head)}" if self.head else "fc"

    def told(self) -> dict[str, Any]:
        """What differs from torchvision's, for digests and manifests."""
        layers = [self.activation if layer == ACTIVATION else f"{layer[0]} {layer[1]}" for layer in self.head]
        plain = TORCHVISION._stem()
        stem = {name: value for name, value in self._stem().items() if value != plain[name]}
        return stem | ({"head": [*layers, "linear"]} if layers else {})

    def _stem(self) -> dict[str, Any]:
        return {"channels": self.channels, "kernel": self.kernel, "stride": self.stride, "max_pool": self.pool}

    def metadata(self) -> dict[str, str]:
        """What shapes don't tell of it, as entries of a safetensors file's metadata; none of torchvision's own."""
        if not self.told():
            return {}
        told = {"max_pool": str(self.pool).lower(), "stem_stride": str(self.stride)}
        return told | ({"head_activation": self.activation} if ACTIVATION in self.head else {})


TORCHVISION = Structure()


def of_shapes(stem: torch.Tensor, head: Head) -> Structure:
    """The structure that the first convolution's weights and the head tell. Raises FileError.

    A 3x3 stem is taken for CIFAR's: stride 1 and no max-pool.
    """
    shape = tuple(stem.shape)
    expected = (WIDTH, 3, 7, 7)
    if len(shape) == 4 and shape[0] == WIDTH:
        channels, kernel = shape[1], shape[2:]
        if channels not in (1, 3):
            raise FileError(
                f"is no ResNet18: 'conv1.weight' has shape {shape}, expected {expected}: it takes images of "
                f"{channels} channels, and only those of 3 (RGB) and 1 (grey) are served"
            )
        if kernel == (7, 7):
            return Structure(channels=channels, head=head.before)
        if kernel == (3, 3):
            return Structure(channels=channels, kernel=3, stride=1, pool=False, head=head.before)
        raise FileError(
            f"is no ResNet18: 'conv1.weight' has shape {shape}, expected {expected}: a stem of "
            f"{'x'.join(map(str, kernel))}, and only those of 7x7 (ImageNet's) and 3x3 (CIFAR's) are read"
        )
    raise FileError(f"is no ResNet18: 'conv1.weight' has shape {shape}, expected {expected}")


def read(metadata: Mapping[str, Any]) -> Choice:
    """The choices in a file's ``metadata``: max_pool, stem_stride, head_activation. Raises ValueError."""
    pool, stride, activation = (metadata.get(name) for name in ("max_pool", "stem_stride", "head_activation"))
    if pool is not None and str(pool).lower() not in ("true", "false"):
        raise ValueError(f"max_pool {pool!r} must be true or false")
    if stride is not None and str(stride) not in map(str, STRIDES):
        raise ValueError(f"stem_stride {stride!r} must be one of {', '.join(map(str, STRIDES))}")
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"head_activation {activation!r} must be one of {', '.join(ACTIVATIONS)}")
    return Choice(
        None if pool is None else str(pool).lower() == "true", None if stride is None else int(stride), activation
    )


def decide(found: Structure, given: Choice, stored: Choice, notice: Callable[[str], None]) -> Structure:
    """``found`` with what shapes don't tell: as ``given``, else as ``stored``, else assumed.

    ``notice`` is told what was assumed of a network that isn't torchvision's, and what changes it. Raises ValueError,
    whose text begins with the option, for a choice that the network has no place for.
    """
    if given.activation is not None and ACTIVATION not in found.head:
        raise ValueError(f"--head-activation {given.activation}: the head has no place between two layers for it")
    if stored.activation is not None and ACTIVATION not in found.head:
        raise ValueError(f"head_activation {stored.activation!r}: the head has no place between two layers for it")
    choice = Choice(
        stored.pool if given.pool is None else given.pool,
        stored.stride if given.stride is None else given.stride,
        stored.activation if given.activation is None else given.activation,
    )
    if found.kernel == 3 and (choice.pool is None or choice.stride is None):
        assumed = ["stride 1"] * (choice.stride is None) + ["no max-pool"] * (choice.pool is None)
        options = ["--stem-stride 2"] * (choice.stride is None) + ["--max-pool"] * (choice.pool is None)
        notice(
            f"has a stem of 3x3, as ResNets for CIFAR: {' and '.join(assumed)} {'are' if len(assumed) > 1 else 'is'} "
            f"assumed, which the file doesn't tell; {' and '.join(options)} "
            f"{'say' if len(options) > 1 else 'says'} otherwise"
        )
    if ACTIVATION in found.head and choice.activation is None:
        notice(
            f"has a head of several layers, {_written(found)}: relu is assumed between them, which the file doesn't "
            f"tell; --head-activation {'|'.join(name for name in ACTIVATIONS if name != 'relu')} says otherwise"
        )
    return replace(
        found,
        pool=found.pool if choice.pool is None else choice.pool,
        stride=choice.stride or found.stride,
        activation=choice.activation or found.activation,
    )


def _written(structure: Structure) -> str:
    """The head's layers in words."""
    layers = [f"{kind} {size}" if size else structure.activation for kind, size in structure.head]
    return f"{FEATURES} → {' → '.join([*layers, 'classes'])}"
