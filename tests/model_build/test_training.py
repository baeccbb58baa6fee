"""Training's number format.  Whole runs: tests/model_build/test_train.py."""

from __future__ import annotations

import torch

from model_build import training


def test_bfloat16_is_not_used_where_torch_gets_it_wrong() -> None:
    assert not training._bfloat16_is_fit(torch.device("cpu"), 16)
