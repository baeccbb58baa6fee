"""Labelling: rows in order with bounded work ahead, and an engine that fails."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from classifier.errors import ClassifierError
from classifier.labels import Groups, Labels
from classifier.pixels import Decoded
from classifier.settings import Settings
from offline import labelling
from offline.labelling import InferenceError, Labeller
from offline.source import Source


class Names:
    """A source that knows any name, and counts how many were read."""

    def __init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, name: str, limit: int) -> bytes:
        self.read_names.append(name)
        return name.encode()


def labeller(
    source: Names,
    infer: Any,
    decode: Any = None,
    device: str = "cpu",
    groups: Groups | None = None,
    **settings: Any,
) -> Labeller:
    manifest = SimpleNamespace(labels=Labels(("cat", "dog"), groups=groups))
    artifact = SimpleNamespace(manifest=manifest, tag="m:1")
    engine = SimpleNamespace(artifact=artifact, backend=SimpleNamespace(device=device), infer=infer)
    return Labeller(
        Settings(threads=2, **settings),
        cast("Any", engine),
        decode or (lambda data: Decoded(np.zeros((1, 1, 3), np.uint8))),
        cast("Source", source),
        1,
        lambda row: str(row).encode(),
    )


def probabilities(pixels: Any, width: int) -> Any:
    return np.tile(np.array([[0.25, 0.75]], np.float32), (len(pixels), 1))


def test_rows_come_in_order_though_the_first_is_slow() -> None:
    source = Names()

    def decode(data: bytes) -> Any:
        if data == b"0":
            time.sleep(0.2)
        if int(data) % 7 == 3:
            raise ClassifierError("unreadable_image", "broken")
        return Decoded(np.zeros((1, 1, 3), np.uint8))

    names = [str(number) for number in range(50)]
    found = [row for rows in labeller(source, probabilities, decode).label(names) for row in rows]
    assert [f"{{'path': '{name}'" in row.decode() for name, (row, _) in zip(names, found, strict=True)] == [True] * 50
    assert [failed for _, failed in found] == [number % 7 == 3 for number in range(50)]


@pytest.mark.parametrize(("least", "told"), [(0, None), (0.7, "'confident': True"), (0.8, "'confident': False")])
def test_a_row_is_confident_where_a_threshold_is_set(least: float, told: str | None) -> None:
    (((row, _),),) = labeller(Names(), probabilities, min_confidence=least).label(["0"])
    assert ("confident" not in row.decode()) if told is None else (told in row.decode())


def test_a_row_has_the_groups_of_a_model_that_has_some() -> None:
    pets = Groups(Labels(("pet",)), (0, 0))
    (((row, _),),) = labeller(Names(), probabilities, groups=pets).label(["0"])
    assert "'groups': [{'group_id': 0, 'label': 'pet', 'probability': 1.0}]" in row.decode()


def test_work_ahead_is_bounded_and_dropped_when_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "AHEAD", 3)
    source, go_on = Names(), threading.Event()

    def decode(data: bytes) -> Any:
        if data == b"8":
            go_on.wait(10)
        return Decoded(np.zeros((1, 1, 3), np.uint8))

    rows = labeller(source, probabilities, decode).label([str(number) for number in range(10_000)])
    next(rows)
    time.sleep(0.2)
    # What was handed over: 3 for each of 2 threads, 4 images each, and those whose rows were taken.
    assert len(source.read_names) <= 4 * (3 * 2 + 2)
    go_on.set()
    rows.close()
    assert len(source.read_names) < 100


def test_an_engine_that_fails_ends_the_run_with_the_images_name() -> None:
    def infer(pixels: Any, width: int) -> Any:
        raise RuntimeError("the device is lost")

    with pytest.raises(InferenceError, match=r"the engine failed at '0': the device is lost"):
        list(labeller(Names(), infer).label(["0"]))


def test_a_gpus_batch_that_is_too_large_runs_image_by_image() -> None:
    sizes = []

    def infer(pixels: Any, width: int) -> Any:
        sizes.append(len(pixels))
        if len(pixels) > 1:
            raise MemoryError("no memory")
        return probabilities(pixels, width)

    found = [row for rows in labeller(Names(), infer, device="cuda:0").label(list("abc")) for row in rows]
    assert [failed for _, failed in found] == [False] * 3
    assert sizes == [3, 1, 1, 1]
