"""Telemetry is off: ONNX Runtime, OpenVINO and BentoML report to their makers unless that is forbidden.

ONNX Runtime does so as soon as it is imported: it looks up its makers' collector and keeps an identifier in the home
folder. ``disable_telemetry_events()`` comes too late for both. So every other module imports ONNX Runtime and OpenVINO
through this one.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

# The environment variables with which neither BentoML nor ONNX Runtime reports.
OFF = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1"}


def off() -> None:
    """Turn the telemetry of BentoML and ONNX Runtime off, for this process and all processes that it starts."""
    os.environ.update(OFF)
    # BentoML reads its variable once. Its command line has read it before it imports a service.
    tracking = sys.modules.get("bentoml._internal.utils.analytics.usage_stats")
    if tracking is not None:
        tracking.do_not_track.cache_clear()


def openvino() -> Any:
    """OpenVINO, without its telemetry package: it writes an identifier into the home folder and reports to its makers.

    OpenVINO takes a stand-in of its own where the package can't be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as whole

    return whole


def onnxruntime(module: str = "") -> Any:
    """ONNX Runtime, or a ``module`` of it such as "quantization", with its telemetry off."""
    off()
    import onnxruntime as whole

    return importlib.import_module(f"onnxruntime.{module}") if module else whole
