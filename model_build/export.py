"""A checkpoint as a file that serves, for one of the runtimes and in one of its precisions."""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any

import torch

from classifier import runtimes
from model_build.network import Contract, from_state

if TYPE_CHECKING:
    from pathlib import Path

    from model_build.samples import Samples
    from model_build.weights import Checkpoint

# Part of every artifact's version: raise it when what is exported changes though its inputs do not.
REVISION = 2
# Of the network between normalisation and softmax. int8 is made of a float32 network.
_DTYPE = {"fp32": torch.float32, "int8": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def contract(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, temperature: float = 1.0) -> Contract:
    """The eager network of ``checkpoint`` within the serving contract, in evaluation mode."""
    module = Contract(
        from_state(copy.deepcopy(checkpoint.state), checkpoint.classes, checkpoint.structure, checkpoint.architecture),
        size=checkpoint.preprocessing.size,
        upsample=checkpoint.upsample,
        grey=checkpoint.structure.channels == 1,
        mean=checkpoint.mean,
        std=checkpoint.std,
        dtype=dtype,
        temperature=temperature,
    )
    return module.eval()


def export(
    checkpoint: Checkpoint,
    runtime: str,
    precision: str,
    folder: Path,
    calibration: Samples,
    temperature: float = 1.0,
) -> Path:
    """Write the artifact into ``folder`` and return its path: ``model`` with the runtime's suffix.

    The module of this package that is called as the runtime is writes it. A precision that the runtime serves on a GPU
    only is exported where a CUDA device is. ``temperature``: what the logits are divided by before the softmax. Raises
    ValueError for an unknown runtime.
    """
    target = runtimes.find(runtime)
    exporter: Any = importlib.import_module(f"{__package__}.{target.name}")
    side = checkpoint.preprocessing.size
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    path = folder / f"model{target.suffix}"
    written = "fp32" if precision in target.computes else precision
    exporter.export(contract(checkpoint, _DTYPE[written], temperature), example, written, path, calibration)
    return path
