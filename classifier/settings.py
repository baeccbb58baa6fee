"""Every setting of the service, typed and checked, from environment variables ``RESNET18_*``."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "RESNET18_"


class SettingsError(Exception):
    """A setting has a value that can't be honoured; the message quotes it and says what is allowed."""


class Settings(BaseSettings):
    """The service's settings; each field's description is its row in docs/operations.md."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    runtime: Literal["onnx", "torchscript"] = Field("onnx", description="which artifact serves")
    precision: Literal["auto", "fp32", "int8", "bf16", "fp16"] = Field(
        "auto",
        description="`auto` is the fastest in the store that suits the device: int8 on a CPU with AVX2 or dot product",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`; what can't be had refuses to start")
    placement: Literal["auto", "inline", "dedicated"] = Field(
        "auto",
        description="inference inside each API worker, or in a process of its own; `auto`: inline on CPU",
    )
    model: str | None = Field(None, description="serve exactly this model-store tag instead of the newest")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="API processes")
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="inference threads of each process that infers; 0 shares the machine's cores among them"
    )
    slo_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        1000, description="milliseconds in which 99 % of images are to be answered; what would take longer gets 429"
    )
    max_batch: Annotated[int, Field(ge=1, le=1024)] = Field(
        32, description="images that fit the device's memory at once; no tuning knob, the batcher finds its own size"
    )
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1024, description="images that may wait for a device; beyond it the answer is 429"
    )
    max_images: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="images in one /classify_batch request")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        20 * 1024 * 1024, description="bytes of one request body, checked while reading"
    )
    max_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        50_000_000, description="pixels an image's header may tell, checked before decoding"
    )
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        30_000, description="milliseconds a request may take before the answer is 504"
    )
    access_log: bool = Field(False, description="one log line a request")

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", value):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return value

    def inference_threads(self, processes: int) -> int:
        """Inference threads of one of ``processes`` processes that infer."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // processes)


def load() -> Settings:
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
    return f"{name}={item['input']!r} can't be honoured: {reason[0].lower()}{reason[1:]}"
