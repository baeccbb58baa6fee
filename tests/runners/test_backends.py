"""Backends: where they really run, with how many threads, and from several threads at once."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.runtimes import RUNTIMES
from runners import backends, devices, onnx, torchscript
from runners.devices import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from runners.artifacts import Artifact
    from runners.backends import Backend


@pytest.fixture(scope="module", params=RUNTIMES)
def backend(request: pytest.FixtureRequest, artifact_of: Callable[..., Artifact]) -> Backend:
    artifact = artifact_of(request.param)
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

    @pytest.mark.parametrize(("runtime", "kind"), [("onnx", onnx.Backend), ("torchscript", torchscript.Backend)])
    def test_kind(self, artifact_of: Callable[..., Artifact], runtime: str, kind: type) -> None:
        artifact = artifact_of(runtime)
        assert type(backends.load(artifact.folder, artifact.manifest)) is kind

    def test_an_unknown_runtime_is_an_error(self, tmp_path: Path, manifest_of: Callable[..., Any]) -> None:
        (tmp_path / "model.plan").write_bytes(b"artifact")
        manifest = manifest_of(tmp_path / "model.plan", runtime="tensorrt")
        with pytest.raises(ValueError, match=f"there is no runtime 'tensorrt'; there are {', '.join(RUNTIMES)}"):
            backends.load(tmp_path, manifest)

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_the_cpu_is_the_default(self, artifact_of: Callable[..., Artifact], runtime: str) -> None:
        artifact = artifact_of(runtime)
        assert backends.load(artifact.folder, artifact.manifest).device == "cpu"


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

    def widened(self, threads: int) -> Clocked:
        return Wider(self, threads)


class Wider(Clocked):
    """``narrow`` on ``threads`` cores, by the clock of ``narrow``."""

    def __init__(self, narrow: Clocked, threads: int) -> None:
        super().__init__(narrow.cost)
        self.narrow, self.threads = narrow, threads

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.narrow.now += self.cost(len(pixels)) / self.threads
        return np.zeros((len(pixels), 1), np.float32)


@pytest.mark.parametrize(("cores", "widths"), [(1, []), (2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6])])
def test_every_width_is_warmed_up(monkeypatch: pytest.MonkeyPatch, cores: int, widths: list[int]) -> None:
    backend = Clocked(lambda images: 1.0)
    monkeypatch.setattr(time, "perf_counter", backend.clock)
    found = backends.widen(backend, 8, cores)
    assert {width: seconds for width, (_, seconds) in found.items()} == pytest.approx({w: 1 / w for w in widths})
    assert all(isinstance(wide, Wider) and wide.threads == width for width, (wide, _) in found.items())


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
        monkeypatch.setattr(devices, "gpus", lambda: gpus)
        monkeypatch.setattr(onnx, "has_cuda", lambda: cuda)
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
        monkeypatch.setattr(devices, "gpus", lambda: gpus)
        monkeypatch.setattr(onnx, "has_cuda", lambda: cuda)
        with pytest.raises(DeviceError, match=re.escape(told)):
            backends.pick_device(asked, "onnx")

    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_gpus_hidden_by_the_environment(self, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        monkeypatch.setattr(onnx, "has_cuda", lambda: True)
        assert backends.pick_device("auto", "onnx") == "cpu"

    @pytest.mark.usefixtures("cpu_only")
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_here(self, runtime: str) -> None:
        assert backends.pick_device("auto", runtime) == "cpu"


def test_engines_are_weighed_in_turns_by_their_fastest_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first inferences are slow, as they are with real engines."""
    first = Clocked(lambda _: 1.0 if len(first.shapes) > 3 else 9.0)
    second = Clocked(lambda _: 2.0)
    monkeypatch.setattr(time, "perf_counter", lambda: first.now + second.now)
    assert backends.weigh({"a": first, "b": second}, 8) == {"a": 1.0, "b": 2.0}
    assert first.shapes == second.shapes == [(1, 8, 8, 3)] * backends.WEIGH_TRIES


def test_an_engine_that_can_not_infer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Clocked(lambda _: 1 / 0)
    with pytest.raises(DeviceError, match="the engine a can't infer an image: division by zero"):
        backends.weigh({"a": broken}, 8)
