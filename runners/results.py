"""The result of one image: its probabilities, and how long it spent in each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True)
class ImageResult:
    """One image's ``probabilities`` float32[C], and the milliseconds that it was decoded, inferred and queued.

    ``inference_ms`` is its batch's time. The stages' names are those of ``serving.replies.Timing``. ``cached``: that it
    was inferred for another image of the same bytes. ``warnings``: sentences about what is missing of the image.
    """

    probabilities: NDArray[np.float32]
    decode_ms: float
    inference_ms: float
    queue_ms: float = 0.0
    cached: bool = False
    warnings: tuple[str, ...] = ()

    def notes(self) -> dict[str, Any]:
        """What its entry in a reply says beside its predictions: ``cached``, its ``warnings``, or nothing."""
        told: dict[str, Any] = {"cached": True} if self.cached else {}
        return told | {"warnings": list(self.warnings)} if self.warnings else told
