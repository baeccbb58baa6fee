"""The head of a network, by the names and shapes of its tensors: linear layers in a row, under any usual name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

# The attributes that networks have their head in; torchvision's and timm's is the first.
NAMES = ("fc", "classifier", "head", "last_linear", "linear")
FEATURES = 512
# A layer: what it is, and its outputs. The place of an activation, which has no tensors, is a layer of 0.
Layer = tuple[str, int]
ACTIVATION: Layer = ("activation", 0)
PLAIN = frozenset({"fc.weight", "fc.bias"})


@dataclass(frozen=True)
class Head:
    """A head of linear layers. ``name``: the module it was found in.

    ``before``: its layers before the last, which is always linear. ``tensors``: by the keys they have where the layers
    are torch's Sequential called fc; of a single layer, ``fc.weight`` and ``fc.bias``.
    """

    name: str
    before: tuple[Layer, ...]
    tensors: Tensors


def find(tensors: Tensors) -> Head | None:
    """The head in ``tensors``, those of a network without its body's; None if it is none that is read.

    The shapes of torchvision's own, a layer called fc, are not looked at.
    """
    if tensors.keys() == PLAIN:
        return Head("fc", (), tensors)
    modules: dict[str, Tensors] = {}
    for key, value in tensors.items():
        path, _, name = key.rpartition(".")
        modules.setdefault(path, {})[name] = value
    paths = sorted(modules, key=_natural)
    if not paths or paths[0].split(".")[0] not in NAMES or len({re.sub(r"\d+", "", path) for path in paths}) > 1:
        return None
    layers = _layers([modules[path] for path in paths])
    if layers is None:
        return None
    placed = _with_activations(paths, layers)
    numbers = [number for number, layer in enumerate(placed) if layer != ACTIVATION]
    renamed = {
        f"fc.{number}.{name}" if len(placed) > 1 else f"fc.{name}": value
        for number, path in zip(numbers, paths, strict=True)
        for name, value in modules[path].items()
    }
    return Head(paths[0] if len(paths) == 1 else paths[0].rpartition(".")[0] or paths[0], tuple(placed[:-1]), renamed)


def near(prefix: str, tensors: Tensors) -> tuple[Head | None, set[str]]:
    """The head of the body under ``prefix`` among ``tensors``, those beside it, and its keys there.

    It is in a module of a head's name, which is a sibling of the body or of a module around it. Of two different ones
    there is none.
    """
    parts, found = prefix.split(".")[:-1], {}
    for key in tensors:
        for depth in range(len(parts)):
            above = "".join(f"{part}." for part in parts[:depth])
            if key.startswith(above) and key.removeprefix(above).split(".")[0] in NAMES:
                found[key] = key.removeprefix(above)
    named: Tensors = {}
    for key, name in found.items():
        if not _is_same(named.setdefault(name, tensors[key]), tensors[key]):
            return None, set()
    head = find(named)
    return head, set(found) if head else set()


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two are one: in a file of torch.save, one object, or the same place of a storage."""
    if one is other:
        return True
    stored = all(value.device.type == "cpu" and str(value.layout) == "torch.strided" for value in (one, other))
    return stored and one.is_set_to(other)


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts fc.10 after fc.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _layers(modules: list[Tensors]) -> list[Layer] | None:
    """The layers of a row of modules, from 512 features to the classes; None if one isn't known or doesn't fit."""
    width, layers = FEATURES, []
    for module in modules:
        shapes = {name: tuple(value.shape) for name, value in module.items()}
        weight = shapes.get("weight", ())
        if shapes == {"weight": (*weight[:1], width), "bias": weight[:1]}:
            width = weight[0]
            layers.append(("linear", width))
        elif shapes == dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)):
            layers.append(("batchnorm", width))
        else:
            return None
    return layers if layers and layers[-1][0] == "linear" and width else None


def _with_activations(paths: list[str], layers: list[Layer]) -> list[Layer]:
    """``layers`` and an activation between two linear ones where there is room for it.

    There is none between neighbours in a Sequential. It stands behind the batch normalisation that follows its layer
    at once, as nearly everybody writes it, else behind the layer.
    """
    placed, due = [], False
    for number, layer in enumerate(layers):
        placed.append(layer)
        due = layer[0] == "linear" or due
        last = number == len(layers) - 1
        if due and not last and not _neighbours(paths[number], paths[number + 1]):
            placed.append(ACTIVATION)
            due = False
    return placed


def _neighbours(one: str, other: str) -> bool:
    """Whether two paths are of neighbours in a Sequential: fc.0 and fc.1."""
    (above, _, number), (beside, _, next_number) = one.rpartition("."), other.rpartition(".")
    return above == beside and number.isdigit() and next_number.isdigit() and int(next_number) == int(number) + 1


def widths(before: tuple[Layer, ...]) -> list[tuple[str, int, int]]:
    """Each layer of ``before`` with its inputs and outputs; a layer without tensors has its inputs as outputs."""
    sizes = [FEATURES]
    for _, size in before:
        sizes.append(size or sizes[-1])
    return [(kind, *pair) for (kind, _), pair in zip(before, pairwise(sizes), strict=True)]
