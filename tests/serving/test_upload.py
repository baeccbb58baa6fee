"""A body of any Content-Type, and of none: an image by its bytes, or a sentence that says how to send one."""

from __future__ import annotations

import gzip
import socket
import zlib
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import hostile
from tests.test_service import check_error, check_predictions, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Server

JPEG, PNG = (hostile.encode(hostile.picture(), kind) for kind in ("JPEG", "PNG"))
FORM = "application/x-www-form-urlencoded"
ROUTES = {"/classify": "image", "/classify_batch": "images"}


def post(server: Server, body: bytes, kind: str | None, path: str = "/classify", **headers: str) -> httpx.Response:
    """The reply to ``body``, which brings no Content-Type at all where ``kind`` is None."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post(path, content=body, headers=fields | ({} if kind is None else {"content-type": kind}))


@pytest.mark.parametrize("kind", [None, "", FORM, f"{FORM}; charset=utf-8", "image/jpeg", "application/octet-stream"])
@pytest.mark.parametrize("image", [JPEG, PNG])
def test_an_image_is_taken_by_its_bytes(server: Server, kind: str | None, image: bytes) -> None:
    expected = post(server, image, "image/png").json()["predictions"]
    reply = post(server, image, kind)
    assert reply.json()["predictions"] == expected
    check_predictions(reply.json()["predictions"], 3)
    (result,) = post(server, image, kind, "/classify_batch").json()["results"]
    assert result["predictions"] == expected


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", [None, FORM])
@pytest.mark.parametrize(
    "body", [b"image=@photo.jpg", b"url=http://127.0.0.1:1/a.jpg", b"/etc/passwd", b"{}", b"\x1f\x8b\x08"]
)
def test_what_is_none_is_told_how_to_send_one(server: Server, body: bytes, kind: str | None, route: str) -> None:
    quoted = body[:8].decode("latin-1") if body.isascii() else r"\x1f\x8b\x08"
    how = "--data-binary", f"-F {ROUTES[route]}=@", "never fetched"
    check_error(post(server, body, kind, route), 415, "unsupported_media_type", quoted, *how)


@pytest.mark.parametrize("kind", [None, FORM])
def test_an_empty_body(server: Server, kind: str | None) -> None:
    check_error(post(server, b"", kind, content_length="0"), 400, "bad_request", "empty", "--data-binary")


def test_a_jpeg_that_curl_has_stripped(server: Server) -> None:
    stripped = JPEG.translate(None, b"\r\n\0")
    check_error(post(server, stripped, FORM), 400, "unreadable_image", "--data-binary")
    check_error(post(server, stripped, "image/jpeg"), 400, "unreadable_image", "decode")


@pytest.mark.parametrize("kind", [None, "image/jpeg", "application/octet-stream", FORM])
def test_multipart_that_says_it_is_something_else(server: Server, kind: str | None) -> None:
    body = httpx.Request("POST", "http://x", files={"image": ("a.png", PNG)}).read()
    check_error(post(server, body, kind), 415, "unsupported_media_type", "multipart/form-data", "HTTP library")


def test_multipart_without_a_boundary(server: Server) -> None:
    check_error(post(server, b"x", "multipart/form-data"), 400, "bad_request", "boundary", "HTTP library")
    check_error(post(server, b"x", f"multipart/form-data; boundary={'b' * 300}"), 400, "bad_request", "300")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("coding", "body"), [("gzip", gzip.compress(PNG)), ("deflate", zlib.compress(PNG)), ("br", b"?"), ("zstd", b"?")]
)
def test_415_for_a_body_that_is_packed(server: Server, coding: str, body: bytes, route: str) -> None:
    for kind in ("image/png", None, "multipart/form-data; boundary=b"):
        reply = post(server, body, kind, route, content_encoding=coding)
        error = check_error(reply, 415, "unsupported_encoding", repr(coding), "Content-Encoding")
        assert error["allowed"] == ["identity"]
        assert reply.headers["accept-encoding"] == "identity"


def test_415_for_codings_in_turn(server: Server) -> None:
    reply = post(server, PNG, "image/png", content_encoding="identity, GZIP")
    check_error(reply, 415, "unsupported_encoding", "'GZIP'")
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    status, body = raw(server, head + b"1\r\nx\r\n0\r\n\r\n")
    assert status == 415
    assert b'"unsupported_encoding"' in body
    assert b"Transfer-Encoding" in body


def test_identity_is_no_coding(server: Server) -> None:
    assert post(server, PNG, "image/png", content_encoding="Identity").status_code == 200


def test_a_chunked_body_without_a_type(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(PNG), 100):
            yield PNG[start : start + 100]

    reply = server.client.post("/classify", content=pieces())
    assert "content-type" not in reply.request.headers
    check_predictions(reply.json()["predictions"], 3)


def test_a_form_in_pieces_with_a_preamble(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + PNG + b"\r\n--b--\r\nthe end"
    body = b"This is a multi-part message in MIME format.\r\n" + part
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
        for start in range(0, len(body), 50):
            connection.sendall(body[start : start + 50])
        assert connection.recv(12) == b"HTTP/1.1 200"
