"""Ray Serve: a deployment of one replica a core behind its HTTP proxy; the body is the image, JSON is the reply."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.recipe import Recipe, workers


@serve.deployment(num_replicas=workers())
class ImageClassifier:
    def __init__(self):
        self.recipe = Recipe()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return self.recipe.classify(io.BytesIO(await request.body()))


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=str(Path("ray").absolute()))
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(ImageClassifier.bind())
    signal.pause()
