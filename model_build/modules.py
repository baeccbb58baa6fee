"""A whole module that was pickled, by the stand-ins of its classes: its tensors by name, and its layers by path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

# The name under which a module itself stands among its tensors, which no tensor can have.
WHOLE = "(module)."


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
    return isinstance(value, Standing) and {"_parameters", "_buffers", "_modules"} <= attributes(value).keys()


def attributes(value: Standing) -> dict[Any, Any]:
    """What it was pickled with, by name."""
    state: dict[Any, Any] = vars(value).get("state", {})
    return state


def part(module: Standing, name: str) -> dict[Any, Any]:
    """The attribute ``name``, a dict; an empty one if it is none."""
    found = attributes(module).get(name)
    return found if isinstance(found, dict) else {}


def tensors(module: Standing) -> dict[Any, torch.Tensor]:
    """The module's own parameters and persistent buffers, as its state dict has them."""
    hidden = attributes(module).get("_non_persistent_buffers_set")
    hidden = hidden if isinstance(hidden, set) else set()
    buffers = {name: value for name, value in part(module, "_buffers").items() if name not in hidden}
    found = part(module, "_parameters") | buffers
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def walk(module: Standing, path: str = "", above: tuple[Standing, ...] = ()) -> Iterator[tuple[str, Standing]]:
    """``module`` and all within it, by their paths, in the order in which they were registered."""
    if any(module is one for one in above):
        return
    yield path, module
    for name, inner in part(module, "_modules").items():
        if is_module(inner):
            yield from walk(inner, f"{path}.{name}".removeprefix("."), (*above, module))


def contents(module: Standing) -> dict[str, Any]:
    """The module's state dict, and the module itself beside it."""
    found: dict[str, Any] = {WHOLE: module}
    for path, one in walk(module):
        prefix = f"{path}." if path else ""
        found |= {f"{prefix}{name}": value for name, value in tensors(one).items()}
    return found


def around(data: Any, path: tuple[str, ...]) -> Standing | None:
    """The whole module whose state dict lies at ``path``, the names of the dicts on the way; None if it is no module's.

    A module may hold others in dicts of its own, and then the innermost counts.
    """
    found = None
    for name in (*path, None):
        found = data.get(WHOLE, found)
        data = next((value for key, value in data.items() if str(key) == name), {})
    return found
