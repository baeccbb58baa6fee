"""ONNX Runtime's backend: its threads, and its device: one that can't be had is refused, naming what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runners import backends, onnx
from runners.devices import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runners.artifacts import Artifact


@pytest.fixture(scope="module")
def artifact(artifact_of: Callable[..., Artifact]) -> Artifact:
    """The demo model's fp32 artifact."""
    return artifact_of("onnx")


def test_what_is_reported(artifact: Artifact) -> None:
    backend = backends.load(artifact.folder, artifact.manifest)
    assert (backend.device, backend.provider) == ("cpu", "CPUExecutionProvider")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set(artifact: Artifact, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    import onnxruntime as ort

    seen: list[tuple[int, int]] = []
    real = ort.InferenceSession

    def session(path: str, options: Any, **rest: Any) -> Any:
        seen.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return real(path, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    backends.load(artifact.folder, artifact.manifest, threads=threads)
    assert seen == [(threads, 1)]


@pytest.mark.usefixtures("cpu_only")
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
