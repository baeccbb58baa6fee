"""A file's state dict: the weights to serve, out of all that a training script writes, and the facts beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import chosen, layers, layout, modules, pickles, shards, structure, weightset
from model_build.contents import recognise
from model_build.errors import FileError
from model_build.misfit import quoted
from model_build.network import shapes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_build.structure import Structure
    from model_build.weightset import Tensors, WeightSet


@dataclass(frozen=True)
class StateDict:
    """The weights of a file that are served, and the facts beside them.

    ``state``: the state dict of ``architecture``, of a ResNet18 with ``structure``, by torchvision's names, float32,
    without counters. ``metadata``: a safetensors file's own. ``extras``: the plain entries beside the weights by name
    (classes, class_to_idx, args, …), as JSON could hold them.
    """

    state: Tensors
    structure: Structure
    metadata: dict[str, str]
    extras: dict[str, Any]
    architecture: str = DEFAULT

    def told(self) -> dict[str, Any]:
        """All that the file tells by name; its metadata prevails."""
        told = self.extras | self.metadata
        # One number called mean is more likely a result than the mean of the channels.
        return {key: value for key, value in told.items() if not (key in ("mean", "std") and type(value) is float)}


def read(path: Path, key: str | None, notice: Callable[[str], None], architecture: str | None = None) -> StateDict:
    """The weights in the file at ``path``; of several sets the average, or the one that ``key`` names.

    They are of ``architecture``, else of the first one whose keys the file has, a ResNet18 before all others.
    ``notice`` is told the set that was taken and those left. Its texts and FileError's follow the file's name.
    """
    places = shards.index(path)
    data, metadata = (shards.merge(path, places, lambda file: _load(file)[0]), {}) if places else _load(path)
    if not isinstance(data, dict):
        raise FileError(f"holds a {type(data).__name__}, not a state dict")
    held = weightset.architectures(data, key, architecture or DEFAULT)
    if architecture is not None and held and architecture not in held:
        found = " and a ".join(ARCHITECTURES[name] for name in held)
        raise FileError(
            f"is no {ARCHITECTURES[architecture]}, as --arch {architecture} says, but a {found}: --arch {held[0]}"
        )
    taken = chosen.find(data, key, notice, architecture or next(iter(held), DEFAULT))
    extras, (state, shaped) = _extras(data, taken.path), _fitted(taken)
    if whole := modules.around(data, taken.path):
        notice(f"holds a whole module, {quoted(whole.kind)}; its tensors are read, and none of its code")
        if taken.architecture != DEFAULT:
            raise FileError(
                f"holds a whole module of a {ARCHITECTURES[taken.architecture]}, whose layers are not compared with "
                "what would be served: save its state_dict()"
            )
        extras |= layers.told(whole, taken, shaped)
    return StateDict(state, shaped, metadata, extras, taken.architecture)


def _load(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, and its metadata where it is a safetensors file."""
    return _safetensors(path) if recognise(path) == "safetensors" else (pickles.load(path), {})


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


def _fitted(taken: WeightSet) -> tuple[Tensors, Structure]:
    """The tensors, whose keys are right, as float32, and their structure.

    Raises FileError for the first whose shape or values are wrong.
    """
    tensors, architecture = taken.tensors, taken.architecture
    found, output = structure.TORCHVISION, layout.head(architecture)
    if architecture == DEFAULT:
        assert taken.head, "a set that fits has a head"
        found = structure.of_shapes(tensors["conv1.weight"], taken.head)
        output = found.output
    last = tensors[f"{output}.weight"]
    classes = last.shape[0] if last.ndim == 2 and last.shape[0] else 1
    state = {}
    for key, shape in shapes(found, classes, architecture).items():
        value = tensors[key]
        if tuple(value.shape) != shape:
            raise FileError(
                f"is no {ARCHITECTURES[architecture]}: {key!r} has shape {tuple(value.shape)}, expected {shape}"
            )
        if not weightset.dense(value) or not value.is_floating_point():
            kind = f"{value.dtype}, {value.layout}, on {value.device}".replace("torch.", "")
            if value.layout is torch.strided and 0 in value.stride():
                kind += ", expanded from fewer values"
            raise FileError(f"can't be used: {key!r} is of {kind}; plain floating-point numbers are expected")
        state[key] = value.detach().to(torch.float32)
        if not bool(torch.isfinite(state[key]).all()):
            raise FileError(f"can't be used: {key!r} holds values that are not finite in float32")
        if key.endswith("running_var") and bool((state[key] < 0).any()):
            raise FileError(f"can't be used: {key!r} holds negative variances")
    return state, found
