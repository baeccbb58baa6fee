"""ONNX Runtime: the backend of its artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runners import devices, telemetry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime can use a GPU."""
    return "CUDAExecutionProvider" in telemetry.onnxruntime().get_available_providers()


class Backend:
    """ONNX Runtime on one device. With ``threads=1`` each calling thread, of any number, infers on its own core."""

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1, callers: int = 1) -> None:
        ort = telemetry.onnxruntime()
        self._path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        if threads > 1:
            # Its threads sleep between images, because other images need the cores. Without an arena of its own it
            # takes half the memory, and no more time.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.enable_cpu_mem_arena = False
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            available = ort.get_available_providers()
            if "CUDAExecutionProvider" not in available:
                raise devices.DeviceError(f"device {device!r}: this onnxruntime has only {', '.join(available)}")
            ort.preload_dlls()
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": devices.index(device)}))
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self.provider: str = self._session.get_providers()[0]
        obtained = "cpu" if self.provider == "CPUExecutionProvider" else device
        if obtained != device:
            # ONNX Runtime falls back to the CPU with no more than a log line when CUDA can't be initialised.
            raise devices.DeviceError(f"device {device!r} was asked for, but onnxruntime gave {self.provider}")
        self.device = obtained

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        probabilities: NDArray[np.float32] = self._session.run(["probabilities"], {"image": pixels})[0]
        return probabilities

    def widened(self, threads: int) -> Backend:
        """See runners.backends.Backend: a second session, since a session's threads can't be chosen call by call."""
        return Backend(self._path, self.device, threads)
