"""What schemathesis is told besides the description: images to send, and what the description can't say.

Its process is started by tests/serving/test_openapi.py, which reads the file of answers that this writes.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

from classifier.errors import STATUS
from tests import hostile

ANSWERS = Path(os.environ["SCHEMA_ANSWERS"])

IMAGES = sorted(hostile.seeds().values())
schemathesis.openapi.format("binary", st.sampled_from(IMAGES))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(image).decode() for image in IMAGES]))


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """Two values of a parameter contradict one another; OpenAPI has no word for it."""
    form = case.body if isinstance(case.body, dict) else {}
    query = case.query or {}
    return all(form[name] == query[name] for name in ("top_k", "min_confidence") if name in form and name in query)


@schemathesis.check
def one_shape_of_errors(_: Any, response: Any, case: Any) -> None:
    """Each error has a code that belongs to its status, also in its header; each answer has an id."""
    with ANSWERS.open("a") as file:
        file.write(json.dumps([case.operation.path, response.status_code]) + "\n")
    assert response.headers["x-request-id"]
    if response.status_code >= 400:
        error = json.loads(response.content)["error"]
        assert STATUS[error["code"]] == response.status_code
        assert response.headers["x-error-code"] == [error["code"]]
