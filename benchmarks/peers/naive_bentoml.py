"""BentoML as its docs teach it: a Path input, and a batchable runner in its own processes behind bentoml.depends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from benchmarks.peers.recipe import Recipe, workers


@bentoml.service(workers=workers())
class Runner:
    def __init__(self) -> None:
        self.recipe = Recipe()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.recipe.probabilities(images)


@bentoml.service(workers=workers())
class Classifier:
    runner = bentoml.depends(Runner)

    def __init__(self) -> None:
        self.recipe = Recipe()

    @bentoml.api
    async def classify(self, image: Path) -> dict[str, Any]:
        pixels = self.recipe.pixels(image)
        probabilities = await self.runner.to_async.predict(pixels[None])
        return self.recipe.reply(probabilities[0])
