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
    """Class names in class order, a field for each of LANGUAGES; None where no names in that language are known."""

    en: tuple[str, ...]
    zh: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.en:
            raise ValueError("labels must not be empty")
        for code, names in self.translations.items():
            if len(names) != len(self):
                raise ValueError(f"{code!r} has {len(names)} names, {DEFAULT!r} has {len(self)}; they must be equal")
        if not all(label.strip() for names in (self.en, *self.translations.values()) for label in names):
            raise ValueError("a label is blank")

    def by_language(self) -> dict[str, tuple[str, ...] | None]:
        """The names by the language's code."""
        return {code: getattr(self, code) for code in LANGUAGES}

    @cached_property
    def translations(self) -> dict[str, tuple[str, ...]]:
        """The known names in other languages than the default one, by the language's code."""
        return {code: names for code, names in self.by_language().items() if names is not None and code != DEFAULT}

    def told(self) -> dict[str, tuple[str, ...] | None]:
        """The names by language for manifests and versions: of languages beyond _FIRST only those that are known.

        So adding a language changes neither the manifests nor the versions of labels that don't use it.
        """
        return {code: names for code, names in self.by_language().items() if code in _FIRST or names is not None}

    @classmethod
    def parse(cls, told: Any) -> Labels:
        """The labels that ``told`` gave. Raises KeyError, TypeError or ValueError."""
        names: dict[str, Any] = {code: told[code] if code in _FIRST else told.get(code) for code in LANGUAGES}
        fields: dict[str, Any] = {code: None if listed is None else tuple(listed) for code, listed in names.items()}
        return cls(**fields)

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
