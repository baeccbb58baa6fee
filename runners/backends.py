"""A backend is an artifact in memory that turns ``uint8[N, S, S, 3]`` into ``float32[N, C]``: loaded, and warmed up.

Each engine has a module in this package, with a class ``Backend`` and a function ``has_cuda``.
"""

from __future__ import annotations

import importlib
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from classifier import runtimes
from runners import devices

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from classifier.manifest import Manifest

# Doubling a batch pays while it costs less than this share of twice as much.
WARM_UP_GAIN = 0.9
# The first inferences of an engine are slow; after these the order of two engines is plain.
WEIGH_TRIES = 12


class Backend(Protocol):
    """An artifact that infers. ``device``: where it really runs; ``provider``: what runs it, as the runtime tells."""

    device: str
    provider: str

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]; may be called from several threads at once."""
        ...

    def widened(self, threads: int) -> Backend:
        """The same artifact on the same CPU, where one call of ``infer`` takes ``threads``."""
        ...


def load(
    folder: Path, manifest: Manifest, device: str = "cpu", threads: int = 1, callers: int = 1, engine: str | None = None
) -> Backend:
    """The backend of the artifact in ``folder``, which answers with as many classes as its manifest has labels.

    ``threads``: that one call of ``infer`` takes. ``callers``: threads that call it at once. ``engine``: its name in
    ``runtimes.ENGINES``, or None for the default one. Raises DeviceError, and ValueError for an unknown runtime.
    """
    runtime, precision = runtimes.find(manifest.runtime), manifest.precision
    chosen = engine or runtime.engines_for(precision)[0]
    options = {"computes": precision} if precision in runtime.computes else {}
    backend: Backend = _module(chosen).Backend(folder / manifest.file, device, threads, callers, **options)
    return backend


def _module(engine: str) -> Any:
    return importlib.import_module(f"{__package__}.{runtimes.ENGINES[engine].module}")


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
            if batch > 1 and isinstance(devices.failure(error), devices.OutOfMemory):
                break
            raise devices.DeviceError(f"device {backend.device!r} can't infer {batch} image(s): {error}") from error
        seconds[batch] = min(times)
        if batch > 1 and seconds[batch] > 2 * WARM_UP_GAIN * seconds[batch // 2]:
            idle += 1
        batch *= 2
    return seconds


def weigh(backends: Mapping[str, Backend], size: int) -> dict[str, float]:
    """The seconds of one image on each of ``backends``, by their names: the fastest of tries that take turns.

    Raises DeviceError if one of them can't infer.
    """
    pixels = np.zeros((1, size, size, 3), np.uint8)
    seconds = dict.fromkeys(backends, math.inf)
    for _ in range(WEIGH_TRIES):
        for name, backend in backends.items():
            start = time.perf_counter()
            try:
                backend.infer(pixels)
            except Exception as error:
                raise devices.DeviceError(f"the engine {name} can't infer an image: {error}") from error
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def widen(backend: Backend, size: int, cores: int) -> dict[int, tuple[Backend, float]]:
    """Backends on 2, 4, 8, … and all ``cores`` by their number, each with its fastest seconds of one image.

    All are kept, also those that seem slow: a warm-up beside a busy process would judge them wrongly, and the batcher
    learns what each is worth.
    """
    found: dict[int, tuple[Backend, float]] = {}
    pixels = np.zeros((1, size, size, 3), np.uint8)
    for width in sorted({2**power for power in range(1, cores.bit_length())} | {cores} - {1}):
        wide = backend.widened(width)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            wide.infer(pixels)
            times.append(time.perf_counter() - start)
        found[width] = wide, min(times)
    return found


def pick_device(asked: str, runtime: str) -> str:
    """The device that ``asked`` ("auto", "cpu", "cuda", "cuda:N") means here: "cpu" or "cuda:N".

    ``auto`` is the first GPU if there is one that the installed runtime can use, else the CPU. Raises DeviceError
    for a GPU that was asked for and can't be had, and ValueError for an unknown runtime.
    """
    module = _module(runtimes.find(runtime).engines[0])
    if asked == "cpu" or (asked == "auto" and not (devices.gpus() and module.has_cuda())):
        return "cpu"
    index = devices.index(asked)
    if index >= devices.gpus():
        raise devices.DeviceError(f"device {asked!r}: this machine shows {devices.gpus()} CUDA device(s)")
    if not module.has_cuda():
        raise devices.DeviceError(
            f"device {asked!r}: the installed {runtime} runtime has no CUDA; see requirements/gpu.txt"
        )
    return f"cuda:{index}"
