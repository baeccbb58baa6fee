"""BentoML's application as this service serves it: with the fast path inside and our middleware around it.

BentoML's own layers label their metrics by raw path, answer errors in four shapes and leave 404 to Starlette. They are
wrapped, not patched: ``HttpService`` is a ``bentoml.Service`` that puts its application inside ``OutermostMiddleware``.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_sdk import Service
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from bentoml.exceptions import BentoMLException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving import metrics, page, protocol, worker
from serving.fast_path import FastPathMiddleware
from serving.middleware import OutermostMiddleware

# Whether this task makes the object of an HttpService for its own application.
_making: ContextVar[bool] = ContextVar("_making", default=False)


class HttpService(Service[Any]):
    """A BentoML service whose application is inside OutermostMiddleware.

    Its class may have four attributes:

    - ``direct_handlers``: a dict from paths, whose POST requests skip BentoML's layers, to their handlers;
    - ``access``: a function that puts the access middleware around an application, or None;
    - ``settings``: they bound the HTTP protocol;
    - ``describe_api``: a function that gives the OpenAPI document.
    """

    def __call__(self) -> Any:
        """The service's object. Raises BentoMLException in another service's process, where nothing would serve it."""
        if not _making.get():
            raise BentoMLException(
                f"the service {self.name!r} can't run in the process of another one, where BentoML puts it with "
                "--development: leave that out, or serve it by itself and name it by its url in bentoml.depends()"
            )
        return super().__call__()

    @property
    def openapi_spec(self) -> Any:
        """The OpenAPI document at ``/docs.json``, and of a bento's ``apis/openapi.yaml``."""
        describe = getattr(self.inner, "describe_api", None)
        return super().openapi_spec if describe is None else describe()

    def to_asgi(self, is_main: bool = True) -> Any:
        """The wrapped ASGI application."""
        self.inject_config()
        metrics.reserve()
        settings = getattr(self.inner, "settings", None)
        if settings is not None:
            protocol.install(settings)
        factory = _Factory(self, is_main=is_main)
        factory.tie = worker.tie()
        app = factory()
        access = getattr(self.inner, "access", None)
        return OutermostMiddleware(app, _paths(app), page.files() if is_main else {}, access)


class _Factory(ServiceAppFactory):
    """Makes BentoML's application, with its page at ``/docs`` and FastPathMiddleware as its outermost layer.

    ``tie``: to the supervisor, which the workers tell when they are ready.
    """

    tie: worker.Tie | None = None

    async def create_instance(self, app: Any) -> None:
        """Make the service's object."""
        _making.set(True)
        await super().create_instance(app)
        if self.tie is not None:
            self._telling = asyncio.ensure_future(self.tie.tell(self._service_instance.__is_ready__))

    def __call__(self) -> Any:
        """The application."""
        app = super().__call__()
        if self.is_main:
            app.router.routes.append(page.swagger(self.index_page))
        return app

    @property
    def middlewares(self) -> list[Middleware]:
        layers: list[Middleware] = super().middlewares
        logged = self.is_main and BentoMLContainer.api_server_config.logging.access.enabled.get()
        # Empty until the service starts, which is after this.
        handlers = getattr(self.service.inner, "direct_handlers", None)
        if handlers is None or logged or BentoMLContainer.tracing.exporter_type.get() or not self.enable_metrics:
            return layers
        assert layers[0].cls is RunnerTrafficMetricsMiddleware
        outermost: Any = FastPathMiddleware
        return [Middleware(outermost, handlers=handlers, **layers[0].kwargs), *layers[1:]]


def _paths(app: Any) -> dict[str, frozenset[str]]:
    """Every path that ``app`` answers, with its methods; a mount of static files counts each of its files."""
    paths: dict[str, frozenset[str]] = {}
    for route in app.routes:
        if isinstance(route, Route):
            paths[route.path] = paths.get(route.path, frozenset()) | frozenset(route.methods or {"GET", "HEAD"})
        elif isinstance(route, Mount) and isinstance(route.app, StaticFiles):
            for folder in route.app.all_directories:
                for file in Path(folder).rglob("*"):
                    if file.is_file():
                        path = f"{route.path}/{file.relative_to(folder).as_posix()}"
                        paths[path] = frozenset({"GET", "HEAD"})
        elif isinstance(route, Mount):
            for inner, methods in _paths(route.app).items():
                paths[route.path + inner] = methods
    return paths
