"""The schema of replies is that of the replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serving import schema
from tests import hostile

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tests.conftest import Server

PNG = hostile.encode(hostile.picture(), "PNG")


def check(model: type[BaseModel], reply: dict[str, Any]) -> None:
    """``reply`` is valid, and has no field that ``model`` does not have."""
    assert model.model_validate(reply, strict=True).model_dump(exclude_unset=True) == reply


def test_replies(server: Server) -> None:
    check(schema.ClassifyOutput, server.client.post("/classify", content=PNG).json())
    files = [("images", ("a.png", PNG)), ("images", ("b.png", PNG[:50]))]
    check(schema.ClassifyBatchOutput, server.client.post("/classify_batch", files=files).json())
    check(schema.Error, server.client.post("/classify", content=b"text").json())
    check(schema.LabelsOutput, server.client.get("/labels").json())


def test_the_names_of_groups_stand_beside_those_of_classes() -> None:
    labels = {"en": ["cat", "dog", "car"], "zh": None}
    check(schema.LabelsOutput, labels | {"groups": {"en": ["pet"], "zh": ["宠物"], "of": [0, 0, -1]}})


def test_the_model(server: Server) -> None:
    reply = server.client.get("/model").json()
    told = schema.ModelOutput.model_validate(reply, strict=True).model_dump()
    assert told["slo_ms"] == 1000
    # The budget of the SLO, and its former name.
    batcher = told["runner"]["batcher"]
    assert batcher["budget_ms"] == batcher["slo_ms"] == 850
    assert batcher["executors"] == batcher["devices"] >= 1


def test_predictions_are_of_classes_or_of_groups() -> None:
    whole: dict[str, Any] = {"model": {"tag": "a:1", "weights": "demo", "precision": "fp32"}}
    whole |= {"timing_ms": {"decode": 1, "queue": 0, "inference": 2, "total": 3}}
    for kind in ("class_id", "group_id"):
        prediction = {kind: 1, "label": "cat", "label_zh": "猫", "probability": 0.9}
        told = schema.ClassifyOutput.model_validate(whole | {"predictions": [prediction]}).model_dump()
        assert told["predictions"] == [prediction]
