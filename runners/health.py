"""The device's health: which failures are the device's and not an image's, when it is tried again, when it is given up.

An example: a GPU loses its context, and three images in a row fail by themselves. From then on images are refused with
503, a trial runs every second, and the process ends after ten seconds without a trial that worked.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, NoReturn

from classifier.errors import ClassifierError
from runners import devices

if TYPE_CHECKING:
    from collections.abc import Callable

# So many images in a row that fail, each by itself, are no longer taken to be at fault: the device is.
FAILURES = 3
# How often a failing device is tried, and how long every executor's batch may be overdue before the device counts as
# failing.
TRY_EVERY_S = 1.0
OVERDUE_S = 5.0
# After so long the process ends, and the supervisor starts a new one: a broken CUDA context stays broken.
GIVE_UP_S = 10.0

logger = logging.getLogger("bentoml.resnet18")


class DeviceHealth:
    """Whether the device works. ``trial`` infers something, and raises where the device fails.

    It is not thread-safe where the executors may disagree: ``failed`` is called under their lock.
    """

    def __init__(self, trial: Callable[[], Any]) -> None:
        self._trial = trial
        self._failures = 0
        self._failing_since: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the device fails, as far as is known."""
        return self._failing_since is not None

    def works(self) -> None:
        """Note that the device has inferred something."""
        self._failures = 0
        if self._failing_since is not None:
            logger.warning("the device works again")
            self._failing_since = None

    def failed(self, error: Exception) -> Exception:
        """The error for an image that failed by itself with ``error``: 503 where the device is at fault."""
        self._failures += 1
        lost = isinstance(error, devices.OutOfMemory | devices.DeviceLost)
        if not lost and self._failures < FAILURES:
            return error
        if self._failing_since is None:
            logger.error("the device fails, images are refused until it works again: %s", error)
            self._failing_since = time.monotonic()
        return _unavailable()

    def try_again(self) -> None:
        """Try whether a failing device works again. End the process if it has failed for too long."""
        since = self._failing_since
        try:
            self._trial()
        except Exception as error:
            if since is not None and time.monotonic() - since > GIVE_UP_S:
                _give_up(str(error))
        else:
            self.works()

    def check(self, all_late: float, one_late: float, allowance: float) -> None:
        """Raise ClassifierError("unavailable") where the device fails, or no executor ends its batch.

        ``all_late`` and ``one_late``: seconds by which every executor, and the latest one, is overdue; ``allowance``:
        seconds that decoding a batch may take. An executor that does not end its batch while others work ends the
        process after GIVE_UP_S: it would never come back.
        """
        if one_late > GIVE_UP_S + allowance:
            _give_up(f"its batch is overdue for {one_late:.0f} s")
        if self.failing or all_late > OVERDUE_S + allowance:
            raise _unavailable()


def _unavailable() -> ClassifierError:
    return ClassifierError("unavailable", "the device that infers fails; try again", retry_after=1)


def _give_up(reason: str) -> NoReturn:
    logger.critical("the device has failed for too long, this process ends to be started anew: %s", reason)
    os._exit(1)
