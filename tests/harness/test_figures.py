"""Figures are exact, and what was not measured is null in JSON."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.figures import plain, quantile


def test_quantiles_are_nearest_rank() -> None:
    values = np.arange(1.0, 101.0)
    assert [quantile(values, q) for q in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert math.isnan(quantile(np.zeros(0), 0.5))


def test_values_may_be_a_list_in_any_order() -> None:
    assert [quantile([30.0, 10.0, 20.0], q) for q in (0.0, 0.34, 0.67, 1.0)] == [10, 20, 30, 30]
    assert math.isnan(quantile([], 0.5))


@pytest.mark.parametrize("count", [1, 7, 200, 459, 1000])
@pytest.mark.parametrize("percent", [50, 95, 99])
def test_the_rank_is_the_least_that_so_many_per_cent_reach(count: int, percent: int) -> None:
    values = list(range(1, count + 1))
    assert quantile(values, percent / 100) == max(1, math.ceil(count * percent / 100))


def test_json_gets_three_decimals_and_null_for_what_is_not_finite() -> None:
    assert [plain(value) for value in (1.23456, math.nan, math.inf, 7, "text")] == [1.235, None, None, 7, "text"]
