"""A load test from its first request to its figures: the idle reference, the search for the capacity, a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import arrivals, photographs
from harness.arrivals import Segment
from loadtests import payloads, samples, watch
from loadtests.answers import with_reference
from loadtests.capacity import Capacity, CapacityError, Rule, Trial, find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.photographs import Photographs
    from loadtests.generator import Generator
    from loadtests.payloads import Request
    from loadtests.profiles import Profile

SETTLE_S = 30.0
# So many misses a trial can bear at least: with fewer queries one unlucky moment would decide.
MIN_ALLOWED = 2
MAX_DROPPED = 0.001
MAX_CPU_SHARE = 0.9
MAX_LAG_TO_SLO = 0.2


@dataclass(frozen=True)
class Progress:
    """How far a run is: second ``at`` of ``of``, and the samples that came since the last report."""

    at: float
    of: float
    recent: NDArray[Any]


def payload(
    mix: Mapping[str, float], kind_of_photos: str, found: Photographs, hostile_folder: Path | None
) -> list[Request]:
    """The requests that a mix needs, made of ``found``, not yet asked of the idle server. Raises ValueError."""
    pictures = (photographs.resized(found) if kind_of_photos == "resized" else found).files
    hostile = {}
    if mix.get("hostile"):
        hostile = payloads.folder(hostile_folder) if hostile_folder else payloads.broken(next(iter(pictures.values())))
    return payloads.build(pictures, [kind for kind, weight in mix.items() if weight > 0], hostile)


def reference(
    url: str, requests: Sequence[Request], *, strict: bool, show: Callable[[int, int], None] = lambda number, of: None
) -> list[Request]:
    """``requests`` with the labels that the idle server gives. Raises IdleError, and OSError where nobody answers."""
    out = []
    for number, request in enumerate(requests):
        answer = watch.send(url, request)
        out.append(with_reference(request, answer, strict=strict))
        show(number + 1, len(requests))
    return out


def pick(requests: Sequence[Request], mix: Mapping[str, float], count: int, seed: int) -> NDArray[np.uint16]:
    """The index of each of ``count`` requests: kinds by their weights, evenly within a kind; uint16[count]."""
    kinds = [request.kind for request in requests]
    weights = np.array([mix.get(kind, 0.0) / kinds.count(kind) for kind in kinds])
    random = np.random.default_rng([seed, 1])
    return random.choice(len(requests), size=count, p=weights / weights.sum()).astype(np.uint16)


def why_generator(run: samples.Run, summary: samples.Summary) -> str:
    """Why the generator, not the server, may have been the bottleneck; "" where it was not."""
    if summary.dropped > MAX_DROPPED * summary.planned:
        return f"the generator could not make {summary.dropped} of {summary.planned} sends in time"
    if run.cpu_shares and max(run.cpu_shares) > MAX_CPU_SHARE:
        return f"a generator process used {max(run.cpu_shares):.0%} of a core; use more (--processes)"
    if summary.lag_p99_ms > MAX_LAG_TO_SLO * summary.slo_ms:
        return f"the generator sent late by {summary.lag_p99_ms:.0f} ms at p99"
    return ""


@dataclass
class Result:
    """A profile's run: samples, whose time counts from the end of the warm-up, and the server's metrics and memory."""

    profile: Profile
    run: samples.Run
    total: samples.Summary
    phases: list[samples.Summary]
    kinds: list[samples.Summary]
    judged: samples.Summary
    recovery_s: float
    generator: str
    panels: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> NDArray[Any]:
        """All samples after the warm-up."""
        return self.run.samples


class Session:
    """A generator, the requests it was given, and the server they go to."""

    def __init__(self, generator: Generator, url: str, requests: Sequence[Request], mix: Mapping[str, float]) -> None:
        self._generator, self._url, self._requests, self._mix = generator, url, list(requests), dict(mix)

    def capacity(
        self,
        rule: Rule,
        *,
        law: str = "poisson",
        start: float = 50.0,
        resolution: float = 0.03,
        seconds: float = 10.0,
        warm_up_s: float = 2.0,
        seed: int = 1,
        show: Callable[[Progress], None] | None = None,
        tried: Callable[[Trial], None] | None = None,
    ) -> Capacity:
        """The highest rate that holds ``rule``. Raises CapacityError."""
        number = 0

        def trial(rate: float, scale: float) -> Trial:
            nonlocal number
            number += 1
            length = scale * max(seconds, rule.needed(MIN_ALLOWED) / rate)
            done = self._trial(rate, rule, law, length, warm_up_s, seed + number, show)
            if tried:
                tried(done)
            return done

        return find(trial, start, resolution)

    def _trial(
        self,
        rate: float,
        rule: Rule,
        law: str,
        seconds: float,
        warm_up_s: float,
        seed: int,
        show: Callable[[Progress], None] | None,
    ) -> Trial:
        self._settle(rule.slo_ms)
        at = arrivals.times(law, [Segment(warm_up_s + seconds, rate)], seed)
        allowed = rule.allowed(int(np.count_nonzero(at >= warm_up_s)))
        missed = 0

        def hopeless(now: float, new: NDArray[Any]) -> bool:
            nonlocal missed
            missed += samples.misses(new[new["at"] >= warm_up_s], rule.slo_ms)
            if show:
                show(Progress(now, warm_up_s + seconds, new))
            return missed > max(0, allowed)

        run = self._generator.run(at, pick(self._requests, self._mix, len(at), seed), hopeless)
        kept = run.samples[run.samples["at"] >= warm_up_s]
        # An abandoned trial is summed up as far as it came.
        length = float(kept["at"].max() - warm_up_s) if run.abandoned and len(kept) else seconds
        summary = samples.summarise(f"{rate:.1f}/s", kept, max(length, 1e-3), rule.slo_ms)
        return Trial(rate, summary, allowed, why_generator(run, summary), tuple(run.cpu_shares), tuple(run.examples))

    def _settle(self, slo_ms: float) -> None:
        """Wait until one request alone is answered in time: the last trial may have left a queue behind.

        Raises CapacityError where it never is.
        """
        request = next(request for request in self._requests if request.kind != "hostile")
        end = time.monotonic() + SETTLE_S
        status, took_ms = 0, 0.0
        while time.monotonic() < end:
            begin = time.perf_counter()
            status, _, _ = watch.send(self._url, request)
            took_ms = 1e3 * (time.perf_counter() - begin)
            if status == 200 and took_ms <= slo_ms:
                return
            time.sleep(0.1)
        raise CapacityError(
            f"no rate is held: one request alone got {status} after {took_ms:.0f} ms, the SLO is {slo_ms:g} ms"
        )

    def run(
        self,
        profile: Profile,
        capacity: float,
        slo_ms: float,
        seed: int,
        *,
        law: str = "poisson",
        at: NDArray[np.float64] | None = None,
        show: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Run a profile whose shares are of ``capacity``, or its warm-up and then arrivals at seconds ``at``."""
        if at is None:
            planned = arrivals.times(law, profile.segments(capacity), seed)
        else:
            rate = len(at) / profile.seconds
            warm = arrivals.times(law, [Segment(profile.warm_up_s, rate)], seed) if profile.warm_up_s else at[:0]
            planned = np.concatenate([warm, profile.warm_up_s + at])
        length = profile.warm_up_s + profile.seconds
        server = watch.Watch(self._url, every_s=1.0 if length < 600 else 5.0)

        def look(now: float, new: NDArray[Any]) -> bool:
            server.look(now - profile.warm_up_s)
            if show:
                show(Progress(now, length, new))
            return False

        run = self._generator.run(planned, pick(self._requests, self._mix, len(planned), seed), look)
        kept = run.samples[run.samples["at"] >= profile.warm_up_s].copy()
        kept["at"] -= profile.warm_up_s
        run = replace(run, samples=kept)
        phases, recoveries, begin = [], {}, 0.0
        for phase in profile.phases:
            part = kept[(kept["at"] >= begin) & (kept["at"] < begin + phase.seconds)]
            phases.append(samples.summarise(phase.name, part, phase.seconds, slo_ms))
            recoveries[phase.name] = samples.recovery_s(part, begin, slo_ms)
            begin += phase.seconds
        total = samples.summarise(profile.name, kept, profile.seconds, slo_ms)
        kinds = [
            samples.summarise(kind, kept[kept["kind"] == number], profile.seconds, slo_ms)
            for number, kind in enumerate(payloads.KINDS)
            if profile.mix.get(kind)
        ]
        judged = next((phase for phase in phases if phase.name == profile.judged), total)
        return Result(
            profile=profile,
            run=run,
            total=total,
            phases=phases,
            kinds=kinds,
            judged=judged,
            recovery_s=recoveries[profile.judged or profile.phases[0].name],
            generator=why_generator(run, total),
            panels=server.panels(),
            memory=server.memory.body(),
        )
