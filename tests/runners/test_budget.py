"""The time budget: the SLO less the margin."""

from __future__ import annotations

import pytest

from runners.budget import budget_s, margin_s


@pytest.mark.parametrize(("allowed_ms", "budget"), [(1000, 0.85), (100, 0.085), (1, 0.00085)])
def test_the_budget_is_85_percent_and_the_margin_is_the_rest(allowed_ms: float, budget: float) -> None:
    assert budget_s(allowed_ms) == pytest.approx(budget)
    assert budget_s(allowed_ms) + margin_s(allowed_ms) == pytest.approx(allowed_ms / 1e3)
