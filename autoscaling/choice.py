"""``python -m autoscaling machines``: the cheapest machine at each rate, and the cost of the common rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table

from autoscaling.console import console
from autoscaling.machines import PACKAGED, Figures, Machine, MachinesError, read, scaled, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

RATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
# The most common rule of thumb, images a second and the GPU: up to 10, up to 50, and above.
RULE = ((10.0, "T4"), (50.0, "A10G"), (math.inf, "A100"))


@dataclass(frozen=True)
class Fleet:
    """``number`` machines that answer ``rate`` images a second, each filled to at most the share ``fill``."""

    machine: Machine
    rate: float
    number: int

    @property
    def usd_per_hour(self) -> float:
        """Their price together."""
        return self.number * self.machine.usd_per_hour

    @property
    def usd_per_million(self) -> float:
        """The price of a million images."""
        return self.usd_per_hour / 3600 / self.rate * 1e6


def fleet(machine: Machine, rate: float, slo_ms: float, fill: float) -> Fleet | None:
    """The fleet of one type that ``rate`` images a second need; None if this type can't hold the SLO."""
    capacity = fill * machine.capacity(slo_ms)
    return Fleet(machine, rate, max(1, math.ceil(rate / capacity - 1e-9))) if capacity else None


def cheapest(machines: Sequence[Machine], rate: float, slo_ms: float, fill: float) -> Fleet:
    """The fleet of one type that costs least at ``rate``. Raises MachinesError where no machine holds the SLO."""
    fleets = [found for machine in machines if (found := fleet(machine, rate, slo_ms, fill))]
    if not fleets:
        raise MachinesError(f"no machine of the table answers one image within the SLO of {slo_ms:g} ms")
    return min(fleets, key=lambda found: (found.usd_per_hour, found.machine.type))


def by_rule(machines: Sequence[Machine], rate: float, slo_ms: float, fill: float) -> Fleet | None:
    """The rule of thumb's fleet at ``rate``, of the table's cheapest machine with that GPU; None without one."""
    name = next(gpu for limit, gpu in RULE if rate <= limit)
    having = [machine for machine in machines if name in machine.gpu.split()]
    return cheapest(having, rate, slo_ms, fill) if any(m.batch(slo_ms) for m in having) else None


@click.command(context_settings={"max_content_width": 110, "show_default": True})
@click.option("--rate", type=float, default=40.0, help="Images a second of the first table.")
@click.option("--slo-ms", type=float, default=1000.0, help="Milliseconds within which an image must be answered.")
@click.option("--fill", type=float, default=0.8, help="The used share of a machine's capacity, on average.")
@click.option(
    "--machines",
    "table",
    type=click.Path(path_type=Path),
    default=PACKAGED,
    show_default="autoscaling/assets/machines.json",
    help="Your own prices and figures, in the format of the default.",
)
@click.option("--on", metavar="TYPE", help="The machine of the table on which the figures below were measured.")
@click.option("--alpha-ms", type=float, help="Milliseconds that an image adds to a batch.")
@click.option("--beta-ms", type=float, help="Milliseconds of a batch itself, without its images.")
@click.option("--host-ms", type=float, help="Milliseconds of a vCPU for decoding and HTTP of an image.")
@click.option("--model-url", metavar="URL", help="Take α and β from a running service: http://127.0.0.1:3000/model")
def machines(
    rate: float,
    slo_ms: float,
    fill: float,
    table: Path,
    on: str | None,
    alpha_ms: float | None,
    beta_ms: float | None,
    host_ms: float | None,
    model_url: str | None,
) -> None:
    """The cheapest machine for RATE images a second, the cheapest for 1 to 2,000, and why.

    Figures that were not measured on a machine of that type are marked as assumed. With --on and your own figures,
    those of the other machines are multiplied by the same factors.
    """
    given = {"--alpha-ms": alpha_ms, "--beta-ms": beta_ms, "--host-ms": host_ms, "--model-url": model_url}
    named = [name for name, value in given.items() if value is not None]
    try:
        for name, value in (("--rate", rate), ("--slo-ms", slo_ms), ("--fill", fill)):
            if not 0 < value < math.inf or (name == "--fill" and value > 1):
                limit = "more than 0 and at most 1" if name == "--fill" else "a number more than 0"
                raise MachinesError(f"{name} {value:g}: it must be {limit}")
        found = read(table)
        if named and on is None:
            raise MachinesError(f"{named[0]} {given[named[0]]}: name the machine it was measured on with --on TYPE")
        if on is not None:
            found = scaled(found, on, _figures(found, on, alpha_ms, beta_ms, host_ms, model_url))
        _show(console(), found, rate, slo_ms, fill)
    except MachinesError as error:
        raise click.UsageError(str(error)) from None


def _figures(
    found: Sequence[Machine],
    on: str,
    alpha_ms: float | None,
    beta_ms: float | None,
    host_ms: float | None,
    model_url: str | None,
) -> Figures:
    here = next((machine for machine in found if machine.type == on), None)
    if here is None or (alpha_ms is None and beta_ms is None and host_ms is None and model_url is None):
        raise MachinesError(
            f"--on {on!r}: "
            + ("give a figure that was measured there" if here else f"there are {', '.join(m.type for m in found)}")
        )
    if model_url is not None and (alpha_ms is not None or beta_ms is not None):
        raise MachinesError(f"--model-url {model_url!r} tells α and β: leave --alpha-ms and --beta-ms out")
    if model_url is not None:
        return served(model_url, here.host_ms if host_ms is None else host_ms)
    return Figures(
        here.alpha_ms if alpha_ms is None else alpha_ms, here.beta_ms if beta_ms is None else beta_ms, host_ms
    )


def _show(console: Console, found: Sequence[Machine], rate: float, slo_ms: float, fill: float) -> None:
    console.print(_at(found, rate, slo_ms, fill))
    console.print(_by_rate(found, slo_ms, fill))
    best = cheapest(found, rate, slo_ms, fill)
    bound = [m for m in found if m.gpus and m.bound(slo_ms) != "GPU" and m.batch(slo_ms)]
    if bound:
        least = max(bound, key=lambda m: m.limits(slo_ms)[0] / m.limits(slo_ms)[1])
        console.print(
            f"The host's cores bound {len(bound)} of {sum(1 for m in found if m.gpus)} machines with a GPU: "
            f"those of a {least.type} decode {least.limits(slo_ms)[1]:,.0f} images a second, its GPU could infer "
            f"{least.limits(slo_ms)[0]:,.0f}."
        )
    assumed = sum(not machine.measured for machine in found)
    if assumed:
        console.print(
            f"Of {assumed} of {len(found)} machines the figures are assumed: measure on yours before you believe the "
            f"order (--on {best.machine.type} --model-url http://.../model)."
        )
        for basis in dict.fromkeys(machine.basis for machine in found if not machine.measured and machine.basis):
            types = ", ".join(machine.type for machine in found if machine.basis == basis and not machine.measured)
            console.print(f"  assumed of {types}: {basis}")
    for source in dict.fromkeys(machine.source for machine in found if machine.source):
        dates = ", ".join(sorted({machine.price_date for machine in found if machine.source == source}))
        console.print(f"  prices of {dates}: {source}")


def _table(title: str, texts: Sequence[str], columns: Sequence[str]) -> Table:
    """An empty table of ``columns``; those named in ``texts`` hold text, the others numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name in texts else "right")
    return table


def _at(found: Sequence[Machine], rate: float, slo_ms: float, fill: float) -> Table:
    title = f"At {rate:g} images a second, SLO {slo_ms:g} ms, each machine filled to {100 * fill:g} %"
    names = ("machine", "GPU", "α ms", "β ms", "host ms", "figures", "images/s", "bound by")
    table = _table(
        title, ("machine", "GPU", "figures", "bound by"), (*names, "needed", "USD/h", "USD/million", "when full")
    )
    fleets = {machine.type: fleet(machine, rate, slo_ms, fill) for machine in found}
    for machine in sorted(found, key=lambda m: (here.usd_per_hour if (here := fleets[m.type]) else math.inf, m.type)):
        here, capacity = fleets[machine.type], machine.capacity(slo_ms)
        cost = ["-"] * 4
        if here:
            full = machine.usd_per_hour / 3600 / (fill * capacity) * 1e6
            cost = [f"{here.number}", f"{here.usd_per_hour:.3g}", f"{here.usd_per_million:.3g}", f"{full:.3g}"]
        table.add_row(
            machine.type,
            machine.gpu and f"{machine.gpus} × {machine.gpu.removeprefix('NVIDIA ')}",
            *(f"{value:.3g}" for value in (machine.alpha_ms, machine.beta_ms, machine.host_ms)),
            _mark(machine),
            f"{capacity:,.0f}",
            machine.bound(slo_ms),
            *cost,
        )
    return table


def _by_rate(found: Sequence[Machine], slo_ms: float, fill: float) -> Table:
    title = "The cheapest machine by rate; the cheapest of the other kind; the common rule: T4 to 10, A10G to 50, A100"
    texts = ("cheapest", "figures", "with a GPU, or without", "the rule")
    cost = "USD/million"
    names = ("images/s", "cheapest", "figures", "used", cost, "with a GPU, or without", "used", cost, "the rule", cost)
    table = _table(title, texts, (*names, "times the cheapest"))
    for rate in RATES:
        best, rule = cheapest(found, rate, slo_ms, fill), by_rule(found, rate, slo_ms, fill)
        rest = [machine for machine in found if bool(machine.gpus) != bool(best.machine.gpus) and machine.batch(slo_ms)]
        other = cheapest(rest, rate, slo_ms, fill) if rest else None
        cells = [_named(best), _mark(best.machine), _used(best, slo_ms), f"{best.usd_per_million:.3g}"]
        cells += [_named(other), _used(other, slo_ms), f"{other.usd_per_million:.3g}"] if other else ["-"] * 3
        cells += [_named(rule), f"{rule.usd_per_million:.3g}"] if rule else ["not in the table", "-"]
        table.add_row(f"{rate:,.0f}", *cells, f"{rule.usd_per_hour / best.usd_per_hour:.3g}" if rule else "-")
    return table


def _mark(machine: Machine) -> str:
    return "measured" if machine.measured else "assumed"


def _named(found: Fleet) -> str:
    return f"{found.number} × {found.machine.type}"


def _used(found: Fleet, slo_ms: float) -> str:
    """The rate as a share of the rate that the machines could answer."""
    return f"{100 * found.rate / (found.number * found.machine.capacity(slo_ms)):.0f} %"
