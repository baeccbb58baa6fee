"""BentoML's application: which paths it answers, and when requests may take the fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.application import _paths
from tests.conftest import output_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request


async def answer(_: Request) -> Response:
    return Response()


def test_the_paths_of_routes_mounts_and_static_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.js", "deep/b.css"):
        (tmp_path / name).write_text("")
    inner = Starlette(routes=[Route("/model", answer), Route("/infer", answer, methods=["POST"])])
    routes = [
        Route("/classify", answer, methods=["POST"]),
        Route("/classify", answer, methods=["PUT"]),
        Mount("/files", StaticFiles(directory=tmp_path)),
        Mount("/inner", inner),
        Mount("", inner),
    ]
    get, post = frozenset({"GET", "HEAD"}), frozenset({"POST"})
    assert _paths(Starlette(routes=routes)) == {
        "/classify": post | {"PUT"},
        "/files/a.js": get,
        "/files/deep/b.css": get,
        "/inner/model": get,
        "/inner/infer": post,
        "/model": get,
        "/infer": post,
    }


TRACING = "services.tracing.exporter_type=in_memory services.tracing.sample_rate=1.0"


@pytest.mark.parametrize(
    ("settings", "outermost"),
    [
        ({}, ["FastPathMiddleware", "FastPathMiddleware"]),
        ({"RESNET18_ACCESS_LOG": "true"}, ["RunnerTrafficMetricsMiddleware", "FastPathMiddleware"]),
        ({"BENTOML_CONFIG_OPTIONS": TRACING}, ["RunnerTrafficMetricsMiddleware"] * 2),
    ],
    ids=["default", "access log", "tracing"],
)
def test_nothing_skips_layers_where_bentoml_is_to_log_or_to_trace(
    store: Path, settings: dict[str, str], outermost: list[str]
) -> None:
    """The outermost of BentoML's layers, in the service and in its runner; the access log is the service's alone."""
    code = (
        "import service\n"
        "from serving.application import _Factory\n"
        "runner = service.ResNet18.find_dependent_by_name('resnet18-runner')\n"
        "for one, is_main in ((service.ResNet18, True), (runner, False)):\n"
        "    one.inject_config()\n"
        "    print(_Factory(one, is_main=is_main).middlewares[0].cls.__name__)\n"
    )
    assert output_of(code, store, settings).split() == outermost
