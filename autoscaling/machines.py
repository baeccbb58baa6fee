"""Machines that can be rented: their prices, and the images a second that each answers.

A GPU answers ``b / (α·b + β)`` images a second in batches of b (Nexus, SOSP 2019). Each vCPU of its host decodes
``1 / host``. The slower of the two bounds the machine. Without a GPU the vCPUs do both.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaling.fields import is_address, parsed, quoted
from harness.http import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGED = Path(__file__).with_name("assets") / "machines.json"
# The service's RESNET18_MAX_BATCH, by default.
MAX_BATCH = 32
# After so many batches, a service's learned figures outweigh its warm-up.
LEARNED = 64
# No figure of a machine is larger.
MOST = 1e9
# For a service's whole answer.
TIMEOUT_S = 10.0
_MAX_BYTES = 2**20


class MachinesError(Exception):
    """A table or a figure that can't be used; the message is one sentence that quotes it."""


@dataclass(frozen=True)
class Machine:
    """A machine that can be rented; figures in milliseconds, ``alpha_ms`` and ``beta_ms`` of its GPU if it has one.

    ``measured``: on a machine of this type; otherwise ``basis`` names their source.
    """

    type: str
    usd_per_hour: float
    vcpu: int
    alpha_ms: float
    beta_ms: float
    host_ms: float
    measured: bool
    cloud: str = ""
    region: str = ""
    cpu: str = ""
    gpu: str = ""
    gpus: int = 0
    basis: str = ""
    source: str = ""
    price_date: str = ""

    def batch(self, slo_ms: float) -> int:
        """The largest batch of which two in a row are done within the SLO; 0 if not even one image is.

        A vCPU works on one image at a time: batches would gain next to nothing.
        """
        if self.alpha_ms + self.beta_ms + self.host_ms > slo_ms:
            return 0
        if not self.gpus:
            return 1
        return max(1, min(MAX_BATCH, int((slo_ms / 2 - self.beta_ms) / self.alpha_ms)))

    def limits(self, slo_ms: float) -> tuple[float, float]:
        """Images a second that its GPUs answer, and that its vCPUs decode; both are the same without a GPU."""
        batch = self.batch(slo_ms)
        if not batch:
            return 0.0, 0.0
        if not self.gpus:
            both = self.vcpu * 1e3 / (self.alpha_ms + self.beta_ms + self.host_ms)
            return both, both
        host = self.vcpu * 1e3 / self.host_ms if self.host_ms else math.inf
        return self.gpus * batch * 1e3 / (self.alpha_ms * batch + self.beta_ms), host

    def capacity(self, slo_ms: float) -> float:
        """Images a second that one of these answers within the SLO."""
        return min(self.limits(slo_ms))

    def bound(self, slo_ms: float) -> str:
        """The part that bounds it; if cores bound a GPU, also the ``host_ms`` below which they would not."""
        gpu, host = self.limits(slo_ms)
        if not host:
            return "misses the SLO"
        if not self.gpus:
            return "cores"
        return f"cores, above {self.vcpu * 1e3 / gpu:.2g} ms" if host < gpu else "GPU"


def read(path: Path) -> list[Machine]:
    """The machines of a table such as assets/machines.json. Raises MachinesError."""
    try:
        rows = parsed(path.read_bytes())["machines"]
        if not isinstance(rows, list):
            raise TypeError
    except OSError as error:
        raise MachinesError(f"{str(path)!r} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise MachinesError(f'{str(path)!r} is no table of machines: {{"machines": [{{"type": ..., ...}}]}}') from None
    machines = [_machine(row, f"{str(path)!r}, machine {number}") for number, row in enumerate(rows, start=1)]
    if not machines:
        raise MachinesError(f"{str(path)!r} holds no machine")
    return machines


# By the annotation of a field: what JSON may give for it, and what that is called.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "float": ((int, float), "number"),
    "int": ((int,), "whole number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
}
_ABOVE_0 = ("usd_per_hour", "vcpu", "alpha_ms")


def _machine(row: Any, where: str) -> Machine:
    if not isinstance(row, dict):
        raise MachinesError(f"{where}: {quoted(row)} is no object")
    known = {field.name: field for field in fields(Machine)}
    if unknown := [name for name in row if name not in known]:
        raise MachinesError(f"{where}: {quoted(unknown[0])} is no field; there are {', '.join(known)}")
    if missing := [name for name, field in known.items() if name not in row and field.default is MISSING]:
        raise MachinesError(f"{where}: {missing[0]!r} is missing")
    for name, value in row.items():
        types, kind = _KINDS[str(known[name].type)]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise MachinesError(f"{where}: {name} is {quoted(value)}; it must be a {kind}")
        if not isinstance(value, int | float):
            continue
        if not 0 <= value < math.inf or (name in _ABOVE_0 and not value):
            least = "more than 0" if name in _ABOVE_0 else "0 or more"
            raise MachinesError(f"{where}: {name} is {quoted(value)}; it must be {least}")
        if value > MOST:
            raise MachinesError(f"{where}: {name} is {str(value)[:40]}; it must be at most {MOST:g}")
    machine = Machine(**row)
    if bool(machine.gpu) != bool(machine.gpus):
        raise MachinesError(f"{where}: gpu is {machine.gpu!r} and gpus is {machine.gpus}; it must be both or neither")
    return machine


@dataclass(frozen=True)
class Figures:
    """The measured cost of an image, in ms, as in Machine; ``host_ms`` None: not known."""

    alpha_ms: float
    beta_ms: float
    host_ms: float | None


def scaled(machines: Sequence[Machine], on: str, figures: Figures) -> list[Machine]:
    """``machines`` with ``figures``, measured on the type ``on``, in the place of the table's.

    Another network costs more or less wherever it runs, and so do other photographs: the figures of all other machines
    change by the same factors, and stay assumed. A batch's own cost follows machines of the same kind only.
    Raises MachinesError.
    """
    here = next((machine for machine in machines if machine.type == on), None)
    if here is None:
        raise MachinesError(f"{on!r} is no machine of the table; it has {', '.join(m.type for m in machines)}")
    host_ms = here.host_ms if figures.host_ms is None else figures.host_ms
    for name, value, least in (("α", figures.alpha_ms, 1e-6), ("β", figures.beta_ms, 0.0), ("host", host_ms, 0.0)):
        if not least <= value < math.inf:
            raise MachinesError(f"{name} of {value:g} ms: it must be {'more than 0' if least else '0 or more'}")
    alpha, host = figures.alpha_ms / here.alpha_ms, host_ms / here.host_ms if here.host_ms else 1.0
    beta = figures.beta_ms / here.beta_ms if here.beta_ms else None
    changed = []
    for machine in machines:
        beta_ms = machine.beta_ms
        if bool(machine.gpus) == bool(here.gpus):
            beta_ms = figures.beta_ms if beta is None else beta * beta_ms
        basis = f"{machine.basis}; times what {on} was found to differ"
        changed.append(
            replace(here, alpha_ms=figures.alpha_ms, beta_ms=figures.beta_ms, host_ms=host_ms, measured=True)
            if machine is here
            else replace(
                machine,
                alpha_ms=alpha * machine.alpha_ms,
                beta_ms=beta_ms,
                host_ms=host * machine.host_ms,
                measured=False,
                basis=basis,
            )
        )
    return changed


def served(url: str, host_ms: float) -> Figures:
    """The figures that the service with its ``GET /model`` at ``url`` has learned from its batches.

    If the cores that infer decode as well, its α includes both: ``host_ms`` is subtracted. Raises MachinesError.
    """
    if not is_address(url):
        raise MachinesError(f"{quoted(url)} is no address of a service's /model, such as http://127.0.0.1:3000/model")
    try:
        status, _, body = ask(url, within_s=TIMEOUT_S, most=_MAX_BYTES)
    except OSError as error:
        raise MachinesError(f"{url!r} does not answer: {error.strerror or error}") from None
    try:
        model = parsed(body)
        batcher = model["runner"]["batcher"]
        alpha_ms, beta_ms = float(batcher["alpha_ms"]), float(batcher["beta_ms"])
        batches = sum(batcher["batches"].values())
        decodes = (model["placement"], model["runner"]["device"]) == ("inline", "cpu")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        start = body[:60].decode(errors="replace")
        raise MachinesError(
            f"{url!r} does not answer as the service's GET /model does: status {status}, a body that begins {start!r}"
        ) from None
    if batches < LEARNED:
        raise MachinesError(f"{url!r} has run {batches} batches; {LEARNED} are needed before its α is worth anything")
    if decodes and alpha_ms <= host_ms:
        raise MachinesError(f"{url!r} tells α = {alpha_ms:g} ms, decoding included, and decoding alone was {host_ms:g}")
    return Figures(alpha_ms - host_ms if decodes else alpha_ms, beta_ms, host_ms)
