"""The cache: an image that comes again byte for byte has the result of the first, also while that is being inferred.

A file's digest is BLAKE2b of 32 bytes, so no two files are known to share one. It begins with the artifact's digest and
with all that decides what pixels a file becomes; a result of another model or of other pixels can't be found by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import ClassifierError
from runners.admission import overloaded
from runners.results import ImageResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from classifier.settings import Settings
    from serving.metrics import CacheMetrics
    from serving.placements import Placement

    Results = list[ImageResult | Exception]

_DIGEST_BYTES = 32
# Bytes from which on an image is hashed in a thread: 1 MB would stop the event loop for a millisecond.
_LARGE = 1 << 20
# Of a block of memory: what it is rounded up to, and what the allocator keeps beside it.
_BLOCK = 16


class ResultCache:
    """Probabilities by digest, in at most ``limit`` bytes of memory. The least recently used go first.

    What counts is what they take: keys, rows and the table, with what the allocator adds.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rows: OrderedDict[bytes, bytes] = OrderedDict()
        self._in_rows = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def held(self) -> int:
        """Bytes of memory that are taken."""
        return self._in_rows + sys.getsizeof(self._rows)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The probabilities float32[C] of ``key``, read-only, or None."""
        row = self._rows.get(key)
        if row is None:
            return None
        self._rows.move_to_end(key)
        return np.frombuffer(row, np.float32)

    def add(self, key: bytes, probabilities: NDArray[np.float32]) -> None:
        """Keep ``probabilities`` float32[C]; drop others as far as needed, this one too where it alone is too much."""
        if key in self._rows:
            self._rows.move_to_end(key)
            return
        # A copy: a row of a batch's result would keep the whole batch.
        row = probabilities.astype(np.float32, copy=False).tobytes()
        self._rows[key] = row
        self._in_rows += _taken(key) + _taken(row)
        while self._rows and self.held > self.limit:
            dropped = self._rows.popitem(last=False)
            self._in_rows -= sum(map(_taken, dropped))


def _taken(block: bytes) -> int:
    return sys.getsizeof(block) // _BLOCK * _BLOCK + _BLOCK


@dataclass(eq=False, slots=True)
class _Flight:
    """Images that are inferred together, by digest, and how many calls wait for one of them."""

    keys: list[bytes]
    deadline: float
    task: asyncio.Task[Results]
    waiting: int = 0

    def result(self, key: bytes) -> ImageResult | Exception:
        """The result of ``key``. Raises what the call of the placement raised."""
        return self.task.result()[self.keys.index(key)]


class Cached:
    """``placement``, asked only for images that are neither known nor being inferred already. See Placement.

    An image waits for another of the same bytes only if that one's deadline is not later than its own, and at most
    MAX_QUEUE images do so. If that one is given up in an overload, the image is asked for anew; any other error is its
    own as well. No error is kept. An inference goes on until no call waits for it.
    """

    def __init__(self, placement: Placement, settings: Settings, metrics: CacheMetrics) -> None:
        self.artifact = placement.artifact
        self._placement, self._metrics = placement, metrics
        self._known = ResultCache(settings.cache_mb * 2**20)
        self._flights: dict[bytes, _Flight] = {}
        self._waiting, self._max_waiting = 0, settings.max_queue
        manifest = self.artifact.manifest
        contract = [manifest.digest, asdict(manifest.preprocessing), settings.truncated]
        self._encoded, self._pixels = (
            hashlib.blake2b(json.dumps([kind, *contract]).encode(), digest_size=_DIGEST_BYTES)
            for kind in ("encoded", "pixels")
        )

    async def submit(self, images: list[Any], deadline: float) -> Results:
        """See Placement. What came from another image is ``cached``, and what it has waited is its ``queue_ms``."""
        begin = time.monotonic()
        keys = await self._keys(images)
        by_key = dict(zip(keys, images, strict=True))
        found: dict[bytes, ImageResult | Exception] = {}
        for key in by_key:
            row = self._known.get(key)
            if row is not None:
                found[key] = ImageResult(row, 0.0, 0.0, cached=True)
        hits = sum(key in found for key in keys)
        inferred: set[bytes] = set()
        while missing := [key for key in by_key if key not in found]:
            flights = {key: self._flights[key] for key in missing if self._may_join(key, deadline)}
            if flights and self._waiting + len(flights) > self._max_waiting:
                raise overloaded("queue_full", 0.0)
            new = [key for key in missing if key not in flights]
            if new:
                flights |= dict.fromkeys(new, self._start(new, [by_key[key] for key in new], deadline))
                inferred.update(new)
            await self._wait({*flights.values()}, len(missing) - len(new))
            found |= _found(flights, new)
        self._metrics.answered(hits, len(keys) - hits - len(inferred), len(inferred), self._known.held)
        waited_ms = 1e3 * (time.monotonic() - begin)
        results: Results = []
        for key in keys:
            result = found[key]
            if key in inferred:
                inferred.remove(key)  # of equal images in one call the first is the one that was inferred
            elif isinstance(result, ImageResult) and not result.cached:
                result = replace(result, decode_ms=0.0, inference_ms=0.0, queue_ms=waited_ms, cached=True)
            results.append(result)
        return results

    async def _keys(self, images: list[Any]) -> list[bytes]:
        """The digests of a call's images: in another thread where they are so large that other requests would wait."""
        if sum(memoryview(image).nbytes for image in images) < _LARGE:
            return self._digests(images)
        return await asyncio.to_thread(self._digests, images)

    def _digests(self, images: list[Any]) -> list[bytes]:
        found = []
        for image in images:
            digest = (self._pixels if isinstance(image, np.ndarray) else self._encoded).copy()
            digest.update(memoryview(image).cast("B"))
            found.append(digest.digest())
        return found

    def _may_join(self, key: bytes, deadline: float) -> bool:
        return key in self._flights and self._flights[key].deadline <= deadline

    def _start(self, keys: list[bytes], images: list[Any], deadline: float) -> _Flight:
        """Begin to infer ``images``, in one call of the placement, which admits all of them or none."""
        flight = _Flight(keys, deadline, asyncio.ensure_future(self._infer(keys, images, deadline)))
        self._flights.update(dict.fromkeys(keys, flight))
        flight.task.add_done_callback(lambda _: self._landed(flight))
        return flight

    async def _infer(self, keys: list[bytes], images: list[Any], deadline: float) -> Results:
        results = await self._placement.submit(images, deadline)
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, ImageResult) and not result.warnings:  # these are rare, and text takes memory
                self._known.add(key, result.probabilities)
        return results

    async def _wait(self, flights: set[_Flight], joined: int) -> None:
        """Wait for ``flights``; ``joined``: the images that wait for other calls' flights."""
        self._waiting += joined
        for flight in flights:
            flight.waiting += 1
        try:
            await asyncio.wait({flight.task for flight in flights})
        finally:
            self._waiting -= joined
            for flight in flights:
                flight.waiting -= 1
                if not flight.waiting and not flight.task.done():
                    self._forget(flight)  # nobody is to join it any more
                    flight.task.cancel()

    def _landed(self, flight: _Flight) -> None:
        self._forget(flight)
        if not flight.task.cancelled():
            flight.task.exception()  # where no call waits any more, asyncio would log it

    def _forget(self, flight: _Flight) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def check_admission(self, deadline: float) -> None:
        """See Placement. Whether the image is known can't be asked: it has not come yet."""
        self._placement.check_admission(deadline)

    async def is_ready(self) -> bool:
        """See Placement."""
        return await self._placement.is_ready()

    async def describe(self) -> dict[str, Any]:
        """See Placement; and the results that are kept."""
        return {
            **await self._placement.describe(),
            "cache": {"results": len(self._known), "bytes": self._known.held, "limit_bytes": self._known.limit},
        }

    async def stop(self) -> None:
        """See Placement."""
        await self._placement.stop()


def _found(flights: dict[bytes, _Flight], own: list[bytes]) -> dict[bytes, ImageResult | Exception]:
    """The results of ``flights`` by digest, without those of other calls that were given up in an overload.

    Raises ClassifierError where a flight as a whole has failed.
    """
    found: dict[bytes, ImageResult | Exception] = {}
    for key, flight in flights.items():
        try:
            result = flight.result(key)
        except (ClassifierError, asyncio.CancelledError) as error:
            if key in own or getattr(error, "code", "overloaded") != "overloaded":
                raise
            continue
        if key in own or getattr(result, "code", "") != "overloaded":
            found[key] = result
    return found
