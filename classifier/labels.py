"""Class names in each language, and the top-k of a row of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Labels:
    """Class names in class order; ``zh`` is None where no Chinese names are known."""

    en: tuple[str, ...]
    zh: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.en:
            raise ValueError("labels must not be empty")
        if self.zh is not None and len(self.zh) != len(self.en):
            raise ValueError(f"'zh' has {len(self.zh)} names, 'en' has {len(self.en)}; they must be equal")
        if not all(label.strip() for label in (*self.en, *(self.zh or ()))):
            raise ValueError("a label is blank")

    def __len__(self) -> int:
        return len(self.en)

    def top(self, probabilities: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
        """The ``k`` most probable classes of ``probabilities`` float32[C], best first; equal ones by class order."""
        # Among all that reach the k-th largest value, so that equal ones are told apart by class.
        least = np.partition(probabilities, -k)[-k] if k < len(probabilities) else probabilities.min()
        candidates = np.flatnonzero(probabilities >= least)
        order = candidates[np.argsort(-probabilities[candidates], kind="stable")[:k]].tolist()
        predictions: list[dict[str, Any]] = []
        for index in order:
            prediction = {"class_id": index, "label": self.en[index]}
            if self.zh is not None:
                prediction["label_zh"] = self.zh[index]
            prediction["probability"] = round(float(probabilities[index]), 6)
            predictions.append(prediction)
        return predictions
