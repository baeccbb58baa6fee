"""Training inside the serving contract: epochs, evaluation, resuming, and the checkpoint that comes of it.

It is given pixels and a checkpoint to start from, and knows the command line only by the options its messages name.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from classifier.architectures import DEFAULT
from model_build import atomic, layout
from model_build import recipe as recipes
from model_build.augmentation import augment
from model_build.errors import first_line
from model_build.network import Contract, from_state
from model_build.recipe import LABEL_SMOOTHING, MOMENTUM, WEIGHT_DECAY, one_cycle
from runners import devices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from model_build.distillation import Teacher
    from model_build.folders import Pixels
    from model_build.recipe import Recipe
    from model_build.weights import Checkpoint

    Rows = NDArray[np.int64]
    Part = tuple[Pixels, Rows]  # a set of images, and which of them

STRUCTURE = "--init of the structure"  # of a run's fingerprint


class TrainingError(Exception):
    """Training can't go on; the message says why and what to do."""


class Training:
    """A network that starts as ``start``, learns from ``trained``, and a ``teacher``, and is judged on ``judged``.

    ``history`` holds loss, top-1 and seconds of each epoch; ``kept`` is the file to go on from after a crash.
    """

    def __init__(
        self,
        start: Checkpoint,
        recipe: Recipe,
        trained: Part,
        judged: Part,
        kept: Path,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.start, self.recipe, self.kept, self.device = start, recipe, kept, device
        self.trained, self.judged, self.teacher = trained, judged, teacher
        if teacher:
            teacher.sit_with(start, device)
        self.peak = recipe.peak(start.origin)
        network = from_state(start.state, start.classes, start.structure, start.architecture)
        size, grey = start.preprocessing.size, start.structure.channels == 1
        model = Contract(network, size=size, upsample=start.upsample, grey=grey, mean=start.mean, std=start.std)
        self.model = model.to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = dict(network.named_parameters())
        if recipe.frozen:
            network.requires_grad_(False)
            # Of a ResNet18 all layers of its head, which may be several.
            head = layout.head(start.architecture)
            named = {name: value for name, value in named.items() if name.startswith(f"{head}.")}
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
            # Dropout draws from torch's own generator: seeded, an epoch is the same after a crash.
            with torch.random.fork_rng():
                torch.manual_seed(self.recipe.seed + len(self.history))
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
                taught = self.teacher.logits(pixels) if self.teacher else None
            target = torch.from_numpy(labels).to(self.device)
            loss = functional.cross_entropy(logits.float(), target, label_smoothing=LABEL_SMOOTHING)
            if self.teacher and taught is not None:
                loss = self.teacher.loss(logits.float(), taught, loss)
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
        images, rows = self.judged
        return float(np.mean(self.logits().argmax(1) == images.labels[rows])) if len(rows) else None

    def logits(self) -> NDArray[np.float32]:
        """The logits float32[N, C] of ``judged``, centre-cropped and in float32."""
        self.model.eval()
        (images, rows), found = self.judged, [np.empty((0, self.start.classes), np.float32)]
        with torch.inference_mode():
            for squares, _ in images.batches(rows, self.recipe.batch_size):
                centre = torch.from_numpy(crop(squares, self.model.size)).to(self.device)
                found.append(self.model.logits(centre).cpu().numpy())
        return np.concatenate(found)

    def fingerprint(self) -> dict[str, str]:
        """What a run must share with an unfinished one to go on from it, by the option that sets it."""
        start, recipe, images, others = self.start, self.recipe, self.trained[0], self.judged[0]
        told = start.preprocessing.told().items()
        return {
            "DIR of": f"{len(images.labels)} images, {images.digest[:12]}",
            STRUCTURE: json.dumps(start.structure.told()),
            "--init": f"{start.origin} {start.digest[:12]}",
            "--validation": recipe.validation if others is images else others.digest[:12],
            "--labels": ", ".join(name for names in start.labels.told().values() for name in names or ()),
            "--lr": f"{self.peak:g}",
            **{("--" if name in ("size", "resize") else "--init with ") + name: str(value) for name, value in told},
            "--upsample": str(start.upsample),
            **{f"--{name}": str(getattr(recipe, name)) for name in ("frozen", "epochs", "flip", "seed")},
            "--batch-size": str(recipe.batch_size),
            # Unfinished runs of versions without these options go on.
            **({"--arch": start.architecture} if start.architecture != DEFAULT else {}),
            **({"--teacher": self.teacher.told()} if self.teacher else {}),
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
        replace_file(self.kept, lambda file: torch.save(state, file))

    def restore(self) -> None:
        """Go on from what ``save`` kept. Raises TrainingError if that is damaged or of another training."""
        mine = self.fingerprint()
        try:
            state = torch.load(self.kept, map_location="cpu", weights_only=True)
            # Versions without it kept the digest alone, which tells the same.
            kept = {STRUCTURE: mine[STRUCTURE]} | state["fingerprint"]
        except Exception as error:  # torch raises its own, pickle's and zip's errors here, without a common base
            raise TrainingError(
                f"{str(self.kept)!r} can't be read ({type(error).__name__}); start over with --no-resume"
            ) from None
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
        start, network, top1 = self.start, self.model.network, self.history[-1][1]
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
        network.load_state_dict(state)
        metadata = recipes.metadata(start, self.recipe, len(self.trained[1]), self.teacher)
        if top1 is not None:
            metadata["accuracy"] = f"{top1:.4f} top-1 on {len(self.judged[1])} validation images"
        replace_file(out, lambda file: save_file(state, file, metadata))
        return precision, top1


def crop(squares: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The centres uint8[N, S, S, 3], S = ``size``, of squares uint8[N, R, R, 3]."""
    start = round((squares.shape[1] - size) / 2)
    return squares[:, start : start + size, start : start + size]


def _bfloat16_is_fit(device: torch.device, side: int) -> bool:
    """Whether bfloat16 is quicker on ``device`` and right for a network input of ``side`` pixels."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    # Up to 16 pixels the last stage sees a single one, and there torch 2.13's strided bfloat16 convolution leaves the
    # gradient of the weights that meet only padding uninitialised: NaN or 1e38.
    return side > 16 and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write ``path``, which no other training does meanwhile. Raises TrainingError."""
    try:
        atomic.write(path, write, alone=True)
    except Exception as error:  # torch and safetensors raise their own for a full disk, without a common base
        raise TrainingError(
            f"{str(path)!r} can't be written: {first_line(error)}; what was kept of the training is whole"
        ) from None
