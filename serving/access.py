"""The access middleware: API keys, a rate limit, CORS. All are off by default, and then no layer of them exists.

Each API process counts its own requests, so the rate limit is divided among the processes. A client never gets more
than was set, whichever processes its connections reach.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from classifier.errors import ClassifierError
from classifier.settings import PREFIX, SettingsError, check_keys, listed
from serving.metrics import AccessMetrics
from serving.replies import ERROR_HEADER, error_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from classifier.settings import Settings

Wrap = Callable[["ASGIApp"], "ASGIApp"]
MAX_CLIENTS = 10_000
# The clock's floats are some nanoseconds apart after months; a burst must not lose a request to this rounding.
_ROUNDING = 1e-6
_MAX_ADDRESS = 64
_REQUEST_HEADERS = ["Authorization", "X-API-Key", "X-Request-ID", "X-Time-Allowed-Ms"]
_REPLY_HEADERS = ["X-Request-ID", "Server-Timing", "Retry-After", ERROR_HEADER]


def build(settings: Settings) -> Wrap | None:
    """A function that puts the access middleware around an application; None where all its settings are off.

    Raises SettingsError where the file of keys can't be used, or the burst can't be divided among the workers.
    """
    keys, origins = known_keys(settings), listed(settings.cors_origins)
    rate, burst, workers = settings.rate_limit, settings.rate_burst, settings.workers
    if not (keys or origins or rate or settings.trusted_proxies):
        return None
    if rate and burst < workers:
        raise SettingsError(
            f"{PREFIX}RATE_BURST={burst} can't be honoured: must be at least {PREFIX}WORKERS={workers}, "
            "each of which counts for itself"
        )

    def wrap(app: ASGIApp) -> ASGIApp:
        # uvicorn reads this after the application is made. By default it believes X-Forwarded-For from this machine,
        # also from a proxy that passes on whatever its clients send there.
        os.environ["FORWARDED_ALLOW_IPS"] = settings.trusted_proxies or ""
        if keys or rate:
            limit = RateLimit(rate / workers, burst / workers) if rate else None
            app = AccessMiddleware(app, keys, listed(settings.open_paths), limit, AccessMetrics().refused)
        if origins:
            # Outside the keys: a browser sends its preflight request without a key.
            app = CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=_REQUEST_HEADERS,
                expose_headers=_REPLY_HEADERS,
            )
        return app

    return wrap


def known_keys(settings: Settings) -> list[str]:
    """The API keys, one of which each request must bring; empty if none is needed. Raises SettingsError."""
    keys = listed(settings.api_keys.get_secret_value()) if settings.api_keys else []
    path = settings.api_keys_file
    if path is None:
        return keys
    try:
        if not path.is_absolute():
            raise ValueError("must be an absolute path: processes of one service work in different folders")
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        more = [line for line in lines if line and not line.startswith("#")]
        check_keys(more)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{PREFIX}API_KEYS_FILE={str(path)!r} can't be honoured: {reason}") from None
    return keys + more


class OpenPaths:
    """Paths that need no key and have no rate limit. ``/web`` is one path; ``/web/*`` is every path below ``/web/``."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = frozenset(paths)
        self._below = tuple(path.removesuffix("*") for path in paths if path.endswith("*"))

    def __contains__(self, path: str) -> bool:
        return path in self._paths or path.startswith(self._below)


class RateLimit:
    """A token bucket for each client: ``burst`` requests at once, and ``rate`` a second in the long run.

    A bucket is kept as the time at which it will be full again, as in the generic cell rate algorithm of ITU-T I.371.
    Beyond ``clients`` the client that was seen the longest ago is forgotten: its bucket is most likely full.
    """

    def __init__(self, rate: float, burst: float, clients: int = MAX_CLIENTS) -> None:
        self._interval, self._tolerance, self._clients = 1 / rate, (burst - 1) / rate, clients
        self._full_at: OrderedDict[str | int, float] = OrderedDict()

    def wait(self, client: str | int, now: float) -> float:
        """0 if ``client`` may be served, which takes a token; else the seconds until it may. ``now``: seconds."""
        full_at = max(now, self._full_at.get(client, now))
        wait = full_at - now - self._tolerance
        served = wait < _ROUNDING
        self._full_at[client] = full_at + self._interval if served else full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > self._clients:
            self._full_at.popitem(last=False)
        return 0.0 if served else wait


class AccessMiddleware:
    """A middleware between the request-id layer and the router: 401 without a key, 429 over the rate limit.

    ``keys``: empty if no key is needed. ``open_paths``: paths that are not checked. ``refused``: called with the error
    code of each refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        open_paths: Sequence[str],
        limit: RateLimit | None,
        refused: Callable[[str], None],
    ) -> None:
        self._app, self._open, self._limit, self._refused = app, OpenPaths(open_paths), limit, refused
        self._digests = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request's scope. A refusal does not read the body."""
        try:
            self._check(scope)
        except ClassifierError as error:
            self._refused(error.code)
            response = error_response(error)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        # The path that the router uses. A URL that is built from the Host header may have another.
        path: str = scope["path"]
        if path in self._open:
            return
        client = self._number_of_key(scope) if self._digests else _address(scope)
        wait = self._limit.wait(client, time.monotonic()) if self._limit else 0
        if wait:
            seconds = math.ceil(wait)
            raise ClassifierError(
                "rate_limited",
                f"this {'key' if self._digests else 'address'} sends more requests than the rate limit allows; "
                f"try again in {seconds} s",
                retry_after=seconds,
            )

    def _number_of_key(self, scope: Scope) -> int:
        """The number of the request's key among ours. Raises ClassifierError if it is none of them."""
        sent = []
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                sent.append(value)
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                sent.append(value[7:])
        number = None
        # All digests are compared, whichever matches: the time taken tells nothing about a key, not even its length.
        for key in sent[:2]:
            digest = sha256(key.strip()).digest()
            for candidate, known in enumerate(self._digests):
                if hmac.compare_digest(digest, known):
                    number = candidate
        if number is None:
            what = "the API key is not known here" if sent else "an API key is needed"
            raise ClassifierError("unauthorized", f"{what}; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
        return number


def _address(scope: Scope) -> str:
    """The client of a request without a key: an IPv4 address, or an IPv6 /64, of which one host has every address."""
    host: str = scope["client"][0] if scope.get("client") else ""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return host[:_MAX_ADDRESS]  # a trusted proxy may send something that is no address
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
        return str(address.ipv4_mapped)
    return host[:_MAX_ADDRESS]
