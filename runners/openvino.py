"""OpenVINO: another engine for ONNX artifacts, on CPUs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from runners import devices, telemetry

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# OpenVINO's names of the precisions that it computes in.
HINTS = {"fp32": "f32", "bf16": "bf16"}


def has_cuda() -> bool:
    """OpenVINO has no CUDA."""
    return False


class Backend:
    """OpenVINO on the CPU: a stream for each of ``callers`` threads that infer at once, ``threads`` in each stream.

    The graph is compiled for one image, which is faster than a graph for any number. Larger batches cost no less per
    image on a CPU, so their images are inferred one after the other. ``computes``: the precision of its arithmetic,
    "fp32" or "bf16"; int8 layers stay int8. Raises DeviceError for another device, and for a CPU without bf16.
    """

    def __init__(
        self, path: Path, device: str = "cpu", threads: int = 1, callers: int = 1, computes: str = "fp32"
    ) -> None:
        if device != "cpu":
            raise devices.DeviceError(f"device {device!r}: the openvino engine runs on the CPU only")
        core = telemetry.openvino().Core()
        self._model = core.read_model(str(path))
        _, height, width, channels = self._model.inputs[0].get_partial_shape().to_string().strip("[]").split(",")
        self._model.reshape([1, int(height), int(width), int(channels)])
        self._core, self._hint = core, HINTS[computes]
        self.device = device
        self.provider = f"OpenVINO {telemetry.openvino().__version__.split('-')[0]}"
        self._compile(threads, callers)

    def _compile(self, threads: int, streams: int) -> None:
        options = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads * streams,
            # By default a CPU with bf16 would compute in bf16 what the accuracy gate has judged in fp32.
            "INFERENCE_PRECISION_HINT": self._hint,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = self._core.compile_model(self._model, "CPU", options)
        obtained = str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        if obtained != self._hint:
            raise devices.DeviceError(
                f"OpenVINO has no {self._hint} on this CPU and would compute in {obtained} instead; set "
                "RESNET18_PRECISION to another one, such as fp32"
            )
        self._requests = threading.local()

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        request: Any = getattr(self._requests, "one", None)
        if request is None:
            request = self._requests.one = self._compiled.create_infer_request()
        rows = []
        for index in range(len(pixels)):
            request.infer({0: pixels[index : index + 1]}, share_inputs=True)
            rows.append(request.get_output_tensor(0).data.copy())
        probabilities: NDArray[np.float32] = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return probabilities

    def widened(self, threads: int) -> Backend:
        """See runners.backends.Backend: the graph is compiled anew, for one stream."""
        wide = object.__new__(Backend)
        wide._core, wide._model, wide._hint = self._core, self._model, self._hint
        wide.device, wide.provider = self.device, self.provider
        wide._compile(threads, 1)
        return wide
