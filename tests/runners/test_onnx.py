"""ONNX Runtime's backend: a device that was asked for and can't be had is refused, naming what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from runners import artifacts, backends, onnx
from runners.devices import DeviceError

if TYPE_CHECKING:
    from runners.artifacts import Artifact

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def artifact(store: Path) -> Artifact:
    """The demo model's fp32 artifact."""
    return artifacts.open_artifact(f"{artifacts.store_name('onnx', 'fp32')}:latest")


@cpu_only
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_gpu_that_is_not_here_is_refused(artifact: Artifact, device: str) -> None:
    with pytest.raises(DeviceError) as raised:
        backends.load(artifact.folder, artifact.manifest, device)
    assert f"device {device!r}" in str(raised.value)
    assert "CPUExecutionProvider" in str(raised.value)


def test_one_that_falls_back_in_silence_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime built for CUDA gives a CPU session where the driver is missing."""
    import onnxruntime as ort

    class Session:
        def __init__(self, *_: Any, providers: list[Any]) -> None:
            assert [item if isinstance(item, str) else item[0] for item in providers] == [
                "CUDAExecutionProvider",
                "CPUExecutionProvider",
            ]
            assert providers[0][1] == {"device_id": 3}

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    with pytest.raises(DeviceError) as raised:
        onnx.Backend(Path("model.onnx"), "cuda:3")
    assert str(raised.value) == "device 'cuda:3' was asked for, but onnxruntime gave CPUExecutionProvider"
