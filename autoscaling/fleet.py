"""A simulated fleet under a load: an autoscaler's decisions second by second, their cost, and the late images.

    load = Load(offered, start=0.0)
    outcome = simulate(load, Autoscaler(1, 20, (Offered(135),)), Fleet(rate=150), begin=86400)
    outcome.late_share, outcome.replica_seconds

The model: a pod answers ``rate`` images a second from ``start_s`` after it was asked for until it is removed. It is
paid for from the asking on. An image that would wait longer than ``slo_s`` is refused on arrival; refused and late
count the same. The autoscaler decides every ``sync_s``, on the offered rate of the last minute as it was ``lag_s`` ago.
Starting pods are removed first. A removed pod answers the images that it holds and takes no new ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from autoscaling import cron
from autoscaling.hpa import SYNC_S, Autoscaler, Before, Cpu, Cron, GpuMemory, Offered, Queue, Rules, milli

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

WORKERS = 2
# A fleet of more pods would not fit into the memory of the simulation.
MAX_PODS = 100_000
# Seconds of the trace before the first judged one, in which a fleet finds its size.
WARM_UP_S = 3600
_SELECT = {"Max": 0, "Min": 1, "Disabled": 2}


class FleetError(ValueError):
    """The autoscaler or the fleet can't be simulated; the message says why in one sentence."""


@dataclass(frozen=True)
class Fleet:
    """The abilities of pods and machines.

    A pod answers ``rate`` images/s. It takes ``start_s`` from the request to its first answer on a running machine, and
    ``machine_start_s`` more on a new one. A machine holds ``pods_per_machine``, and goes after it was empty for
    ``linger_s``. CPU is a mean of ``cpu_window_s``; a pod at its rate is at 100 % of its request.
    """

    rate: float
    start_s: int = 30
    slo_s: float = 1.0
    pods_per_machine: int = 1
    machine_start_s: int = 0
    linger_s: int = 0
    sync_s: int = SYNC_S
    lag_s: int = 15
    cpu_window_s: int = 30

    def row(self) -> NDArray[np.float64]:
        """The numbers that the kernel takes."""
        numbers = (self.rate, self.start_s, self.slo_s, self.sync_s, self.lag_s)
        return np.array([*numbers, self.pods_per_machine, self.machine_start_s, self.linger_s], np.float64)


@dataclass(frozen=True)
class Load:
    """Images ``offered`` in each second from epoch ``start`` on: float64[n].

    ``counted``: bool[n], False in a gap of the trace: these seconds are simulated, but neither judged nor paid for.
    """

    offered: NDArray[np.float64]
    counted: NDArray[np.bool_]
    start: float = 0.0
    cumulated: NDArray[np.float64] = field(init=False, repr=False)
    _crons: dict[tuple[str, str, str], NDArray[np.bool_]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cumulated", np.concatenate(([0.0], np.cumsum(self.offered))))

    def __len__(self) -> int:
        return len(self.offered)

    def scheduled(self, triggers: Sequence[Cron]) -> NDArray[np.int64]:
        """The most pods that ``triggers`` want in each minute, 0 outside their hours: int64[n // 60 + 1], or [0].

        A cron expression is about whole minutes; a load that starts inside one is taken to start with it.
        """
        wanted = np.zeros(len(self) // 60 + 1 if triggers else 0, np.int64)
        for one in triggers:
            wanted = np.maximum(wanted, np.where(self._active(one.start, one.end, one.timezone), one.replicas, 0))
        return wanted

    def _active(self, start: str, end: str, timezone: str) -> NDArray[np.bool_]:
        if (start, end, timezone) not in self._crons:
            times = [self.start // 60 * 60 + 60 * minute for minute in range(len(self) // 60 + 1)]
            self._crons[start, end, timezone] = np.array(cron.active(start, end, timezone, times))
        return self._crons[start, end, timezone]


@dataclass(frozen=True)
class RunTotals:
    """The sums of a run over the judged seconds: images, and paid seconds of pods and machines."""

    offered: float
    late: float
    replica_seconds: float
    machine_seconds: float
    seconds: int
    most: int

    @property
    def late_share(self) -> float:
        """Images late or refused, as a share of those offered; 0 where none was."""
        return self.late / self.offered if self.offered else 0.0


@dataclass(frozen=True)
class Course:
    """A run second by second: pods ``wanted`` and ``ready``, images ``late`` or refused: float64[n] each."""

    wanted: NDArray[np.float64]
    ready: NDArray[np.float64]
    late: NDArray[np.float64]


def simulate(
    load: Load, autoscaler: Autoscaler, fleet: Fleet, begin: int = 0, end: int | None = None, phase: int = 0,
    share: float = 1.0,
) -> RunTotals:  # fmt: skip
    """The outcome of ``autoscaler`` in the seconds from ``begin`` to ``end``, with its syncs ``phase`` seconds after 0.

    The run begins WARM_UP_S earlier if the load does. It stops early once more than ``share`` of all images of the span
    are late; its cost is then meaningless. Raises FleetError.
    """
    return _run(load, autoscaler, fleet, begin, end, phase, share)[0]


def course(load: Load, autoscaler: Autoscaler, fleet: Fleet, begin: int, end: int, phase: int = 0) -> Course:
    """The same run, second by second from ``begin`` to ``end``. Raises FleetError."""
    return _run(load, autoscaler, fleet, begin, end, phase, 1.0, trace=True)[1]


def simulate_all(
    load: Load, autoscalers: Iterable[Autoscaler], fleet: Fleet, begin: int = 0, end: int | None = None,
    phases: Sequence[int] = (0,), share: float = 1.0,
) -> list[list[RunTotals]]:  # fmt: skip
    """The outcomes of each of ``autoscalers`` with each of ``phases``, on two threads."""
    with ThreadPoolExecutor(WORKERS) as pool:
        runs = [
            [pool.submit(simulate, load, one, fleet, begin, end, phase, share) for phase in phases]
            for one in autoscalers
        ]
        return [[run.result() for run in row] for row in runs]


def _run(
    load: Load, autoscaler: Autoscaler, fleet: Fleet, begin: int, end: int | None, phase: int, share: float, *,
    trace: bool = False,
) -> tuple[RunTotals, Course]:  # fmt: skip
    from autoscaling import kernel

    end = len(load) if end is None else end
    first = max(0, begin - WARM_UP_S)
    averages, single, crons = _triggers(load, autoscaler, fleet)
    lately = load.offered[first : first + 60]
    size = int(np.ceil(lately.mean() / (0.7 * fleet.rate))) if len(lately) else 0
    size = min(max(size, autoscaler.minimum), autoscaler.maximum)
    totals = np.zeros(6)
    judged = slice(begin, end)
    budget = share * float(load.offered[judged][load.counted[judged]].sum()) if share < 1 else np.inf
    seconds = [np.zeros(end - first if trace else 0) for _ in range(3)]
    kernel.run(
        load.offered, load.cumulated, load.counted, crons, averages, single,
        _policies(autoscaler.up), _policies(autoscaler.down),
        np.array([autoscaler.up.tolerance, autoscaler.down.tolerance]), fleet.row(),
        np.array([first, begin, end, phase % fleet.sync_s, size], np.int64), budget, *seconds, totals,
    )  # fmt: skip
    offered, late, pods, machines, counted, most = totals.tolist()
    return (
        RunTotals(offered, late, pods, machines, int(counted), int(most)),
        Course(*(one[begin - first :] for one in seconds)),
    )


def _triggers(
    load: Load, autoscaler: Autoscaler, fleet: Fleet
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The kernel's ``averages``, ``single`` and ``crons``. Raises FleetError."""
    averages: list[tuple[float, float, float, float]] = []
    cpu = queue = 0
    crons: list[Cron] = []
    for trigger in autoscaler.triggers:
        match trigger:
            case Offered():
                averages.append((milli(trigger.per_pod), trigger.window_s, 0, 1.0))
            case Before():
                averages.append((milli(trigger.per_pod), trigger.window_s, trigger.offset_s, trigger.headroom))
            case Cpu() if cpu == 0:
                cpu = trigger.utilisation
            case Queue() if queue == 0:
                queue = milli(trigger.per_pod)
            case Cron():
                crons.append(trigger)
            case GpuMemory():
                pass  # it does not follow the load; who reads the manifest says so
            case _:
                raise FleetError(f"two triggers of the kind {type(trigger).__name__} can't be simulated; one can")
    single = (cpu, fleet.cpu_window_s, queue, autoscaler.minimum, autoscaler.maximum, autoscaler.cooldown_s)
    return (
        np.array(averages, np.float64).reshape(-1, 4),
        np.array(single, np.int64),
        load.scheduled(crons),
    )


def _policies(rules: Rules) -> NDArray[np.int64]:
    rows = [(0 if one.kind == "Pods" else 1, one.value, one.period_s) for one in rules.policies]
    return np.array([*rows, (_SELECT[rules.select], rules.window_s, 0)], np.int64)


def fixed(pods: int) -> Autoscaler:
    """A fleet of always ``pods``."""
    return Autoscaler(pods, pods, ())


def with_minimum(autoscaler: Autoscaler, minimum: int) -> Autoscaler:
    """``autoscaler`` with another smallest size."""
    return replace(autoscaler, minimum=minimum)
