"""Labelling: images are read, decoded and inferred on all cores, and their rows come in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from classifier.errors import ClassifierError
from classifier.labels import confidence
from offline.source import shown
from runners.predictor import image_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from classifier.pixels import Decoded
    from classifier.settings import Settings
    from offline.source import Source
    from runners.predictor import Predictor

# Images that a thread takes at once: handing each over by itself would cost 2 % of the throughput.
TAKEN = 4
# Images of a batch on a GPU. On a CPU batches gain nothing.
GPU_BATCH = 8
# What is taken ahead for each thread, so that one slow image at the front doesn't stop the others. Of those ahead only
# the rows are held, never the images.
AHEAD = 64


class InferenceError(Exception):
    """The engine has failed on pixels, which is no image's fault; the message names the first image of the batch."""


class Labeller:
    """Rows for the images of ``source``, by ``predictor``, within the limits of ``settings``.

    A row is ``{"path": …, "predictions": […], "model": …}``, or has ``"error"`` in place of the predictions: the
    objects that the service answers with. ``decode``: an encoded image to pixels. ``make``: what a row becomes, in the
    thread that inferred it.
    """

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        decode: Callable[[Any], Decoded],
        source: Source,
        top_k: int,
        make: Callable[[dict[str, Any]], bytes],
    ) -> None:
        limit = settings.max_body_bytes
        on_cpu = predictor.backend.device == "cpu"
        self._threads = settings.threads_of(1)
        self._batch = 1 if on_cpu else min(GPU_BATCH, settings.max_batch)
        self._taken = TAKEN if on_cpu else self._batch
        self._run = image_run(predictor, lambda name: decode(source.read(name, limit)))
        self._labels, self._tag = predictor.artifact.manifest.labels, predictor.artifact.tag
        self._top_k, self._make, self._enough = top_k, make, settings.min_confidence

    def label(self, names: Sequence[str]) -> Generator[list[tuple[bytes, bool]], None, None]:
        """What the rows of ``names`` become, in order, some at a time, each with whether it is an error.

        Raises InferenceError. What has not begun when the iteration is closed is dropped.
        """
        waiting: deque[Future[list[tuple[bytes, bool]]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="resnet18-offline")
        try:
            for start in range(0, len(names), self._taken):
                waiting.append(pool.submit(self._label, names[start : start + self._taken]))
                while waiting and (waiting[0].done() or len(waiting) >= AHEAD * self._threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _label(self, names: Sequence[str]) -> list[tuple[bytes, bool]]:
        rows, groups = [], self._labels.groups
        for start in range(0, len(names), self._batch):
            batch = names[start : start + self._batch]
            for name, result in zip(batch, self._infer(batch), strict=True):
                if isinstance(result, ClassifierError):
                    answer = result.body()
                else:
                    predictions = self._labels.top(result.probabilities, self._top_k)
                    answer = {"predictions": predictions} | result.notes() | confidence(predictions, self._enough)
                    if groups:
                        answer["groups"] = groups.top(result.probabilities, min(self._top_k, len(groups)))
                row = self._make({"path": shown(name), **answer, "model": self._tag})
                rows.append((row, "error" in answer))
        return rows

    def _infer(self, names: Sequence[str]) -> Sequence[Any]:
        try:
            return self._run(list(names), lambda: 1)
        except Exception as error:
            if len(names) == 1:
                raise InferenceError(f"the engine failed at {shown(names[0])!r}: {error}") from error
            # The device's memory may be too small for a batch.
            return [result for name in names for result in self._infer([name])]
