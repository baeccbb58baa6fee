"""Training inside the serving contract: epochs, evaluation, resuming, and the checkpoint that comes of it.

It is given pixels and a checkpoint to start from, and knows the command line only by the options its messages name.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch.nn import functional

from model_build import atomic
from model_build.augmentation import augment
from model_build.errors import first_line
from model_build.network import Contract, from_state
from runners import devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from model_build.folders import Pixels
    from model_build.weights import Checkpoint

    Rows = NDArray[np.int64]
    Part = tuple[Pixels, Rows]  # a set of images, and which of them

MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING, WARM_UP = 0.9, 5e-4, 0.1, 0.2
# Peak learning rates for a batch of 256; other batches scale them linearly.
SCRATCH_LR, TUNING_LR, HEAD_LR = 0.2, 0.04, 0.4


class TrainingError(Exception):
    """Training can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class Recipe:
    """How to train, as the options of the same names say."""

    frozen: bool
    epochs: int
    batch_size: int
    lr: float | None
    flip: bool
    validation: str
    seed: int


class Training:
    """A network that starts as ``start``, learns from ``trained`` and is judged on ``judged``.

    ``history`` holds loss, top-1 and seconds of each epoch; ``kept`` is the file to go on from after a crash.
    """

    def __init__(
        self, start: Checkpoint, recipe: Recipe, trained: Part, judged: Part, kept: Path, device: torch.device
    ) -> None:
        self.start, self.recipe, self.kept, self.device = start, recipe, kept, device
        self.trained, self.judged = trained, judged
        base = HEAD_LR if recipe.frozen else SCRATCH_LR if start.origin == "none" else TUNING_LR
        self.peak = recipe.lr or base * recipe.batch_size / 256
        network = from_state(start.state, start.classes, start.structure)
        size, grey = start.preprocessing.size, start.structure.channels == 1
        model = Contract(network, size=size, upsample=start.upsample, grey=grey, mean=start.mean, std=start.std)
        self.model = model.to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = dict(network.named_parameters())
        if recipe.frozen:
            network.requires_grad_(False)
            named = {name: value for name, value in named.items() if name.startswith("fc.")}
            for value in named.values():
                value.requires_grad_()
        groups = [
            {"params": [value for value in named.values() if value.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [value for value in named.values() if value.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=self.peak, momentum=MOMENTUM, nesterov=True)
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.history: list[tuple[float, float | None, float]] = []

    def steps(self) -> tuple[int, int]:
        """Steps an epoch and images a step: whole batches only, as one image has no batch statistics."""
        size = min(self.recipe.batch_size, len(self.trained[1]))
        return len(self.trained[1]) // size, size

    def advance(self, tick: Callable[[float, float, float], None]) -> None:
        """Train for one more epoch, evaluate it, and keep it."""
        begun = time.perf_counter()
        try:
            loss = self.epoch(tick)
            top1 = self.top1()
        except Exception as error:  # of torch, whose errors of memory have no common base
            if not isinstance(devices.failure(error), devices.OutOfMemory):
                raise
            size = self.recipe.batch_size
            raise TrainingError(
                f"--batch-size {size} does not fit the memory of {self.device}; try a smaller one"
            ) from None
        self.history.append((loss, top1, time.perf_counter() - begun))
        self.save()

    def epoch(self, tick: Callable[[float, float, float], None]) -> float:
        """Train once on every image; the mean loss. ``tick`` is told the loss, rate and images/s of each step."""
        begun = time.perf_counter()
        self.model.train(not self.recipe.frozen)  # the batch statistics of a frozen body are frozen too
        (images, rows), (steps, size) = self.trained, self.steps()
        order = rows[torch.randperm(len(rows), generator=self.rng).numpy()][: steps * size]
        bfloat16 = _bfloat16_is_fit(self.device, self.model.upsample or self.model.size)
        losses = []
        for step, (squares, labels) in enumerate(images.batches(order, size)):
            rate = self.peak * one_cycle((len(self.history) + (step + 0.5) / steps) / self.recipe.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            pixels = augment(torch.from_numpy(squares).to(self.device), self.model.size, self.recipe.flip, self.rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                logits = self.model.logits(pixels)
            target = torch.from_numpy(labels).to(self.device)
            loss = functional.cross_entropy(logits.float(), target, label_smoothing=LABEL_SMOOTHING)
            if not math.isfinite(loss.item()):
                raise TrainingError(f"the loss became {loss.item()} at --lr {self.peak:g}; try a smaller one")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            tick(losses[-1], rate, len(losses) * size / (time.perf_counter() - begun))
        return sum(losses) / len(losses)

    def top1(self) -> float | None:
        """The share of ``judged`` that is classified right, centre-cropped and in float32; None of none."""
        self.model.eval()
        (images, rows), right, size = self.judged, 0, self.model.size
        with torch.inference_mode():
            for squares, labels in images.batches(rows, self.recipe.batch_size):
                start = round((squares.shape[1] - size) / 2)
                centre = torch.from_numpy(squares[:, start : start + size, start : start + size])
                right += int((self.model.logits(centre.to(self.device)).argmax(1).cpu().numpy() == labels).sum())
        return right / len(rows) if len(rows) else None

    def fingerprint(self) -> dict[str, str]:
        """What a run must share with an unfinished one to go on from it, by the option that sets it."""
        start, recipe, images, others = self.start, self.recipe, self.trained[0], self.judged[0]
        told = start.preprocessing.told().items()
        return {
            "DIR of": f"{len(images.labels)} images, {images.digest[:12]}",
            "--init": f"{start.origin} {start.digest[:12]}",
            "--validation": recipe.validation if others is images else others.digest[:12],
            "--labels": ", ".join(name for names in start.labels.told().values() for name in names or ()),
            "--lr": f"{self.peak:g}",
            **{("--" if name in ("size", "resize") else "--init with ") + name: str(value) for name, value in told},
            "--upsample": str(start.upsample),
            **{f"--{name}": str(getattr(recipe, name)) for name in ("frozen", "epochs", "flip", "seed")},
            "--batch-size": str(recipe.batch_size),
        }

    def save(self) -> None:
        """Keep the training so far. The schedule is not kept: it follows from the number of epochs done."""
        state = {
            "fingerprint": self.fingerprint(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "history": self.history,
        }
        _replace(self.kept, lambda file: torch.save(state, file))

    def restore(self) -> None:
        """Go on from what ``save`` kept. Raises TrainingError if that is damaged or of another training."""
        try:
            state = torch.load(self.kept, map_location="cpu", weights_only=True)
            kept = state["fingerprint"]
        except Exception as error:  # torch raises its own, pickle's and zip's errors here, without a common base
            raise TrainingError(
                f"{str(self.kept)!r} can't be read ({type(error).__name__}); start over with --no-resume"
            ) from None
        mine = self.fingerprint()
        for option in mine | kept:
            value = mine.get(option)
            if kept.get(option) != value:
                raise TrainingError(
                    f"{str(self.kept)!r} holds an unfinished run with {option} {kept.get(option)}, but this one has "
                    f"{option} {value}: give the same to go on, or start over with --no-resume"
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"])
        self.history = state["history"]

    def write(self, out: Path) -> tuple[str, float | None]:
        """Write the checkpoint to ``out``; return its precision and its top-1, None where nothing was measured.

        The precision is "float16" where that is measured to cost no accuracy, else "float32".
        """
        start, recipe, network, top1 = self.start, self.recipe, self.model.network, self.history[-1][1]
        state = {
            name: value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in network.state_dict().items()
        }
        half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        network.load_state_dict(half)
        rounded = self.top1()
        finite = all(bool(value.isfinite().all()) for value in half.values())
        precision = "float32"
        if finite and rounded is not None and top1 is not None and rounded >= top1:
            state, top1, precision = half, rounded, "float16"
        origin = "scratch" if start.origin == "none" else start.origin
        names = {code: listed for code, listed in start.labels.told().items() if listed}
        metadata = {
            "labels": json.dumps(names, ensure_ascii=False),
            "input_size": str(start.preprocessing.size),
            "resize": str(start.preprocessing.resize),
            "squash": str(start.preprocessing.squash).lower(),
            "interpolation": start.preprocessing.interpolation,
            "antialias": str(start.preprocessing.antialias).lower(),
            "mean": ",".join(map(str, start.mean)),
            "std": ",".join(map(str, start.std)),
            "recipe": (
                f"{'head' if recipe.frozen else 'whole network'} trained from {origin} on {len(self.trained[1])} "
                f"images: {recipe.epochs} epochs of SGD, Nesterov {MOMENTUM}, one cycle to {self.peak:g}, batch "
                f"{recipe.batch_size}, weight decay {WEIGHT_DECAY}, label smoothing {LABEL_SMOOTHING}, "
                f"seed {recipe.seed}"
            ),
        }
        metadata |= start.structure.metadata()
        if start.upsample:
            metadata["upsample"] = str(start.upsample)
        if top1 is not None:
            metadata["accuracy"] = f"{top1:.4f} top-1 on {len(self.judged[1])} validation images"
        _replace(out, lambda file: save_file(state, file, metadata))
        return precision, top1


def one_cycle(done: float) -> float:
    """The learning rate as a share of its peak, ``done`` 0 to 1 into training: a linear warm-up, then a cosine to 0."""
    return done / WARM_UP if done < WARM_UP else (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def _bfloat16_is_fit(device: torch.device, side: int) -> bool:
    """Whether bfloat16 is quicker on ``device`` and right for a network input of ``side`` pixels."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    # Up to 16 pixels the last stage sees a single one, and there torch 2.13's strided bfloat16 convolution leaves the
    # gradient of the weights that meet only padding uninitialised: NaN or 1e38.
    return side > 16 and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write ``path``, which no other training does meanwhile. Raises TrainingError."""
    try:
        atomic.write(path, write, alone=True)
    except Exception as error:  # torch and safetensors raise their own for a full disk, without a common base
        raise TrainingError(
            f"{str(path)!r} can't be written: {first_line(error)}; what was kept of the training is whole"
        ) from None
