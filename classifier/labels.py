"""Class names in each language, and the top-k of a row of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.languages import DEFAULT, LANGUAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 8
# Manifests have had these languages from the first, whether names in them are known or not.
_FIRST = ("en", "zh")


@dataclass(frozen=True)
class Labels:
    """Class names in class order, a field for each of LANGUAGES; None where no names in that language are known.

    ``groups``: of the classes, where there are any.
    """

    en: tuple[str, ...]
    zh: tuple[str, ...] | None = None
    groups: Groups | None = None

    def __post_init__(self) -> None:
        if not self.en:
            raise ValueError("labels must not be empty")
        for code, names in self.translations.items():
            if len(names) != len(self):
                raise ValueError(f"{code!r} has {len(names)} names, {DEFAULT!r} has {len(self)}; they must be equal")
        if not all(label.strip() for names in (self.en, *self.translations.values()) for label in names):
            raise ValueError("a label is blank")
        if self.groups and len(self.groups.of) != len(self):
            raise ValueError(f"the groups are of {len(self.groups.of)} classes, not of {len(self)}")

    def by_language(self) -> dict[str, tuple[str, ...] | None]:
        """The names by the language's code."""
        return {code: getattr(self, code) for code in LANGUAGES}

    def listed(self) -> dict[str, Any]:
        """The names by the language's code, None where they are not known, and those of the groups, if any."""
        if self.groups is None:
            return {**self.by_language()}
        return {**self.by_language(), "groups": {**self.groups.names.by_language(), "of": self.groups.of}}

    @cached_property
    def translations(self) -> dict[str, tuple[str, ...]]:
        """The known names in other languages than the default one, by the language's code."""
        return {code: names for code, names in self.by_language().items() if names is not None and code != DEFAULT}

    def told(self) -> dict[str, Any]:
        """The names by language for manifests and versions: of languages beyond _FIRST only those that are known.

        So adding a language changes neither the manifests nor the versions of labels that don't use it, and neither
        do groups where there are none.
        """
        names = {code: names for code, names in self.by_language().items() if code in _FIRST or names is not None}
        return names | ({"groups": self.groups.told()} if self.groups else {})

    @classmethod
    def parse(cls, told: Any) -> Labels:
        """The labels that ``told`` gave. Raises KeyError, TypeError or ValueError."""
        names: dict[str, Any] = {code: told[code] if code in _FIRST else told.get(code) for code in LANGUAGES}
        fields: dict[str, Any] = {code: None if listed is None else tuple(listed) for code, listed in names.items()}
        return cls(**fields, groups=Groups.parse(told["groups"]) if told.get("groups") else None)

    def __len__(self) -> int:
        return len(self.en)

    def top(self, probabilities: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """The ``k`` most probable classes of ``probabilities`` float32[C], best first; equal ones by class order."""
        if k <= _FEW:
            # A third of a sort's time, which is 3 % of throughput; argmax gives the first of equal ones.
            left, order = probabilities.copy(), []
            for _ in range(k):
                order.append(int(left.argmax()))
                left[order[-1]] = -1.0
        else:
            order = np.argsort(-probabilities, kind="stable")[:k].tolist()
        predictions: list[dict[str, Any]] = []
        for index in order:
            prediction = {"class_id": index, "label": self.en[index]}
            for code, names in self.translations.items():
                prediction[f"label_{code}"] = names[index]
            prediction["probability"] = round(float(probabilities[index]), 6)
            predictions.append(prediction)
        return predictions


@dataclass(frozen=True)
class Groups:
    """Coarse classes: each stands for some of the classes, and each class belongs to one at most.

    ``names``: of the groups. ``of``: by class, the place of its group in ``names``, -1 where it has none.
    """

    names: Labels
    of: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(type(place) is int and -1 <= place < len(self.names) for place in self.of):
            raise ValueError(f"a class is in a group that is none of the {len(self.names)}")

    def told(self) -> dict[str, Any]:
        """The names and ``of``, for manifests and versions."""
        return {**self.names.told(), "of": self.of}

    @classmethod
    def parse(cls, told: Any) -> Groups:
        """The groups that ``told`` gave. Raises KeyError, TypeError or ValueError."""
        return cls(Labels.parse(told), tuple(told["of"]))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        # What is in no group is counted in one more, at the end.
        return np.array([len(self) if place < 0 else place for place in self.of], np.intp)

    def top(self, probabilities: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """The ``k`` most probable groups, as ``Labels.top`` gives classes, with ``group_id`` for ``class_id``.

        A group's probability is the sum of its classes', of ``probabilities`` float32[C].
        """
        sums = np.bincount(self._places, probabilities, len(self) + 1)[: len(self)]
        best = self.names.top(np.minimum(sums, 1).astype(np.float32), k)
        return [{"group_id": one.pop("class_id"), **one} for one in best]


def confidence(predictions: list[dict[str, Any]], enough: float) -> dict[str, bool]:
    """Whether the first of ``predictions`` reaches ``enough``, as ``confident``; nothing where that is 0.

    Without a threshold nobody has said what confident means.
    """
    return {"confident": predictions[0]["probability"] >= enough} if enough else {}
