"""The proxy by which another BentoML service calls this one: forms go out and JSON comes back, never pickles.

BentoML calls a service that it started beside the caller with pickles, over a Unix socket on one machine and over the
network in a cluster, and its client unpickles whatever comes back. It has no setting for that.
"""

from __future__ import annotations

from typing import Any

import _bentoml_impl.client
from _bentoml_impl.client import RemoteProxy

from serving.access import known_keys
from serving.application import HttpService


class Proxy(RemoteProxy[Any]):
    """BentoML's proxy. To an HttpService it sends forms, with an API key if one is needed, and it reads JSON."""

    def __init__(self, url: str, *, service: Any = None, **options: Any) -> None:
        ours = isinstance(service, HttpService)
        if ours:
            options["media_type"] = "application/json"
        super().__init__(url, service=service, **options)
        settings = getattr(service.inner, "settings", None) if ours else None
        if settings is not None:
            for key in known_keys(settings)[:1]:
                # The headers of each session that the client will open.
                self._async.default_headers["X-API-Key"] = key


def install() -> None:
    """Make BentoML's next proxies of this process, which may be a caller's, a Proxy."""
    _bentoml_impl.client.RemoteProxy = Proxy
