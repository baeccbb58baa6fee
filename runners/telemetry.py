"""Telemetry is off: ONNX Runtime and BentoML report to their makers unless the environment forbids it.

ONNX Runtime does so as soon as it is imported: it looks up its makers' collector and keeps an identifier in the home
folder. ``disable_telemetry_events()`` comes too late for both. So every other module imports ONNX Runtime through this
one.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

# The environment variables with which neither of them reports.
OFF = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1"}


def off() -> None:
    """Turn the telemetry of both off, for this process and all processes that it starts."""
    os.environ.update(OFF)
    # BentoML reads its variable once. Its command line has read it before it imports a service.
    tracking = sys.modules.get("bentoml._internal.utils.analytics.usage_stats")
    if tracking is not None:
        tracking.do_not_track.cache_clear()


def onnxruntime(module: str = "") -> Any:
    """ONNX Runtime, or a ``module`` of it such as "quantization", with its telemetry off."""
    off()
    import onnxruntime as whole

    return importlib.import_module(f"onnxruntime.{module}") if module else whole
