"""The service with a stand-in for its model, of a known cost: ``bentoml serve benchmarks.paced:ResNet18``.

A batch of b images takes PACED_BETA_MS + b · PACED_ALPHA_MS milliseconds (default 0 and 50), in which nothing is done,
so that many replicas fit two cores. HTTP, decoding, batcher, metrics and start-up are the service's own.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from runners import backends

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from classifier.manifest import Manifest


class Paced:
    """A backend that waits, and answers that all classes are alike."""

    device, provider = "cpu", "a wait of a known length"

    def __init__(self, classes: int, alpha_s: float, beta_s: float) -> None:
        self._classes, self._alpha_s, self._beta_s = classes, alpha_s, beta_s

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        time.sleep(self._beta_s + len(pixels) * self._alpha_s)
        return np.full((len(pixels), self._classes), 1 / self._classes, np.float32)

    def widened(self, threads: int) -> Paced:
        """See runners.backends.Backend: waiting on more cores takes as long."""
        return self


def _milliseconds(name: str, default: float, least: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise SystemExit(f"{name}={text!r} can't be honoured: it must be a number of milliseconds from {least:g} on")
    return value


def _load(folder: Path, manifest: Manifest, *_: object, **__: object) -> backends.Backend:
    return Paced(len(manifest.labels), 1e-3 * ALPHA_MS, 1e-3 * BETA_MS)


ALPHA_MS, BETA_MS = _milliseconds("PACED_ALPHA_MS", 50, 0.1), _milliseconds("PACED_BETA_MS", 0, 0)
backends.load = _load
# It stands in for every engine, and would be weighed against itself.
os.environ["RESNET18_ENGINE"] = "onnxruntime"

# Only now: the service is to find the stand-in.
from service import ResNet18  # noqa: E402

__all__ = ["ResNet18"]
