"""Checkpoints to try: random networks, saved as users save them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from classifier.architectures import DEFAULT
from model_build.network import build

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, torch.Tensor]


def made(classes: int, seed: int | None = None, architecture: str = DEFAULT) -> State:
    """The state dict of a random network."""
    torch.manual_seed(classes if seed is None else seed)
    return dict(build(architecture, classes).state_dict())


def under(prefix: str, state: State) -> State:
    """``state`` with ``prefix`` before each key."""
    return {prefix + key: value for key, value in state.items()}


def saved(path: Path, data: Any) -> str:
    """The path of a file that holds ``data``: of safetensors if it is called so, or has no suffix and may be one."""
    tensors = all(isinstance(value, torch.Tensor) for value in data.values()) if isinstance(data, dict) else False
    if path.suffix == ".safetensors" or (tensors and not path.suffix):
        save_file(data, path)
    else:
        torch.save(data, path)
    return str(path)
