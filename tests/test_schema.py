"""Requests generated from /docs.json by schemathesis: no 5xx, one error shape, replies as they are described."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from classifier.errors import STATUS

if TYPE_CHECKING:
    from tests.conftest import Server


EXAMPLES = 200


def test_what_the_description_allows(server: Server) -> None:
    description = schemathesis.openapi.from_url(f"{server.url}/docs.json")
    operations = [result.ok() for result in description.get_all_operations() if isinstance(result, Ok)]
    statuses: Counter[tuple[str, int]] = Counter()

    def check(case: Any) -> None:
        response = case.call(base_url=server.url)
        checks: list[Any] = [not_a_server_error]
        if response.status_code == 200:
            checks += [content_type_conformance, response_schema_conformance]
        case.validate_response(response, checks=checks)
        if response.status_code >= 400:
            error = json.loads(response.content)["error"]
            assert STATUS[error["code"]] == response.status_code
            assert response.headers["x-error-code"] == [error["code"]]
        assert response.headers["x-request-id"]
        statuses[case.operation.path, response.status_code] += 1

    for operation in operations:
        run = given(case=operation.as_strategy())(lambda case: check(case))
        settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))(run)()
    print(dict(statuses))  # noqa: T201
    assert {"/classify", "/classify_batch", "/readyz", "/livez", "/metrics"} <= {path for path, _ in statuses}
    assert any(status == 422 for path, status in statuses if path == "/classify")
