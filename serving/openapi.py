"""The OpenAPI document, ``/docs.json``: what can be asked, and every status that can come back.

BentoML's own tells of neither raw bodies, headers nor the shape of errors, and has a type that OpenAPI lacks. Version
3.0 because more generators of clients read it than read 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentoml._internal.service.openapi.specification import Info, OpenAPISpecification, PathItem, Tag
from pydantic.json_schema import models_json_schema

from classifier.errors import STATUS
from classifier.settings import listed
from serving import schema
from serving.access import OpenPaths
from serving.parameters import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from classifier.settings import Settings

_MODELS: tuple[type[BaseModel], ...] = (
    *(upload.output for upload in schema.UPLOADS.values()),
    schema.ModelOutput,
    schema.LabelsOutput,
    schema.Error,
)
_IMAGES, _MODEL, _OPERATION = "Images", "Model", "Operation"
# A request that is malformed, slow or has too large a head, a service that ends or does not answer, a bug.
_ALWAYS = {400, 408, 431, 500, 503, 504}
_WITH_BODY = {411, 413, 415, 422, 429}
_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte"}
_HEADERS = {
    "X-Request-ID": ("string", "the request's own id, or a new one"),
    "X-Error-Code": ("string", "the error's code"),
    "Retry-After": ("integer", "seconds after which to try again"),
    "Server-Timing": ("string", "the stages of timing_ms, for browsers' tools"),
    "WWW-Authenticate": ("string", "Bearer"),
    "Accept-Encoding": ("string", "identity, with unsupported_encoding"),
}
_MIN_CONFIDENCE = {"type": "number", "minimum": 0, "maximum": 1, "description": schema.MIN_CONFIDENCE}
_LEVEL = {"type": "string", "enum": list(LEVELS), "description": schema.LEVEL}
_HEADERS_OF = {401: "WWW-Authenticate", 415: "Accept-Encoding", 429: "Retry-After", 503: "Retry-After"}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(settings: Settings, classes: int, keyed: bool, grouped: bool = False) -> OpenAPISpecification:
    """The description of a service with ``classes`` labels, ``grouped`` or not; ``keyed``: it asks for API keys."""
    # No "default": clients that are generated would send it in the query beside another in the form.
    default = min(schema.TOP_K, classes)
    top_k = {
        "type": "integer",
        "minimum": 1,
        "maximum": classes,
        "description": f"predictions an image, else {default}",
    }
    asked = {"top_k": top_k, "min_confidence": _MIN_CONFIDENCE} | ({"level": _LEVEL} if grouped else {})
    operations = [
        *(_upload(settings, path, upload, asked) for path, upload in schema.UPLOADS.items()),
        _get("/model", _MODEL, "What is served, where, and how accurate it was found to be.", "ModelOutput"),
        _get("/labels", _MODEL, "The names of all classes, in class order.", "LabelsOutput"),
        _get("/livez", _OPERATION, "The process answers."),
        _get("/readyz", _OPERATION, "An image would be answered."),
        _get("/healthz", _OPERATION, "The same as /livez."),
        _get("/metrics", _OPERATION, "Metrics for Prometheus."),
    ]
    opened = OpenPaths(listed(settings.open_paths))
    paths = {}
    for path, method, operation, statuses in operations:
        if path not in opened:
            statuses = statuses | ({401} if keyed else set()) | ({429} if settings.rate_limit else set())
        operation["responses"] |= {str(status): _ref("responses", f"Error{status}") for status in sorted(statuses)}
        operation["security"] = [{name: []} for name in _SECURITY] if keyed and path not in opened else []
        paths[path] = PathItem(**{method: operation})
    _, definitions = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    return OpenAPISpecification(
        openapi="3.0.3",
        info=Info(title="ResNet18", version="1", description="Classifies images: the most probable classes of each."),
        servers=[{"url": "."}],
        tags=[Tag(_IMAGES, "Images to classes"), Tag(_MODEL, "What is served"), Tag(_OPERATION, "Probes and metrics")],
        paths=paths,
        components={
            "schemas": {name: _as_3_0(definition) for name, definition in definitions["$defs"].items()},
            "responses": {f"Error{status}": _error(status) for status in sorted(set(STATUS.values()) - {404, 405})},
            "headers": {
                name: {"description": what, "schema": {"type": kind}} for name, (kind, what) in _HEADERS.items()
            },
            "securitySchemes": _SECURITY if keyed else {},
        },
    )


def _upload(
    settings: Settings, path: str, upload: schema.Upload, parameters: dict[str, dict[str, Any]]
) -> tuple[str, str, dict[str, Any], set[int]]:
    form, base64 = (
        {
            "type": "object",
            "properties": {
                upload.field: {"type": "array", "items": image, "minItems": 1, "maxItems": settings.max_images}
                if upload.many
                else image,
                **numbers,
            },
            "required": [upload.field],
            "additionalProperties": False,
        }
        for image, numbers in (
            (_BINARY, parameters),
            (_BASE64, {name: number | {"nullable": True} for name, number in parameters.items()}),
        )
    )
    encoding = {upload.field: {"contentType": "image/*"}}
    allowed = {"type": "integer", "minimum": 1, "maximum": settings.timeout_ms}
    operation = {
        "operationId": path[1:],
        "tags": [_IMAGES],
        "summary": upload.summary,
        "description": "The body is a form, one image itself, whose bytes tell its format, or JSON with base64. "
        f"{' and '.join(f'`{name}`' for name in parameters)} come in the query or in the body; two different values of "
        "one are refused.",
        "parameters": [
            *({"name": name, "in": "query", "schema": number} for name, number in parameters.items()),
            {
                "name": "X-Time-Allowed-Ms",
                "in": "header",
                "schema": allowed,
                "description": "milliseconds from the body's last byte after which no answer is wanted",
            },
        ],
        "requestBody": {
            "required": True,
            "description": f"at most {settings.max_body_bytes} bytes",
            "content": {
                "multipart/form-data": {"schema": form, "encoding": encoding},
                "image/*": {"schema": _BINARY},
                "application/octet-stream": {"schema": _BINARY},
                "application/json": {"schema": base64},
            },
        },
        "responses": _answer(upload.output.__name__, "Server-Timing"),
    }
    return path, "post", operation, _ALWAYS | _WITH_BODY


def _get(path: str, tag: str, what: str, model: str | None = None) -> tuple[str, str, dict[str, Any], set[int]]:
    operation = {"operationId": path[1:], "tags": [tag], "summary": what, "responses": _answer(model)}
    return path, "get", operation, _ALWAYS | ({422} if model else set())


def _answer(model: str | None, *headers: str) -> dict[str, Any]:
    kind, content = ("application/json", _ref("schemas", model)) if model else ("text/plain", {"type": "string"})
    answer = {"description": "The answer", "content": {kind: {"schema": content}}}
    return {"200": answer | {"headers": _with(("X-Request-ID", *headers))}}


def _error(status: int) -> dict[str, Any]:
    codes = [code for code, its in STATUS.items() if its == status]
    headers = ["X-Request-ID", "X-Error-Code", *([_HEADERS_OF[status]] if status in _HEADERS_OF else [])]
    return {
        "description": " or ".join(codes),
        "headers": _with(headers),
        "content": {"application/json": {"schema": _ref("schemas", "Error")}},
    }


def _with(headers: Iterable[str]) -> dict[str, Any]:
    return {name: _ref("headers", name) for name in headers}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _as_3_0(definition: Any, optional: bool = False) -> Any:
    """A JSON schema of pydantic's as OpenAPI 3.0 has it, in which null is no type: what is optional is left out."""
    if isinstance(definition, list):
        return [_as_3_0(item) for item in definition]
    if not isinstance(definition, dict):
        return definition
    kept = {name: value for name, value in definition.items() if name not in ("title", "properties")}
    if {"type": "null"} in kept.get("anyOf", ()):
        (kind,) = [one for one in kept.pop("anyOf") if one != {"type": "null"}]
        kept |= kind if optional else kind | {"nullable": True}
        if kept.get("default", kind) is None:
            del kept["default"]
    found = {name: _as_3_0(value) for name, value in kept.items()}
    if "properties" in definition:
        required = definition.get("required", ())
        found["properties"] = {
            name: _as_3_0(value, name not in required) for name, value in definition["properties"].items()
        }
    return found
