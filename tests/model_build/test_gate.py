"""The accuracy gate: which figures let an artifact through, and what it says of one that it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_build import gate
from model_build.gate import Thresholds, accuracy, judge
from model_build.network import Contract
from model_build.samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNT, CLASSES = 100, 4


class Fixed:
    """A backend whose answers are known: an image's first byte is the row of ``rows`` that it gets."""

    device, provider = "cpu", "none"

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows
        self.batches: list[int] = []

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        return self.rows[pixels[:, 0, 0, 0]]

    def widened(self, threads: int) -> Fixed:
        return self


def samples(classes: NDArray[np.int64] | None = None) -> Samples:
    pixels = np.zeros((COUNT, 8, 8, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(COUNT)
    return Samples(pixels, classes, "made up")


def truth() -> NDArray[np.int64]:
    return np.arange(COUNT, dtype=np.int64) % CLASSES


def expected() -> NDArray[np.float32]:
    """Rows sure of the true class: 0.7 against 0.1."""
    rows = np.full((COUNT, CLASSES), 0.1, np.float32)
    rows[np.arange(COUNT), truth()] = 0.7
    return rows


def altered(wrong: int) -> NDArray[np.float32]:
    """``expected`` with the top-1 of the first ``wrong`` rows moved to the next class."""
    rows = expected()
    rows[:wrong] = np.roll(rows[:wrong], 1, axis=1)
    return rows


def test_the_same_answers_pass() -> None:
    backend = Fixed(expected())
    report = judge(backend, samples(), expected(), "fp32", Thresholds())
    assert report.failure is None
    assert (report.images, report.source) == (COUNT, "made up")
    assert (report.agreement, report.largest_difference) == (1.0, 0.0)
    assert (report.top1, report.top5, report.top1_change_points) == (None, None, None)
    assert report.latency_batch1_ms >= 0
    assert backend.batches[:4] == [32, 32, 32, 4]
    assert set(backend.batches[4:]) == {1}


def test_accuracies_where_classes_are_known() -> None:
    report = judge(Fixed(altered(10)), samples(truth()), expected(), "int8", Thresholds(0.5, 50))
    assert report.top1 == pytest.approx(0.9)
    assert report.top5 == 1.0
    assert report.top1_change_points == pytest.approx(-10)
    assert report.agreement == pytest.approx(0.9)
    assert report.largest_difference == pytest.approx(0.6)


@pytest.mark.parametrize("change", [1.1e-4, -2e-4])
def test_fp32_must_be_close(change: float) -> None:
    rows = expected()
    rows[7, 0] += change
    report = judge(Fixed(rows), samples(), expected(), "fp32", Thresholds())
    assert report.agreement == 1
    assert report.failure == f"agreement 100.00% and difference {abs(change):.1e}; needed: 100% and 0.0001"
    assert judge(Fixed(rows), samples(), expected(), "fp32", Thresholds(difference=1e-3)).failure is None
    assert judge(Fixed(rows), samples(), expected(), "int8", Thresholds()).failure is None


def test_fp32_must_agree_on_every_image() -> None:
    report = judge(Fixed(altered(1)), samples(), expected(), "fp32", Thresholds(difference=1))
    assert report.failure == "agreement 99.00% and difference 6.0e-01; needed: 100% and 1"


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_reduced_precisions_must_agree_on_most(precision: str) -> None:
    assert judge(Fixed(altered(2)), samples(), expected(), precision, Thresholds()).failure is None
    report = judge(Fixed(altered(3)), samples(), expected(), precision, Thresholds())
    assert report.failure == "top-1 agreement with fp32 is 97.00%; needed: 98.00%"


def test_reduced_precisions_must_not_lose_accuracy() -> None:
    thresholds = Thresholds(agreement=0.5)
    report = judge(Fixed(altered(2)), samples(truth()), expected(), "int8", thresholds)
    assert report.failure == "top-1 accuracy falls by 2.00 points; allowed: less than 1"
    # A loss of exactly the limit is not less than it.
    assert judge(Fixed(altered(1)), samples(truth()), expected(), "int8", thresholds).failure is not None
    allowed = Thresholds(agreement=0.5, accuracy_loss=2.5)
    assert judge(Fixed(altered(2)), samples(truth()), expected(), "int8", allowed).failure is None


def test_gaining_accuracy_is_no_failure() -> None:
    report = judge(Fixed(expected()), samples(truth()), altered(2), "int8", Thresholds())
    assert report.top1_change_points == pytest.approx(2)
    assert report.failure is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_values_that_are_not_finite(value: float, precision: str) -> None:
    rows = expected()
    rows[3, 2] = value
    report = judge(Fixed(rows), samples(), expected(), precision, Thresholds(0, 100, 1))
    assert report.failure == "it gives probabilities that are not finite"


def test_the_manifests_part() -> None:
    report = judge(Fixed(altered(1)), samples(truth()), expected(), "int8", Thresholds(0.9, 2.0, 1e-3))
    assert report.body() == {
        "images": COUNT,
        "source": "made up",
        "agreement": pytest.approx(0.99),
        "largest_difference": pytest.approx(0.6),
        "top1": pytest.approx(0.99),
        "top5": 1.0,
        "top1_change_points": pytest.approx(-1),
        "thresholds": {"agreement": 0.9, "accuracy_loss": 2.0, "difference": 1e-3},
    }


def test_defaults_are_those_that_were_stated() -> None:
    assert Thresholds() == Thresholds(agreement=0.98, accuracy_loss=1.0, difference=1e-4)


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0), (5, 1.0)])
def test_accuracy(k: int, share: float) -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]], np.float32)
    assert accuracy(rows, np.array([0, 1, 2]), k) == pytest.approx(share)


def test_reference_is_the_network_in_batches() -> None:
    class Count(torch.nn.Module):
        sizes: list[int] = []  # noqa: RUF012

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(pixels))
            return pixels.mean((2, 3))

    network = Count()
    given = samples()
    given.pixels[:, :, :, 1] = np.arange(COUNT, dtype=np.uint8)[:, None, None]
    rows = gate.reference(Contract(network, size=8), given)
    assert network.sizes == [32, 32, 32, 4]
    assert (rows.shape, str(rows.dtype)) == ((COUNT, 3), "float32")
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert (np.diff(rows[:, 1]) > 0).all()  # in the order of the images
