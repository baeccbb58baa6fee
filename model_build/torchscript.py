"""Exporting for TorchScript: a traced and frozen graph."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from runners.torchscript import DEPRECATION

if TYPE_CHECKING:
    from pathlib import Path

    from model_build.network import Contract
    from model_build.samples import Samples


def export(module: Contract, example: torch.Tensor, precision: str, path: Path, calibration: Samples) -> None:
    """Write ``module`` to ``path``, traced with ``example`` uint8[N, S, S, 3]; ``calibration`` is not needed.

    fp16 is traced on a CUDA device, since TorchScript records the device of its constants.
    """
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
        if precision == "fp16":
            module, example = module.cuda(), example.cuda()
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        traced: Any = torch.jit.trace(module, example, check_trace=False)
        torch.jit.freeze(traced).save(str(path))
