"""Access middleware: API keys, rate limit and CORS on running servers, and the law of the token bucket."""

from __future__ import annotations

import asyncio
import hmac
import io
import os
import pickle
import shutil
import socket
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.settings import Settings, SettingsError
from serving import access
from tests.conftest import Server, output_of
from tests.test_service import check_error, check_predictions, raw
from tests.test_start import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from starlette.types import Scope

KEYS = ("first-key-0123456789", "second-key-0123456789", "third-key-in-a-file-,#")
ORIGIN = "https://shop.example"
JPEG = {"content-type": "image/jpeg"}
PICKLE = "application/vnd.bentoml+pickle"
# What a request meets first where there is no access middleware.
ROUTER = "OutermostMiddleware._route"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def jpeg(photograph: Callable[[int, int], Image]) -> bytes:
    buffer = io.BytesIO()
    photograph(320, 240).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def keyed(launch: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A service with three keys and one origin, with its access log on."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(f"# of the shop\n\n  {KEYS[2]}\n")
    return launch(api_keys=",".join(KEYS[:2]), api_keys_file=str(file), cors_origins=ORIGIN, access_log="true").wait()


# Keys.


@pytest.mark.parametrize("key", KEYS)
def test_a_key_lets_in_by_either_header(keyed: Server, jpeg: bytes, key: str) -> None:
    for header in (bearer(key), {"authorization": f"bearer {key}"}, {"x-api-key": key}):
        reply = keyed.client.post("/classify", content=jpeg, headers=JPEG | header)
        assert reply.status_code == 200, reply.text
        check_predictions(reply.json()["predictions"], 3)


def test_either_header_is_enough_beside_one_for_somebody_else(keyed: Server) -> None:
    headers = {"authorization": "Basic Z2F0ZXdheTpzZWNyZXQ=", "x-api-key": KEYS[0]}
    assert keyed.client.get("/model", headers=headers).status_code == 200
    assert (
        keyed.client.get("/model", headers=bearer("not-a-key-0123456789") | {"x-api-key": KEYS[0]}).status_code == 200
    )


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "an API key is needed"),
        ({"authorization": f"Basic {KEYS[0]}"}, "an API key is needed"),
        ({"authorization": KEYS[0]}, "an API key is needed"),
        ({"authorization": "Bearer"}, "an API key is needed"),
        ({"authorization": f"Bearer {KEYS[0][:-1]}"}, "not known"),
        ({"authorization": f"Bearer {KEYS[0]}x"}, "not known"),
        ({"authorization": f"Bearer {','.join(KEYS[:2])}"}, "not known"),
        ({"x-api-key": KEYS[0].upper()}, "not known"),
        ({"x-api-key": "# of the shop"}, "not known"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/classify"), ("GET", "/model"), ("GET", "/no/such/path")])
def test_401(keyed: Server, jpeg: bytes, method: str, path: str, headers: dict[str, str], told: str) -> None:
    response = keyed.client.request(method, path, content=jpeg, headers=JPEG | headers)
    check_error(response, 401, "unauthorized", told, "'Authorization: Bearer KEY'", "'X-API-Key: KEY'")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/classify_batch", "/metrics", "/schema.json"])
def test_everything_else_is_closed(keyed: Server, path: str) -> None:
    check_error(keyed.client.get(path), 401, "unauthorized")
    assert keyed.client.get(path, headers=bearer(KEYS[0])).status_code in (200, 405)


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/healthz", "/docs.json"])
def test_probes_and_the_page_are_open(keyed: Server, path: str) -> None:
    assert keyed.client.get(path).status_code == 200


def test_the_description_tells_of_keys_and_of_what_is_open(keyed: Server) -> None:
    spec = keyed.client.get("/docs.json").json()
    assert spec["paths"]["/classify"]["post"]["security"] == [{"bearer": []}, {"key": []}]
    assert "401" in spec["paths"]["/metrics"]["get"]["responses"]
    assert spec["paths"]["/readyz"]["get"]["security"] == []


def test_the_page_s_files_are_open(keyed: Server) -> None:
    for page, prefix in (("/", "web/"), ("/docs", "./static_content/")):
        loaded = [part.split('"')[0] for part in keyed.client.get(page).text.split(f'="{prefix}')[1:]]
        assert loaded, page
        for path in loaded:
            assert keyed.client.get(f"/{prefix.removeprefix('./')}{path}").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        b"/static_content/../classify",
        b"/static_content/%2e%2e/classify",
        b"//classify",
        b"/livez/../classify",
        b"/livez;/classify",
        b"/classify/",
        b"/CLASSIFY",
    ],
)
def test_no_spelling_of_a_path_gets_round_the_keys(keyed: Server, target: bytes) -> None:
    status, _ = raw(keyed, b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert status in (401, 404)


def test_no_host_header_gets_round_the_keys(keyed: Server) -> None:
    status, _ = raw(keyed, b"GET /model HTTP/1.1\r\nHost: x/livez?\r\n\r\n")
    assert status in (400, 401)


def test_a_refusal_does_not_wait_for_the_body(keyed: Server) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
    status, _ = raw(keyed, head)
    assert status == 401


def test_bentoml_s_client_brings_a_key(keyed: Server, jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    with bentoml.SyncHTTPClient(keyed.url, token=KEYS[0]) as client:
        check_predictions(client.classify(image=path, top_k=2)["predictions"], 2)


def test_refusals_are_counted(keyed: Server) -> None:
    def refused() -> float:
        lines = keyed.client.get("/metrics", headers=bearer(KEYS[0])).text.splitlines()
        found = [line for line in lines if line.startswith('resnet18_door_refused_total{code="unauthorized"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = refused()
    keyed.client.get("/model")
    assert refused() == before + 1


def test_pickles_are_never_opened(keyed: Server, tmp_path: Path) -> None:
    trap = tmp_path / "opened"
    bomb = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    headers = {"content-type": PICKLE} | bearer(KEYS[0])
    assert keyed.client.post("/classify", content=bomb, headers=headers).status_code == 415
    assert not trap.exists()
    pickle.loads(bomb)  # it would have gone off
    assert trap.exists()


# Other origins' pages.


def preflight(server: Server, **headers: str) -> Any:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    return server.client.options(
        "/classify", headers=asked | {name.replace("_", "-"): value for name, value in headers.items()}
    )


def test_a_browser_may_ask_without_a_key(keyed: Server) -> None:
    reply = preflight(keyed, access_control_request_headers="authorization, x-time-allowed-ms, content-type")
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["x-request-id"]
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    "asked",
    [
        {"origin": "https://evil.example"},
        {"origin": ORIGIN + ".evil.example"},
        {"access_control_request_method": "DELETE"},
        {"access_control_request_headers": "x-something-else"},
    ],
)
def test_a_browser_is_told_no(keyed: Server, asked: dict[str, str]) -> None:
    check_error(preflight(keyed, **asked), 400, "bad_request")


def test_answers_and_errors_can_be_read_by_the_page(keyed: Server, jpeg: bytes) -> None:
    client = keyed.client
    origin = {"origin": ORIGIN}
    replies = [
        client.post("/classify", content=jpeg, headers=JPEG | bearer(KEYS[0]) | origin),
        client.get("/model", headers=origin),
        client.get("/nothing", headers=origin | bearer(KEYS[0])),
        client.post("/classify", content=jpeg[:99], headers=JPEG | bearer(KEYS[0]) | origin),
        # BentoML's own error, put into our shape
        client.post("/classify", content=b"", headers={"content-type": PICKLE} | bearer(KEYS[0]) | origin),
    ]
    assert [reply.status_code for reply in replies] == [200, 401, 404, 400, 415]
    for reply in replies:
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in reply.headers["vary"]
        exposed = reply.headers["access-control-expose-headers"].lower()
        assert exposed == "x-request-id, server-timing, retry-after, x-error-code"


def test_other_pages_get_no_permission(keyed: Server) -> None:
    reply = keyed.client.get("/model", headers=bearer(KEYS[0]) | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in reply.headers


# The rate limit. Refilling takes so long that no test sees it.


def test_429_by_address_whatever_the_client_says_it_is(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(rate_limit="0.01", rate_burst="3", cors_origins="*").wait()
    for number in range(3):
        headers = JPEG | {"x-forwarded-for": f"10.0.0.{number}"}
        assert server.client.post("/classify", content=jpeg, headers=headers).status_code == 200
    headers = JPEG | {"x-forwarded-for": "10.0.0.99", "x-api-key": "some-key-0123456789", "origin": ORIGIN}
    response = server.client.post("/classify", content=jpeg, headers=headers)
    check_error(response, 429, "rate_limited", "this address", "try again in")
    assert 90 <= int(response.headers["retry-after"]) <= 100
    assert response.headers["access-control-allow-origin"] == "*"
    check_error(server.client.get("/nothing"), 429, "rate_limited")
    for _ in range(10):
        assert server.client.get("/readyz").status_code == 200
    server.stop()


def test_a_trusted_proxy_tells_the_address(launch: Callable[..., Server]) -> None:
    server = launch(rate_limit="0.01", rate_burst="1", trusted_proxies="127.0.0.1, 10.0.0.7").wait()

    def status(address: str) -> int:
        return server.client.get("/model", headers={"x-forwarded-for": address}).status_code

    assert [status("192.0.2.1"), status("192.0.2.1"), status("192.0.2.2")] == [200, 429, 200]
    # The last that no trusted proxy has added itself counts, not the first, which the client has invented.
    assert status("192.0.2.3, 192.0.2.1, 10.0.0.7") == 429
    assert [status("2001:db8::1"), status("2001:db8::ffff:2"), status("2001:db8:0:1::1")] == [200, 429, 200]
    server.stop()


def test_429_by_key_and_divided_among_workers(launch: Callable[..., Server]) -> None:
    server = launch(api_keys=",".join(KEYS[:2]), rate_limit="0.01", rate_burst="4", workers="2").wait()

    def statuses(key: str) -> list[int]:
        # A connection each, so that both workers are asked.
        url = f"{server.url}/model"
        return [httpx.get(url, headers=bearer(key), timeout=30).status_code for _ in range(40)]

    for key in KEYS[:2]:
        found = statuses(key)
        assert set(found) == {200, 429}
        assert found.count(200) <= 4
    assert server.client.get("/model").status_code == 401
    server.stop()


# TLS, and the runner's process.


def test_https_with_a_dedicated_runner_that_only_this_user_reaches(store: Path, tmp_path: Path, jpeg: bytes) -> None:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server = Server(store, settings={"placement": "dedicated", "api_keys": KEYS[0]}, tls=(certificate, key))
    try:
        server.wait()
        assert server.client.get("/livez").status_code == 200
        check_error(server.client.post("/classify", content=jpeg, headers=JPEG), 401, "unauthorized")
        reply = server.client.post("/classify", content=jpeg, headers=JPEG | bearer(KEYS[0]))
        assert reply.status_code == 200, reply.text
        check_predictions(reply.json()["predictions"], 3)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")
        model = server.client.get("/model", headers=bearer(KEYS[0]))
        assert model.json()["runner"]["pid"] in server.processes()
        assert KEYS[0] not in model.text
        _check_sockets(server)
    finally:
        output = server.stop()
    assert KEYS[0] not in output
    assert "BEGIN" not in output
    assert f"ready: https://127.0.0.1:{server.port}\n" in output


def _check_sockets(server: Server) -> None:
    """The API's port is the only one of other machines; the runner's socket is in a folder of this user alone."""
    listening = [
        connection
        for pid in server.processes()
        for connection in psutil.Process(pid).net_connections("all")
        if connection.status == psutil.CONN_LISTEN or (connection.family == socket.AF_UNIX and connection.laddr)
    ]
    tcp = {connection.laddr for connection in listening if connection.family != socket.AF_UNIX}
    assert ("127.0.0.1", server.port) in tcp
    assert {address.ip for address in tcp} == {"127.0.0.1"}
    folders = {Path(str(c.laddr)).parent for c in listening if "bentoml-uds-" in str(c.laddr)}
    (folder,) = folders
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.stat().st_uid == os.getuid()


# What can't be honoured.


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"api_keys": f"{KEYS[0]},short-key"}, "RESNET18_API_KEYS can't be honoured: key 2 has 9 characters"),
        ({"api_keys_file": "/nowhere/keys"}, "RESNET18_API_KEYS_FILE='/nowhere/keys' can't be honoured: No such file"),
    ],
    ids=["short", "missing"],
)
def test_it_refuses_to_start(store: Path, settings: dict[str, str], told: str) -> None:
    status, output = refusal(store, **settings)
    assert status == 1
    assert told in output
    assert KEYS[0] not in output
    assert "short-key" not in output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it holds no key"),
        ("# nothing yet\n\n", "it holds no key"),
        (f"{KEYS[0]}\nshort-key\n", "key 2 has 9 characters"),
        ("two keys-on-one-line-0123", "key 1 has a character that is not printable ASCII"),
        (b"\xff\xfe\x00", "codec can't decode"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, text: str | bytes, told: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as raised:
        access.build(Settings(api_keys_file=file))
    assert str(raised.value).startswith(f"RESNET18_API_KEYS_FILE={str(file)!r} can't be honoured: ")
    assert told in str(raised.value)
    assert "short-key" not in str(raised.value)


def test_a_file_of_keys_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(KEYS[0])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="API_KEYS_FILE='keys' can't be honoured: must be an absolute path"):
        access.build(Settings(api_keys_file=Path("keys")))


def test_a_burst_that_workers_cannot_share() -> None:
    with pytest.raises(SettingsError, match=r"RESNET18_RATE_BURST=3 can't be honoured: .*RESNET18_WORKERS=4"):
        access.build(Settings(rate_limit=1, rate_burst=3, workers=4))
    assert access.build(Settings(rate_burst=3, workers=4)) is None


# Layers.


def layers(store: Path, settings: dict[str, str]) -> list[str]:
    """What a request meets first in the service, what in its runner, and whether uvicorn's trust was changed."""
    code = (
        "import os, service\n"
        "def first(service): return getattr(service._inner, '__qualname__', type(service._inner).__name__)\n"
        "print(first(service.ResNet18.to_asgi()))\n"
        "print(first(service.ResNet18.find_dependent_by_name('resnet18-runner').to_asgi(is_main=False)))\n"
        "print(os.environ.get('FORWARDED_ALLOW_IPS', 'as ever'))\n"
    )
    return output_of(code, store, settings).split("\n")[:3]


def test_access_middleware_that_is_off_is_not_there(store: Path) -> None:
    assert layers(store, {}) == [ROUTER, ROUTER, "as ever"]


def test_access_middleware_is_the_service_s_and_not_its_runner_s(store: Path) -> None:
    assert layers(store, {"RESNET18_API_KEYS": KEYS[0]}) == ["AccessMiddleware", ROUTER, ""]
    on = {"RESNET18_CORS_ORIGINS": "*", "RESNET18_TRUSTED_PROXIES": "10.0.0.7"}
    assert layers(store, on) == ["CORSMiddleware", ROUTER, "10.0.0.7"]


def answered(middleware: access.AccessMiddleware, **scope: Any) -> int:
    """The status of one request; 200 if it got through."""
    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    request = {"type": "http", "method": "GET", "path": "/model", "headers": [], "client": ("10.0.0.1", 1)} | scope
    asyncio.run(middleware(request, None, send))  # type: ignore[arg-type]
    return statuses[0] if statuses else 200


async def inside(scope: Scope, receive: Any, send: Any) -> None:
    """An application that has nothing to say."""


def test_every_key_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    middleware = access.AccessMiddleware(inside, KEYS, [], None, lambda _: None)
    for key, status in ((KEYS[0], 200), (KEYS[2], 200), ("x", 401), ("unknown-key-0123456789", 401)):
        compared.clear()
        assert answered(middleware, headers=[(b"x-api-key", key.encode())]) == status
        assert len(compared) == len(KEYS)
        assert {len(digest) for digest in compared} == {32}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/livez", 200),
        ("/livez/", 401),
        ("/livez2", 401),
        ("/files/a/b.js", 200),
        ("/files", 401),
        ("/filesystem", 401),
    ],
)
def test_open_paths_are_exact_or_below(path: str, status: int) -> None:
    middleware = access.AccessMiddleware(inside, KEYS, ["/livez", "/files/*"], None, lambda _: None)
    assert answered(middleware, path=path) == status


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unknown", "_hidden", False),
        ("not:an:address", "nor:this", False),
        (None, None, True),
    ],
)
def test_who_counts_as_one_client(first: str | None, second: str | None, same: bool) -> None:
    refused: list[str] = []
    middleware = access.AccessMiddleware(inside, [], [], access.RateLimit(0.001, 1), refused.append)
    clients = [(host, 1) if host else None for host in (first, second)]
    assert [answered(middleware, client=client) for client in clients] == [200, 429 if same else 200]
    assert refused == ["rate_limited"] * same


# The token bucket's law.

RATES = st.floats(0.01, 1000)
BURSTS = st.floats(1, 50)
GAPS = st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 100))


@given(RATES, BURSTS, st.lists(st.tuples(GAPS, st.integers(0, 2)), max_size=100))
def test_never_more_than_burst_and_rate_in_any_window(
    rate: float, burst: float, asked: list[tuple[float, int]]
) -> None:
    limit, now = access.RateLimit(rate, burst), 1000.0
    served: dict[int, list[float]] = defaultdict(list)
    for gap, client in asked:
        now += gap
        if limit.wait(client, now) == 0:
            served[client].append(now)
    for times in served.values():
        for start, first in enumerate(times):
            for end in range(start, len(times)):
                assert end - start + 1 <= burst + rate * (times[end] - first + 2e-6) + 1e-6


@given(RATES, BURSTS, st.lists(GAPS, max_size=50))
def test_who_waits_as_told_is_served_and_no_sooner(rate: float, burst: float, gaps: list[float]) -> None:
    limit, now = access.RateLimit(rate, burst), 1000.0
    for gap in gaps:
        now += gap
        wait = limit.wait("a", now)
        if wait > 0:
            # What is left of it must be more than the microsecond that counts as none.
            assert wait < 2e-6 or limit.wait("a", now + wait - 2e-6) > 0
            now += wait * (1 + 1e-9) + 1e-9
            assert limit.wait("a", now) == 0


@given(RATES, st.integers(1, 50))
def test_a_full_bucket_gives_its_burst_and_a_steady_client_is_never_refused(rate: float, burst: int) -> None:
    limit = access.RateLimit(rate, burst)
    assert [limit.wait("a", 1000.0) == 0 for _ in range(burst + 1)] == [True] * burst + [False]
    assert all(limit.wait("steady", 1000 + number / rate * (1 + 1e-9)) == 0 for number in range(100))


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    limit = access.RateLimit(0.001, 1, clients=100)
    for number in range(1000):
        assert limit.wait(str(number), 1000.0 + number) == 0
    assert len(limit._full_at) == 100
    assert limit.wait("999", 2000.0) > 0
    assert limit.wait("0", 2000.0) == 0
