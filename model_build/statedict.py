"""A file's state dict: the weights to serve, out of all that a training script writes, and the facts beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import layout, pickles, weightset
from model_build.contents import recognise
from model_build.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_build.weightset import Tensors


@dataclass(frozen=True)
class StateDict:
    """The weights of a file that are served, and the facts beside them.

    ``state``: torchvision's state dict of ``architecture``, float32, without counters. ``metadata``: a safetensors
    file's own. ``extras``: the plain entries beside the weights by name (classes, class_to_idx, args, …), as JSON could
    hold them.
    """

    state: Tensors
    metadata: dict[str, str]
    extras: dict[str, Any]
    architecture: str = DEFAULT


def read(path: Path, key: str | None, notice: Callable[[str], None], architecture: str | None = None) -> StateDict:
    """The weights in the file at ``path``; of several sets the average, or the one that ``key`` names.

    They are of ``architecture``, else of the first one whose keys the file has, a ResNet18 before all others.
    ``notice`` is told the set that was taken and those left. Its texts and FileError's follow the file's name.
    """
    metadata: dict[str, str] = {}
    if recognise(path) == "safetensors":
        data, metadata = _safetensors(path)
    else:
        data = pickles.load(path)
    if not isinstance(data, dict):
        raise FileError(f"holds a {type(data).__name__}, not a state dict")
    held = weightset.architectures(data, key)
    if architecture is not None and held and architecture not in held:
        found = " and a ".join(ARCHITECTURES[name] for name in held)
        raise FileError(
            f"is no {ARCHITECTURES[architecture]}, as --arch {architecture} says, but a {found}: --arch {held[0]}"
        )
    architecture = architecture or next(iter(held), DEFAULT)
    chosen = weightset.find(data, key, notice, architecture)
    state = _fitted(chosen.tensors, architecture)
    return StateDict(state, metadata, _extras(data, chosen.path), architecture)


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise FileError(f"is a safetensors file that is cut short or damaged: {error}") from None


def _extras(data: dict[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The plain entries of the file's dict and of the dicts on the ``path`` to its weights; inner entries prevail."""
    extras: dict[str, Any] = {}
    for name in (*path, None):
        extras |= {str(key): value for key, value in (pickles.plain(data) or {}).items()}
        data = next((value for key, value in data.items() if str(key) == name), {})
    return extras


def _fitted(tensors: Tensors, architecture: str) -> Tensors:
    """``tensors``, whose keys are right, as float32. Raises FileError for the first whose shape or values are wrong."""
    head = tensors[f"{layout.head(architecture)}.weight"]
    expected = layout.shapes(architecture, head.shape[0] if head.ndim == 2 and head.shape[0] else 1)
    state = {}
    for key, shape in expected.items():
        value = tensors[key]
        if tuple(value.shape) != shape:
            raise FileError(
                f"is no {ARCHITECTURES[architecture]}: {key!r} has shape {tuple(value.shape)}, expected {shape}"
                f"{_hint(key, value, architecture)}"
            )
        if not weightset.dense(value) or not value.is_floating_point():
            found = f"{value.dtype}, {value.layout}, on {value.device}".replace("torch.", "")
            raise FileError(f"can't be used: {key!r} is of {found}; plain floating-point numbers are expected")
        state[key] = value.detach().to(torch.float32)
        if not bool(torch.isfinite(state[key]).all()):
            raise FileError(f"can't be used: {key!r} holds values that are not finite in float32")
        if key.endswith("running_var") and bool((state[key] < 0).any()):
            raise FileError(f"can't be used: {key!r} holds negative variances")
    return state


def _hint(key: str, value: torch.Tensor, architecture: str) -> str:
    if key != layout.stem(architecture) or value.ndim != 4:
        return ""
    if value.shape[1] != 3:
        return f": it takes images of {value.shape[1]} channels, and RGB is served"
    return ": a stem of another kernel, as ResNets for CIFAR have" if architecture.startswith("resnet") else ""
