"""The width of a batch: which of the widths suits the arrivals, and what a wide batch holds."""

from __future__ import annotations

import pytest

from runners.batching import Batcher
from runners.jobs import Batch, Job
from runners.widths import RECENT, RETRY_EVERY, Widths
from tests.runners.test_cost_model import exact


def widths(executors: int = 4, **seconds: float) -> Widths:
    wide = {int(name[1:]): value for name, value in seconds.items()}
    return Widths(exact(0.020, 0.0), wide, executors, patience=1.0)


def arrivals(chooser: Widths, every: float, images: int = 200) -> None:
    for number in range(images):
        chooser.arrive(1, number * every)


@pytest.mark.parametrize(
    ("every", "expected"),
    # Four cores: 20 ms on one, 12 on two, 8 on four. Fleets of 4, 2 and 1 answer 200, 167 and 125 a second.
    [(0.1, 4), (1 / 100, 4), (1 / 140, 2), (1 / 180, 1), (1 / 1000, 1)],
)
def test_the_shadow_with_the_lowest_latency_is_preferred(every: float, expected: int) -> None:
    chooser = widths(_2=0.012, _4=0.008)
    arrivals(chooser, every)
    assert chooser.preferred() == expected


def test_only_idle_cores_are_chosen() -> None:
    chooser = widths(_2=0.012, _4=0.008)
    arrivals(chooser, 0.1)
    assert [chooser.choose(cores, 1.0) for cores in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]


def test_what_would_be_late_gets_the_fastest_width() -> None:
    chooser = widths(_2=0.012, _4=0.008)
    arrivals(chooser, 1 / 180)
    assert [chooser.choose(4, left) for left in (0.021, 0.019, 0.010, 0.001)] == [1, 4, 4, 4]


def test_without_widths_there_is_one() -> None:
    chooser = widths()
    arrivals(chooser, 0.1)
    assert chooser.choose(4, 1.0) == 1
    assert widths(1, _2=0.012).choose(1, 0.001) == 1


def test_the_next_wider_is_tried_again() -> None:
    """Two cores were slow while the warm-up ran, so one is preferred; now and then two are tried, and learned from."""
    chooser = widths(2, _2=0.030)
    arrivals(chooser, 0.1)
    tries = 0
    for _ in range(RETRY_EVERY * (RECENT + 1)):
        if chooser.choose(2, 1.0) == 2:
            tries += 1
            chooser.observe(2, 0.011)
        chooser.arrive(1, 1e3 + 0.1 * _)
    assert chooser.expected(2) == pytest.approx(0.011)
    assert chooser.preferred() == 2
    assert tries > RECENT


def test_one_hiccup_of_a_wide_image_changes_nothing() -> None:
    chooser = widths(2, _2=0.012)
    chooser.observe(2, 5.0)
    assert chooser.expected(2) == pytest.approx(0.012)


class TestWiden:
    """What the batcher does with a width."""

    def lone(self, batcher: Batcher, now: float, deadline: float = 10.0) -> Batch:
        assert batcher.admit([Job(now, now + deadline)], now) is None
        batch, _ = batcher.next(now)
        assert batch is not None
        return batch

    @pytest.fixture
    def batcher(self) -> Batcher:
        batcher = Batcher(
            exact(0.020, 0.0), budget=1.0, max_batch=8, max_queue=64, executors=4, wide={2: 0.012, 4: 0.008}
        )
        arrivals(batcher.widths, 0.1)
        return batcher

    def test_a_lone_image_gets_all_idle_executors_and_gives_them_back(self, batcher: Batcher) -> None:
        batch = self.lone(batcher, 100.0)
        assert (len(batcher.idle), batcher.widen(batch, 100.0), len(batcher.idle)) == (3, 4, 0)
        assert sorted(batch.executors) == [0, 1, 2, 3]
        assert batch.predicted_end == pytest.approx(100.008)
        batcher.done(batch, 100.008)
        assert len(batcher.idle) == 4
        assert batcher.counts.widths == {4: 1}

    def test_what_comes_meanwhile_waits_for_all_of_them(self, batcher: Batcher) -> None:
        batch = self.lone(batcher, 100.0)
        batcher.widen(batch, 100.0)
        assert batcher.predict(1, 200.0, 100.0) == pytest.approx(100.008 + 0.020)
        assert batcher.admit([Job(100.0, 101.0)], 100.0) is None
        assert batcher.next(100.001) == (None, [])
        # Admission knows that no core is free before: 27 ms are too short.
        assert batcher.refusal(1, 100.027, 100.0) is not None
        assert batcher.overdue(100.009) == pytest.approx((0.001, 0.001))
        batcher.done(batch, 100.008)
        second, _ = batcher.next(100.008)
        assert second is not None
        assert batcher.widen(second, 100.008) == 4

    def test_an_image_that_waits_keeps_its_core(self, batcher: Batcher) -> None:
        batch = self.lone(batcher, 100.0)
        for _ in range(2):
            assert batcher.admit([Job(100.0, 101.0)], 100.0) is None
        assert batcher.widen(batch, 100.0) == 2
        assert len(batcher.idle) == 2

    def test_several_images_are_never_wide(self) -> None:
        batcher = Batcher(exact(0.001, 0.02), budget=1.0, max_batch=8, max_queue=64, executors=2, wide={2: 0.01})
        arrivals(batcher.widths, 0.1)
        assert batcher.admit([Job(100.0, 101.0) for _ in range(4)], 100.0) is None
        batch, _ = batcher.next(100.0)
        assert batch is not None
        assert len(batch.jobs) == 2
        assert batcher.widen(batch, 100.0) == 1

    def test_a_wide_image_teaches_its_width_alone(self, batcher: Batcher) -> None:
        before = batcher.cost.expected(1)
        for number in range(20):
            batch = self.lone(batcher, 100.0 + number)
            batcher.widen(batch, 100.0 + number)
            batcher.done(batch, 100.0 + number + 0.009)
        assert batcher.cost.expected(1) == before
        assert batcher.widths.expected(4) == pytest.approx(0.009)

    def test_one_that_only_a_wide_batch_answers_in_time_is_not_given_up(self) -> None:
        """20 ms on one core, 12 on two, 15 left for both: they run on two cores each."""
        batcher = Batcher(exact(0.020, 0.0), budget=0.015, max_batch=8, max_queue=64, executors=4, wide={2: 0.012})
        assert batcher.admit([Job(0.0, 0.015), Job(0.0, 0.015)], 0.0) is None
        first, expired = batcher.next(0.0)
        assert first is not None
        assert not expired
        assert batcher.widen(first, 0.0) == 2
        second, expired = batcher.next(0.0)
        assert second is not None
        assert not expired
        assert batcher.widen(second, 0.0) == 2
