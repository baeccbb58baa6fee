"""The adaptive batcher on a simulated clock, with executors whose α and β are known."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.admission import Overload, Refusal
from runners.batching import Batcher, _start
from runners.cost_model import WINDOW, CostModel
from runners.jobs import Batch, Job
from tests.runners.test_cost_model import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

THOROUGH = settings(max_examples=300, deadline=None, derandomize=True)
# What adding the same floats in another order may differ by.
EPSILON = 1e-9


class World:
    """A clock, executors that take ``seconds(b)`` for a batch, and a note of what became of each job.

    On w cores an image takes ``of_width[w]`` of its time on one.

    Checks what must hold at every step; ``fates`` has, by job, all that happened to it.
    """

    def __init__(
        self,
        batcher: Batcher,
        seconds: Callable[[int], float],
        executors: int = 1,
        of_width: Mapping[int, float] | None = None,
    ) -> None:
        self.batcher, self.seconds, self.of_width = batcher, seconds, of_width or {}
        self.now = 0.0
        self.idle = executors
        self.batches: list[Batch] = []
        self.fates: dict[Job, list[str]] = {}
        self.finished: dict[Job, float] = {}
        self._running: list[tuple[float, int, Batch]] = []
        self._waiting: set[Job] = set()

    def submit(self, images: int, deadline: float) -> tuple[list[Job], Refusal | None]:
        jobs = [Job(self.now, deadline) for _ in range(images)]
        before, idle = self.batcher.waiting(), self.idle
        refusal = self.batcher.admit(jobs, self.now)
        self.fates |= {job: ["refused"] if refusal else [] for job in jobs}
        # All or none.
        assert self.batcher.waiting() == before + (0 if refusal else images) <= self.batcher.max_queue
        if refusal:
            assert refusal.reason in ("deadline", "queue_full")
            assert refusal.retry_after >= 0
            assert idle == 0 or before or deadline <= self.now or images > self.batcher.max_queue
        else:
            self._waiting.update(jobs)
        self._dispatch()
        return jobs, refusal

    def cancel(self, job: Job) -> None:
        self.batcher.cancel(job)
        if job in self._waiting:
            self._leave(job, "cancelled")
        assert self.batcher.waiting() == len(self._waiting)

    def run(self, until: float) -> None:
        """Let time pass; whoever drives the batcher asks it when a batch is done, and at deadlines."""
        while True:
            done = self._running[0][0] if self._running else math.inf
            expiry = min((job.deadline for job in self._waiting), default=math.inf)
            event = min(done, max(expiry, self.now))
            if event > until or event == math.inf:
                break
            self.now = event
            if done == event:
                _, _, batch = heapq.heappop(self._running)
                self.idle += len(batch.executors)
                self.batcher.done(batch, self.now)
                self.finished |= dict.fromkeys(batch.jobs, self.now)
            self._dispatch()
        self.now = max(self.now, until) if until < math.inf else self.now

    def _dispatch(self) -> None:
        while True:
            batch, expired = self.batcher.next(self.now)
            for job in expired:
                self._leave(job, "expired")
            if batch is None:
                break
            self.idle -= 1
            assert self.idle >= 0
            assert 1 <= len(batch.jobs) <= self.batcher.max_batch
            assert batch.predicted_end >= batch.start == self.now
            for job in batch.jobs:
                assert job.deadline > self.now, "nothing is run whose deadline has passed"
                assert not job.cancelled
                self._leave(job, "dispatched")
            latest = max(job.deadline for job in batch.jobs)
            assert all(job.deadline >= latest for job in self._waiting), "earliest deadline first"
            self.batches.append(batch)
            free = len(self.batcher.idle)
            width = self.batcher.widen(batch, self.now)
            assert width == len(batch.executors) == 1 + free - len(self.batcher.idle)
            assert width == 1 or len(batch.jobs) == 1
            # A core for each image that waits is left.
            assert width == 1 or len(self.batcher.idle) >= self.batcher.waiting()
            self.idle -= width - 1
            end = self.now + self.seconds(len(batch.jobs)) * self.of_width.get(width, 1.0)
            heapq.heappush(self._running, (end, len(self.batches), batch))
        # An idle executor leaves nothing waiting, and nothing waits past its deadline.
        assert not (self.idle and self._waiting)
        assert all(job.deadline > self.now for job in self._waiting)
        assert self.batcher.waiting() == len(self._waiting)

    def _leave(self, job: Job, fate: str) -> None:
        self._waiting.remove(job)
        self.fates[job].append(fate)


EXECUTORS = st.tuples(
    st.floats(1e-4, 0.02),  # α
    st.just(0.0) | st.floats(1e-4, 0.02),  # β
    st.integers(1, 4),  # executors
)
STEP = st.tuples(
    st.floats(0, 1),  # how long after the step before, in third parts of the SLO, squared: often at once
    st.integers(1, 8),  # images
    st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.1, 0.5, 2.0]),  # deadline, in SLOs
    st.none() | st.integers(0, 5),  # which of the jobs so far is cancelled, counted from the last
)


@pytest.mark.slow
@THOROUGH
@given(
    executor=EXECUTORS,
    wrong=st.sampled_from([0.1, 1.0, 1.0, 10.0]),
    noise=st.sampled_from([0.0, 0.05, 0.5]),
    slo=st.floats(0.01, 0.3),
    max_batch=st.integers(1, 32),
    max_queue=st.integers(1, 40),
    of_width=st.just({}) | st.fixed_dictionaries({2: st.floats(0.5, 1.2), 4: st.floats(0.25, 1.2)}),
    steps=st.lists(STEP, min_size=1, max_size=40),
)
def test_every_job_has_one_fate(
    executor: tuple[float, float, int],
    wrong: float,
    noise: float,
    slo: float,
    max_batch: int,
    max_queue: int,
    of_width: dict[int, float],
    steps: list[tuple[float, int, float, int | None]],
) -> None:
    """Whatever comes, and however wrong the model: all that World checks, and that each job is answered once."""
    alpha, beta, executors = executor
    draw = random.Random(len(steps))
    cost = exact(wrong * alpha, wrong * beta)
    batcher = Batcher(
        cost,
        budget=slo,
        max_batch=max_batch,
        max_queue=max_queue,
        executors=executors,
        wide={width: part * cost.expected(1) for width, part in of_width.items()},
    )
    world = World(batcher, lambda images: (alpha * images + beta) * draw.lognormvariate(0, noise), executors, of_width)
    jobs: list[Job] = []
    for gap, images, slos, cancelled in steps:
        world.run(world.now + gap * gap * slo / 3)
        jobs += world.submit(images, world.now + slos * slo)[0]
        if cancelled is not None and cancelled < len(jobs):
            world.cancel(jobs[-1 - cancelled])
    world.run(math.inf)
    assert {len(fates) for fates in world.fates.values()} == {1}
    fates = Counter(fates[0] for fates in world.fates.values())
    counts = batcher.counts
    assert counts.admitted == fates["dispatched"] + fates["expired"] + fates["cancelled"]
    assert sum(counts.refused.values()) == fates["refused"]
    assert (counts.expired, counts.cancelled) == (fates["expired"], fates["cancelled"])
    assert sum(size * number for size, number in counts.batches.items()) == fates["dispatched"]
    assert Counter(len(batch.jobs) for batch in world.batches) == counts.batches
    assert Counter(len(batch.executors) for batch in world.batches) == counts.widths
    assert len(batcher.idle) == executors


@pytest.mark.slow
def test_predictions_are_kept_but_for_few() -> None:
    """On executors without noise, who is admitted is answered no later than predicted, if nobody comes later.

    It is an estimate, which takes batches further ahead to be of the usual size. Of four thousand random cases fewer
    than eight are late, and by less than half a batch; or are given up, because batches had to shrink for others.
    """
    random, admitted, late = Random(0), 0, []
    for _ in range(4_000):
        alpha, beta = random.uniform(1e-4, 0.02), random.choice((0.0, random.uniform(1e-4, 0.02)))
        executors, slo, images = random.randint(1, 4), random.uniform(0.01, 0.3), random.randint(1, 6)
        batcher = Batcher(exact(alpha, beta), budget=slo, max_batch=32, max_queue=200, executors=executors)
        world = World(batcher, lambda count, alpha=alpha, beta=beta: alpha * count + beta, executors)  # type: ignore[misc]
        for _ in range(random.randint(0, 40)):
            world.run(world.now + random.random() ** 2 * slo / 3)
            world.submit(random.randint(1, 6), world.now + slo)
        busy = world.idle == 0
        predicted = batcher.predict(images, world.now + slo, world.now)
        jobs, refusal = world.submit(images, world.now + slo)
        if not busy or refusal is not None:
            continue
        assert predicted <= world.now + slo
        admitted += 1
        world.run(math.inf)
        done = max(world.finished.get(job, math.inf) for job in jobs)
        if done > predicted + EPSILON:
            late.append((done - predicted) / batcher.cost.expected(batcher.batch))
    assert admitted > 400
    assert len(late) < 8
    assert all(share < 0.5 or share == math.inf for share in late)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(executor=EXECUTORS, slo=st.floats(0.01, 0.3), waiting=st.integers(0, 60))
def test_retry_after_grows_with_the_queue(executor: tuple[float, float, int], slo: float, waiting: int) -> None:
    alpha, beta, executors = executor
    batcher = Batcher(exact(alpha, beta), budget=slo, max_batch=16, max_queue=1000, executors=executors)
    world = World(batcher, lambda count: alpha * count + beta, executors)
    for _ in range(executors):
        world.submit(1, slo)
    last, backlog = -math.inf, -math.inf
    for _ in range(waiting):
        # They have all the time in the world.
        batcher.admit([Job(0.0, 1e6)], 0.0)
        end = batcher.predict(1, 1e6, 0.0)
        # With several executors, one more may mean another batch, on a executor that is free: sooner done.
        assert executors > 1 or end >= last - EPSILON
        assert batcher.backlog(0.0) >= backlog
        last, backlog = end, batcher.backlog(0.0)


def busy(batcher: Batcher, now: float = 0.0) -> Batch:
    """Give a executor one image to work on."""
    assert batcher.admit([Job(now, now + 10)], now) is None
    batch, _ = batcher.next(now)
    assert batch is not None
    return batch


def test_a_lone_request_starts_at_once() -> None:
    for cost in (exact(0.01, 0.0), exact(0.0001, 0.02), exact(10.0, 10.0)):
        batcher = Batcher(cost, budget=0.1, max_batch=64, max_queue=64)
        job = Job(5.0, 5.1)
        assert batcher.admit([job], 5.0) is None
        batch, expired = batcher.next(5.0)
        assert batch is not None
        assert (batch.jobs, batch.start, expired) == ([job], 5.0, [])


def test_what_waits_shares_a_batch_where_that_pays() -> None:
    for cost, sizes in ((exact(0.0001, 0.02), [8]), (exact(0.01, 0.0), [1] * 8)):
        batcher = Batcher(cost, budget=1.0, max_batch=64, max_queue=64)
        batch: Batch | None = busy(batcher)
        assert batcher.admit([Job(0.0, 1.0) for _ in range(8)], 0.0) is None
        seen = []
        now = 0.0
        while batch is not None:
            now += cost.expected(len(batch.jobs))
            batcher.done(batch, now)
            batch, _ = batcher.next(now)
            seen += [len(batch.jobs)] if batch else []
        assert seen == sizes


def test_idle_executors_share_a_group() -> None:
    batcher = Batcher(exact(0.0001, 0.02), budget=1.0, max_batch=64, max_queue=64, executors=3)
    assert batcher.admit([Job(0.0, 1.0) for _ in range(7)], 0.0) is None
    batches = [batcher.next(0.0)[0] for _ in range(4)]
    assert [len(batch.jobs) if batch else 0 for batch in batches] == [3, 2, 2, 0]
    assert len({batch.executors[0] for batch in batches if batch}) == 3


def test_a_late_answer_is_refused_at_once() -> None:
    batcher = Batcher(exact(0.01, 0.0), budget=0.1, max_batch=8, max_queue=64)
    busy(batcher)
    refusals = [batcher.admit([Job(0.0, 0.1)], 0.0) for _ in range(12)]
    # One runs and nine wait: the ninth of them is done at 0.1.
    assert [refusal is None for refusal in refusals] == [True] * 9 + [False] * 3
    refusal = refusals[-1]
    assert refusal is not None
    assert refusal.reason == "deadline"
    assert refusal.retry_after == pytest.approx(0.01)
    assert batcher.counts.refused == {"queue_full": 0, "deadline": 3}
    assert batcher.admit([Job(0.0, 0.0)], 0.0) == Refusal("deadline", 0.0)


def test_the_queue_is_bounded_in_images() -> None:
    batcher = Batcher(exact(0.001, 0.0), budget=10.0, max_batch=8, max_queue=10)
    busy(batcher)
    assert batcher.admit([Job(0.0, 10.0) for _ in range(7)], 0.0) is None
    refusal = batcher.admit([Job(0.0, 10.0) for _ in range(4)], 0.0)
    assert refusal is not None
    assert refusal.reason == "queue_full"
    assert refusal.retry_after == pytest.approx(0.008)
    assert batcher.waiting() == 7
    assert batcher.admit([Job(0.0, 10.0) for _ in range(3)], 0.0) is None


def test_earlier_deadlines_go_first() -> None:
    batcher = Batcher(exact(0.01, 0.0), budget=1.0, max_batch=8, max_queue=10)
    running = busy(batcher)
    late, soon = Job(0.0, 1.0), Job(0.0, 0.5)
    assert batcher.admit([late], 0.0) is None
    assert batcher.admit([soon], 0.0) is None
    batcher.done(running, 0.01)
    batch, _ = batcher.next(0.01)
    assert batch is not None
    assert batch.jobs == [soon]


def test_a_cancelled_job_is_not_run() -> None:
    batcher = Batcher(exact(0.01, 0.0), budget=1.0, max_batch=8, max_queue=10)
    running = busy(batcher)
    jobs = [Job(0.0, 1.0) for _ in range(3)]
    assert batcher.admit(jobs, 0.0) is None
    batcher.cancel(jobs[1])
    batcher.cancel(jobs[1])
    batcher.cancel(running.jobs[0])  # too late: it is counted as run
    batcher.cancel(Job(0.0, 1.0))  # never admitted
    assert (batcher.waiting(), batcher.counts.cancelled) == (2, 1)
    batcher.done(running, 0.01)
    order = []
    now = 0.01
    while batch := batcher.next(now)[0]:
        order += batch.jobs
        now += 0.01
        batcher.done(batch, now)
    assert order == [jobs[0], jobs[2]]


def test_who_holds_up_the_many_is_given_up() -> None:
    """One executor, ℓ(b) = 1 + 10 ms: at 40 ms, the first could only have a batch of 5, and 30 would be late."""
    batcher = Batcher(exact(0.001, 0.01), budget=0.055, max_batch=64, max_queue=64)
    running = busy(batcher)
    first, many = [Job(0.0, 0.055) for _ in range(2)], [Job(0.03, 0.085) for _ in range(30)]
    assert batcher.admit(first, 0.0) is None
    for job in many:
        assert batcher.admit([job], 0.03) is None
    batcher.done(running, 0.04)
    batch, expired = batcher.next(0.04)
    assert batch is not None
    assert (batch.jobs, expired) == (many, first)
    assert batcher.counts.expired == 2


def test_no_one_is_given_up_where_another_executor_can_take_the_rest() -> None:
    """As before, but a second executor is about to be free: the first get their small batch, it gets the others."""
    batcher = Batcher(exact(0.001, 0.01), budget=0.055, max_batch=64, max_queue=64, executors=2)
    running = [busy(batcher), busy(batcher)]
    first, many = [Job(0.0, 0.055) for _ in range(2)], [Job(0.03, 0.085) for _ in range(30)]
    assert batcher.admit(first, 0.0) is None
    for job in many:
        assert batcher.admit([job], 0.03) is None
    batches = []
    for done in running:
        batcher.done(done, 0.04)
        batch, expired = batcher.next(0.04)
        assert batch is not None
        assert expired == []
        batches.append(batch.jobs)
    assert batches == [first + many[:3], many[3:]]


@settings(deadline=None, derandomize=True)
@given(
    free=st.lists(st.floats(0, 10), min_size=1, max_size=4).map(sorted),
    number=st.integers(0, 20),
    seconds=st.floats(0.1, 5),
)
def test_when_a_batch_starts_after_others(free: list[float], number: int, seconds: float) -> None:
    plainly = free.copy()
    for _ in range(number):
        heapq.heapreplace(plainly, plainly[0] + seconds)
    assert _start(free, number, seconds) == pytest.approx(plainly[0])


def test_the_oldest_is_known() -> None:
    batcher = Batcher(exact(0.01, 0.0), budget=1.0, max_batch=8, max_queue=10)
    assert batcher.oldest(3.0) == 0.0
    busy(batcher)
    batcher.admit([Job(1.0, 2.0)], 1.0)
    batcher.admit([Job(1.5, 1.9)], 1.5)
    assert batcher.oldest(1.75) == 0.75


def test_a_failed_batch_teaches_nothing() -> None:
    batcher = Batcher(exact(0.01, 0.0), budget=1.0, max_batch=8, max_queue=10)
    for _ in range(100):
        batcher.done(busy(batcher), 50.0, learn=False)
    assert batcher.cost.expected(1) == pytest.approx(0.01)


# What it learns.


def test_a_model_that_is_far_too_pessimistic_recovers() -> None:
    """After a time in which each image took a second, an idle executor still takes who comes, and learns."""
    batcher = Batcher(exact(1.0, 0.0), budget=0.1, max_batch=8, max_queue=64)
    world = World(batcher, lambda images: 0.01 * images)
    for _ in range(2 * WINDOW):
        world.submit(1, world.now + 0.1)
        world.run(world.now + 0.02)
    assert batcher.cost.expected(1) == pytest.approx(0.01, rel=0.05)
    assert batcher.counts.batches == {1: 2 * WINDOW}
    world.submit(8, world.now + 0.1)
    world.run(math.inf)
    assert batcher.counts.expired == 0


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    times=st.lists(st.tuples(st.integers(1, 512), st.floats(0, 1e3)), min_size=1, max_size=100),
    warm_up=st.dictionaries(st.integers(1, 512), st.floats(0, 1e3), min_size=1, max_size=9),
)
def test_whatever_is_measured_the_model_is_one(times: list[tuple[int, float]], warm_up: dict[int, float]) -> None:
    cost = CostModel(warm_up)
    batcher = Batcher(cost, budget=0.1, max_batch=64, max_queue=64)
    for images, seconds in times:
        batch = busy(batcher)
        batch.jobs *= images
        batcher.done(batch, batch.start + seconds)
        assert cost.alpha > 0
        assert cost.beta >= 0
        assert 1 <= cost.spread < math.inf
        assert 1 <= batcher.batch <= batcher.most <= 64


# What follows from it.


def offered(
    alpha: float, beta: float, slo: float, rate: float, *, executors: int = 1, cost: CostModel | None = None
) -> tuple[World, float]:
    """A world after 4,000 requests at ``rate``, and its goodput, of the second half, in images a second."""
    draw = random.Random(1)
    batcher = Batcher(cost or exact(alpha, beta), budget=slo, max_batch=128, max_queue=2000, executors=executors)
    world = World(batcher, lambda images: (alpha * images + beta) * draw.lognormvariate(0, 0.03), executors)
    for _ in range(4000):
        world.run(world.now + draw.expovariate(rate))
        world.submit(1, world.now + slo)
    middle, end = world.now / 2, world.now
    world.run(math.inf)
    good = sum(job.arrival >= middle and at <= job.deadline for job, at in world.finished.items())
    return world, good / (end - middle)


def mean_batch(world: World) -> float:
    second_half = world.batches[len(world.batches) // 2 :]
    return sum(len(batch.jobs) for batch in second_half) / len(second_half)


@pytest.mark.parametrize(("alpha", "beta", "slo"), [(0.0002, 0.002, 0.02), (0.001, 0.01, 0.1), (0.0005, 0.01, 0.04)])
def test_batches_become_as_large_as_the_best(alpha: float, beta: float, slo: float) -> None:
    """In overload, what fills a batch comes while it can still wait: b/λ + ℓ(b) = SLO, so b = (SLO - β) / (α + 1/λ)."""
    sustained = (slo / 2 - beta) / alpha
    rate = 2 * sustained / (alpha * sustained + beta)
    best = (slo - beta) / (alpha + 1 / rate)
    world, goodput = offered(alpha, beta, slo, rate)
    assert mean_batch(world) == pytest.approx(best, rel=0.2)
    assert goodput >= 0.95 * best / (alpha * best + beta)


@pytest.mark.parametrize("load", [0.5, 0.9, 1.0])
def test_at_capacity_nearly_all_is_served(load: float) -> None:
    """Batches of b* = (SLO / 2 - β) / α can be sustained: who comes just after one has started waits for two."""
    alpha, beta, slo = 0.0002, 0.0008, 0.03
    best = (slo / 2 - beta) / alpha
    rate = load * best / (alpha * best + beta)
    world, goodput = offered(alpha, beta, slo, rate)
    assert goodput >= 0.96 * rate
    late = sum(at > job.deadline for job, at in world.finished.items())
    assert late <= 0.01 * len(world.finished)


@pytest.mark.parametrize("executors", [1, 3])
def test_the_capacity_is_what_an_overload_gets_answered(executors: int) -> None:
    alpha, beta, slo = 0.002, 0.002, 0.1
    batcher = Batcher(exact(alpha, beta), budget=slo, max_batch=128, max_queue=2000, executors=executors)
    assert batcher.capacity() == pytest.approx(executors * batcher.batch / (alpha * batcher.batch + beta))
    _, goodput = offered(alpha, beta, slo, 1.2 * batcher.capacity(), executors=executors)
    assert goodput == pytest.approx(batcher.capacity(), rel=0.05)


@pytest.mark.parametrize("executors", [1, 4])
@pytest.mark.parametrize("load", [0.3, 0.9, 1.5])
def test_where_batching_does_not_pay_images_run_as_they_come(load: float, executors: int) -> None:
    world, goodput = offered(0.01, 0.0, 0.1, executors * load * 100, executors=executors)
    assert mean_batch(world) < 1.15
    assert goodput >= 0.95 * min(load, 1.0) * 100 * executors


def test_that_batching_pays_is_found_out() -> None:
    """A warm-up of one image can't tell; under overload it tries, and learns."""
    world, goodput = offered(0.0002, 0.002, 0.02, 5000, cost=CostModel({1: 0.0022}))
    assert world.batcher.cost.beta == pytest.approx(0.002, rel=0.25)
    assert mean_batch(world) > 30
    assert goodput > 3500


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "beta", "slo"), [(0.011, 0.0003, 0.1), (0.000226, 0.000784, 0.025)])
def test_overload_keeps_the_goodput(alpha: float, beta: float, slo: float) -> None:
    best = max(1, int((slo / 2 - beta) / alpha))
    capacity = best / (alpha * best + beta)
    goodputs = [offered(alpha, beta, slo, load * capacity)[1] for load in (0.9, 1.0, 1.2, 2.0, 3.0)]
    assert goodputs[-1] >= 0.97 * max(goodputs)
    assert max(goodputs) > 0.95 * capacity


@pytest.mark.parametrize(
    ("images", "deadline", "counts"),
    [(1, 1.0, True), (1, 0.1, False), (3, 1.0, False)],
    ids=["the SLO's own", "a client's own haste", "more than the queue holds"],
)
def test_only_what_had_time_enough_and_room_tells_of_an_overload(images: int, deadline: float, counts: bool) -> None:
    batcher = Batcher(exact(0.19, 0.0), budget=1.0, max_batch=1, max_queue=2 if images > 1 else 64)
    for _ in range(images if images > 1 else 10):
        batcher.admit([Job(0.0, 1.0)], 0.0)
        batcher.next(0.0)
    batcher.overload = Overload()
    for now in (0.0, 0.05):
        assert batcher.refusal(images, now + deadline, now) is not None
    assert (batcher.overload.seconds(0.05) > 0) is counts
