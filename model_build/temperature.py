"""Temperature scaling: one number T for each artifact, by which its logits are divided before the softmax.

T is fitted by maximum likelihood on images whose classes are known, and judged on others (Guo et al., "On Calibration
of Modern Neural Networks", ICML 2017, section 4.2). It changes neither the top-1 nor the ranking of an image's classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model_build.samples import Samples

# Part of the version of an artifact that has a T: raise it when the same images give another one.
REVISION = 1
BINS = 15
# Images with known classes. One parameter needs no more than its half of them; with fewer, ECE is mostly chance.
LEAST = 200
# Beyond, probabilities that a float32 can't hold would decide T.
LOWEST, HIGHEST = 1 / 8, 8.0
_BISECTIONS = 30
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Bin:
    """Images whose top-1 probability lies in one of BINS equal parts of 0 to 1: how sure, and how often right.

    ``confidence``: the mean top-1 probability; ``accuracy``: the share of right ones; None where ``count`` is 0.
    """

    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram's bins, from the least probable one, and their expected calibration error."""

    ece: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], classes: NDArray[np.int64]) -> Reliability:
        """Of ``probabilities`` float32[N, C] and the true ``classes`` int64[N].

        ECE is the mean of |accuracy - confidence| over the bins, weighted by their counts (Naeini et al., "Obtaining
        Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; Guo et al. 2017, equation 3).
        """
        top = probabilities.max(1).astype(np.float64)
        right = probabilities.argmax(1) == classes
        # Of the intervals (m-1)/M < p <= m/M.
        place = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
        bins, error = [], 0.0
        for number in range(BINS):
            inside = place == number
            count = int(inside.sum())
            if not count:
                bins.append(Bin(0, None, None))
                continue
            confidence, accuracy = float(top[inside].mean()), float(right[inside].mean())
            error += count / len(top) * abs(accuracy - confidence)
            bins.append(Bin(count, round(confidence, 4), round(accuracy, 4)))
        return cls(round(error, 5), tuple(bins))


@dataclass(frozen=True)
class Fitted:
    """An artifact's T, and how calibrated it was ``before`` on ``judged``, the rows that T was not fitted on."""

    temperature: float
    fitted_on: int
    before: Reliability
    judged: NDArray[np.intp] = field(repr=False)

    def sentence(self, artifact: str, told: dict[str, Any]) -> str:
        """The result in words, of what is ``told``."""
        before, after = told["before"]["ece"], told["after"]["ece"]
        bins = ", ".join(
            f"{one['confidence']:.2f} {one['accuracy']:.2f} ({one['count']})"
            for one in told["after"]["bins"]
            if one["count"]
        )
        return (
            f"{artifact}: temperature {self.temperature:g}, fitted on {self.fitted_on} of the images; expected "
            f"calibration error on the {len(self.judged)} others {after:.4f}, without it {before:.4f}; its bins' mean "
            f"confidence, share of right answers and images: {bins}"
        )

    def told(self, probabilities: NDArray[np.float32], classes: NDArray[np.int64]) -> dict[str, Any]:
        """The manifest's ``gate.confidence``; ``probabilities`` float32[N, C]: what the file with T in it gives."""
        after = Reliability.of(probabilities[self.judged], classes[self.judged])
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "judged_on": len(self.judged),
            "before": asdict(self.before),
            "after": asdict(after),
        }


def missing(samples: Samples) -> str | None:
    """Why no T can be fitted on ``samples``, in words; None where it can."""
    if samples.classes is None:
        return f"the classes of the images ({samples.source}) are not known"
    if len(samples) < LEAST:
        return f"{samples.source} has {len(samples)} images, and at least {LEAST} are needed"
    return None


def halves(classes: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit on and rows to judge on: of each class every other image, so the same images give the same halves."""
    order = np.argsort(classes, kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])


def fit(probabilities: NDArray[np.float32], samples: Samples) -> Fitted | None:
    """The T of an artifact that gave ``probabilities`` float32[N, C] on ``samples``, which nothing is ``missing`` of.

    None where they are not finite.
    """
    assert samples.classes is not None
    if not np.isfinite(probabilities).all():
        return None
    fitting, judged = halves(samples.classes)
    temperature = _likeliest(probabilities[fitting], samples.classes[fitting])
    before = Reliability.of(probabilities[judged], samples.classes[judged])
    return Fitted(temperature, len(fitting), before, judged)


def scale(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """What ``probabilities`` float32[N, C] would be, had their logits been divided by ``temperature``."""
    if temperature == 1:
        return probabilities
    # They are logits up to a constant of each row, which the softmax takes out again.
    return _softmax(_log(probabilities) / np.float32(temperature))


def _likeliest(probabilities: NDArray[np.float32], classes: NDArray[np.int64]) -> float:
    """The T from LOWEST to HIGHEST with the least mean negative log-likelihood of ``classes``, to four digits.

    That is convex in 1/T: its derivative, the mean of the expected logit less the true one's, has one change of sign.
    Where every answer is right it only falls with T, and no number is the least: then T is 1.
    """
    if (probabilities.argmax(1) == classes).all():
        return 1.0
    logits = _log(probabilities)
    true = logits[np.arange(len(classes)), classes].mean(dtype=np.float64)
    low, high = LOWEST, HIGHEST
    for _ in range(_BISECTIONS):
        middle = float(np.sqrt(low * high))
        expected = (_softmax(logits / np.float32(middle)) * logits).sum(1).mean(dtype=np.float64)
        # Where the true logits fall short of what is expected, the network is too sure: T must be larger.
        low, high = (middle, high) if expected > true else (low, middle)
    return round(low, 4)


def _log(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = np.log(np.maximum(probabilities, _TINY))
    return logits


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return shares
