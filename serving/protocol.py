"""The HTTP protocol with bounds on the size of a request's head, and on the time for its head and for a refused body.

uvicorn's own protocol takes heads of any size, waits for them for ever, and reads the rest of a refused body for ever.
"""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn import config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from classifier.errors import ClassifierError
from serving.replies import error_response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from classifier.settings import Settings

# Seconds from an answer to the end of its connection, where the client may still be sending. If it were closed at once,
# many clients would see a reset before they have read the answer.
LINGER_S = 2.0


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds: a head has ``max_bytes`` at most and arrives within ``timeout_s``.

    Its own errors, which malformed HTTP gets too, have the shape of all errors.
    """

    max_bytes: ClassVar[int]
    timeout_s: ClassVar[float]
    keep_alive_s: ClassVar[int]
    # Bytes of the head that is being read, without pieces that hold something else too; None while no head is read.
    _head_bytes: int | None = None
    # How many requests begin in the present piece.
    _begun = 0
    # The bytes that are being parsed.
    _piece = b""
    _in_body = _rejected = False
    _cut_off: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit: a connection that never sends anything is closed too."""
        super().connection_made(transport)
        # Balancers keep a connection for longer than uvicorn's five seconds, and would send into a closed one.
        self.timeout_keep_alive = self.keep_alive_s
        self._arm(self.timeout_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; while the head of a request is incomplete, count it."""
        self._piece = data
        idle, before = self._head_bytes is None and not self._in_body, self._head_bytes or 0
        self._begun = 0
        super().data_received(data)
        self._piece = b""
        if self._rejected:
            return
        if self._head_bytes is None:
            # Line ends in front of a request begin none, but for uvicorn the connection is no longer idle.
            waits = not self._in_body and (self.cycle is None or self.cycle.response_complete)
            if waits and self._cut_off is None:
                self._arm(self.timeout_s, self._too_slow)
            return
        if self._begun == idle:  # the piece holds nothing but this head
            self._head_bytes = before + len(data)
        if self._head_bytes > self.max_bytes:
            self._too_large()
        elif self._cut_off is None:
            self._arm(self.timeout_s, self._too_slow)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_bytes = 0
        self._begun += 1

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._head_bytes, self._in_body = None, True
        self._disarm()
        if len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > self.max_bytes:
            self._too_large()
            raise ValueError("the parser must not go on")
        if not self._offers_protocol():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._offers_protocol():
            return
        self._in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It has its answer."""
        super().on_response_complete()
        if self._in_body:
            self._arm(LINGER_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP."""
        self._reject(ClassifierError("bad_request", "the request is not valid HTTP/1.1"))

    def _should_upgrade(self) -> bool:
        """Never: a request that offers another protocol is answered in this one (RFC 9110, 7.8).

        uvicorn would change to WebSockets where a library for them is installed, and nothing here answers them.
        """
        return False

    def _offers_protocol(self) -> bool:
        offers: bool = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return offers

    def _unsupported_upgrade_warning(self) -> None:
        """Parse the request again without its offer. uvicorn calls this where the parser has stopped after the head.

        The parser takes the bytes that follow for the other protocol's. Java's client offers HTTP/2 by default: the
        body of its POST would be lost, and then parsed as the next request.
        """
        stopped = sys.exc_info()[1]
        if not isinstance(stopped, httptools.HttpParserUpgrade) or not self._offers_protocol():
            return
        version = self.parser.get_http_version().encode()
        fields = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, b"".join(fields))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        super().data_received(head + self._piece[stopped.args[0] :])

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._cut_off = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None

    def _too_large(self) -> None:
        limit = self.max_bytes
        self._reject(
            ClassifierError("headers_too_large", f"the headers are over the limit of {limit} bytes", limit=limit)
        )

    def _too_slow(self) -> None:
        if self._head_bytes is not None:
            limit = round(1e3 * self.timeout_s)
            message = f"the headers did not arrive within the limit of {limit} ms"
            self._reject(ClassifierError("upload_timeout", message, limit=limit))
        else:
            self.transport.close()

    def _reject(self, error: ClassifierError) -> None:
        """Answer ``error`` and read no more: the next request can't be told from the rest of this one."""
        if self._rejected or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The body of a request turns out to be broken. If its handler answers too, that answer is dropped.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        response = error_response(error)
        fields = [*response.raw_headers, (b"x-request-id", uuid.uuid4().hex.encode()), (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 %d \r\n%s\r\n%s" % (error.status, head, response.body))
        self.transport.pause_reading()
        self._rejected = True
        self._arm(LINGER_S, self.transport.close)


def install(settings: Settings) -> None:
    """Make BoundedProtocol the protocol of this process's uvicorn server; BentoML has no setting for it."""
    bounds = {
        "max_bytes": settings.max_header_bytes,
        "timeout_s": settings.upload_timeout_ms / 1e3,
        "keep_alive_s": settings.keep_alive_s,
    }
    protocols: dict[str, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = type("Protocol", (BoundedProtocol,), bounds)
