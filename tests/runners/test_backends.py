"""Backends: where they really run, with how many threads, and from several threads at once."""

from __future__ import annotations

import platform
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from runners import artifacts, backends
from runners.backends import DeviceError, OnnxBackend, TorchScriptBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from runners.artifacts import Artifact
    from runners.backends import Backend

RUNTIMES = ("onnx", "torchscript")
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def of(store: Path) -> Callable[[str], Artifact]:
    """A function that gives the demo model's fp32 artifact of a runtime."""
    return lambda runtime: artifacts.open_artifact(f"{artifacts.store_name(runtime, 'fp32')}:latest")


@pytest.fixture(scope="module", params=RUNTIMES)
def backend(request: pytest.FixtureRequest, of: Callable[[str], Artifact]) -> Backend:
    artifact = of(request.param)
    return backends.load(artifact.folder, artifact.manifest)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Sixteen pictures of 32 px, each of another colour gradient."""
    random = np.random.default_rng(0)
    corners = random.integers(0, 256, (16, 2, 2, 3))
    weight = np.linspace(0, 1, 32)[None, :, None, None]
    rows = corners[:, :1] * (1 - weight) + corners[:, 1:] * weight
    columns = np.linspace(0, 1, 32)[None, None, :, None]
    blended: NDArray[np.uint8] = (rows[:, :, :1] * (1 - columns) + rows[:, :, 1:] * columns).astype(np.uint8)
    return blended


class TestLoad:
    """A manifest's runtime decides the class; the device obtained is told."""

    @pytest.mark.parametrize(("runtime", "kind"), [("onnx", OnnxBackend), ("torchscript", TorchScriptBackend)])
    def test_kind(self, of: Callable[[str], Artifact], runtime: str, kind: type) -> None:
        artifact = of(runtime)
        assert type(backends.load(artifact.folder, artifact.manifest)) is kind

    def test_what_is_reported(self, of: Callable[[str], Artifact]) -> None:
        reported = {}
        for runtime in RUNTIMES:
            artifact = of(runtime)
            backend = backends.load(artifact.folder, artifact.manifest)
            reported[runtime] = (backend.device, backend.provider)
        assert reported == {
            "onnx": ("cpu", "CPUExecutionProvider"),
            "torchscript": ("cpu", f"torch {torch.__version__}"),
        }

    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads_are_set(
        self, of: Callable[[str], Artifact], monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        import onnxruntime as ort

        seen: list[tuple[int, int]] = []
        real = ort.InferenceSession

        def session(path: str, options: Any, **rest: Any) -> Any:
            seen.append((options.intra_op_num_threads, options.inter_op_num_threads))
            return real(path, options, **rest)

        monkeypatch.setattr(ort, "InferenceSession", session)
        before = torch.get_num_threads()
        try:
            for runtime in RUNTIMES:
                artifact = of(runtime)
                backends.load(artifact.folder, artifact.manifest, threads=threads)
            assert seen == [(threads, 1)]
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)


class TestDevices:
    """A device that was asked for and can't be had is refused, naming what is there."""

    @cpu_only
    @pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
    def test_onnx(self, of: Callable[[str], Artifact], device: str) -> None:
        artifact = of("onnx")
        with pytest.raises(DeviceError) as raised:
            backends.load(artifact.folder, artifact.manifest, device)
        assert f"device {device!r}" in str(raised.value)
        assert "CPUExecutionProvider" in str(raised.value)

    @cpu_only
    def test_torchscript(self, of: Callable[[str], Artifact]) -> None:
        artifact = of("torchscript")
        with pytest.raises(DeviceError) as raised:
            backends.load(artifact.folder, artifact.manifest, "cuda:0")
        message = f"device 'cuda:0': this torch ({torch.__version__}) sees no CUDA device"
        assert str(raised.value) == message

    def test_torchscript_beyond_the_last(self, of: Callable[[str], Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(DeviceError, match=r"device 'cuda:2': torch sees 2 CUDA device\(s\)"):
            backends.load(of("torchscript").folder, of("torchscript").manifest, "cuda:2")

    def test_onnx_that_falls_back_in_silence(
        self, of: Callable[[str], Artifact], monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
            OnnxBackend(Path("model.onnx"), "cuda:3")
        assert str(raised.value) == "device 'cuda:3' was asked for, but onnxruntime gave CPUExecutionProvider"


class TestInfer:
    """Pixels in, probabilities out."""

    def test_rows_are_the_images(self, backend: Backend, images: NDArray[np.uint8]) -> None:
        together = backend.infer(images)
        assert together.shape == (16, 10)
        assert together.dtype == np.float32
        for at in range(16):
            np.testing.assert_allclose(backend.infer(images[at : at + 1])[0], together[at], atol=1e-5)
        assert len({row.tobytes() for row in together}) == 16

    def test_from_several_threads_at_once(self, backend: Backend, images: NDArray[np.uint8]) -> None:
        expected = backend.infer(images)
        slices = [slice(start, start + count) for start in range(16) for count in (1, 2, 3)] * 2
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda part: backend.infer(images[part]), slices))
        for part, rows in zip(slices, answers, strict=True):
            np.testing.assert_allclose(rows, expected[part], atol=1e-5)

    def test_no_gradient_is_kept(self, of: Callable[[str], Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
        artifact = of("torchscript")
        backend = backends.load(artifact.folder, artifact.manifest)
        seen: list[bool] = []

        def module(image: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_inference_mode_enabled())
            return image.float()

        monkeypatch.setattr(backend, "_module", module)
        backend.infer(np.zeros((1, 2, 2, 3), np.uint8))
        assert seen == [True]

    @pytest.mark.parametrize("form", ["read-only", "sliced", "transposed"])
    def test_any_memory_layout(self, backend: Backend, images: NDArray[np.uint8], form: str) -> None:
        """Pixels may arrive as a view of a network buffer, or of a larger array."""
        given = images.copy()
        if form == "read-only":
            given = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
        elif form == "sliced":
            given = np.repeat(images, 2, axis=0)[::2]
        elif form == "transposed":
            given = np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        np.testing.assert_allclose(backend.infer(given), backend.infer(images), atol=1e-6)

    def test_the_answer_is_the_callers_own(self, backend: Backend, images: NDArray[np.uint8]) -> None:
        first = backend.infer(images[:2])
        kept = first.copy()
        backend.infer(images[2:4])
        np.testing.assert_array_equal(first, kept)


class Clocked:
    """A backend on a clock of its own, whose batches take what ``cost`` says, in seconds."""

    device, provider = "cpu", "none"

    def __init__(self, cost: Callable[[int], float]) -> None:
        self.cost, self.now = cost, 0.0
        self.shapes: list[tuple[int, ...]] = []

    def clock(self) -> float:
        return self.now

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pixels.dtype == np.uint8
        self.shapes.append(pixels.shape)
        self.now += self.cost(len(pixels))
        return np.zeros((len(pixels), 1), np.float32)


class TestWarmUp:
    """Batch sizes are inferred before they are served, as far as they are worth serving."""

    @pytest.fixture
    def warmed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Clocked, dict[int, float]]]:
        def warm(cost: Callable[[int], float], max_batch: int) -> tuple[Clocked, dict[int, float]]:
            backend = Clocked(cost)
            with monkeypatch.context() as patched:
                patched.setattr(time, "perf_counter", backend.clock)
                return backend, backends.warm_up(backend, 8, max_batch)

        return warm

    @pytest.mark.parametrize(
        ("max_batch", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4]), (32, [1, 2, 4, 8, 16, 32])]
    )
    def test_doubles_to_the_limit_while_it_pays(self, warmed: Any, max_batch: int, sizes: list[int]) -> None:
        backend, seconds = warmed(lambda count: 0.1 + 0.001 * count, max_batch)
        assert list(seconds) == sizes
        assert [shape[0] for shape in backend.shapes] == [size for size in sizes for _ in range(3)]
        assert {shape[1:] for shape in backend.shapes} == {(8, 8, 3)}
        assert seconds == pytest.approx({size: 0.1 + 0.001 * size for size in sizes})

    def test_stops_where_doubling_does_not_pay(self, warmed: Any) -> None:
        backend, seconds = warmed(lambda count: 0.01 * count, 1024)
        assert max(seconds) <= 4
        assert max(shape[0] for shape in backend.shapes) == max(seconds)

    def test_the_fastest_try_counts(self, warmed: Any) -> None:
        tries = iter([3.0, 1.0, 2.0])
        assert warmed(lambda count: next(tries), 1)[1] == {1: 1.0}

    def test_a_real_one(self, backend: Backend) -> None:
        seconds = backends.warm_up(backend, 32, 2)
        assert list(seconds) == [1, 2]
        assert all(value > 0 for value in seconds.values())


class TestPickDevice:
    """What "auto" means here."""

    @pytest.mark.parametrize(
        ("asked", "gpus", "cuda", "expected"),
        [
            ("cpu", 2, True, "cpu"),
            ("auto", 0, True, "cpu"),
            ("auto", 1, False, "cpu"),
            ("auto", 2, True, "cuda:0"),
            ("cuda", 1, True, "cuda:0"),
            ("cuda:1", 2, True, "cuda:1"),
        ],
    )
    def test_by_what_there_is(
        self, monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, cuda: bool, expected: str
    ) -> None:
        monkeypatch.setattr(backends, "_gpus", lambda: gpus)
        monkeypatch.setattr(backends, "_runtime_has_cuda", lambda runtime: cuda)
        assert backends.pick_device(asked, "onnx") == expected

    @pytest.mark.parametrize(
        ("asked", "gpus", "cuda", "told"),
        [
            ("cuda", 0, True, "device 'cuda': this machine shows 0 CUDA"),
            ("cuda:2", 2, True, "device 'cuda:2': this machine shows 2 CUDA"),
            ("cuda", 1, False, "device 'cuda': the installed onnx runtime has no CUDA"),
        ],
    )
    def test_what_was_asked_for_and_is_not_here(
        self, monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, cuda: bool, told: str
    ) -> None:
        monkeypatch.setattr(backends, "_gpus", lambda: gpus)
        monkeypatch.setattr(backends, "_runtime_has_cuda", lambda runtime: cuda)
        with pytest.raises(backends.DeviceError, match=re.escape(told)):
            backends.pick_device(asked, "onnx")

    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_gpus_hidden_by_the_environment(self, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        monkeypatch.setattr(backends, "_runtime_has_cuda", lambda runtime: True)
        assert backends.pick_device("auto", "onnx") == "cpu"

    @cpu_only
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_here(self, runtime: str) -> None:
        assert backends.pick_device("auto", runtime) == "cpu"


class TestCpuFeatures:
    """What /proc/cpuinfo says."""

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("fpu sse4_2 avx", set()),
            ("fpu sse avx2", {"int8"}),
            ("avx2 avx512_vnni", {"int8"}),
            ("avx2 avx512_vnni avx512_bf16 amx_int8 amx_bf16", {"int8", "bf16"}),
            ("fp asimd", set()),
            ("fp asimd asimddp bf16", {"int8"}),
            ("xavx2", set()),
        ],
    )
    def test_flags(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: set[str]) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\n")
        monkeypatch.setattr(backends, "Path", lambda _: cpuinfo)
        monkeypatch.setattr(sys, "platform", "linux")
        assert backends.cpu_features() == expected

    def test_no_cpuinfo(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(backends, "Path", lambda _: tmp_path / "missing")
        monkeypatch.setattr(sys, "platform", "linux")
        assert backends.cpu_features() == frozenset()

    @pytest.mark.parametrize(("machine", "expected"), [("arm64", {"int8"}), ("x86_64", set())])
    def test_macos(self, monkeypatch: pytest.MonkeyPatch, machine: str, expected: set[str]) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(platform, "machine", lambda: machine)
        assert backends.cpu_features() == expected
