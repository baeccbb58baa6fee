"""A whole module that was pickled, by the stand-ins of its classes: its tensors, and what else they tell of its layers.

A module tells more than a state dict: strides, whether there is a max-pool, which activation there is. What is known
to be another network than the one that would be served is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from model_build.errors import FileError
from model_build.misfit import quoted
from model_build.structure import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

# Layers without tensors that leave the network a ResNet18 wherever they are. A softmax can only be at the end.
PASSIVE = frozenset(
    {"ReLU", "Identity", "Dropout", "Dropout1d", "Dropout2d", "Flatten", "AdaptiveAvgPool2d", "Softmax", "LogSoftmax"}
)
_BLOCK = re.compile(r"(^|\.)layer([1-4])\.(\d+)\.(conv[12]|downsample\.0)$")
EPSILON = 1e-5
# The name under which a module's class stands among what it tells.
MARK = "module_class"


class Standing:
    """Stands for an object of any class, which is neither imported nor called; ``kind`` is that class's name.

    ``state``: its attributes, if it has any.
    """

    kind = "object"

    def __init__(self, *_: object) -> None:
        self.state: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


def is_module(value: object) -> bool:
    """Whether ``value`` stands for one of torch's modules."""
    return isinstance(value, Standing) and {"_parameters", "_buffers", "_modules"} <= _state(value).keys()


def _state(value: Standing) -> dict[Any, Any]:
    state: dict[Any, Any] = vars(value).get("state", {})
    return state


def _part(module: Standing, name: str) -> dict[Any, Any]:
    found = _state(module).get(name)
    return found if isinstance(found, dict) else {}


def _walk(module: Standing, path: str = "", above: tuple[Standing, ...] = ()) -> Iterator[tuple[str, Standing]]:
    """``module`` and all within it, by their paths."""
    if any(module is one for one in above):
        return
    yield path, module
    for name, inner in _part(module, "_modules").items():
        if is_module(inner):
            yield from _walk(inner, f"{path}.{name}".removeprefix("."), (*above, module))


def contents(module: Standing) -> dict[str, Any]:
    """The module's state dict, and what else it tells by the names of a file's metadata. Raises FileError."""
    found: dict[str, Any] = {MARK: module.kind}
    strides, pools, activations = set(), set(), set()
    parts = list(_walk(module))
    for path, one in parts:
        kind = one.kind.rpartition(".")[2]
        hidden = _state(one).get("_non_persistent_buffers_set")
        tensors = _part(one, "_parameters") | {
            name: value
            for name, value in _part(one, "_buffers").items()
            if not isinstance(hidden, set) or name not in hidden
        }
        prefix = f"{path}." if path else ""
        found |= {f"{prefix}{name}": value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
        if path.rpartition(".")[2] == "conv1" and not _BLOCK.search(path):
            strides.add(_first(one, "stride"))
        elif kind == "MaxPool2d":
            pools.add(_pooled(path, one))
        elif kind in ACTIVATIONS.values() and kind not in ("ReLU", "Identity"):
            activations.add(_activation(path, kind, one))
        elif path and not tensors and not _part(one, "_modules") and kind not in (*PASSIVE, "Sequential"):
            if re.search(r"Loss$|^torchmetrics\.", one.kind):
                continue
            raise FileError(f"holds a module with {quoted(one.kind)} in {quoted(path)}, which a ResNet18 doesn't have")
        _check(path, kind, one)
    if not pools and any(path.rpartition(".")[2] == "maxpool" for path, _ in parts):
        pools.add(False)
    for name, values in (("stem_stride", strides), ("max_pool", pools), ("head_activation", activations)):
        if len(values) > 1:
            raise FileError(f"holds a module with several values of {name}: {', '.join(map(str, sorted(values)))}")
        if values:
            found[name] = values.pop()
    return found


def _first(module: Standing, name: str) -> Any:
    """The first of an attribute's two numbers, or its only one; None if it is not of numbers."""
    value = _state(module).get(name)
    value = value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value
    return value if isinstance(value, int | float) else None


def _pooled(path: str, module: Standing) -> bool:
    found = tuple(_first(module, name) for name in ("kernel_size", "stride", "padding"))
    if found != (3, 2, 1):
        raise FileError(
            f"holds a module whose max-pool in {quoted(path)} has kernel, stride and padding {found}, "
            "expected (3, 2, 1)"
        )
    return True


def _activation(path: str, kind: str, module: Standing) -> str:
    """The option's name for an activation of the head. Raises FileError for one of the body."""
    slope = {"LeakyReLU": ("negative_slope", 0.01), "ELU": ("alpha", 1.0), "GELU": ("approximate", "none")}.get(kind)
    if re.search(r"(^|\.)(layer[1-4]\.|relu$|act1$)", path):
        raise FileError(f"holds a module with {kind} in {quoted(path)}, where a ResNet18 has ReLU")
    if slope and _state(module).get(slope[0]) != slope[1]:
        raise FileError(
            f"holds a module with {kind} in {quoted(path)} whose {slope[0]} is {_state(module).get(slope[0])!r}, "
            f"expected {slope[1]!r}"
        )
    return next(name for name, its in ACTIVATIONS.items() if its == kind)


def _check(path: str, kind: str, module: Standing) -> None:
    """Raise FileError if a convolution or a normalisation does other than a ResNet18's."""
    if kind.startswith("BatchNorm") and _state(module).get("eps", EPSILON) != EPSILON:
        raise FileError(f"holds a module whose eps in {quoted(path)} is {_state(module)['eps']!r}, expected {EPSILON}")
    if match := _BLOCK.search(path):
        narrowing = match[2] != "1" and match[3] == "0" and match[4] != "conv2"
        found, expected = (_first(module, "stride"), _first(module, "dilation")), (2 if narrowing else 1, 1)
        if kind == "Conv2d" and found != expected:
            raise FileError(
                f"holds a module whose stride and dilation in {quoted(path)} are {found[0]} and {found[1]}, expected "
                f"{expected[0]} and {expected[1]}"
            )
