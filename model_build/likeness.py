"""One layer of a pickled module against the layer that is built: the class, and the settings.

A file's values are compared as text, because a small file may nest one to any depth.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from model_build.errors import FileError
from model_build.misfit import quoted
from model_build.modules import attributes

if TYPE_CHECKING:
    import torch

    from model_build.modules import Standing

# Where torch has its layers; a class of the same name elsewhere is another one.
TORCH = re.compile(r"torch\.nn\.modules\.\w+\.(\w+)")
# Classes that infer as torch's own do: BatchNorm's, as far as their epsilon is the same.
ALIKE = {"SyncBatchNorm": ("BatchNorm1d", "BatchNorm2d"), "torchvision.ops.misc.FrozenBatchNorm2d": ("BatchNorm2d",)}
# Attributes of torch's layers that no inference depends on.
IDLE = frozenset({"training", "momentum", "inplace", "process_group"})


def kind_of(one: Standing) -> str:
    """The class: of torch's own layers their short name."""
    found = TORCH.fullmatch(one.kind)
    return found[1] if found else one.kind


def compare(path: str, found: Standing, expected: torch.nn.Module) -> None:
    """Raise FileError unless the layer ``found`` at ``path`` is of the class of ``expected`` and set as it is."""
    kind, own = kind_of(found), type(expected).__name__
    if kind != own and own not in ALIKE.get(kind, ()):
        raise FileError(f"holds a module with {quoted(kind)} in {quoted(path)}, where a ResNet18 has {own}")
    has = attributes(found)
    for name, value in vars(expected).items():
        # An older version of torch had fewer.
        if name.startswith("_") or name in IDLE or name not in has or _alike(name, has, value):
            continue
        raise FileError(f"holds a module whose {name} in {quoted(path)} is {_words(has[name])}, expected {value!r}")


def on_all_sides(value: Any) -> Any:
    """The number that ``value`` has on all sides; another value as it is."""
    if isinstance(value, tuple) and value and all(type(side) is int and side == value[0] for side in value):
        return value[0]
    return value


def check_softmax(path: str, one: Standing) -> None:
    """Raise FileError unless the softmax ``one`` at ``path`` is over the classes."""
    if (dim := _words(attributes(one).get("dim"))) not in ("None", "1", "-1"):
        raise FileError(f"holds a module whose dim in {quoted(path)} is {dim}, expected 1")


def _alike(name: str, has: dict[Any, Any], value: Any) -> bool:
    """Whether a setting is ``value``, written as one number or as one a side. A file's values are compared as text."""
    found = has[name]
    if name == "padding" and found == "same" and isinstance(sides := has.get("kernel_size"), tuple):
        found = tuple(side // 2 for side in sides if isinstance(side, int))  # at a stride of 1, which torch demands
    return _words(found) in {repr(value), repr(on_all_sides(value)), repr((value, value)), repr([value, value])}


def _words(value: object, nested: bool = True) -> str:
    """A setting as Python writes it, or its type: a small file may nest a value, or make a number, of any length."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 64):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if nested and type(value) in (tuple, list) and len(value) <= 4:  # type: ignore[arg-type]  # it has a length
        sides = ", ".join(_words(side, False) for side in value)  # type: ignore[attr-defined]
        return f"({sides})" if type(value) is tuple else f"[{sides}]"
    return f"of type {type(value).__name__}"
