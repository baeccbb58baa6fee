"""The model that Triton's Python backend loads: an encoded image to its most probable class."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

# The backend's process takes no paths from its environment.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np
import triton_python_backend_utils as triton

from benchmarks.peers.recipe import Recipe


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.recipe = Recipe()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        try:
            reply = self.recipe.classify(io.BytesIO(triton.get_input_tensor_by_name(request, "image").as_numpy()[0]))
        except OSError as error:
            return triton.InferenceResponse([], triton.TritonError(f"cannot decode as image data: {error}"))
        types = {"class_id": np.int64, "label": np.object_, "probability": np.float32}
        return triton.InferenceResponse([triton.Tensor(name, np.array([reply[name]], types[name])) for name in types])
