"""The predictor: its checks of a backend, and the two ways to run a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from classifier.pixels import Decoded
from runners import devices
from runners.predictor import Predictor, image_run, pixel_run
from tests.runners.test_executors import values

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FakePredictor(Predictor):
    """Gives each image its first pixel's value as the only probability."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.widths: list[int] = []

    def infer(self, pixels: NDArray[np.uint8], width: int = 1) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        self.widths.append(width)
        return pixels[:, 0, 0, :1].astype(np.float32)


def image(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, np.uint8)


def test_pixels_are_stacked() -> None:
    predictor = FakePredictor()
    assert values(pixel_run(predictor)([image(3), image(5)], lambda: 2)) == [3, 5]
    assert predictor.batches == [2]
    assert predictor.widths == [2]


def test_an_unreadable_image_gets_its_error_and_the_others_are_inferred_together() -> None:
    predictor = FakePredictor()

    def fail() -> int:
        raise AssertionError("nothing is inferred, so no core is taken")

    def decode(value: int) -> Decoded:
        if value < 0:
            raise ClassifierError("unreadable_image", "broken")
        return Decoded(image(value), (str(value),))

    results = image_run(predictor, decode)([1, -1, 2, -2], lambda: 1)
    assert isinstance(results[1], ClassifierError)
    assert isinstance(results[3], ClassifierError)
    assert values([results[0], results[2]]) == [1, 2]
    assert [results[index].warnings for index in (0, 2)] == [("1",), ("2",)]
    assert predictor.batches == [2]
    assert image_run(predictor, decode)([-1], fail)[0].code == "unreadable_image"
    assert predictor.batches == [2]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (RuntimeError("bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::"
                      "Stream*) Failed to allocate memory for requested buffer of size 8388608"), devices.OutOfMemory),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc"), devices.OutOfMemory),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA. Tried to allocate 2.00 GiB."), devices.OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), devices.OutOfMemory),
        (RuntimeError("std::bad_alloc"), devices.OutOfMemory),
        (MemoryError(), devices.OutOfMemory),
        (RuntimeError("CUDA failure 999: unknown error ; GPU=0"), devices.DeviceLost),
        (RuntimeError("CUDA error: device-side assert triggered"), devices.DeviceLost),
        (RuntimeError("CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR"), devices.DeviceLost),
        (ValueError("Got invalid dimensions for input: image"), ValueError),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, Exception) else "",
)  # fmt: skip
def test_what_runtimes_say_of_a_device_is_understood(error: Exception, meaning: type[Exception]) -> None:
    class Fails(FakePredictor):
        backend: Any = type("Backend", (), {"infer": lambda self, pixels: (_ for _ in ()).throw(error)})()
        infer = Predictor.infer

    with pytest.raises(meaning) as raised:
        Fails().infer(np.zeros((1, 2, 2, 3), np.uint8))
    assert str(error) in str(raised.value)
