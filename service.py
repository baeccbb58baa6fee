"""The BentoML service: routes and wiring, nothing else. ``bentoml serve service:ResNet18`` starts it."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import bentoml
from starlette.applications import Starlette
from starlette.routing import Route

from classifier import settings as _settings
from classifier.errors import ClassifierError
from runners import artifacts, backends, devices, engine, telemetry
from serving import access, address, dedicated, openapi, parameters, replies, schema, supervisor, worker
from serving.application import HttpService
from serving.classify import Classifier
from serving.metrics import RequestMetrics
from serving.placements import Dedicated, Inline, Placement

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from serving.access import Wrap
    from serving.fast_path import DirectHandler

logger = logging.getLogger("bentoml.resnet18")

# Before anything can fail: BentoML would report a failed start to its makers.
telemetry.off()

# BentoML reads the service's class when this module is imported, so its settings are read here.
try:
    settings = _settings.read()
    device = backends.pick_device(settings.device, settings.runtime)
    tag = artifacts.choose(settings, device, bento=Path(__file__).resolve().parents[1] / "bento.yaml")
    access_middleware, keyed = access.build(settings), bool(access.known_keys(settings))
except (_settings.SettingsError, artifacts.ArtifactError, devices.DeviceError) as error:
    raise SystemExit(f"resnet18: {error}") from None
placement = settings.placement
if placement == "auto":
    placement = "inline" if device == "cpu" else "dedicated"
inline = placement == "inline"


async def _model(request: Request) -> Response:
    """``GET /model``: the served artifact, where it runs, and its accuracy as measured when it was built."""
    try:
        parameters.check_query(request)
        return replies.json_response(await bentoml.get_current_service().describe())
    except ClassifierError as error:
        return replies.error_response(error)


async def _labels(request: Request) -> Response:
    """``GET /labels``: the names of all classes, in class order."""
    try:
        parameters.check_query(request)
        return replies.json_response(bentoml.get_current_service().labels())
    except ClassifierError as error:
        return replies.error_response(error)


@bentoml.service(
    name="resnet18",
    service_class=HttpService,
    workers=settings.workers,
    # Classifier times requests out, with our own error. BentoML's timeout is a backstop.
    traffic={"timeout": (settings.upload_timeout_ms + settings.timeout_ms) / 1e3 + 5},
    logging={"access": {"enabled": settings.access_log}},
)
@bentoml.asgi_app(Starlette(routes=[Route("/model", _model), Route("/labels", _labels)]))
class ResNet18:
    """Classifies images with ResNet18: top-k labels in English and Chinese."""

    stored = bentoml.models.BentoModel(tag)
    settings = settings
    direct_handlers: ClassVar[dict[str, DirectHandler]] = {}
    access: ClassVar[Wrap | None] = access_middleware
    if not inline:
        runner = bentoml.depends(dedicated.service(settings, tag, device))

    def __init__(self) -> None:
        try:
            self.placement: Placement = (
                Inline(settings, tag, device) if inline else Dedicated(settings, tag, dedicated.NAME)
            )
        except engine.START_ERRORS as error:
            worker.abort(error)
        self.classifier = Classifier(settings, self.placement, RequestMetrics(settings.slo_ms / 1e3))
        self.direct_handlers["/classify"] = self.classifier.classify
        self.direct_handlers["/classify_batch"] = self.classifier.classify_batch
        manifest = self.placement.artifact.manifest
        weights = manifest.weights["origin"]
        logger.info("serving %s: %s weights, %s on %s, %s", tag, weights, settings.runtime, device, placement)
        if weights == "demo":
            names = ", ".join(manifest.labels.en)
            logger.warning("these are DEMO weights: everything is one of %s; make model WEIGHTS=imagenet", names)

    @staticmethod
    @functools.cache
    def describe_api() -> Any:
        """The OpenAPI document."""
        return openapi.document(settings, len(artifacts.open_artifact(tag).manifest.labels), keyed)

    @bentoml.on_deployment
    def check() -> None:
        """Runs in the supervisor, before any worker starts: exit if no worker could serve."""
        try:
            artifacts.open_artifact(tag)
            address.check_command(dedicated=not inline)
        except (artifacts.ArtifactError, address.AddressError) as error:
            raise SystemExit(f"resnet18: {error}") from None
        supervisor.install()

    async def __is_ready__(self) -> bool:
        return await self.placement.is_ready()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Finish the admitted images."""
        await self.placement.stop()

    @bentoml.api(route="/classify", input_spec=schema.ClassifyInput, output_spec=schema.ClassifyOutput)
    async def classify(self, request: Request) -> Response:
        """The top-k classes of one image: a multipart file ``image``, or the image itself as the body."""
        return await self.classifier.classify(request)

    @bentoml.api(route="/classify_batch", input_spec=schema.ClassifyBatchInput, output_spec=schema.ClassifyBatchOutput)
    async def classify_batch(self, request: Request) -> Response:
        """The top-k classes of each of several images. An image that can't be read gets its own error."""
        return await self.classifier.classify_batch(request)

    async def describe(self) -> dict[str, Any]:
        """The body of ``GET /model``."""
        manifest = self.placement.artifact.manifest
        return {
            "tag": tag,
            "weights": manifest.weights,
            "digest": manifest.digest,
            "classes": len(manifest.labels),
            "size": manifest.preprocessing.size,
            "resize": manifest.preprocessing.resize,
            "preprocessing": manifest.described(),
            "runtime": manifest.runtime,
            "precision": manifest.precision,
            "placement": placement,
            "workers": settings.workers,
            "decoder": settings.decoder,
            "slo_ms": settings.slo_ms,
            "runner": await self.placement.describe(),
            "gate": manifest.gate,
            "export": manifest.export,
        }

    def labels(self) -> dict[str, Any]:
        """The body of ``GET /labels``: the names in each language, null where they are not known."""
        return self.placement.artifact.manifest.labels.by_language()
