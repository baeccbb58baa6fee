"""The cost model: it learns α and β from the batches that ran, follows a change of pace, and ignores hiccups."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from runners.cost_model import CostModel

if TYPE_CHECKING:
    from collections.abc import Callable


def exact(alpha: float, beta: float) -> CostModel:
    """The model that knows a device."""
    return CostModel({1: alpha + beta, 100: 100 * alpha + beta})


def taught(cost: CostModel, seconds: Callable[[int], float], sizes: list[int]) -> CostModel:
    for size in sizes:
        cost.observe(size, seconds(size))
    return cost


@pytest.mark.parametrize("wrong", [0.1, 0.3, 3.0, 10.0])
@pytest.mark.parametrize(("alpha", "beta"), [(0.011, 0.0003), (0.000226, 0.000784), (0.00025, 0.0018)])
def test_wrong_warm_up_figures_are_forgotten(alpha: float, beta: float, wrong: float) -> None:
    draw = random.Random(0)
    cost = exact(wrong * alpha, wrong * beta)
    sizes = [draw.randint(1, 64) for _ in range(32)]
    taught(cost, lambda images: (alpha * images + beta) * draw.lognormvariate(0, 0.03), sizes)
    for images in (1, 8, 64):
        assert cost.expected(images) == pytest.approx(alpha * images + beta, rel=0.1)


@pytest.mark.parametrize("slower", [3.0, 1 / 3])
def test_a_change_of_pace_is_followed(slower: float) -> None:
    """All batches of one size: the proportion of α and β stays, their scale follows within two dozen batches."""
    cost = exact(0.001, 0.002)
    draw = random.Random(0)
    taught(cost, lambda images: (0.001 * images + 0.002) * draw.lognormvariate(0, 0.03), [8] * 200)
    taught(cost, lambda images: slower * (0.001 * images + 0.002) * draw.lognormvariate(0, 0.03), [8] * 24)
    assert cost.expected(8) == pytest.approx(slower * 0.01, rel=0.05)
    assert cost.beta / cost.alpha == pytest.approx(2, rel=0.1)
    assert cost.spread < 1.2


@pytest.mark.parametrize("every", [40, 10])
def test_a_hiccup_changes_next_to_nothing(every: int) -> None:
    cost = exact(0.001, 0.002)
    draw = random.Random(0)
    for number in range(400):
        images = draw.randint(1, 16)
        hiccup = 50 if number % every == every - 1 else 1
        cost.observe(images, hiccup * (0.001 * images + 0.002) * draw.lognormvariate(0, 0.03))
        for size in (1, 8, 16):
            assert cost.expected(size) == pytest.approx(0.001 * size + 0.002, rel=0.2)
    assert cost.spread < (1.3 if every == 40 else 2.01)
