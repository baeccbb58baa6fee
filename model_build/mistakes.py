"""The mistakes of a trained network as a page: a confusion matrix, and a contact sheet of the worst ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model_build import page
from model_build.training import crop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from classifier.labels import Labels
    from model_build.training import Training

# Bounds of the page: classes in the matrix, images on the sheet, and their side in pixels.
MATRIX, WORST, SIDE = 30, 48, 96


@dataclass(frozen=True)
class Judged:
    """What a network said of images that it was not trained on.

    ``logits`` float32[N, C]; ``truth`` int64[N], the right classes.
    """

    labels: Labels
    logits: NDArray[np.float32]
    truth: NDArray[np.int64]

    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, float32[N, C]."""
        shifted = np.exp(self.logits - self.logits.max(1, keepdims=True))
        found: NDArray[np.float32] = shifted / shifted.sum(1, keepdims=True)
        return found

    def confusion(self) -> NDArray[np.int64]:
        """The number of images int64[C, C] by their right class (rows) and the class that the network gives."""
        counts = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(counts, (self.truth, self.logits.argmax(1)), 1)
        return counts

    def worst(self, most: int = WORST) -> NDArray[np.int64]:
        """The images int64[n] that are classified wrong, the surest mistake first."""
        wrong = np.flatnonzero(self.logits.argmax(1) != self.truth)
        order = np.argsort(-self.probabilities()[wrong].max(1), kind="stable") if len(wrong) else wrong
        return wrong[order][:most]


def document(
    title: str, judged: Judged, names: Sequence[str], squares: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
) -> str:
    """The page of ``judged``, self-contained and bounded in size.

    ``names``: each image's name. ``squares``: a function of indexes int64[n] that gives pixels uint8[n, S, S, 3].
    """
    counts = judged.confusion()
    right, total = int(np.trace(counts)), int(counts.sum())
    said = f"<p>{right} of {total} images are classified right: {right / total:.2%}.</p>"
    return page.document(title, said + _matrix(judged.labels, counts) + _sheet(judged, names, squares))


def of(training: Training, title: str) -> str | None:
    """The page of a training's network on the images it is measured on; None if there are none."""
    images, rows = training.judged
    if not len(rows):
        return None

    def squares(which: NDArray[np.int64]) -> NDArray[np.uint8]:
        (pixels, _), *_ = images.batches(rows[which], len(which))
        return crop(pixels, training.model.size)

    judged = Judged(training.start.labels, training.logits(), images.labels[rows])
    return document(title, judged, images.names(rows), squares)


def _matrix(labels: Labels, counts: NDArray[np.int64]) -> str:
    """The confusion matrix; of many classes those with the most mistakes, of which they are part or which they get."""
    wrong = counts - np.diag(np.diag(counts))
    shown = np.arange(len(labels))
    note = ""
    if len(labels) > MATRIX:
        shown = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MATRIX])
        note = f" The {MATRIX} of {len(labels)} classes with the most mistakes are shown."
    heads = "".join(f'<th title="{_label(labels, int(column))}">{column}</th>' for column in shown)
    rows = []
    for row in shown:
        whole = counts[row].sum()
        cells = "".join(_cell(int(counts[row, column]), int(whole), row == column) for column in shown)
        share = f"{counts[row, row] / whole:.1%}" if whole else "–"
        rows.append(f"<tr><th>{row} {_label(labels, int(row))}</th>{cells}<td>{share}</td></tr>")
    return (
        f"<h2>Confusion matrix</h2><p>Rows are the right classes, columns the network's answers.{note}</p>"
        f'<div class="wide"><table><tr><th></th>{heads}<th>right</th></tr>{"".join(rows)}</table></div>'
    )


def _cell(count: int, whole: int, right: bool) -> str:
    share = count / whole if whole else 0.0
    colour = "34 139 80" if right else "210 60 50"
    return f'<td style="background:rgb({colour} / {share:.2f})">{count or "·"}</td>'


def _sheet(judged: Judged, names: Sequence[str], squares: Callable[[NDArray[np.int64]], NDArray[np.uint8]]) -> str:
    worst, probabilities = judged.worst(), judged.probabilities()
    if not len(worst):
        return "<h2>Worst mistakes</h2><p>There are none.</p>"
    figures = []
    for index, pixels in zip(worst, squares(worst), strict=True):
        guess, truth = int(judged.logits[index].argmax()), int(judged.truth[index])
        figures.append(
            f'<figure><img alt="" src="{page.picture(pixels, SIDE)}"><figcaption>{_label(judged.labels, guess)} '
            f"{probabilities[index, guess]:.1%}<br>right: <b>{_label(judged.labels, truth)}</b> "
            f"{probabilities[index, truth]:.1%}<br>{page.text(names[index])}</figcaption></figure>"
        )
    return (
        f"<h2>Worst mistakes</h2><p>The {len(worst)} surest wrong answers, surest first, as the network saw the "
        f'images.</p><div class="sheet">{"".join(figures)}</div>'
    )


def _label(labels: Labels, index: int) -> str:
    """The class's name in every language in which it is known."""
    names = [labels.en[index], *(listed[index] for listed in labels.translations.values())]
    return " ".join(page.text(name) for name in dict.fromkeys(names))
