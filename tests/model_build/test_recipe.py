"""The schedule of training, its rates, and what a trained file tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_build.recipe import HEAD_LR, SCRATCH_LR, TUNING_LR, Recipe, metadata, one_cycle

if TYPE_CHECKING:
    from model_build.weights import Checkpoint


def recipe(frozen: bool = False, lr: float | None = None) -> Recipe:
    return Recipe(frozen=frozen, epochs=3, batch_size=128, lr=lr, flip=True, validation="0.1", seed=5)


def test_one_cycle_warms_up_and_ends_at_nothing() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[20] == 1
    assert rates[100] == pytest.approx(0)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_the_peak_follows_from_the_start_and_the_batch() -> None:
    assert recipe().peak("none") == SCRATCH_LR / 2
    assert recipe().peak("pets.pth") == TUNING_LR / 2
    assert recipe(frozen=True).peak("imagenet") == HEAD_LR / 2
    assert recipe(lr=0.3).peak("none") == 0.3


def test_the_file_tells_the_recipe(demo: Checkpoint) -> None:
    told = metadata(demo, recipe(), 900, None)
    assert told["recipe"].startswith("whole network trained from demo on 900 images: 3 epochs of SGD")
    assert told["recipe"].endswith("seed 5")
    assert told["input_size"] == str(demo.preprocessing.size)
