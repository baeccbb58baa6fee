"""Ask a URL, and wait for a server. Each question has a connection of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 2.0
PROBE_EVERY_S = 0.1
# Below those that a system gives to connections, so that none takes one before its server does.
FREE_PORTS = range(20_000, 32_000)

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""


def ask(
    url: str,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    within_s: float | None = None,
    most: int | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """The answer of ``url``, whatever its status. Raises OSError where there is none. ``context`` is for https.

    ``timeout_s`` limits each wait for a part of the answer, ``within_s`` the time until it is whole. Of its body at
    most ``most`` bytes are read.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with contextlib.closing(connection), _cut_off(connection, within_s):
            connection.request(method, target, body or None, dict(headers or {}))
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read(most)
    except (http.client.HTTPException, UnicodeError) as error:  # UnicodeError: of a host that can be no name
        raise OSError(f"{method} {url.partition('?')[0]}: {error!r}") from None


@contextlib.contextmanager
def _cut_off(connection: http.client.HTTPConnection, seconds: float | None) -> Iterator[None]:
    """Connect, and end ``connection`` after ``seconds``: a socket's own timeout begins anew with each byte."""
    if seconds is None:
        yield
        return
    begin, late = time.monotonic(), threading.Event()
    connection.timeout = min(seconds, connection.timeout or seconds)
    connection.connect()
    opened = connection.sock

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds - (time.monotonic() - begin)), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    # A body whose length nobody told looks whole where it was cut off.
    if late.is_set():
        raise TimeoutError(f"its answer is not whole after {seconds:.3g} s")


def ask_json(
    url: str,
    method: str = "GET",
    body: bytes = b"",
    content_type: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """The JSON object of an answer. Raises OSError, or ValueError where the answer is no 200 or no JSON object."""
    sent = {**({"Content-Type": content_type} if content_type else {}), **(headers or {})}
    status, _, content = ask(url, method, body, sent, timeout_s=timeout_s)
    where = f"{method} {urlsplit(url).path}"
    if status != 200:
        raise ValueError(f"{where} was answered with {status}: {content[:200]!r}")
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ValueError(f"{where} was answered with no JSON object: {content[:200]!r}")
    return answer


def is_ready(url: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether ``url`` answers with 200 within ``timeout_s``."""
    try:
        return ask(url, timeout_s=timeout_s)[0] == 200
    except OSError:
        return False


def wait_ready(
    url: str,
    seconds: float,
    *,
    ended: Callable[[], bool] = lambda: False,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = PROBE_TIMEOUT_S,
    context: ssl.SSLContext | None = None,
) -> float:
    """Wait until ``url`` answers 200; gives the seconds. Raises OSError after ``seconds``, and once ``ended`` is true.

    ``ended`` says whether the server's process has ended. ``timeout_s`` limits one question.
    """
    begin = time.perf_counter()
    said = "nothing"
    while not ended() and time.perf_counter() - begin < seconds:
        try:
            status, _, _ = ask(url, headers=headers, timeout_s=timeout_s, context=context)
            if status == 200:
                return time.perf_counter() - begin
            said = f"status {status}"
        except OSError as error:
            said = str(error)
        time.sleep(PROBE_EVERY_S)
    server, _, page = url.rpartition("/")
    raise OSError(f"{server} is not ready after {seconds:.0f} s: GET /{page} said {said}")


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now, one of FREE_PORTS. Raises OSError where none is found."""
    # The system's randomness: processes with one seed would choose the same port.
    for port in random.SystemRandom().sample(FREE_PORTS, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"none of 100 ports of {FREE_PORTS[0]} to {FREE_PORTS[-1]} is free")
