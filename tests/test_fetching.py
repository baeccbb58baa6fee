"""No URL is ever fetched: not on any route, in any field, of any type, with BentoML's layers or without."""

from __future__ import annotations

import json
import pickle
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import bentoml
import httpx
import psutil
import pytest
from bentoml.exceptions import BentoMLException

from tests import hostile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Server

ROUTES = {"/classify": "image", "/classify_batch": "images"}
METADATA = "http://169.254.169.254/latest/meta-data/"
JPEG = hostile.encode(hostile.picture(), "JPEG")


class Canary(ThreadingHTTPServer):
    """An HTTP server on the loopback that remembers what it was asked; a good image is at every path."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(JPEG)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    with Canary() as canary:
        threading.Thread(target=canary.serve_forever, daemon=True).start()
        yield canary
        canary.shutdown()


@pytest.fixture(scope="module", params=["fast path", "all layers"])
def served(request: pytest.FixtureRequest, server: Server, launch: Callable[..., Server]) -> Server:
    """The service as it is, and with the access log, which sends requests through all of BentoML's layers."""
    return server if request.param == "fast path" else launch(access_log="true").wait()


class Watch:
    """Where the processes of a server have connections to, looked at again and again."""

    def __init__(self, server: Server) -> None:
        self._processes = [psutil.Process(pid) for pid in server.processes()]
        self.remote: set[str] = set()
        self.looks = 0

    def look(self) -> None:
        for process in self._processes:
            self.remote |= {connection.raddr.ip for connection in process.net_connections("inet") if connection.raddr}
        self.looks += 1

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        done = threading.Event()

        def run() -> None:
            while not done.wait(0.005):
                self.look()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()


def attempts(url: str, route: str) -> Iterator[tuple[str, httpx.Request]]:
    """``url`` in every place of a request to ``route``, by name."""
    field = ROUTES[route]
    base = "http://server"

    def post(**parts: object) -> httpx.Request:
        return httpx.Request("POST", base + route, **parts)  # type: ignore[arg-type]

    def form(text: str) -> dict[str, object]:
        return {"content": text.encode(), "headers": {"content-type": "multipart/form-data; boundary=b"}}

    part = "--b\r\nContent-Disposition: form-data; name={}\r\n{}\r\n{}\r\n--b--\r\n"
    image = {"content": JPEG, "headers": {"content-type": "image/jpeg"}}
    yield "text of the file's field", post(**form(part.format(field, "", url)))
    yield "text of a typed field", post(**form(part.format(field, "Content-Type: image/jpeg\r\n", url)))
    yield "text of another field", post(**form(part.format("url", "", url)))
    yield "top_k field", post(files={field: ("a", JPEG)}, data={"top_k": url})
    yield "a field beside the image", post(files={field: ("a", JPEG)}, data={"image_url": url})
    yield "bytes of the file", post(files={field: ("a", url.encode())})
    yield "name of the file", post(files={field: (url, JPEG)})
    yield "content type of the file", post(files={field: ("a", JPEG, url)})
    yield "location of the part", post(**form(part.format(f"{field}; filename=a", f"Content-Location: {url}\r\n", "x")))
    yield (
        "external body",
        post(
            **form(
                part.format(
                    f"{field}; filename=a", f'Content-Type: message/external-body; access-type=URL; URL="{url}"\r\n', ""
                )
            )
        ),
    )
    yield "query", post(params={field: url, "url": url, "top_k": "1"}, **image)
    yield "top_k of the query", post(params={"top_k": url}, **image)
    yield "body", post(content=url.encode(), headers={"content-type": "image/jpeg"})
    yield "body as text", post(content=url.encode(), headers={"content-type": "text/plain"})
    yield "body as a list of URLs", post(content=url.encode(), headers={"content-type": "text/uri-list"})
    yield "content type", post(content=JPEG, headers={"content-type": url})
    yield "JSON", post(json={field: url, "top_k": 1})
    yield "JSON list", post(json={field: [url, url]})
    yield "JSON reference", post(json={field: {"$ref": url, "url": url, "type": "file"}})
    yield "urlencoded form", post(data={field: url})
    yield (
        "BentoML's JSON",
        post(content=json.dumps({field: url}), headers={"content-type": "application/vnd.bentoml+json"}),
    )
    yield (
        "BentoML's pickle",
        post(content=pickle.dumps({field: url}), headers={"content-type": "application/vnd.bentoml+pickle"}),
    )
    yield (
        "headers",
        post(
            content=JPEG,
            headers={
                "content-type": "image/jpeg",
                "referer": url,
                "x-forwarded-host": url,
                "link": f"<{url}>",
                "host": "x",
            },
        ),
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'.encode()
    yield "SVG", post(content=svg, headers={"content-type": "image/svg+xml"})
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a href="{url}"/></x:xmpmeta>'.encode()
    packet = hostile.encode(hostile.picture(), "JPEG", xmp=xmp, comment=url.encode())
    yield "metadata of an image", post(content=packet, headers={"content-type": "image/jpeg"})


def send(server: Server, request: httpx.Request) -> httpx.Response:
    return server.client.request(
        request.method, request.url.raw_path.decode(), content=request.read(), headers=request.headers
    )


NAMES = [name for name, _ in attempts("http://x", "/classify")]
# What carries a good image beside the URL is answered; everything else is refused.
ANSWERED = {
    "name of the file",
    "content type of the file",
    "headers",
    "metadata of an image",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", NAMES)
def test_the_loopback_is_never_asked(served: Server, canary: Canary, route: str, name: str) -> None:
    response = send(served, dict(attempts(f"{canary.url}/{name}", route))[name])
    assert 200 <= response.status_code < 500, response.text
    told = response.json()
    if "results" in told:
        (told,) = told["results"]
    assert ("predictions" in told) == (name in ANSWERED)
    assert canary.seen == []


@pytest.mark.parametrize("url", [METADATA, "file:///etc/passwd", "gopher://169.254.169.254/", "//169.254.169.254/"])
def test_no_connection_is_opened(served: Server, url: str) -> None:
    with Watch(served).watching() as watch:
        for route in ROUTES:
            for name, request in attempts(url, route):
                response = send(served, request)
                assert response.status_code < 500, name
                assert "root:" not in response.text
        time.sleep(0.3)
    assert watch.looks > 3
    # Our own requests were seen, so another connection would have been.
    assert watch.remote == {"127.0.0.1"}


def test_bentoml_s_own_client_cannot_have_it_fetched(served: Server, canary: Canary) -> None:
    """It sends a URL in a file's place on to the server, whose own types would fetch it."""
    with bentoml.SyncHTTPClient(served.url) as client:
        with pytest.raises(BentoMLException, match="unsupported_media_type"):
            client.classify(image=f"{canary.url}/client")
        with pytest.raises(BentoMLException, match="unsupported_media_type"):
            client.classify_batch(images=[f"{canary.url}/client"])
    assert canary.seen == []


@pytest.mark.parametrize("path", ["/model", "/metrics", "/docs.json", "/schema.json", "/readyz", "/livez", "/"])
def test_other_routes_fetch_nothing_either(served: Server, canary: Canary, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        response = served.client.request(method, path, params={"url": canary.url, "image": canary.url})
        assert response.status_code < 500
    assert canary.seen == []


def test_the_canary_sings(canary: Canary) -> None:
    """It does see a request, so that having seen none tells something. Last, because it remembers."""
    assert httpx.get(f"{canary.url}/sings").content == JPEG
    assert canary.seen.pop() == "/sings"
