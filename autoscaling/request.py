"""The request to ``plan`` and ``check``: the trace, the pods, the promise and the price."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from autoscaling.fields import parsed, quoted
from autoscaling.fleet import MAX_PODS, Fleet, FleetError
from autoscaling.gaps import Prepared, prepare
from autoscaling.planner import Terms
from autoscaling.prometheus import history
from autoscaling.traces import DAY_S, MAX_SECONDS, YEAR_2200, Trace, TraceError, moment, read

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).with_name("assets") / "nyc-taxi.csv"
EXAMPLE_SCALE = 163.0
# Days of a Prometheus' history, if none are asked for.
USUAL_DAYS = 14.0
_DAYS = MAX_SECONDS // DAY_S
_MOST = 1e9


@dataclass(frozen=True)
class Option:
    """A setting of a request: its values, and its help; its default is that of Request.

    ``values``: a type, or texts of which it is one. A number is from ``least`` to ``most``, both allowed; ``within``
    allows neither. ``what`` it is, for a message.
    """

    name: str
    values: type | tuple[str, ...]
    help: str
    least: float = 0
    most: float = math.inf
    within: bool = False
    what: str = ""

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"

    def check(self, value: Any) -> None:
        """Raise FleetError if ``value`` is none of its values; it may come from a file of JSON."""
        kinds = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}
        if isinstance(self.values, tuple):
            allowed = value in self.values
        else:
            allowed = isinstance(value, kinds[self.values]) and isinstance(value, bool) == (self.values is bool)
        if allowed and self.values in (int, float):
            allowed = self.least < value < self.most if self.within else self.least <= value <= self.most
        if allowed and self.values is str:
            allowed = bool(value) and "\0" not in value
        if not allowed:
            shown = f"{value:g}" if isinstance(value, float) else quoted(value)
            raise FleetError(f"{self.flag} {shown} is not allowed; it is {self.what or 'to be'}{self._allowed()}")

    def _allowed(self) -> str:
        if isinstance(self.values, tuple):
            return f" {' or '.join(self.values)}"
        if self.values in (str, bool):
            return " a text" if self.values is str else " true or false"
        low = f"more than {self.least:g}" if self.within else f"{self.least:g} or more"
        high = "" if self.most == math.inf else f", and {'less than' if self.within else 'at most'} {self.most:,.0f}"
        return f" {'a whole number, ' if self.values is int else ''}{low}{high}"


OPTIONS = (
    Option("trace", str, "Counts of images: one a line, or timestamp,count.  [default: New York's taxis]"),
    Option("prometheus", str, "Take resnet18_images_total of this Prometheus instead."),
    Option("days", float, "Days of its history.  [default: 14]", most=_DAYS),
    Option("end", float, "The end of its history: Unix seconds, or ISO 8601.  [default: now]", most=YEAR_2200),
    Option("step_s", int, "Seconds of a step, if there are no timestamps.  [default: 1]", 1, 7 * DAY_S),
    Option("scale", float, "Multiply the trace.  [default: 1]", most=1e15, within=True),
    Option("smooth_s", int, "Take the moving mean of so many seconds for a Poisson rate.  [default: 0]", most=DAY_S),
    Option("zeros", bool, "Runs of zeros are silence, not gaps of the recording."),
    Option("from_day", float, "Leave out the days of the trace before this one.  [default: 0]", most=_DAYS),
    Option("to_day", float, "Leave out the days from this one on.  [default: the last]", most=_DAYS),
    Option("split", float, "Tune on so many days, judge on the rest.  [default: 2/3 of all]", most=_DAYS),
    Option("seed", int, "Seed of the Poisson arrivals and of the control.  [default: 0]", most=2**32),
    Option("rate", float, "Images a second that a pod answers, as find-limit measures.  [default: 150]", most=_MOST,
           within=True),
    Option("start_s", int, "Seconds from the request for a pod to its first answer.  [default: 30]", most=DAY_S),
    Option(
        "slo_ms", float, "Milliseconds that an image may wait; else it is refused.  [default: 1000]",
        most=1000 * DAY_S, within=True,
    ),
    Option("late", float, "Share of the images that may be late or refused.  [default: 0.001]", most=1, within=True,
           what="a share, such as 0.001,"),
    Option("pods_per_machine", int, "Pods that a machine holds.  [default: 1]", 1, MAX_PODS),
    Option("machine_start_s", int, "Seconds more, if no machine is free.  [default: 0]", most=DAY_S),
    Option(
        "linger_s", int, "Seconds that an empty machine stays: 600, or 60 with consolidation.  [default: 0]",
        most=DAY_S,
    ),
    Option(
        "pay", ("pods", "machines"), "The unit that you pay for.  [default: pods; machines with --linger-s]"
    ),
    Option("usd_per_hour", float, "Price of a pod or machine.  [default: 0.08925, a c7i.large: assumed]", most=_MOST,
           within=True),
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request, as plan.json keeps it; ``check`` starts from the one beside the manifests. Raises FleetError.

    ``end``: of the history of ``prometheus``, Unix seconds; None is now.
    """

    trace: str | None = None
    prometheus: str | None = None
    days: float | None = None
    end: float | None = None
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

    def __post_init__(self) -> None:
        defaults = {one.name: one.default for one in fields(self)}
        for option in OPTIONS:
            value = getattr(self, option.name)
            if value is not None or defaults[option.name] is not None:
                option.check(value)
        if self.trace and self.prometheus:
            raise FleetError(f"--trace {self.trace!r} and --prometheus {self.prometheus!r}: one of them")

    def pinned(self) -> Request:
        """This request with what another day or another folder would change: the history's end, the trace's path."""
        if self.prometheus is not None:
            return replace(self, days=self.days or USUAL_DAYS, end=self.end or float(int(time.time())))
        return replace(self, trace=str(Path(self.trace).absolute())) if self.trace else self

    def fleet(self) -> Fleet:
        """The pods and machines."""
        return Fleet(
            self.rate, self.start_s, self.slo_ms / 1000, self.pods_per_machine, self.machine_start_s, self.linger_s
        )

    def terms(self) -> Terms:
        """The promise and the prices."""
        return Terms(self.late, self.pay, self.usd_per_hour)

    def prepared(self) -> Prepared:
        """The load. Raises TraceError and PrometheusError."""
        if self.prometheus is not None:
            past = history(self.prometheus, self.days or USUAL_DAYS, end=self.end)
            trace = Trace(past.counts, past.step_s, float(past.start))
        else:
            trace = read(Path(self.trace) if self.trace else EXAMPLE, self.step_s)
        trace = self._cut(trace)
        scale = self.scale if self.scale is not None else (1.0 if self.trace or self.prometheus else EXAMPLE_SCALE)
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
    for option in reversed(OPTIONS):
        metavar = {"prometheus": "URL", "split": "DAYS", "end": "TIME"}.get(option.name)
        shared: dict[str, Any] = {"type": option.values}
        if option.values is bool:
            shared = {"is_flag": True, "default": None}
        elif isinstance(option.values, tuple):
            shared = {"type": click.Choice(option.values)}
        elif option.name == "end":
            shared = {"callback": _moment}
        command = click.option(option.flag, metavar=metavar, help=option.help, **shared)(command)
    return command


def _moment(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    at = None if text is None else moment(text)
    if text is not None and at is None:
        raise click.UsageError(
            f"--end {quoted(text)} is no time; Unix seconds or ISO 8601 is, such as 2026-11-26T12:00"
        )
    return at


def asked(given: dict[str, Any], base: Request) -> Request:
    """``base`` with the ``given`` options. Raises FleetError."""
    known = {name: value for name, value in given.items() if value is not None}
    if known.get("linger_s") and "pay" not in known:
        known["pay"] = "machines"
    if known.get("trace") == "":
        raise FleetError("--trace '' names no file; leave it out for the packaged trace")
    if known.keys() & {"trace", "prometheus"}:  # the kept request's own makes way
        base = replace(base, trace=None, prometheus=None, days=None, end=None, step_s=None)
    request = replace(base, **known)
    for name in ("days", "end") if request.prometheus is None else ("step_s",):
        if name in known:
            other = "a trace" if request.prometheus is None else "a Prometheus"
            raise FleetError(f"--{name.replace('_', '-')} {known[name]:g} says nothing of {other}; leave it out")
    return request


def kept(path: Path) -> Request:
    """The request of the plan in ``path``; the defaults if there is none. Raises FleetError."""
    try:
        request = parsed(path.read_bytes())["request"]
        known = {one.name for one in fields(Request)}
        if not request or (other := request.keys() - known):
            raise FleetError(f"its request has {quoted(sorted(other)[0]) if request else 'nothing in it'}")
        return Request(**request)
    except (FileNotFoundError, NotADirectoryError):
        return Request()
    except OSError as error:
        raise FleetError(f"{path} can't be read: {error.strerror}") from None
    except FleetError as error:
        raise FleetError(f"{path} is no plan of this version: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FleetError(f"{path} is no plan of this version: it holds no request") from None
