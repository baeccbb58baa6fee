"""The OpenVINO engine: it gives what ONNX Runtime gives, from any number of threads, at any width."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runners import backends, openvino, telemetry
from runners.devices import DeviceError

pytest.importorskip("openvino", reason="requirements/openvino.txt is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from runners.artifacts import Artifact
    from runners.backends import Backend


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def pair(request: pytest.FixtureRequest, artifact_of: Callable[..., Artifact]) -> tuple[Backend, Backend]:
    """ONNX Runtime and OpenVINO with one artifact of the demo model."""
    artifact = artifact_of("onnx", request.param)
    return (
        backends.load(artifact.folder, artifact.manifest),
        backends.load(artifact.folder, artifact.manifest, callers=2, engine="openvino"),
    )


def test_what_is_reported(pair: tuple[Backend, Backend]) -> None:
    assert pair[1].device == "cpu"
    assert pair[1].provider.startswith("OpenVINO 20")


def test_both_engines_agree(pair: tuple[Backend, Backend], images: NDArray[np.uint8]) -> None:
    expected, actual = [backend.infer(images) for backend in pair]
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    # int8 rounds in other places; fp32 must not be computed in bf16, which would differ by 1e-2.
    is_int8 = not np.allclose(actual, expected, atol=1e-5)
    assert np.mean(actual.argmax(1) == expected.argmax(1)) >= (0.9 if is_int8 else 1.0)
    assert np.abs(actual - expected).max() < 0.1


def test_threads_do_not_mix_their_images(pair: tuple[Backend, Backend], images: NDArray[np.uint8]) -> None:
    expected = pair[1].infer(images)
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda index: pair[1].infer(images[index : index + 1])[0], range(len(images))))
    np.testing.assert_array_equal(np.stack(rows), expected)


def test_an_answer_stays_when_the_next_comes(pair: tuple[Backend, Backend], images: NDArray[np.uint8]) -> None:
    first = pair[1].infer(images[:1])
    kept = first.copy()
    pair[1].infer(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_a_width_changes_nothing_but_the_time(pair: tuple[Backend, Backend], images: NDArray[np.uint8]) -> None:
    wide = pair[1].widened(2)
    np.testing.assert_allclose(wide.infer(images), pair[1].infer(images), atol=1e-5)
    assert (wide.device, wide.provider) == (pair[1].device, pair[1].provider)


def test_bf16_is_a_precision_of_its_own(artifact_of: Callable[..., Artifact], images: NDArray[np.uint8]) -> None:
    artifact = artifact_of("onnx")
    path = artifact.folder / artifact.manifest.file
    able = "BF16" in telemetry.openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not able:
        with pytest.raises(
            DeviceError,
            match="OpenVINO has no bf16 on this CPU and would compute in f32 instead; set RESNET18_PRECISION",
        ):
            openvino.Backend(path, computes="bf16")
        return
    expected = openvino.Backend(path).infer(images)
    for backend in (openvino.Backend(path, computes="bf16"), openvino.Backend(path, computes="bf16").widened(2)):
        assert 1e-6 < np.abs(backend.infer(images) - expected).max() < 0.05


def test_it_has_no_gpu(tmp_path: Path) -> None:
    assert not openvino.has_cuda()
    with pytest.raises(DeviceError, match="device 'cuda:0': the openvino engine runs on the CPU only"):
        openvino.Backend(tmp_path / "model.onnx", "cuda:0")
