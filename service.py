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
from runners import artifacts, backends, devices, predictor, telemetry
from serving import access, address, dedicated, openapi, parameters, proxy, replies, schema, supervisor, worker
from serving.application import HttpService
from serving.cache import Cached
from serving.classify import Classifier
from serving.metrics import CacheMetrics, RequestMetrics
from serving.open_inference import OpenInference, version_of
from serving.placements import Dedicated, Inline, Placement

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from serving.access import Wrap
    from serving.fast_path import DirectHandler

logger = logging.getLogger("bentoml.resnet18")

# Before anything can fail: BentoML would report a failed start to its makers.
telemetry.off()
# A service that depends on this one imports this module.
proxy.install()

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
NAME = "resnet18"


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


async def _server(request: Request) -> Response:
    """``GET /v2``: the server, in the Open Inference Protocol."""
    return replies.json_response(bentoml.get_current_service().open_inference.server())


async def _open_model(request: Request) -> Response:
    """``GET /v2/models/resnet18``: the model's inputs and outputs."""
    return replies.json_response(bentoml.get_current_service().open_inference.model())


async def _live(request: Request) -> Response:
    """``GET /v2/health/live``."""
    return replies.json_response({"live": True})


async def _ready(request: Request) -> Response:
    """``GET /v2/health/ready``, and ready of the model."""
    if await bentoml.get_current_service().placement.is_ready():
        return replies.json_response({"ready": True})
    return replies.error_response(ClassifierError("unavailable", "the service is not ready", retry_after=1))


async def _direct(request: Request) -> Response:
    """A direct handler's answer, where a request has not taken the fast path."""
    answer: Response = await bentoml.get_current_service().direct_handlers[request.scope["path"]](request)
    return answer


# The paths of the model in the Open Inference Protocol, without and with its version, and TorchServe's.
V2 = (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{version_of(tag)}")
PREDICTIONS = f"/predictions/{NAME}"
ROUTES = [
    Route("/model", _model),
    Route("/labels", _labels),
    Route("/v2", _server),
    Route("/v2/health/live", _live),
    Route("/v2/health/ready", _ready),
    *(Route(path, _open_model) for path in V2),
    *(Route(f"{path}/ready", _ready) for path in V2),
    *(Route(f"{path}/infer", _direct, methods=["POST"]) for path in V2),
    Route(PREDICTIONS, _direct, methods=["POST", "PUT"]),
]


@bentoml.service(
    name=NAME,
    service_class=HttpService,
    workers=settings.workers,
    # Classifier times requests out, with our own error. BentoML's timeout is a backstop.
    traffic={"timeout": (settings.upload_timeout_ms + settings.timeout_ms) / 1e3 + 5},
    logging={"access": {"enabled": settings.access_log}},
    # A caller's client would close its session every 100 requests by default, with calls in flight.
    runner_connection={"max_requests": 10**9, "max_age": 1e9},
)
@bentoml.asgi_app(Starlette(routes=ROUTES))
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
        except predictor.START_ERRORS as error:
            worker.abort(error)
        if settings.cache_mb:
            self.placement = Cached(self.placement, settings, CacheMetrics())
        self.classifier = Classifier(settings, self.placement, RequestMetrics(settings.slo_ms / 1e3))
        self.direct_handlers["/classify"] = self.classifier.classify
        self.direct_handlers["/classify_batch"] = self.classifier.classify_batch
        self.direct_handlers[PREDICTIONS] = self.classifier.scores
        self.open_inference = OpenInference(NAME, settings, self.placement.artifact, self.classifier)
        self.direct_handlers.update({f"{path}/infer": self.open_inference.infer for path in V2})
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
        labels = artifacts.open_artifact(tag).manifest.labels
        return openapi.document(settings, len(labels), keyed, grouped=labels.groups is not None)

    @bentoml.on_deployment
    def check() -> None:
        """Runs in the supervisor, before any worker starts: exit if no worker could serve."""
        try:
            artifacts.open_artifact(tag)
            address.check_command(dedicated=not inline)
        except (artifacts.ArtifactError, address.AddressError) as error:
            raise SystemExit(f"resnet18: {error}") from None
        supervisor.install(NAME)

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
            "min_confidence": settings.min_confidence,
            "runner": await self.placement.describe(),
            "gate": manifest.gate,
            "export": manifest.export,
        }

    def labels(self) -> dict[str, Any]:
        """The body of ``GET /labels``: the names in each language, null where they are not known, and the groups."""
        return self.placement.artifact.manifest.labels.listed()
