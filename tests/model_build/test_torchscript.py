"""The TorchScript files: frozen, and in bfloat16 where the CPU has it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_build import export, gate
from runners import backends, devices, torchscript

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_build.samples import Samples
    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact


def test_frozen(artifact_of: Callable[..., Artifact]) -> None:
    artifact = artifact_of("torchscript", "fp32")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", torchscript.DEPRECATION, DeprecationWarning)
        module: Any = torch.jit.load(str(artifact.folder / artifact.manifest.file))
    assert list(module.parameters()) == []
    assert list(module.buffers()) == []
    assert "batch_norm" not in str(module.graph)
    assert not hasattr(module, "training") or not module.training


@pytest.mark.skipif("bf16" not in devices.cpu_features(), reason="this CPU has no bf16")
def test_bf16(artifact_of: Callable[..., Artifact], demo: Checkpoint, crops: Samples) -> None:
    expected = gate.reference(export.contract(demo), crops)
    artifact = artifact_of("torchscript", "bf16")
    actual = backends.load(artifact.folder, artifact.manifest).infer(crops.pixels[:32])
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual.sum(1), 1, atol=1e-5)
    assert np.abs(actual - expected[:32]).max() < 0.05
