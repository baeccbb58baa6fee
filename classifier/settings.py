"""Every setting of the service, typed and checked, from environment variables ``RESNET18_*``."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from classifier import runtimes

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "RESNET18_"
MIN_KEY_CHARACTERS = 16


class SettingsError(Exception):
    """A setting has a value that can't be honoured; the message quotes it and says what is allowed."""


def _one_of(*allowed: str) -> AfterValidator:
    """Refuse other values than those ``allowed``, in pydantic's words for a Literal, which can't be made of a table."""
    listed = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"Input should be {listed}")
        return value

    return AfterValidator(check)


class Settings(BaseSettings):
    """The service's settings; each field's description is its row in docs/operations.md."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    runtime: Annotated[str, _one_of(*runtimes.RUNTIMES)] = Field(
        runtimes.DEFAULT, description="the runtime whose artifact is served"
    )
    engine: Annotated[str, _one_of("auto", *runtimes.ENGINES)] = Field(
        "auto",
        description="the library that runs the artifact; `auto`: the fastest of those that are installed here and may "
        "run it",
    )
    precision: Annotated[str, _one_of("auto", *runtimes.PRECISIONS)] = Field(
        "auto",
        description="`auto`: the fastest artifact that suits the device, for example int8 on a CPU with AVX2",
    )
    device: str = Field(
        "auto", description="`auto`, `cpu`, `cuda` or `cuda:N`; without the named device the service does not start"
    )
    placement: Literal["auto", "inline", "dedicated"] = Field(
        "auto",
        description="`inline`: each API worker infers; `dedicated`: one runner process infers; `auto`: inline on a CPU",
    )
    model: str | None = Field(None, description="serve exactly this model-store tag instead of the newest")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="number of API processes")
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="threads of each process: inline on a CPU they decode and infer, in a runner on a CPU they infer, "
        "else they decode; 0: one for each core, divided among the API processes",
    )
    slo_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        1000,
        description="milliseconds in which 99 % of images are to be answered; an image that would be late gets 429",
    )
    max_batch: Annotated[int, Field(ge=1, le=1024)] = Field(
        32,
        description="images that fit the device's memory at once; no tuning knob: the batcher finds its own batch size",
    )
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1024, description="images that may wait to be inferred; beyond it 429"
    )
    min_confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0,
        description="probability that the first prediction must reach to be `confident`; 0: no reply has that field",
    )
    max_images: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="images in one /classify_batch request")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        20 * 1024 * 1024, description="bytes of one request body, counted while it is read"
    )
    max_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        50_000_000, description="the largest width × height that a header may declare, checked before decoding"
    )
    max_fields: Annotated[int, Field(ge=0, le=1024)] = Field(16, description="text fields in one multipart body")
    max_part_header_bytes: Annotated[int, Field(ge=128, le=65_536)] = Field(
        4096, description="bytes of the headers of one part of a multipart body"
    )
    max_header_bytes: Annotated[int, Field(ge=1024, le=1_048_576)] = Field(
        16_384, description="bytes of a request's own headers"
    )
    max_held_bytes: Annotated[int, Field(ge=1024)] = Field(
        256 * 1024 * 1024, description="bytes of all request bodies that one API process holds at once; beyond it 429"
    )
    upload_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        20_000, description="milliseconds in which a request's headers, and then its body, must arrive; else 408"
    )
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        75,
        description="seconds a connection may wait for its next request; let the balancer in front keep it for less",
    )
    decoder: Literal["inline", "contained"] = Field(
        "inline",
        description="`inline`: threads of the service decode; `contained`: processes that can be killed, one a thread",
    )
    decode_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        5000, description="milliseconds in which one image must be decoded; `inline` checks it only between two reads"
    )
    decode_memory_mb: Annotated[int, Field(ge=16, le=65_536)] = Field(
        768, description="MB of memory for decoding one image; only `contained` enforces it"
    )
    truncated: Literal["refuse", "accept"] = Field(
        "refuse",
        description="`accept`: a JPEG or PNG whose file ends early gives what a browser shows of it, with `warnings`",
    )
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        30_000, description="milliseconds from the body's last byte to the answer; else 504"
    )
    cache_mb: Annotated[int, Field(ge=0, le=65_536)] = Field(
        0,
        description="MB of results that one API process keeps, for images that come again byte for byte; 0: none",
    )
    unready_after_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        0, description="seconds of refusals without a gap of one second after which `/readyz` is 503; 0: never"
    )
    access_log: bool = Field(False, description="one log line for each request")
    api_keys: SecretStr | None = Field(
        None,
        description="comma-separated keys, one of which each request must bring; without keys none is needed",
    )
    api_keys_file: Path | None = Field(None, description="a file of more such keys, one a line; `#` begins a comment")
    open_paths: str = Field(
        "/,/web/*,/docs,/docs.json,/static_content/*,/livez,/readyz,/healthz",
        description="comma-separated paths that need no key and have no rate limit; `/*` at the end covers all below",
    )
    cors_origins: str | None = Field(
        None, description="comma-separated origins whose pages may call the service from a browser, or `*` for all"
    )
    rate_limit: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = Field(
        None, description="requests a second for each key, or for each address where there are no keys; beyond it 429"
    )
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="requests that a client may send at once before `RATE_LIMIT` applies"
    )
    trusted_proxies: str | None = Field(
        None, description="comma-separated addresses or networks of proxies whose `X-Forwarded-For` names the client"
    )

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", value):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return value

    @field_validator("max_held_bytes")
    @classmethod
    def _max_held_bytes(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_body_bytes", 0):
            raise ValueError(f"must hold one body at least: {PREFIX}MAX_BODY_BYTES={info.data['max_body_bytes']}")
        return value

    @field_validator("api_keys")
    @classmethod
    def _api_keys(cls, value: SecretStr | None) -> SecretStr | None:
        # An empty secret must not let everyone in.
        if value is not None:
            check_keys(listed(value.get_secret_value()))
        return value

    @field_validator("open_paths")
    @classmethod
    def _open_paths(cls, value: str) -> str:
        for path in listed(value):
            if not re.fullmatch(r"/[^*?#\s]*(?<=/)\*|/[^*?#\s]*", path):
                raise ValueError(f"{path!r} must be a path such as /metrics, or /assets/* for all below it")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _cors_origins(cls, value: str | None) -> str | None:
        for origin in listed(value):
            if origin != "*" and not re.fullmatch(r"https?://[^/?#*\s]+", origin):
                raise ValueError(f"{origin!r} must be an origin such as https://shop.example, without a path, or *")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, value: str | None) -> str | None:
        for proxy in listed(value):
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(f"{proxy!r} must be an address such as 10.0.0.7 or a network: 10.0.0.0/24") from None
        return value

    def threads_of(self, processes: int) -> int:
        """Threads of one of ``processes`` processes that decode or infer."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // processes)


def listed(value: str | None) -> list[str]:
    """The items of a comma-separated setting."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]


def check_keys(keys: Sequence[str]) -> None:
    """Raise ValueError for none, or for the first that no header could carry or that is too short, by its number."""
    if not keys:
        raise ValueError("it holds no key")
    for number, key in enumerate(keys, start=1):
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError(f"key {number} has a character that is not printable ASCII")
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"key {number} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are needed")


def read() -> Settings:
    """Settings from the environment. Raises SettingsError, which names every variable at fault."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = [name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a setting; the settings are {', '.join(sorted(known))}")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(item) for item in error.errors())) from None


def _explain(item: object) -> str:
    assert isinstance(item, dict)
    name = PREFIX + str(item["loc"][0]).upper()
    reason = str(item["msg"]).removeprefix("Value error, ")
    # A key that was mistyped is almost one: it must not get into a log.
    value = "" if name == f"{PREFIX}API_KEYS" else f"={item['input']!r}"
    return f"{name}{value} can't be honoured: {reason[0].lower()}{reason[1:]}"
