"""What a request may ask for: values that count, and names that are refused rather than passed over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import bentoml
import pytest
from starlette.requests import Request

from classifier.errors import ClassifierError
from serving import parameters
from tests import hostile
from tests.test_service import check_error, check_predictions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Server

IMAGE = hostile.encode(hostile.picture(), "PNG")
PNG = {"content-type": "image/png"}


def request(query: str = "", headers: dict[str, str] | None = None) -> Request:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "path": "/classify", "query_string": query.encode(), "headers": fields}
    return Request(scope)


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
@pytest.mark.parametrize("name", ["topk", "TOP_K", "top-k", "k", "", "_", "threshold", "x" * 5000, "top_k "])
def test_422_for_an_unknown_query_parameter(server: Server, path: str, name: str) -> None:
    response = server.client.post(path, params={name: "2"}, content=IMAGE, headers=PNG)
    error = check_error(response, 422, "invalid_parameter", path, repr(name[:100]), "'top_k'")
    assert error["allowed"] == ["top_k", "min_confidence", "level"]
    assert len(error["message"]) < 300


def test_it_is_refused_beside_a_known_one_and_its_value_is_not_told(server: Server) -> None:
    query = {"top_k": "2", "api_key": "a-secret"}
    response = server.client.post("/classify", params=query, content=IMAGE, headers=PNG)
    check_error(response, 422, "invalid_parameter", "'api_key'")
    assert "a-secret" not in response.text


def test_a_query_of_nothing_is_none(server: Server) -> None:
    for path in ("/classify?", "/classify?&"):
        assert server.client.post(path, content=IMAGE, headers=PNG).status_code == 200


@pytest.mark.parametrize("path", ["/model", "/labels"])
def test_what_tells_of_the_model_takes_no_parameter(server: Server, path: str) -> None:
    check_error(server.client.get(path, params={"lang": "zh"}), 422, "invalid_parameter", path, "'lang'", "none")
    assert server.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/readyz", "/livez", "/healthz", "/metrics", "/docs", "/docs.json", "/schema.json", "/"]
)
def test_probes_scrapers_and_pages_may_bring_any(server: Server, path: str) -> None:
    """Load balancers add their own, and a page's address is passed on with marks of where it was found."""
    assert server.client.get(path, params={"x": "1", "v": "2"}).status_code == 200


def test_files_of_the_page_may_bring_a_version(server: Server) -> None:
    address = server.client.get("/").text.split('src="web/')[1].split('"')[0]
    assert server.client.get(f"/web/{address}", params={"v": "1"}).status_code == 200


@pytest.mark.parametrize(
    ("query", "form", "count"),
    [
        ("top_k=2", None, 2),
        ("", "2", 2),
        ("top_k=2", "2", 2),
        ("top_k=2&top_k=2", None, 2),
        ("", "null", 3),
        ("", None, 3),
    ],
)
def test_top_k_once_or_the_same_twice(server: Server, query: str, form: str | None, count: int) -> None:
    data = {} if form is None else {"top_k": form}
    response = server.client.post(f"/classify?{query}", data=data, files={"image": ("a", IMAGE)})
    check_predictions(response.json()["predictions"], count)


@pytest.mark.parametrize(("query", "form"), [("top_k=1&top_k=2", None), ("top_k=1", "2"), ("", ["1", "2"])])
def test_422_for_two_values_of_top_k(server: Server, query: str, form: Any) -> None:
    data = {} if form is None else {"top_k": form}
    response = server.client.post(f"/classify?{query}", data=data, files={"image": ("a", IMAGE)})
    check_error(response, 422, "invalid_parameter", "'1' and '2'", "once")


def test_null_is_no_value_in_a_query(server: Server) -> None:
    response = server.client.post("/classify?top_k=null", content=IMAGE, headers=PNG)
    check_error(response, 422, "invalid_parameter", "'null'")


def test_none_of_bentoml_s_clients_is_the_default(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(IMAGE)
    with bentoml.SyncHTTPClient(server.url) as client:
        check_predictions(client.classify(image=path, top_k=None)["predictions"], 3)

    async def ask() -> Any:
        async with bentoml.AsyncHTTPClient(server.url) as client:
            return await client.classify_batch(images=[path, path], top_k=None)

    for result in asyncio.run(ask())["results"]:
        check_predictions(result["predictions"], 3)


def test_the_default_is_at_most_the_classes() -> None:
    assert parameters.top_k(request(), {}, 2) == 2
    assert parameters.top_k(request(), {}, 1000) == 3
    with pytest.raises(ClassifierError, match="1 to 2"):
        parameters.top_k(request("top_k=3"), {}, 2)


@pytest.mark.parametrize(
    ("query", "fields", "number"),
    [
        ("", {}, 0.25),
        ("min_confidence=0.5", {}, 0.5),
        ("min_confidence=0", {}, 0),
        ("", {"min_confidence": ["1e-1"]}, 0.1),
        ("min_confidence=1.0&min_confidence=1", {"min_confidence": ["1", "null"]}, 1),
    ],
)
def test_min_confidence(query: str, fields: dict[str, list[str]], number: float) -> None:
    assert parameters.min_confidence(request(query), fields, 0.25) == number


@pytest.mark.parametrize(
    "value", ["1.1", "-0.1", "nan", "inf", "", "0,5", "70%", "1_0", " 0.5", "\u0661", "1e999", "true"]
)
def test_422_for_a_min_confidence_that_is_no_probability(value: str) -> None:
    with pytest.raises(ClassifierError, match="must be a number from 0 to 1") as raised:
        parameters.min_confidence(request(), {"min_confidence": [value]}, 0)
    assert repr(value) in raised.value.message
    assert raised.value.code == "invalid_parameter"


def test_422_for_two_values_of_min_confidence() -> None:
    with pytest.raises(ClassifierError, match=r"min_confidence is given as '0\.5' and '0\.6'; give it once"):
        parameters.min_confidence(request("min_confidence=0.5"), {"min_confidence": ["0.6"]}, 0)


@pytest.mark.parametrize("name", ["min_confidence", "level"])
def test_422_where_the_reply_has_no_place_for_it(server: Server, name: str) -> None:
    response = server.client.post("/predictions/resnet18", params={name: "1"}, content=IMAGE, headers=PNG)
    error = check_error(response, 422, "invalid_parameter", f"/predictions/resnet18 has no parameter '{name}'")
    assert error["allowed"] == ["top_k"]


def test_level() -> None:
    assert parameters.level(request(), {}, 0) == "class"
    # As JSON bodies and BentoML's clients send it.
    assert parameters.level(request("level=group"), {"level": ['"group"', "null"]}, 2) == "group"
    for value in ("Group", "", '""', "groups"):
        with pytest.raises(ClassifierError, match="must be class or group") as raised:
            parameters.level(request(), {"level": [value]}, 2)
        assert raised.value.facts == {"allowed": ["class", "group"]}


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
def test_confident_is_told_where_it_is_asked_for(server: Server, path: str) -> None:
    field = "image" if path == "/classify" else "images"

    def ask(query: dict[str, Any], data: dict[str, str] | None = None) -> dict[str, Any]:
        reply = server.client.post(path, params=query, data=data or {}, files={field: ("a", IMAGE)}).json()
        found: dict[str, Any] = reply if path == "/classify" else reply["results"][0]
        return found

    plain = ask({})
    assert "confident" not in plain
    top = plain["predictions"][0]["probability"]
    for least, confident in ((top, True), (round(top + 1e-6, 6), False), (0.001, True), (1, top == 1)):
        for answer in (ask({"min_confidence": least}), ask({}, data={"min_confidence": str(least)})):
            assert answer["confident"] is confident
            assert answer["predictions"] == plain["predictions"]
    assert "confident" not in ask({"min_confidence": 0})


def test_time_allowed() -> None:
    assert parameters.time_allowed(request(), 1000) is None
    assert parameters.time_allowed(request(headers={"x-time-allowed-ms": "80"}), 1000) == 80
    for value in ("0", "1001", "1e2", ""):
        with pytest.raises(ClassifierError, match="from 1 to 1000"):
            parameters.time_allowed(request(headers={"x-time-allowed-ms": value}), 1000)
