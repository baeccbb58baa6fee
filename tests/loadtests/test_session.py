"""What is sent follows the mix, and the generator says where it was the limit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from loadtests import samples, session
from loadtests.answers import Outcome
from loadtests.payloads import Request
from loadtests.samples import DTYPE, Run


def test_kinds_follow_their_weights_and_photos_are_even_within_a_kind() -> None:
    requests = [Request(str(at), "raw", "/", "", b"") for at in range(8)]
    requests += [Request("a", "multipart", "/", "", b""), Request("b", "multipart", "/", "", b"")]
    picks = session.pick(requests, {"raw": 8, "multipart": 2}, 100_000, seed=1)
    counts = Counter(picks.tolist())
    assert all(counts[at] == pytest.approx(10_000, rel=0.05) for at in range(10))
    assert np.array_equal(picks, session.pick(requests, {"raw": 8, "multipart": 2}, 100_000, seed=1))


def summary(dropped: int = 0, lag_s: float = 0.0) -> samples.Summary:
    rows = np.zeros(1000, DTYPE)
    rows["outcome"][:dropped] = Outcome.DROPPED
    rows["lag"] = lag_s
    return samples.summarise("", rows, 1.0, 100.0)


@pytest.mark.parametrize(
    ("cpu", "found", "said"),
    [
        (0.5, summary(), ""),
        (0.5, summary(dropped=1), ""),
        (0.5, summary(dropped=2), "could not make 2 of 1000 sends"),
        (0.95, summary(), "95% of a core"),
        (0.5, summary(lag_s=0.03), "late by 30 ms"),
    ],
)
def test_the_generator_says_where_it_was_the_limit(cpu: float, found: samples.Summary, said: str) -> None:
    reason = session.why_generator(Run(np.zeros(0, DTYPE), [0.1, cpu]), found)
    assert said in reason and bool(said) == bool(reason)


def test_a_seed_of_the_mix_is_not_that_of_the_arrivals() -> None:
    requests = [Request(str(at), "raw", "/", "", b"") for at in range(4)]
    same_seed = np.random.default_rng(1).choice(4, size=50, p=[0.25] * 4)
    assert not np.array_equal(session.pick(requests, {"raw": 1}, 50, 1), same_seed)
