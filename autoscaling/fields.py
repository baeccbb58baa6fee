"""A mapping of a manifest, read field by field: an unknown field is refused by its name and file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from autoscaling.behavior import MAX_INT32

# Suffixes of a quantity in Kubernetes, as powers of ten; those of two are for bytes, of which no metric here is.
_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}
# The characters that a URL can have: printed ones of ASCII, but no space.
_SENT = re.compile(r"[!-~]+")
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|([numkMG]?))")


class ManifestError(ValueError):
    """A manifest that can't be read or written; the message names the file, the field and the value."""


@dataclass(frozen=True)
class Fields:
    """The mapping at ``path`` of a manifest in ``file``."""

    file: str
    path: str
    values: dict[str, Any]

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise a ManifestError that says ``why`` the field ``name`` is refused."""
        raise ManifestError(f"{self.file}: {self._at(name)}: {why}")

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def only(self, *names: str) -> None:
        """Refuse any field but these."""
        for name in self.values:
            if name not in names:
                self.refuse(str(name), f"this field can't be simulated; known here are {', '.join(names)}")

    def has(self, name: str) -> bool:
        """Whether the field exists and is not null."""
        return self.values.get(name) is not None

    def _given(self, name: str, default: object = None) -> Any:
        """The value of a field, or its ``default``; a field without either is refused."""
        value = self.values.get(name)
        if value is None and default is None:
            self.refuse(name, "this field is missing")
        return default if value is None else value

    def child(self, name: str) -> Fields:
        """The mapping in a field; an empty one where there is none."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.refuse(name, f"{quoted(value)} is no mapping")
        return Fields(self.file, self._at(name), value)

    def children(self, name: str) -> list[Fields]:
        """The mappings of a list; none where there is no list."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(name, f"{quoted(value)} is no list")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                self.refuse(f"{name}[{number}]", f"{quoted(item)} is no mapping")
        return [Fields(self.file, self._at(f"{name}[{number}]"), item) for number, item in enumerate(value)]

    def integer(self, name: str, lowest: int, highest: int = MAX_INT32, default: int | None = None) -> int:
        """A whole number from ``lowest`` to ``highest``."""
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            span = f"{lowest} to {highest}" if highest < MAX_INT32 else f"{lowest} or more"
            self.refuse(name, f"{quoted(value)} is no whole number of {span}")
        return value

    def text(self, name: str, allowed: tuple[str, ...] = (), default: str | None = None) -> str:
        """A text, one of ``allowed`` if any are given."""
        value = self._given(name, default)
        if not isinstance(value, str):
            hint = f'; write "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
            self.refuse(name, f"{quoted(value)} is no text{hint}")
        if allowed and value not in allowed:
            self.refuse(name, f"{value!r} can't be simulated; known here {_are(allowed)}")
        return value

    def number(self, name: str) -> float:
        """A number over 0, written as text, as KEDA's triggers have them."""
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0.001 <= value < float("inf"):
            self.refuse(name, f"{text!r} is no number of 0.001 or more")
        return value

    def quantity(self, name: str, lowest: float = 0.001, default: float | None = None) -> float:
        """A Kubernetes quantity, such as "50", 1500m or 2k."""
        value = self._given(name, default)
        match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
        if match is None or isinstance(value, bool):
            self.refuse(name, f'{quoted(value)} is no quantity; such as "50", 1500m or 2k')
        digits, power, suffix = match.groups()
        # The decimal point is moved in the text, so that 1500m is the float that 1.5 is.
        scaled = float(f"{digits}e{power or _POWERS[suffix or '']}")
        if scaled < lowest:
            self.refuse(name, f"{quoted(value)} is under {lowest:g}")
        return scaled


def _are(names: tuple[str, ...]) -> str:
    return f"is {names[0]}" if len(names) == 1 else f"are {', '.join(names)}"


def parsed(text: str | bytes) -> Any:
    """The value that ``text`` is as JSON. Raises ValueError, for one that is nested too deep as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def is_address(url: str) -> bool:
    """Whether ``url`` is an HTTP address that a request can be sent to."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return named and _SENT.fullmatch(url) is not None
    except ValueError:  # a port that is no number, a bracket that does not close
        return False


def quoted(value: object) -> str:
    """``value`` as quoted in a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
