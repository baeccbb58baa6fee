"""Figures of what was measured. They are exact: quantiles are taken of all values, never of averages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def quantile(values: ArrayLike, q: float) -> float:
    """The nearest-rank quantile ``q``, from 0 to 1, of ``values`` float[n]; NaN where there are none."""
    found = np.asarray(values, np.float64)
    return float(np.quantile(found, q, method="inverted_cdf")) if len(found) else math.nan


def plain(value: Any) -> Any:
    """A value for JSON: a float with three decimals, None for one that is not finite, anything else as it is."""
    if not isinstance(value, float):
        return value
    return round(value, 3) if math.isfinite(value) else None
