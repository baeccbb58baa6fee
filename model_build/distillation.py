"""Distillation: a student learns a teacher's probabilities beside the labels.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531: of the
logits z of the student and v of the teacher, at a temperature T,

    loss = (1 - α) · cross-entropy(labels, z) + α · T² · KL(softmax(v / T) ‖ softmax(z / T))

The factor T² keeps the second part's gradients as large as the first one's, whatever T is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from model_build import datasets, weights
from model_build.network import Contract, from_state
from model_build.weights import WeightsError

if TYPE_CHECKING:
    from model_build.weights import Checkpoint

TEMPERATURE, ALPHA = 4.0, 0.9


class Teacher:
    """A trained network that a student learns from, on the student's pixels.

    ``classes``: the student's class names. ``temperature``, ``alpha``: T and α. The teacher's own mean and std prepare
    what it sees, and its graph enlarges the student's input to its own side. Raises FolderError for a teacher of other
    classes.
    """

    def __init__(self, checkpoint: Checkpoint, classes: tuple[str, ...], temperature: float, alpha: float) -> None:
        self.checkpoint, self.temperature, self.alpha = checkpoint, temperature, alpha
        order = datasets.indexes(checkpoint.labels.en, classes, f"--teacher {checkpoint.origin}")
        self._order = torch.from_numpy(order)
        self._model: Contract | None = None

    @classmethod
    def find(cls, name: str, classes: tuple[str, ...], temperature: float, alpha: float) -> Teacher:
        """The teacher in the file ``name``; also "imagenet" or "demo". Raises WeightsError or FolderError."""
        try:
            checkpoint = weights.find(name, tell=lambda text: None)
        except WeightsError as error:
            raise WeightsError(str(error).replace("--weights", "--teacher")) from None
        return cls(checkpoint, classes, temperature, alpha)

    def sit_with(self, student: Checkpoint, device: torch.device) -> None:
        """Get ready for the student's pixels. Raises WeightsError if they are finer than the teacher's."""
        own, size = self.checkpoint, student.preprocessing.size
        side = own.upsample or own.preprocessing.size
        if side < size:
            raise WeightsError(
                f"--teacher {own.origin} sees {side} pixels and the student {size}; a teacher must see as many, or "
                f"more: --size {side}"
            )
        network = from_state(own.state, own.classes, own.structure, own.architecture)
        grey = own.structure.channels == 1
        model = Contract(network, size=size, upsample=side, grey=grey, mean=own.mean, std=own.std)
        self._model = model.eval().requires_grad_(False).to(device)
        self._order = self._order.to(device)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Its logits float[N, C] in the order of the student's classes, of ``pixels`` uint8[N, S, S, 3]."""
        assert self._model is not None, "sit_with comes first"
        with torch.no_grad():
            return self._model.logits(pixels)[:, self._order]

    def loss(self, logits: torch.Tensor, taught: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        """The loss of the student's ``logits`` float32[N, C], of ``hard``, its loss by the labels, and ``taught``."""
        temperature = self.temperature
        soft = functional.kl_div(
            functional.log_softmax(logits / temperature, 1),
            functional.log_softmax(taught.float() / temperature, 1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - self.alpha) * hard + self.alpha * temperature**2 * soft

    def told(self) -> str:
        """Which teacher and how, for the recipe and for going on after a crash."""
        own = self.checkpoint
        return f"{own.origin} {own.digest[:12]} at temperature {self.temperature:g}, alpha {self.alpha:g}"
