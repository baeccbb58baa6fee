"""Named load profiles: which requests, at which rates, for how long."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.arrivals import Segment, diurnal
from loadtests.payloads import KINDS

FILE = Path(__file__).with_name("profiles.toml")
_PHOTOS = ("as they are", "resized")


class ProfileError(ValueError):
    """A profile that can't be run; the message names it and quotes what is wrong."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a profile. Its rate is in requests a second, or a share of the capacity; ``swing``: diurnal."""

    name: str
    seconds: float
    rate: float | None = None
    of_limit: float | None = None
    swing: float = 0.0
    period_s: float = 86400.0

    def segments(self, capacity: float) -> list[Segment]:
        """Its rates over time, where the server's capacity is ``capacity`` requests a second."""
        rate = self.rate if self.rate is not None else (self.of_limit or 0.0) * capacity
        if self.swing:
            return diurnal(rate, self.swing, self.period_s, self.seconds)
        return [Segment(self.seconds, rate)]


@dataclass(frozen=True)
class Profile:
    """A profile of profiles.toml, which explains the fields."""

    name: str
    about: str
    mix: dict[str, float]
    phases: tuple[Phase, ...]
    photos: str = _PHOTOS[0]
    warm_up_s: float = 0.0
    judged: str | None = None
    cold: bool = False

    @property
    def seconds(self) -> float:
        """How long it is without its warm-up."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def needs_capacity(self) -> bool:
        """Whether its rates are shares of the server's capacity."""
        return any(phase.rate is None for phase in self.phases)

    def segments(self, capacity: float) -> list[Segment]:
        """Rates over time, warm-up first: at the first phase's first rate."""
        rates = [segment for phase in self.phases for segment in phase.segments(capacity)]
        return [Segment(self.warm_up_s, rates[0].rate), *rates] if self.warm_up_s else rates

    def lasting(self, seconds: float) -> Profile:
        """The same profile, ``seconds`` long. Its phases keep their shares of the time."""
        factor = seconds / self.seconds
        return replace(self, phases=tuple(replace(phase, seconds=phase.seconds * factor) for phase in self.phases))

    def at_rate(self, rate: float) -> Profile:
        """The same with ``rate`` in place of the highest share of the capacity; the others keep their proportions."""
        shares = [phase.rate if phase.rate is not None else phase.of_limit or 0.0 for phase in self.phases]
        scaled = zip(self.phases, shares, strict=True)
        phases = (replace(phase, rate=rate * share / max(shares), of_limit=None) for phase, share in scaled)
        return replace(self, phases=tuple(phases))


def read(file: Path = FILE) -> dict[str, Profile]:
    """Every profile of a TOML file by name. Raises ProfileError."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{file}: {error}") from None
    return {name: _profile(file, name, table) for name, table in tables.items()}


def _profile(file: Path, name: str, table: dict[str, Any]) -> Profile:
    where = f"{file.name}, profile {name!r}"
    try:
        phases = tuple(Phase(**phase) for phase in table.pop("phases", ()))
        profile = Profile(name=name, phases=phases, **table)
    except TypeError as error:
        raise ProfileError(f"{where}: {error}") from None
    if not phases:
        raise ProfileError(f"{where} has no phases")
    for phase in phases:
        if (phase.rate is None) == (phase.of_limit is None):
            raise ProfileError(f"{where}, phase {phase.name!r}: give either rate or of_limit")
    if unknown := set(profile.mix) - set(KINDS):
        raise ProfileError(f"{where}: mix holds {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if not sum(profile.mix.values()) > 0:
        raise ProfileError(f"{where}: the weights in mix are all 0")
    if profile.photos not in _PHOTOS:
        raise ProfileError(f"{where}: photos {profile.photos!r}; there are {' and '.join(map(repr, _PHOTOS))}")
    if profile.judged is not None and profile.judged not in {phase.name for phase in phases}:
        raise ProfileError(f"{where}: judged {profile.judged!r} is none of its phases")
    return profile
