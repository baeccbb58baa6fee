"""A service that depends on the classifier: it puts photos on shelves, those it isn't sure of before people.

bentoml serve examples.pipeline:Shelves
curl -F photos=@cat.jpg -F photos=@dog.jpg -F photos=@copy-of-cat.jpg http://127.0.0.1:3000/sort
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import bentoml

from service import ResNet18

SURE = 0.7


@bentoml.service(name="shelves")
class Shelves:
    """Sorts photos by their class."""

    classifier = bentoml.depends(ResNet18)

    @bentoml.api
    async def sort(self, photos: list[Path]) -> dict[str, Any]:
        """The number of each photo on its shelf; ``review`` for those that a person must see; what was left out."""
        first: dict[str, int] = {}
        copies: dict[int, int] = {}
        for number, photo in enumerate(photos):
            digest = _digest(photo)
            if first.setdefault(digest, number) != number:
                copies[number] = first[digest]
        numbers = list(first.values())
        answer = await self.classifier.classify_batch(images=[photos[number] for number in numbers], top_k=1)
        shelves: dict[str, list[int]] = {"review": []}
        unread: dict[int, str] = {}
        for number, result in zip(numbers, answer.results, strict=True):
            if hasattr(result, "error"):
                unread[number] = result.error.message
                continue
            (best,) = result.predictions
            shelves.setdefault(best.label if best.probability >= SURE else "review", []).append(number)
        return {"shelves": shelves, "copies": copies, "unread": unread, "model": answer.model.tag}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()
