"""Training's schedule and number format.  Whole runs: tests/model_build/test_train.py."""

from __future__ import annotations

import pytest
import torch

from model_build import training
from model_build.training import one_cycle


def test_one_cycle_warms_up_and_ends_at_nothing() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[20] == 1
    assert rates[100] == pytest.approx(0)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_bfloat16_is_not_used_where_torch_gets_it_wrong() -> None:
    assert not training._bfloat16_is_fit(torch.device("cpu"), 16)
