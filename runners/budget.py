"""The time budget of an image: the part of the SLO that its way to the end of its batch may take.

An SLO of 1,000 ms gives a budget of 850 ms. The other 150 ms are for the event loop's turns and for writing the reply.
"""

from __future__ import annotations

# The share of the allowed time that is kept for what happens outside the batcher.
MARGIN = 0.15


def budget_s(allowed_ms: float) -> float:
    """Seconds of the budget where ``allowed_ms`` milliseconds, the SLO or a client's own limit, are allowed."""
    return (1 - MARGIN) * allowed_ms / 1e3


def margin_s(allowed_ms: float) -> float:
    """Seconds that are left of ``allowed_ms`` milliseconds when the budget has been spent."""
    return MARGIN * allowed_ms / 1e3
