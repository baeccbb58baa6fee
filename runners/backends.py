"""Backends: an artifact in memory that turns ``uint8[N, S, S, 3]`` into ``float32[N, C]``. One class a runtime."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from runners import telemetry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from classifier.manifest import Manifest

# torch 2.13 deprecates TorchScript in favour of torch.export. It is still exported here because it is the one format
# that plain libtorch, without Python, serves on every platform of torch 1.x and 2.x.
TORCHSCRIPT_DEPRECATION = r".*torch\.jit\..* is (deprecated|not supported).*"


# Doubling a batch pays while it costs less than this share of twice as much.
WARM_UP_GAIN = 0.9


class DeviceError(Exception):
    """The device asked for can't be had; the message says what is there."""


class OutOfMemory(Exception):
    """The device has no memory for a batch of that size, as the runtime says."""


class DeviceLost(Exception):
    """The device fails, whatever it is given, as the runtime says."""


# What ONNX Runtime, torch, CUDA and C++ write into their errors, of which few have a type of their own.
_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|failed to allocate memory|can't allocate memory|bad_alloc|ALLOC_FAILED", re.I
)
_DEVICE_LOST = re.compile(r"(CUDA|CUDNN|CUBLAS)\d? (failure|error)|device-side assert|no CUDA-capable device", re.I)


def failure(error: Exception) -> Exception:
    """What ``error`` of a runtime means: an OutOfMemory, a DeviceLost, or itself where it tells neither."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(text)
    return DeviceLost(text) if _DEVICE_LOST.search(text) else error


class Backend(Protocol):
    """An artifact that infers. ``device``: where it really runs; ``provider``: what runs it, as the runtime tells."""

    device: str
    provider: str

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]; may be called from several threads at once."""
        ...


class OnnxBackend:
    """ONNX Runtime on one device. With ``threads=1`` each calling thread infers on its own core."""

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1) -> None:
        ort = telemetry.onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            available = ort.get_available_providers()
            if "CUDAExecutionProvider" not in available:
                raise DeviceError(f"device {device!r}: this onnxruntime has only {', '.join(available)}")
            ort.preload_dlls()
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": _index(device)}))
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self.provider: str = self._session.get_providers()[0]
        obtained = "cpu" if self.provider == "CPUExecutionProvider" else device
        if obtained != device:
            # ONNX Runtime falls back to the CPU with no more than a log line when CUDA can't be initialised.
            raise DeviceError(f"device {device!r} was asked for, but onnxruntime gave {self.provider}")
        self.device = obtained

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        probabilities: NDArray[np.float32] = self._session.run(["probabilities"], {"image": pixels})[0]
        return probabilities


class TorchScriptBackend:
    """A frozen TorchScript graph on one device; ``threads`` is set for the whole process, as torch has it."""

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1) -> None:
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise DeviceError(f"device {device!r}: this torch ({torch.__version__}) sees no CUDA device")
        if device != "cpu" and _index(device) >= torch.cuda.device_count():
            raise DeviceError(f"device {device!r}: torch sees {torch.cuda.device_count()} CUDA device(s)")
        torch.set_num_threads(threads)
        self._torch = torch
        self._place = torch.device(device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", TORCHSCRIPT_DEPRECATION, DeprecationWarning)
            self._module = torch.jit.load(str(path), map_location=self._place).eval()
        self.device = device
        self.provider = f"torch {torch.__version__}"

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        with self._torch.inference_mode():
            # torch warns of arrays that can't be written to, though nothing here would.
            image = self._torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).to(self._place)
            probabilities: NDArray[np.float32] = self._module(image).cpu().numpy()
        return probabilities


def load(folder: Path, manifest: Manifest, device: str = "cpu", threads: int = 1) -> Backend:
    """The backend of the artifact in ``folder``, which answers with as many classes as its manifest has labels.

    Raises DeviceError.
    """
    kind = OnnxBackend if manifest.runtime == "onnx" else TorchScriptBackend
    backend: Backend = kind(folder / manifest.file, device, threads)
    return backend


def warm_up(backend: Backend, size: int, max_batch: int) -> dict[int, float]:
    """Infer 1, 2, 4, … images until doubling stops paying; the seconds of the fastest of three tries, by batch size.

    Larger batches would never be served, and would take memory that an edge box does not have. Where memory ends
    sooner, so does this. Raises DeviceError if not even one image can be inferred.
    """
    seconds: dict[int, float] = {}
    batch, idle = 1, 0
    while batch <= max_batch and idle < 2:
        pixels = np.zeros((batch, size, size, 3), np.uint8)
        times = []
        try:
            for _ in range(3):
                start = time.perf_counter()
                backend.infer(pixels)
                times.append(time.perf_counter() - start)
        except Exception as error:
            if batch > 1 and isinstance(failure(error), OutOfMemory):
                break
            raise DeviceError(f"device {backend.device!r} can't infer {batch} image(s): {error}") from error
        seconds[batch] = min(times)
        if batch > 1 and seconds[batch] > 2 * WARM_UP_GAIN * seconds[batch // 2]:
            idle += 1
        batch *= 2
    return seconds


def pick_device(asked: str, runtime: str) -> str:
    """The device that ``asked`` ("auto", "cpu", "cuda", "cuda:N") means here: "cpu" or "cuda:N".

    ``auto`` is the first GPU if there is one that the installed runtime can use, else the CPU. Raises DeviceError
    for a GPU that was asked for and can't be had.
    """
    if asked == "cpu" or (asked == "auto" and not (_gpus() and _runtime_has_cuda(runtime))):
        return "cpu"
    index = _index(asked)
    if index >= _gpus():
        raise DeviceError(f"device {asked!r}: this machine shows {_gpus()} CUDA device(s)")
    if not _runtime_has_cuda(runtime):
        raise DeviceError(f"device {asked!r}: the installed {runtime} runtime has no CUDA; see requirements/gpu.txt")
    return f"cuda:{index}"


def cpu_features() -> frozenset[str]:
    """What the CPU offers reduced precisions: "int8" (AVX2, VNNI or dot product) and "bf16" (AVX512-BF16 or AMX)."""
    if sys.platform == "darwin":
        return frozenset({"int8"} if platform.machine() == "arm64" else ())
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()
    features = {"int8"} if words & {"avx2", "asimddp"} else set()
    # ARM's "bf16" is not counted: the speed of torch's bf16 there has not been measured.
    return frozenset(features | ({"bf16"} if words & {"avx512_bf16", "amx_bf16"} else set()))


def _index(device: str) -> int:
    return int(device.split(":")[1]) if ":" in device else 0


def _gpus() -> int:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    import pynvml  # comes with bentoml; asks the driver without loading CUDA

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def _runtime_has_cuda(runtime: str) -> bool:
    if runtime == "onnx":
        return "CUDAExecutionProvider" in telemetry.onnxruntime().get_available_providers()
    import torch

    return bool(torch.cuda.is_available())
