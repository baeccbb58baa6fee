"""What requests and replies look like: for OpenAPI and BentoML's clients only, nothing is parsed through these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import bentoml
from _bentoml_sdk.validators import ContentType
from pydantic import BaseModel, Field, create_model

from classifier.languages import DEFAULT, LANGUAGES, TRANSLATIONS
from serving import form

if TYPE_CHECKING:
    from starlette.requests import Request

TOP_K = 3
MIN_CONFIDENCE = "the probability that the first prediction must reach to be confident"
LEVEL = "what the predictions are of: class, or group where the model has groups"
_CONFIDENT = "whether the first prediction reaches the least confidence, where one is set or asked for"


class Passed:
    """The request itself, handed to the API method as its one argument ``request``."""

    model_fields = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class _Unparsed(bentoml.IODescriptor):
    """An input that reaches the method as the raw request, so that our own upload parser reads the body.

    BentoML's own would fetch URLs found in file fields, write temporary files, and take the client's word for types.
    On the other side of the wire, in a caller's process, it is the form that is sent.
    """

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Any:
        """``request``, wrapped as BentoML passes arguments on."""
        return Passed(request)

    @classmethod
    def from_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """The form of a call with these arguments. Raises TypeError or InvalidArgument."""
        (field,) = cls.multipart_fields
        given = form.bind(cls.model_fields, field, args, kwargs)
        files = given.pop(field)
        return form.Form({field: list(files) if isinstance(files, list | tuple) else [files]}, given)


class ClassifyInput(_Unparsed):
    """One image, as a multipart file or as the raw body, and how many predictions to give."""

    image: Annotated[Path, ContentType("image/*")]
    top_k: int = Field(TOP_K, ge=1, description="predictions to give, at most the number of classes")
    min_confidence: float | None = Field(None, ge=0, le=1, description=MIN_CONFIDENCE)
    level: str | None = Field(None, description=LEVEL)


class ClassifyBatchInput(_Unparsed):
    """Several images, each a multipart file in the field ``images``."""

    images: list[Annotated[Path, ContentType("image/*")]]
    top_k: int = Field(TOP_K, ge=1, description="predictions to give for each image")
    min_confidence: float | None = Field(None, ge=0, le=1, description=MIN_CONFIDENCE)
    level: str | None = Field(None, description=LEVEL)


_LABELS: dict[str, Any] = {
    f"label_{each.code}": (str | None, Field(None, description=f"in {each.english}, where it is known"))
    for each in TRANSLATIONS
}
Prediction = create_model(
    "Prediction",
    __doc__="A class and how probable it is.",
    class_id=(int, ...),
    label=(str, ...),
    **_LABELS,
    probability=(float, ...),
)
Group = create_model(
    "Group",
    __doc__="A group of classes, and the sum of their probabilities.",
    group_id=(int, ...),
    label=(str, ...),
    **_LABELS,
    probability=(float, ...),
)


class Model(BaseModel):
    """Which artifact answered."""

    tag: str
    weights: str
    precision: str


class Timings(BaseModel):
    """Milliseconds of each stage."""

    decode: float
    queue: float
    inference: float
    total: float


class ErrorBody(BaseModel):
    """Why there is no answer: a code, a sentence for people, and facts."""

    code: str
    message: str
    limit: int | None = Field(None, description="what was exceeded")
    allowed: list[str] | None = Field(None, description="what would be accepted")
    format: str | None = Field(None, description="the image's format")
    index: int | None = Field(None, description="which image of a JSON body, from 0")
    reason: str | None = Field(None, description="why with 429: queue_full, deadline, expired or memory")


class Error(BaseModel):
    """The one shape of errors."""

    error: ErrorBody


class Predicted(BaseModel):
    """An image of a batch: its predictions, most probable first: of classes, or with level=group of groups."""

    predictions: list[Prediction | Group]
    groups: list[Group] | None = Field(None, description="the most probable groups, where the model has groups")
    confident: bool | None = Field(None, description=_CONFIDENT)
    cached: bool | None = Field(None, description="true where another image of the same bytes was inferred for it")
    warnings: list[str] | None = Field(None, description="what is missing of the image, where its file ends early")


class ClassifyOutput(Predicted):
    """The predictions of one image, most probable first."""

    model: Model
    timing_ms: Timings


class ClassifyBatchOutput(BaseModel):
    """One result an image, in the order sent: its predictions, or its own error."""

    results: list[Predicted | Error]
    model: Model
    timing_ms: Timings


@dataclass(frozen=True)
class Upload:
    """A route to which images are sent.

    ``field``: of a form, which no other route's has; it holds the image, or with ``many`` any number of images.
    ``aliases``: other names of that field, which clients send because other servers have them.
    """

    field: str
    aliases: tuple[str, ...]
    many: bool
    summary: str
    output: type[BaseModel]


# Of service.py's routes those that take images, by path.
UPLOADS = {
    "/classify": Upload("image", ("file", "data"), False, "The most probable classes of one image.", ClassifyOutput),
    "/classify_batch": Upload(
        "images",
        ("files", "images[]"),
        True,
        "The most probable classes of each of several images.",
        ClassifyBatchOutput,
    ),
}


class Weights(BaseModel):
    """Where the weights come from."""

    origin: str
    digest: str


class ModelOutput(BaseModel):
    """What is served, where, and how accurate it was found to be."""

    tag: str
    weights: Weights
    digest: str
    classes: int
    size: int
    resize: int
    runtime: str
    precision: str
    placement: str
    workers: int
    decoder: str
    slo_ms: int
    min_confidence: float
    runner: dict[str, Any]
    gate: dict[str, Any]
    export: dict[str, Any]


_NAMES: dict[str, Any] = {code: (list[str] if code == DEFAULT else list[str] | None, ...) for code in LANGUAGES}
GroupNames = create_model(
    "GroupNames",
    __doc__="The groups' names, and by class the place of its group: -1 without one.",
    **_NAMES,
    of=(list[int], ...),
)
LabelsOutput = create_model(
    "LabelsOutput",
    __doc__="The names of all classes in their order: null where a language's are not known.",
    **_NAMES,
    groups=(GroupNames | None, Field(None, description="where the model has groups")),
)
