"""The layout of an architecture's state dict: its keys and shapes, and which of them are the stem and the head.

All is read from torchvision's own network, built without memory for its values.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from classifier.architectures import DEFAULT
from model_build import network
from model_build.structure import TORCHVISION

if TYPE_CHECKING:
    from model_build.structure import Structure


def shapes(architecture: str, classes: int) -> dict[str, tuple[int, ...]]:
    """Torchvision's keys and shapes of an architecture with ``classes`` outputs, without counters of batches."""
    return network.shapes(TORCHVISION, classes, architecture)


@cache
def parameters(architecture: str, classes: int) -> int:
    """The number of values that training learns: weights and biases, without running statistics."""
    with torch.device("meta"):
        return sum(value.numel() for value in network.build(architecture, classes).parameters())


@cache
def head(architecture: str) -> str:
    """The last layer, whose outputs are the logits, by its place in the network: ``fc`` or ``classifier.1``."""
    return [key for key in shapes(architecture, 1) if key.endswith(".weight")][-1].removesuffix(".weight")


@cache
def stem(architecture: str) -> str:
    """The key of the first convolution's weights float32[C, 3, K, K], whose second dimension is the channels'."""
    return next(iter(shapes(architecture, 1)))


@cache
def anchor(architecture: str) -> str:
    """The first key that no other one ends in, so that it tells a network's place under any prefix."""
    keys = list(shapes(architecture, 1))
    return next(key for key in keys if not any(other.endswith(f".{key}") for other in keys))


def output(architecture: str, structure: Structure) -> str:
    """The last layer: ``head``, or of a ResNet18 with a head of several layers the last of them."""
    return structure.output if architecture == DEFAULT else head(architecture)
