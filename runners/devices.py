"""What a machine has to infer on, and what the errors of runtimes tell of it."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path


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


def cpu_family() -> str:
    """What int8 sums round alike on: "x86 with VNNI", "x86 with AVX2", or the machine's name, such as "aarch64"."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return machine
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "x86"
    if words & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return "x86 with VNNI"
    return "x86 with AVX2" if "avx2" in words else "x86"


def index(device: str) -> int:
    """The number of the GPU that ``device`` ("cuda" or "cuda:N") names; the first is 0."""
    return int(device.split(":")[1]) if ":" in device else 0


def gpus() -> int:
    """How many CUDA devices the driver shows to this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    import pynvml  # comes with bentoml; asks the driver without loading CUDA

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
