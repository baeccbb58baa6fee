"""TorchScript: the backend of its artifacts, on torch."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from runners import devices

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

# torch 2.13 deprecates TorchScript in favour of torch.export. It is still exported here because it is the one format
# that plain libtorch, without Python, serves on every platform of torch 1.x and 2.x.
DEPRECATION = r".*torch\.jit\..* is (deprecated|not supported).*"


def has_cuda() -> bool:
    """Whether the installed torch can use a GPU."""
    import torch

    return bool(torch.cuda.is_available())


class Backend:
    """A frozen TorchScript graph on one device, for any number of threads that call it.

    torch keeps the number of threads for each thread that calls it, so ``infer`` sets it where it has changed.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1, callers: int = 1) -> None:
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise devices.DeviceError(f"device {device!r}: this torch ({torch.__version__}) sees no CUDA device")
        if device != "cpu" and devices.index(device) >= torch.cuda.device_count():
            raise devices.DeviceError(f"device {device!r}: torch sees {torch.cuda.device_count()} CUDA device(s)")
        self._torch, self._threads = torch, threads
        self._place = torch.device(device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
            self._module = torch.jit.load(str(path), map_location=self._place).eval()
        self.device = device
        self.provider = f"torch {torch.__version__}"

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32[N, C] of ``pixels`` uint8[N, S, S, 3]."""
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            # torch warns of arrays that can't be written to, though nothing here would.
            image = self._torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).to(self._place)
            probabilities: NDArray[np.float32] = self._module(image).cpu().numpy()
        return probabilities

    def widened(self, threads: int) -> Backend:
        """See runners.backends.Backend: the weights are shared."""
        wide = copy.copy(self)
        wide._threads = threads
        return wide
