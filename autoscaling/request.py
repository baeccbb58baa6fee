"""The request to ``plan`` and ``check``: the trace, the pods, the promise and the price."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from autoscaling.fleet import Fleet, FleetError
from autoscaling.gaps import Prepared, prepare
from autoscaling.planner import Terms
from autoscaling.prometheus import history
from autoscaling.traces import Trace, TraceError, read

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).with_name("assets") / "nyc-taxi.csv"
EXAMPLE_SCALE = 163.0
DAY_S = 86400
_COUNT = click.IntRange(min=0)
_DAYS = click.FloatRange(min=0)
# Name, type (None: a flag), help; their defaults are those of Request.
OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("trace", str, "Counts of images: one a line, or timestamp,count.  [default: New York's taxis]"),
    ("prometheus", str, "Take resnet18_images_total of this Prometheus instead."),
    ("days", float, "Days of its history.  [default: 14]"),
    ("step_s", click.IntRange(min=1), "Seconds of a step, if there are no timestamps.  [default: 1]"),
    ("scale", float, "Multiply the trace.  [default: 1]"),
    ("smooth_s", _COUNT, "Take the moving mean of so many seconds for a Poisson rate.  [default: 0]"),
    ("zeros", None, "Runs of zeros are silence, not gaps of the recording."),
    ("from_day", _DAYS, "Leave out the days of the trace before this one.  [default: 0]"),
    ("to_day", _DAYS, "Leave out the days from this one on.  [default: the last]"),
    ("split", _DAYS, "Tune on so many days, judge on the rest.  [default: 2/3 of all]"),
    ("seed", _COUNT, "Seed of the Poisson arrivals and of the control.  [default: 0]"),
    ("rate", float, "Images a second that a pod answers, as find-limit measures.  [default: 150]"),
    ("start_s", _COUNT, "Seconds from the request for a pod to its first answer.  [default: 30]"),
    ("slo_ms", float, "Milliseconds that an image may wait; else it is refused.  [default: 1000]"),
    ("late", float, "Share of the images that may be late or refused.  [default: 0.001]"),
    ("pods_per_machine", click.IntRange(min=1), "Pods that a machine holds.  [default: 1]"),
    ("machine_start_s", _COUNT, "Seconds more, if no machine is free.  [default: 0]"),
    ("linger_s", _COUNT, "Seconds that an empty machine stays: 600, or 60 with consolidation.  [default: 0]"),
    (
        "pay",
        click.Choice(["pods", "machines"]),
        "The unit that you pay for.  [default: pods; machines with --linger-s]",
    ),
    ("usd_per_hour", float, "Price of a pod or machine.  [default: 0.08925, a c7i.large: assumed]"),
)


@dataclass(frozen=True)
class Request:
    """A request, as plan.json keeps it; ``check`` starts from the one beside the manifests."""

    trace: str | None = None
    prometheus: str | None = None
    days: float = 14.0
    step_s: int | None = None
    scale: float | None = None
    smooth_s: int = 0
    zeros: bool = False
    from_day: float = 0.0
    to_day: float | None = None
    split: float | None = None
    seed: int = 0
    rate: float = 150.0
    start_s: int = 30
    slo_ms: float = 1000.0
    late: float = 0.001
    pods_per_machine: int = 1
    machine_start_s: int = 0
    linger_s: int = 0
    pay: Literal["pods", "machines"] = "pods"
    usd_per_hour: float = 0.08925

    def fleet(self) -> Fleet:
        """The pods and machines. Raises FleetError."""
        for name in ("rate", "slo_ms", "late", "usd_per_hour"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise FleetError(f"--{name.replace('_', '-')} {value:g} is not allowed; it is to be more than 0")
        if self.late >= 1:
            raise FleetError(f"--late {self.late:g} is not allowed; it is a share, such as 0.001, and less than 1")
        return Fleet(
            self.rate, self.start_s, self.slo_ms / 1000, self.pods_per_machine, self.machine_start_s, self.linger_s
        )

    def terms(self) -> Terms:
        """The promise and the prices."""
        return Terms(self.late, self.pay, self.usd_per_hour)

    def prepared(self) -> Prepared:
        """The load. Raises TraceError and PrometheusError."""
        for name in ("from_day", "to_day", "split"):
            days = getattr(self, name)
            if days is not None and not math.isfinite(days):
                raise TraceError(f"--{name.replace('_', '-')} {days:g} is not allowed; it is a number of days")
        if self.prometheus is not None:
            past = history(self.prometheus, self.days)
            trace = Trace(past.counts, past.step_s, float(past.start))
        else:
            trace = read(Path(self.trace) if self.trace else EXAMPLE, self.step_s)
        trace = self._cut(trace)
        scale = self.scale if self.scale is not None else (1.0 if self.trace or self.prometheus else EXAMPLE_SCALE)
        if not (math.isfinite(scale) and scale > 0):
            raise TraceError(f"--scale {scale:g} is not allowed; it is to be more than 0")
        return prepare(trace, scale, self.smooth_s, self.seed, zeros=self.zeros)

    def _cut(self, trace: Trace) -> Trace:
        """``trace`` from ``from_day`` to ``to_day``. Raises TraceError."""
        first = round(self.from_day * DAY_S / trace.step_s)
        end = len(trace.counts) if self.to_day is None else round(self.to_day * DAY_S / trace.step_s)
        if end - first < 2 or first >= len(trace.counts):
            days = len(trace.counts) * trace.step_s / DAY_S
            to_day = "the last" if self.to_day is None else f"{self.to_day:g}"
            raise TraceError(f"--from-day {self.from_day:g} --to-day {to_day} leave nothing of {days:.3g} days")
        start = None if trace.start is None else trace.start + first * trace.step_s
        return replace(trace, counts=trace.counts[first:end], start=start)

    def split_s(self, seconds: int) -> int:
        """The second that separates the tuned part from the judged part. Raises FleetError."""
        if self.split is None:
            if seconds < 90:
                raise FleetError(f"the trace has {seconds} s; 90 are needed: a minute to tune on, and a part to judge")
            return seconds * 2 // 3 // 60 * 60
        split = round(self.split * DAY_S)
        if not 0 < split < seconds:
            raise FleetError(f"--split {self.split:g} is outside the trace, which has {seconds / DAY_S:.3g} days")
        return split


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that ``plan`` and ``check`` share; None for an option that is not given."""
    for name, kind, text in reversed(OPTIONS):
        metavar = {"prometheus": "URL", "split": "DAYS"}.get(name)
        shared: dict[str, Any] = {"is_flag": True, "default": None} if kind is None else {"type": kind}
        command = click.option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, **shared)(command)
    return command


def asked(given: dict[str, Any], base: Request) -> Request:
    """``base`` with the ``given`` options."""
    known = {name: value for name, value in given.items() if value is not None}
    if known.get("linger_s") and "pay" not in known:
        known["pay"] = "machines"
    if known.get("trace") == "":
        raise click.UsageError("--trace '' names no file; leave it out for the packaged trace")
    sources = known.keys() & {"trace", "prometheus"}
    if len(sources) == 2:
        raise click.UsageError(f"--trace {known['trace']!r} and --prometheus {known['prometheus']!r}: one of them")
    if sources:  # the kept request's own makes way
        base = replace(base, trace=None, prometheus=None)
    return replace(base, **known)


def kept(path: Path) -> Request:
    """The request of the plan in ``path``; the defaults if there is none. Raises FleetError."""
    if not path.is_file():
        return Request()
    try:
        request = json.loads(path.read_text(encoding="utf-8"))["request"]
        return Request(**{one.name: request[one.name] for one in fields(Request)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FleetError(f"{path} is no plan of this version: {error!r}") from None
