"""TorchScript's backend: its threads, its device, which is refused if it can't be had, and no gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from runners import backends
from runners.devices import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runners.artifacts import Artifact


@pytest.fixture(scope="module")
def artifact(artifact_of: Callable[..., Artifact]) -> Artifact:
    """The demo model's fp32 artifact."""
    return artifact_of("torchscript")


def test_what_is_reported(artifact: Artifact) -> None:
    backend = backends.load(artifact.folder, artifact.manifest)
    assert (backend.device, backend.provider) == ("cpu", f"torch {torch.__version__}")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set(artifact: Artifact, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        backend = backends.load(artifact.folder, artifact.manifest, threads=threads)
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        narrow = backend.infer(pixels)
        assert torch.get_num_threads() == threads
        np.testing.assert_allclose(backend.widened(3 - threads).infer(pixels), narrow, atol=1e-6)
        assert torch.get_num_threads() == 3 - threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("cpu_only")
def test_a_gpu_that_is_not_here_is_refused(artifact: Artifact) -> None:
    with pytest.raises(DeviceError) as raised:
        backends.load(artifact.folder, artifact.manifest, "cuda:0")
    message = f"device 'cuda:0': this torch ({torch.__version__}) sees no CUDA device"
    assert str(raised.value) == message


def test_a_gpu_beyond_the_last_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"device 'cuda:2': torch sees 2 CUDA device\(s\)"):
        backends.load(artifact.folder, artifact.manifest, "cuda:2")


def test_no_gradient_is_kept(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backends.load(artifact.folder, artifact.manifest)
    seen: list[bool] = []

    def module(image: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return image.float()

    monkeypatch.setattr(backend, "_module", module)
    backend.infer(np.zeros((1, 2, 2, 3), np.uint8))
    assert seen == [True]
