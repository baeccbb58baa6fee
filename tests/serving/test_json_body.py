"""JSON bodies as clients write them: base64 in any spelling, in every form, and a sentence for what is none."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from classifier.errors import ClassifierError
from serving import json_body, upload
from tests import hostile
from tests.test_service import check_error, check_predictions

if TYPE_CHECKING:
    import httpx

    from tests.conftest import Server

PNG = hostile.encode(hostile.picture(), "PNG")
# Long enough for a mark, and with bytes that make both special characters of base64.
LONG = PNG + bytes(range(256)) * 4
TEXT = base64.b64encode(LONG).decode()
assert {"+", "/", "="} <= set(TEXT)


def parsed(body: Any, name: str = "image", most: int = 1) -> tuple[list[bytes], dict[str, list[str]]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json_body.images(data, name, most, lambda count: None)


def refusal(body: Any, code: str, name: str = "image", most: int = 1) -> ClassifierError:
    with pytest.raises(ClassifierError) as caught:
        parsed(body, name, most)
    assert caught.value.code == code, caught.value.message
    return caught.value


SPELLINGS = {
    "as it is": json.dumps(TEXT),
    "without padding": json.dumps(TEXT.rstrip("=")),
    "URL-safe": json.dumps(base64.urlsafe_b64encode(LONG).decode()),
    "with line ends": json.dumps(base64.encodebytes(LONG).decode()),
    "with CR and LF": json.dumps(base64.encodebytes(LONG).decode().replace("\n", "\r\n")),
    "PHP's escapes": json.dumps(TEXT).replace("/", r"\/"),
    ".NET's escapes": json.dumps(TEXT).replace("+", r"\u002B"),
    "data URL": json.dumps(f"data:image/jpeg;base64,{TEXT}"),
    "data URL of no type": json.dumps(f"DATA:;base64,{TEXT}"),
    "b64 of an object": json.dumps({"b64": TEXT}),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_base_64_in_every_spelling(spelling: str) -> None:
    assert parsed(f'{{"image": {spelling}}}'.encode()) == ([LONG], {})
    assert parsed(f'{{ "images" :\n[{spelling},{spelling}] }}'.encode(), "images", 2) == ([LONG, LONG], {})
    assert parsed(f'{{"instances": [{spelling}]}}'.encode()) == ([LONG], {})


def test_short_and_long_strings_are_told_apart() -> None:
    short = base64.b64encode(b"short").decode()
    assert parsed({"images": [short, TEXT, short]}, "images", 3)[0] == [b"short", LONG, b"short"]


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (3.0, "3"), (2.5, "2.5"), (True, "true"), ("3", '"3"')])
def test_top_k_is_a_number(value: Any, text: str) -> None:
    assert parsed({"image": TEXT, "top_k": value})[1] == {"top_k": [text]}
    assert parsed({"image": TEXT, "top_k": None})[1] == {}


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("%%%", "'%%%'"),
        (TEXT[:1001], TEXT[:20]),
        ("photo.jpg", "'photo.jpg'"),
        ("猫" * 300, "u732b"),
        (TEXT + "\ud83d", ""),
    ],
)
def test_what_is_no_base64_is_told_with_its_index(value: str, quoted: str) -> None:
    for name, body, where in (
        ("image", {"image": value}, "image is not base64"),
        ("images", {"images": [TEXT, TEXT, value]}, "images[2] is not base64"),
        ("images", {"instances": [{"b64": TEXT}, {"b64": TEXT}, {"b64": value}]}, "instances[2].b64 is not base64"),
    ):
        error = refusal(body, "bad_request", name, most=3)
        assert where in error.message
        assert quoted in error.message
        assert error.facts["index"] == (0 if name == "image" else 2)
        json.dumps(error.body(), ensure_ascii=False).encode()


@pytest.mark.parametrize("value", ["http://a/b.jpg", "HTTPS://a/" + "b" * 500, "file:///etc/passwd", "s3://a/b"])
def test_a_url_is_never_fetched(value: str) -> None:
    error = refusal({"images": [TEXT, value]}, "invalid_parameter", "images", most=2)
    assert value[:10] in error.message
    assert "images[1]" in error.message
    assert "fetches nothing" in error.message
    for key in ("url", "image_url", "uri"):
        told = refusal({key: value}, "invalid_parameter").message
        assert repr(key) in told
        assert "fetches nothing" in told


@pytest.mark.parametrize(
    ("body", "code", "quoted"),
    [
        (b"", "bad_request", "''"),
        (b"{", "bad_request", "'{'"),
        (b"\xff\xd8\xff", "bad_request", "JSON"),
        (b'{"image": NaN}', "bad_request", "NaN"),
        (b"[" * 60_000, "bad_request", "recursion"),
        (b'{"image": "a", "image": "b"}', "bad_request", "'image' is there twice"),
        ([TEXT], "invalid_parameter", "the body is ["),
        ("text", "invalid_parameter", '"text"'),
        ({}, "bad_request", "'image'"),
        ({"top_k": 3}, "bad_request", "'image'"),
        ({"image": TEXT, "instances": [TEXT]}, "bad_request", "both 'image' and 'instances'"),
        ({"images": [TEXT]}, "invalid_parameter", "'images' is of /classify_batch"),
        ({"image": TEXT, "topk": 3}, "invalid_parameter", "'topk'"),
        ({"image": TEXT, "\ud83d": 3}, "invalid_parameter", "ud83d"),
        ({"image": 5}, "invalid_parameter", "image is 5"),
        ({"image": None}, "invalid_parameter", "image is null"),
        ({"image": [TEXT]}, "invalid_parameter", "image is ["),
        ({"image": {"b64": TEXT, "x": 1}}, "invalid_parameter", "image is {"),
        ({"instances": []}, "invalid_parameter", "'instances' is []"),
        ({"instances": TEXT}, "invalid_parameter", "'instances' is"),
        ({"instances": [TEXT, TEXT]}, "too_many_images", "/classify_batch"),
        ({"image": f"data:image/png,{TEXT}"}, "bad_request", "';base64,'"),
    ],
)
def test_what_is_refused_is_quoted(body: Any, code: str, quoted: str) -> None:
    error = refusal(body, code)
    assert quoted in error.message
    json.dumps(error.body(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"image": [%s]}' % (b"{}," * 2_000_000 + b"{}"),
        b'{"image": [%s]}' % (b'"a",' * 2_000_000 + b'""'),
        b"[" * 6_000_000,
        b'{"image": "' + b"A" * 6_000_000 + b'\\u732b"}',
    ],
    ids=["objects", "strings", "brackets", "a wide string"],
)
def test_a_hostile_body_costs_little_more_than_its_own_size(body: bytes) -> None:
    tracemalloc.start()
    refusal(body, "bad_request")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * len(body)


def test_arrays_of_pixels_stay_bytes() -> None:
    numbers = [value % 256 for value in range(30_000)]
    nested = [[numbers[:15_000]], [numbers[15_000:]]]
    for data in (numbers, nested, numbers[:10], [[1, 2], [3]]):
        for indent in (None, 1):
            document = json_body.Document(json.dumps({"a": "[", "data": data, "b": [1, "x"]}, indent=indent).encode())
            assert (document.value["a"], document.value["b"]) == ("[", [1, "x"])
            flat = document.pixels_of(document.value["data"])
            assert flat is not None
            assert flat.tolist() == (numbers if len(json.dumps(data)) > 1000 else json.loads(f"[{flatten(data)}]"))


def flatten(data: Any) -> str:
    return json.dumps(data).replace("[", "").replace("]", "")


@pytest.mark.parametrize("data", [[256], [-1], [1.5], [True], [None], ["1"], "1", 1, [], [256] * 1000, [1e3] * 1000])
def test_what_is_no_array_of_pixels(data: Any) -> None:
    document = json_body.Document(json.dumps({"data": data}).encode())
    assert document.pixels_of(document.value["data"]) is None


def test_an_array_in_the_place_of_an_image() -> None:
    assert "'[1, 1" in refusal({"image": [1] * 1000}, "bad_request").message


# Of a running server.


def post(server: Server, path: str, body: Any, kind: str = "application/json", **options: Any) -> httpx.Response:
    return server.client.post(path, content=json.dumps(body), headers={"content-type": kind}, **options)


def test_json_gets_the_answer_of_a_form(server: Server) -> None:
    text = base64.b64encode(PNG).decode()
    expected = server.client.post("/classify", files={"file": ("a.png", PNG)}).json()["predictions"]
    for body in ({"image": text}, {"image": f"data:image/png;base64,{text}"}, {"instances": [{"b64": text}]}):
        for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON"):
            assert post(server, "/classify", body, kind).json()["predictions"] == expected
    files = [(name, ("a.png", PNG)) for name in ("images", "files", "images[]")]
    batch = server.client.post("/classify_batch", files=files).json()["results"]
    assert batch == [{"predictions": expected}] * 3
    assert post(server, "/classify_batch", {"images": [text] * 3}).json()["results"] == batch
    assert post(server, "/classify_batch", {"instances": [{"b64": text}] * 3}).json()["results"] == batch


def test_top_k_beside_it(server: Server) -> None:
    text = base64.b64encode(PNG).decode()
    check_predictions(post(server, "/classify", {"image": text, "top_k": 5}).json()["predictions"], 5)
    (result,) = post(server, "/classify_batch", {"top_k": 2, "images": [text]}).json()["results"]
    check_predictions(result["predictions"], 2)
    check_error(post(server, "/classify", {"image": text, "top_k": 99}), 422, "invalid_parameter", "'99'", "1 to 10")
    reply = post(server, "/classify", {"image": text, "top_k": 2}, params={"top_k": 3})
    check_error(reply, 422, "invalid_parameter", "'2' and '3'")


def test_min_confidence_beside_it(server: Server) -> None:
    text = base64.b64encode(PNG).decode()
    assert post(server, "/classify", {"image": text, "min_confidence": 0.001}).json()["confident"] is True
    (result,) = post(server, "/classify_batch", {"images": [text], "min_confidence": 1}).json()["results"]
    assert result["confident"] is (result["predictions"][0]["probability"] == 1)
    reply = post(server, "/classify", {"image": text, "min_confidence": 1.5})
    check_error(reply, 422, "invalid_parameter", "min_confidence='1.5'", "from 0 to 1")


def test_level_beside_it(server: Server) -> None:
    text = base64.b64encode(PNG).decode()
    check_predictions(post(server, "/classify", {"image": text, "level": "class"}).json()["predictions"], 3)
    reply = post(server, "/classify", {"image": text, "level": "group"})
    check_error(reply, 422, "invalid_parameter", "level='group': the model has no groups")
    reply = post(server, "/classify", {"image": text, "level": 3})
    check_error(reply, 422, "invalid_parameter", "level='3': must be class or group")


def test_an_image_that_can_t_be_read_gets_its_own_error(server: Server) -> None:
    texts = [base64.b64encode(image).decode() for image in (PNG, b"no image", PNG[:60])]
    results = post(server, "/classify_batch", {"images": texts}).json()["results"]
    assert [result.get("error", {}).get("code") for result in results] == [
        None,
        "unsupported_media_type",
        "unreadable_image",
    ]


def test_errors_of_json(server: Server) -> None:
    text = base64.b64encode(PNG).decode()
    error = check_error(
        post(server, "/classify_batch", {"images": [text, "!"]}), 400, "bad_request", "images[1]", "'!'"
    )
    assert error["index"] == 1
    check_error(post(server, "/classify", {"url": "http://127.0.0.1:1/a.jpg"}), 422, "invalid_parameter", "nothing")
    check_error(post(server, "/classify_batch", {"images": [text] * 5}), 413, "too_many_images", "5", "4")
    reply = server.client.post("/classify", data={"image": text}, headers={"content-encoding": "gzip"})
    check_error(reply, 415, "unsupported_encoding")
    reply = server.client.post("/classify", content=PNG, headers={"content-type": "application/json"})
    check_error(reply, 415, "unsupported_media_type", "PNG", "'application/json'")
    for kind in (None, "application/x-www-form-urlencoded"):
        reply = server.client.post(
            "/classify", content=b'{"image": "AAAA"}', headers={} if kind is None else {"content-type": kind}
        )
        check_error(reply, 415, "unsupported_media_type", "Content-Type: application/json")


def test_the_limit_counts_decoded_bytes(server: Server) -> None:
    """It is 3,000,000 here; base64 of an image below it is longer than it."""
    fits, over = (PNG + bytes(size - len(PNG)) for size in (3_000_000, 3_000_001))
    whole = base64.b64encode(fits).decode()
    assert len(whole) > 3_000_000
    check_predictions(post(server, "/classify", {"image": whole}).json()["predictions"], 3)
    reply = post(server, "/classify", {"image": base64.b64encode(over).decode()})
    assert check_error(reply, 413, "body_too_large", "3000000")["limit"] == 3_000_000
    half = base64.b64encode(PNG + bytes(1_500_001 - len(PNG))).decode()
    check_error(post(server, "/classify_batch", {"images": [half, half]}), 413, "body_too_large", "3000000")
    # Whatever its images are, no more than this is read.
    check_error(post(server, "/classify", {"image": "A" * 4_500_000}), 413, "body_too_large", "4500000")


def test_what_is_held_is_counted_while_it_is_and_given_back() -> None:
    budget = upload.BodyBudget(100)
    with upload.Reservation(budget) as one:
        one.add(60)
        one.give_back(20)
        assert budget.reserved == 40
        with pytest.raises(ClassifierError) as caught, upload.Reservation(budget) as other:
            other.add(70)
        assert (caught.value.code, caught.value.retry_after) == ("overloaded", 1)
        # What no pause would help gets another answer.
        with pytest.raises(ClassifierError) as caught, upload.Reservation(budget) as other:
            other.add(101)
        assert (caught.value.code, caught.value.retry_after) == ("body_too_large", None)
    assert budget.reserved == 0
