"""The cost model: how many seconds a batch of b images takes, ℓ(b) = α·b + β, learned from the batches that ran."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The model remembers WINDOW batches. The last RECENT give the pace. It is fitted anew every REFIT_EVERY batches.
WINDOW = 64
RECENT = 16
REFIT_EVERY = 8
QUANTILE = 0.95
# A batch counts as at most this many times the usual time. Otherwise a few hiccups would make the batcher refuse all.
HICCUP = 2
# If the recent batches took this many times as long as expected, or as short, older batches are forgotten.
CHANGE = 1.5
# The former estimates of the smallest and the largest batch count as this many measurements each.
ANCHOR = 8


class CostModel:
    """ℓ(b) = α·b + β, fitted to the last WINDOW batches; ``upper`` is what QUANTILE of them stay below.

    ``measured``: seconds by batch size, from the warm-up; at least one. A change of pace, the same for all sizes, is
    followed within RECENT batches; a single batch that took far too long changes next to nothing.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._window = deque([(images, max(seconds, 1e-9)) for images, seconds in measured.items()], maxlen=WINDOW)
        self._largest = max(measured)
        self._unseen = 0
        self.alpha, self.beta = _fit([(images, seconds, seconds**-2) for images, seconds in self._window])
        self.spread = 1.0

    def expected(self, images: int) -> float:
        """The mean seconds of a batch of ``images``."""
        return self.alpha * images + self.beta

    def upper(self, images: int) -> float:
        """The seconds that a batch of ``images`` stays below with the probability QUANTILE."""
        return self.spread * (self.alpha * images + self.beta)

    def batch_for(self, efficiency: float) -> int:
        """The smallest b with α·b / ℓ(b) ≥ ``efficiency``: e / (1 - e) · β/α, rounded up; 0 where β is 0."""
        return math.ceil(efficiency / (1 - efficiency) * self.beta / self.alpha)

    def observe(self, images: int, seconds: float) -> bool:
        """Learn from one batch; whether α, β and the spread have changed."""
        self._window.append((images, max(seconds, 1e-9)))
        self._unseen += 1
        if self._unseen < REFIT_EVERY:
            return False
        self._unseen = 0
        pace = self._pace(RECENT)
        if not 1 / CHANGE < pace < CHANGE:
            while len(self._window) > REFIT_EVERY:
                self._window.popleft()
            pace = self._pace(REFIT_EVERY)
        # Where all batches are of nearly one size, α and β can't be told apart: the anchors then keep their proportion.
        usual = HICCUP * pace
        points = [(images, min(seconds, usual * self.expected(images)), 1) for images, seconds in self._window]
        anchors = [(images, pace * self.expected(images), ANCHOR) for images in (1, self._largest)]
        self.alpha, self.beta = _fit([(b, seconds, n / self.expected(b) ** 2) for b, seconds, n in points + anchors])
        ratios = sorted([seconds / self.expected(images) for images, seconds in self._window])
        self.spread = min(max(1.0, ratios[int(QUANTILE * len(ratios))]), HICCUP)
        return True

    def _pace(self, last: int) -> float:
        """The median ratio of actual to expected seconds of the ``last`` batches."""
        return median([seconds / self.expected(images) for images, seconds in list(self._window)[-last:]])


def _fit(points: list[tuple[int, float, float]]) -> tuple[float, float]:
    """α > 0 and β ≥ 0 with the least weighted squares of α·images + β - seconds, over (images, seconds, weight)."""
    total = sum([weight for _, _, weight in points])
    images_mean = sum([weight * images for images, _, weight in points]) / total
    seconds_mean = sum([weight * seconds for _, seconds, weight in points]) / total
    variance = sum([weight * (images - images_mean) ** 2 for images, _, weight in points])
    covariance = sum([weight * (images - images_mean) * seconds for images, seconds, weight in points])
    # If all is of one size, or β would be negative, it is 0; if α would be negative, it is next to 0.
    largest = seconds_mean / images_mean
    alpha = min(covariance / variance, largest) if variance > 0 else largest
    alpha = max(alpha, 1e-6 * largest)
    return alpha, max(0.0, seconds_mean - alpha * images_mean)
