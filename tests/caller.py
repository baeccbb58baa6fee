"""A service that depends on the classifier and calls it in every form: what tests/test_composition.py serves.

``CALLED_URL``: it depends on what is served there, else on a classifier that BentoML starts beside it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import bentoml
from PIL import Image

from service import ResNet18

URL = os.environ.get("CALLED_URL")


def content(path: Path) -> bytes:
    """A small file's bytes."""
    return path.read_bytes()


@bentoml.service(name="caller")
class Caller:
    called = bentoml.depends(ResNet18, url=URL)
    if URL is not None:
        by_url = bentoml.depends(url=URL)

    @bentoml.api
    async def forms(self, photo: Path) -> dict[str, Any]:
        """The answers to one image in every form of a call from a coroutine, by the form's name."""
        called, data = self.called, content(photo)
        with photo.open("rb") as file:
            one = {
                "Path": await called.classify(image=photo, top_k=2),
                "positional": await called.classify(photo, 2),
                "file": await called.classify(image=file, top_k=2),
                "bytes": await called.classify(image=data, top_k=2),
                "in memory": await called.classify(image=io.BytesIO(data), top_k=2),
                "Pillow": await called.classify(image=Image.open(photo), top_k=2),
                "to_async": await called.to_async.classify(image=photo, top_k=2),
            }
        many = {
            "batch": await called.classify_batch(images=[photo, data], top_k=2),
            "batch to_async": await called.to_async.classify_batch(images=[photo, data], top_k=2),
        }
        return {name: [answer.model_dump()["predictions"]] for name, answer in one.items()} | {
            name: [result["predictions"] for result in answer.model_dump()["results"]] for name, answer in many.items()
        }

    @bentoml.api
    def sync(self, photo: Path) -> dict[str, Any]:
        """The same from a method that is no coroutine."""
        one = self.called.to_sync.classify(image=photo, top_k=2).model_dump()
        many = self.called.to_sync.classify_batch([photo, photo.read_bytes()], top_k=2).model_dump()
        return {"one": [one["predictions"]], "many": [result["predictions"] for result in many["results"]]}

    @bentoml.api
    async def plain(self, photo: Path) -> list[Any]:
        """The answers of a dependency by URL alone, for which BentoML's own client sends the form: they are dicts."""
        one = await self.by_url.to_async.classify(image=photo, top_k=2)
        many = await self.by_url.to_async.classify_batch(images=[photo, photo], top_k=2)
        return [one["predictions"], *(result["predictions"] for result in many["results"])]

    @bentoml.api
    async def refused(self, text: str) -> str:
        """The error of a call with ``text`` in the place of the image."""
        try:
            await self.called.classify(image=text)
        except bentoml.exceptions.BentoMLException as error:
            return f"{error.error_code.value} {error}"
        return "not refused"

    @bentoml.api
    async def broken(self, photo: Path) -> str:
        """The service's own error, which the caller gets as an exception."""
        try:
            await self.called.classify(image=content(photo)[:60])
        except bentoml.exceptions.BentoMLException as error:
            return f"{error.error_code.value} {error}"
        return "not refused"
