"""ONNX Runtime's TensorRT provider, measured beside CUDA; the service has no setting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

PROVIDER = "TensorrtExecutionProvider"


class TensorRT:
    """An ONNX artifact on ONNX Runtime's TensorRT provider, with one engine for all ``batches``.

    ``size``: of its square images, in pixels; ``batches``: sizes in images, ascending. Raises DeviceError where the
    provider can't be had.
    """

    def __init__(self, path: Path, precision: str, size: int, batches: Sequence[int]) -> None:
        from runners.devices import DeviceError
        from runners.telemetry import onnxruntime

        shapes = {"min": 1, "opt": batches[len(batches) // 2], "max": batches[-1]}
        options = {f"trt_profile_{name}_shapes": f"image:{batch}x{size}x{size}x3" for name, batch in shapes.items()}
        options["trt_fp16_enable"] = str(precision == "fp16")
        # CUDA runs the nodes that TensorRT does not take.
        others = [name for name in onnxruntime().get_available_providers() if name == "CUDAExecutionProvider"]
        self._session = onnxruntime().InferenceSession(str(path), providers=[(PROVIDER, options), *others])
        self.provider = self._session.get_providers()[0]
        if self.provider != PROVIDER:
            raise DeviceError(f"onnxruntime gave {self.provider} instead")

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        probabilities: NDArray[np.float32] = self._session.run(["probabilities"], {"image": pixels})[0]
        return probabilities
