"""FastAPI on uvicorn: UploadFile, one process a core.

The endpoint is async, as its docs write uploads, and so works on one image at a time: in the thread pool, images that
share a core cost a few percent more.
"""

from __future__ import annotations

import io
from typing import Any

from fastapi import FastAPI, UploadFile

from benchmarks.peers.recipe import Recipe

app = FastAPI()
recipe = Recipe()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/classify")
async def classify(image: UploadFile) -> dict[str, Any]:
    return recipe.classify(io.BytesIO(await image.read()))
