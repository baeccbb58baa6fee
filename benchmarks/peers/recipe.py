"""What every ONNX peer does between bytes and a reply: the plain recipe that tutorials teach, and one session."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from classifier import runtimes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from runners.backends import Backend


def workers() -> int:
    """How many worker processes a peer starts: one for each core."""
    return int(os.environ.get("PEER_WORKERS", "2"))


def backend_of(artifact: Path, engine: str) -> Backend:
    """An .onnx file in ``engine``, with one thread."""
    module = importlib.import_module(f"runners.{runtimes.ENGINES[engine].module}")
    backend: Backend = module.Backend(artifact)
    return backend


class Recipe:
    """The artifact, loaded with one thread, and the preprocessing its manifest asks for."""

    def __init__(self, artifact: Path | None = None, *, draft: bool | None = None, engine: str | None = None) -> None:
        artifact = artifact or Path(os.environ["PEER_ARTIFACT"])
        manifest = json.loads((artifact.parent / "manifest.json").read_text(encoding="utf-8"))
        self.size: int = manifest["size"]
        self.resize: int = manifest["resize"]
        self.labels: list[str] = manifest["labels"]["en"]
        self.draft = os.environ.get("PEER_DRAFT") == "1" if draft is None else draft
        self.backend = backend_of(artifact, engine or os.environ.get("PEER_ENGINE", "onnxruntime"))

    def pixels(self, file: BinaryIO | Path) -> NDArray[np.uint8]:
        """uint8[S, S, 3] of an encoded image: torchvision's Resize and CenterCrop, done with Pillow."""
        with Image.open(file) as opened:
            if self.draft:
                opened.draft("RGB", (self.resize, self.resize))
            image = opened.convert("RGB")
        width, height = image.size
        short = min(width, height)
        width, height = int(self.resize * width / short), int(self.resize * height / short)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32[N, C] of uint8[N, S, S, 3]."""
        return self.backend.infer(images)

    def reply(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """The JSON reply for one image's float32[C]."""
        best = int(probabilities.argmax())
        return {"class_id": best, "label": self.labels[best], "probability": float(probabilities[best])}

    def classify(self, file: BinaryIO | Path) -> dict[str, Any]:
        """Bytes to reply, one image, for servers without batches."""
        return self.reply(self.probabilities(self.pixels(file)[None])[0])
