"""``python -m model_build train DIR``: fine-tune ResNet18 on one's own classes, into a file that ``--weights`` takes.

The network is trained inside the serving contract, on the pixels the service will see: the same decoding, the same
normalisation, the same enlargement in the graph.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table
from safetensors.torch import save_file
from torch.nn import functional

from classifier.labels import Labels
from model_build import weights
from model_build.folders import FolderError, ImageFolder, Pixels
from model_build.network import IMAGENET_MEAN, IMAGENET_STD, Contract, from_state, resnet18
from model_build.weights import Checkpoint, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Part = tuple[Pixels, Rows]  # a set of images, and which of them

SUFFIX, MAX_SIDE, NAMED = ".safetensors", 1024, 20
INITS = ("auto", "imagenet", "demo")
MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING, WARM_UP = 0.9, 5e-4, 0.1, 0.2
# Peak learning rates for a batch of 256; other batches scale them linearly.
SCRATCH_LR, TUNING_LR, HEAD_LR = 0.2, 0.04, 0.4


@dataclass(frozen=True)
class Options:
    """What the command line says; None where the default depends on other options."""

    source: Path
    out: Path | None
    init: str
    frozen: bool
    size: int | None
    resize: int | None
    upsample: int | None
    epochs: int
    batch_size: int
    lr: float | None
    flip: bool
    validation: str
    labels: Path | None
    seed: int
    threads: int | None
    device: str
    resume: bool


@click.command(name="train", context_settings={"show_default": True})
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: DIR's name, .safetensors]")
@click.option(
    "--init",
    default="auto",
    metavar="auto|none|imagenet|demo|PATH",
    help=(
        "Weights to start from. auto: ImageNet's where they can be had, else none. none: from scratch. PATH: a .pth, "
        ".pt or .safetensors. The head starts afresh unless the classes are the same."
    ),
)
@click.option("--frozen", is_flag=True, help="Train only the head: quick, for few images. Needs weights to start from.")
@click.option(
    "--size",
    type=click.IntRange(8, MAX_SIDE),
    help=("Side in pixels of the square the network sees.  [default: as in --init, else 224]"),
)
@click.option(
    "--resize",
    type=click.IntRange(8, MAX_SIDE),
    help=("Shorter side in pixels before the centre crop of --size.  [default: as in --init, else 256/224 of --size]"),
)
@click.option(
    "--upsample",
    type=click.IntRange(8, MAX_SIDE),
    help=(
        "Side in pixels the graph enlarges its input to: images of 32 gain from 64.  [default: as in --init, else none]"
    ),
)
@click.option("--epochs", type=click.IntRange(1), default=10, help="Times each image is seen.")
@click.option("--batch-size", type=click.IntRange(2), default=64, help="Images a step.")
@click.option(
    "--lr",
    type=click.FloatRange(0, 100, min_open=True),
    help=(
        f"Peak learning rate.  [default: {HEAD_LR} with --frozen, {SCRATCH_LR} from scratch, else {TUNING_LR}; "
        "times --batch-size/256]"
    ),
)
@click.option("--flip/--no-flip", default=True, help="Mirror half of the images; not for digits, text or arrows.")
@click.option(
    "--validation",
    default="0.1",
    metavar="FRACTION|DIR|ZIP",
    help=("What to measure on: a share of each class that is held back, or images of their own; 0 is nothing."),
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help=(
        'Class names in the order of the sorted folders, as JSON {"en": [...], "zh": [...]}.  '
        "[default: the folders' names]"
    ),
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the split, the head and the order.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: one a core]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto: CUDA if present.")
@click.option("--resume/--no-resume", default=True, help="Go on after the last full epoch of an unfinished run.")
def train(**given: Any) -> None:
    """Train ResNet18 on the images in DIR: one subfolder a class, or a .zip of such a directory.

    Every epoch is kept in a file beside --out until training ends, so the same command goes on after a crash.

    \b
    Example, for pets/cat/1.jpg, pets/dog/1.jpg, …:
      python -m model_build train pets --init imagenet --frozen --epochs 5
      python -m model_build --weights pets.safetensors
    """
    try:
        _run(Options(**given), Console())
    except (FolderError, WeightsError) as error:
        raise click.ClickException(str(error).replace("--weights", "--init")) from None


class Training:
    """A network in training inside the serving contract; ``history`` holds loss, top-1 and seconds of each epoch."""

    def __init__(self, model: Contract, options: Options, peak: float, device: torch.device) -> None:
        self.model, self.options, self.peak, self.device = model.to(device), options, peak, device
        self.model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = dict(model.network.named_parameters())
        if options.frozen:
            model.network.requires_grad_(False)
            named = {name: named[name] for name in ("fc.weight", "fc.bias")}
            for value in named.values():
                value.requires_grad_()
        groups = [
            {"params": [value for value in named.values() if value.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [value for value in named.values() if value.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=peak, momentum=MOMENTUM, nesterov=True)
        self.rng = torch.Generator().manual_seed(options.seed)
        self.history: list[tuple[float, float | None, float]] = []

    def steps(self, rows: Rows) -> tuple[int, int]:
        """Steps an epoch over ``rows`` and images a step: whole batches only, as one image has no batch statistics."""
        size = min(self.options.batch_size, len(rows))
        return len(rows) // size, size

    def epoch(self, images: Pixels, rows: Rows, tick: Callable[[float, float], None]) -> float:
        """Train once on the images at ``rows``; the mean loss. ``tick`` is told the loss and rate of each step."""
        self.model.train(not self.options.frozen)  # the batch statistics of a frozen body are frozen too
        steps, size = self.steps(rows)
        order = rows[torch.randperm(len(rows), generator=self.rng).numpy()][: steps * size]
        bfloat16 = _bfloat16_is_fit(self.device, self.model.upsample or self.model.size)
        losses = []
        for step, (squares, labels) in enumerate(images.batches(order, size)):
            rate = self.peak * one_cycle((len(self.history) + (step + 0.5) / steps) / self.options.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            pixels = augment(torch.from_numpy(squares).to(self.device), self.model.size, self.options.flip, self.rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                logits = self.model.logits(pixels)
            target = torch.from_numpy(labels).to(self.device)
            loss = functional.cross_entropy(logits.float(), target, label_smoothing=LABEL_SMOOTHING)
            if not math.isfinite(loss.item()):
                raise click.ClickException(f"the loss became {loss.item()} at --lr {self.peak:g}; try a smaller one")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            tick(losses[-1], rate)
        return sum(losses) / len(losses)

    def top1(self, images: Pixels, rows: Rows) -> float | None:
        """The share of the images at ``rows`` that is classified right, centre-cropped and in float32; None of none."""
        self.model.eval()
        right, size = 0, self.model.size
        with torch.inference_mode():
            for squares, labels in images.batches(rows, self.options.batch_size):
                start = round((squares.shape[1] - size) / 2)
                centre = torch.from_numpy(squares[:, start : start + size, start : start + size])
                right += int((self.model.logits(centre.to(self.device)).argmax(1).cpu().numpy() == labels).sum())
        return right / len(rows) if len(rows) else None

    def save(self, path: Path, fingerprint: dict[str, str]) -> None:
        """Keep the training so far. The schedule is not kept: it follows from the number of epochs done."""
        state = {
            "fingerprint": fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "history": self.history,
        }
        _replace(path, lambda file: torch.save(state, file))

    def restore(self, path: Path, fingerprint: dict[str, str]) -> None:
        """Go on from what ``save`` kept. Raises ClickException if that is damaged or of another training."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            kept = state["fingerprint"]
        except Exception as error:  # torch raises its own, pickle's and zip's errors here, without a common base
            raise click.ClickException(
                f"{str(path)!r} can't be read ({type(error).__name__}); start over with --no-resume"
            ) from None
        for option, value in fingerprint.items():
            if kept.get(option) != value:
                raise click.ClickException(
                    f"{str(path)!r} holds an unfinished run with {option} {kept.get(option)}, but this one has "
                    f"{option} {value}: give the same to go on, or start over with --no-resume"
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"])
        self.history = state["history"]


def one_cycle(done: float) -> float:
    """The learning rate as a share of its peak, ``done`` 0 to 1 into training: a linear warm-up, then a cosine to 0."""
    return done / WARM_UP if done < WARM_UP else (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def augment(pixels: torch.Tensor, size: int, flip: bool, rng: torch.Generator) -> torch.Tensor:
    """Random views uint8[N, S, S, 3], S = ``size``, of squares uint8[N, R, R, 3]; every draw is from ``rng``.

    The zoom varies about the one of evaluation, so that things do not look larger in training than in use.
    """
    count, side = pixels.shape[:2]

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, 2).uniform_(low, high, generator=rng)

    # In the coordinates of grid_sample the square reaches from -1 to 1; beyond, it is mirrored.
    extent = size / side * draw(0.75, 1.2)[:, :1] * draw(0.94, 1.06)
    shift = draw(-1, 1) * (1 - extent).clamp(min=0.125)
    mirrored = draw(0, 1)[:, 0] < (0.5 if flip else 0.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = extent[:, 0].where(~mirrored, -extent[:, 0]), extent[:, 1], shift
    gain = draw(0.8, 1.2)[:, 0].reshape(-1, 1, 1, 1).to(pixels.device)
    grid = functional.affine_grid(theta.to(pixels.device), [count, 3, size, size], align_corners=False)
    view = functional.grid_sample(
        pixels.permute(0, 3, 1, 2).float(), grid, padding_mode="reflection", align_corners=False
    )
    return (view * gain).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _run(options: Options, console: Console) -> None:
    out, device, share = _out(options), _device(options.device), _share(options.validation)
    folder = _labelled(options.source)
    others = _labelled(Path(options.validation)) if share is None else None
    if others and (odd := sorted(set(others.classes) ^ set(folder.classes))):
        raise click.UsageError(f"--validation {options.validation!r} and DIR differ in the class folder {odd[0]!r}")
    start = _start(options, folder.classes)
    base = HEAD_LR if options.frozen else SCRATCH_LR if start.origin == "none" else TUNING_LR
    peak = options.lr or base * options.batch_size / 256
    if options.threads:
        torch.set_num_threads(options.threads)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = _pixels(folder, start.resize, pool, console)
        rows, held = images.split(share or 0.0, options.seed)
        judged = (images, held)
        if others:
            pixels = _pixels(others, start.resize, pool, console)
            judged = (pixels, np.arange(len(pixels.labels)))
        network = from_state(start.state, start.classes)
        model = Contract(network, size=start.size, upsample=start.upsample, mean=start.mean, std=start.std)
        training = Training(model, options, peak, device)
        fingerprint = {
            "DIR of": f"{len(images.labels)} images, {images.digest[:12]}",
            "--init": f"{start.origin} {start.digest[:12]}",
            "--validation": f"{options.validation if share is not None else judged[0].digest[:12]}",
            "--labels": ", ".join(start.labels.en + (start.labels.zh or ())),
            "--lr": f"{peak:g}",
            **{f"--{name}": str(getattr(start, name)) for name in ("size", "resize", "upsample")},
            **{f"--{name}": str(getattr(options, name)) for name in ("frozen", "epochs", "flip", "seed")},
            "--batch-size": str(options.batch_size),
        }
        kept = out.with_name(out.name + ".unfinished")
        if options.resume and kept.is_file():
            training.restore(kept, fingerprint)
            click.echo(f"going on after epoch {len(training.history)} of {options.epochs}, kept in {str(kept)!r}")
        try:
            _epochs(training, (images, rows), judged, lambda: training.save(kept, fingerprint), console)
        except KeyboardInterrupt:
            if training.history:
                click.echo(f"\n{len(training.history)} epochs are kept in {str(kept)!r}; the same command goes on")
            raise click.Abort from None
        _write(training, start, judged, out, len(rows))
    kept.unlink(missing_ok=True)


def _epochs(training: Training, trained: Part, judged: Part, save: Callable[[], None], console: Console) -> None:
    """Train to the last epoch under a progress bar, keeping each; then the table of all."""
    epochs, (steps, size) = training.options.epochs, training.steps(trained[1])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs * steps, completed=len(training.history) * steps, now="")
        while len(training.history) < epochs:
            name = f"epoch {len(training.history) + 1} of {epochs}"
            bar.update(task, description=name)
            begun = time.perf_counter()
            done = 0

            def tick(loss: float, rate: float) -> None:
                nonlocal done
                done += size
                speed = done / (time.perf_counter() - begun)  # noqa: B023 - called within this turn only
                bar.update(task, advance=1, now=f"loss {loss:.3f} · lr {rate:.4f} · {speed:.0f} images/s")

            loss = training.epoch(*trained, tick)
            top1 = training.top1(*judged)
            training.history.append((loss, top1, time.perf_counter() - begun))
            save()
            if not console.is_terminal:  # where no bar moves, a log still should
                click.echo(f"{name}: loss {loss:.3f}, top-1 {_percent(top1)}")
    table = Table("epoch", "loss", "top-1", "seconds", title=f"Validation on {len(judged[1])} images")
    for number, (loss, top1, seconds) in enumerate(training.history, 1):
        table.add_row(str(number), f"{loss:.3f}", _percent(top1), f"{seconds:.1f}")
    console.print(table)


def _write(training: Training, start: Checkpoint, judged: Part, out: Path, count: int) -> None:
    """Write the checkpoint, in float16 where that is measured to cost no accuracy, else in float32."""
    options, network, top1 = training.options, training.model.network, training.history[-1][1]
    state = {
        name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in network.state_dict().items()
    }
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(half)
    rounded = training.top1(*judged)
    finite = all(bool(value.isfinite().all()) for value in half.values())
    precision = "float32"
    if finite and rounded is not None and top1 is not None and rounded >= top1:
        state, top1, precision = half, rounded, "float16"
    origin = "scratch" if start.origin == "none" else start.origin
    names = {"en": start.labels.en} | ({"zh": start.labels.zh} if start.labels.zh else {})
    metadata = {
        "labels": json.dumps(names, ensure_ascii=False),
        "input_size": str(start.size),
        "resize": str(start.resize),
        "mean": ",".join(map(str, start.mean)),
        "std": ",".join(map(str, start.std)),
        "recipe": (
            f"{'head' if options.frozen else 'whole network'} trained from {origin} on {count} images: "
            f"{options.epochs} epochs of SGD, Nesterov {MOMENTUM}, one cycle to {training.peak:g}, batch "
            f"{options.batch_size}, weight decay {WEIGHT_DECAY}, label smoothing {LABEL_SMOOTHING}, seed {options.seed}"
        ),
    }
    if start.upsample:
        metadata["upsample"] = str(start.upsample)
    if top1 is not None:
        metadata["accuracy"] = f"{top1:.4f} top-1 on {len(judged[1])} validation images"
    _replace(out, lambda file: save_file(state, file, metadata))
    click.echo(
        f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB, {precision}), {start.classes} classes, "
        f"top-1 {_percent(top1)}\nto serve it: python -m model_build --weights {shlex.quote(str(out))}"
    )


def _start(options: Options, classes: tuple[str, ...]) -> Checkpoint:
    """What training starts from, its head, labels and sizes already those of the checkpoint to come."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        fresh = resnet18(len(classes)).state_dict()
    checkpoint = Checkpoint(fresh, "none", Labels(classes), 224, 256, None, IMAGENET_MEAN, IMAGENET_STD, "")
    if options.init not in (*INITS, "none") and not Path(options.init).is_file():
        raise click.UsageError(f"--init {options.init!r} is not a file, nor one of {', '.join(INITS)}, none")
    if options.init != "none":
        try:
            checkpoint = weights.find("imagenet" if options.init == "auto" else options.init)
        except WeightsError as error:
            if options.init != "auto":
                raise
            click.echo(f"{error}\n\nTraining starts from scratch instead, which takes many more images.", err=True)
    if options.frozen and checkpoint.origin == "none":
        raise click.UsageError(f"--frozen needs weights to start from, and --init {options.init} gave none")
    labels = checkpoint.labels if checkpoint.labels.en == classes else Labels(classes)
    if options.labels:
        labels = weights.read_labels(options.labels)
    if len(labels.en) != len(classes):
        raise click.UsageError(
            f"--labels {str(options.labels)!r} holds {len(labels.en)} names, but DIR has {len(classes)} class folders: "
            f"{', '.join(classes[:NAMED])}{', …' if len(classes) > NAMED else ''}"
        )
    size = options.size or checkpoint.size
    if size != checkpoint.size:  # a checkpoint's enlargement and crop belong to its own size
        checkpoint = replace(checkpoint, size=size, resize=weights.default_resize(size), upsample=None)
    resize, upsample = options.resize or checkpoint.resize, options.upsample or checkpoint.upsample
    for option, value in (("--resize", resize), ("--upsample", upsample)):
        if value is not None and value < size:
            raise click.UsageError(f"{option} {value} is smaller than the network's input of {size} pixels (--size)")
    same = checkpoint.labels.en in (labels.en, classes)
    state = fresh | {name: value for name, value in checkpoint.state.items() if same or not name.startswith("fc.")}
    upsample = None if upsample == size else upsample
    return replace(checkpoint, state=state, labels=labels, resize=resize, upsample=upsample)


def _out(options: Options) -> Path:
    """Where the checkpoint goes; found unusable now rather than after hours of training."""
    source = options.source.resolve()
    name = source.stem if source.suffix.lower() == ".zip" else source.name
    out = options.out or Path(name + SUFFIX)
    if out.suffix != SUFFIX:
        raise click.UsageError(f"--out {str(out)!r} must end in {SUFFIX}")
    if out.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"--out {str(out)!r} can't be written: it must be a file in a writable directory")
    return out


def _device(name: str) -> torch.device:
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise click.UsageError("--device 'cuda': no CUDA device is usable here; cpu and auto are")
    return torch.device("cuda" if present and name != "cpu" else "cpu")


def _share(validation: str) -> float | None:
    """``--validation`` as the share of images to hold back; None where it is a directory or zip."""
    try:
        share = float(validation)
    except ValueError:
        if Path(validation).exists():
            return None
        share = math.nan
    if not 0 <= share < 1:
        raise click.UsageError(f"--validation {validation!r} is no share from 0 to below 1, no directory and no .zip")
    return share


def _labelled(path: Path) -> ImageFolder:
    folder = ImageFolder.open(path)
    if len(folder.classes) < 2:
        found = f"only the class folder {folder.classes[0]!r}" if folder.classes else "no class folders"
        raise FolderError(f"{str(path)!r} holds {found}; expected two or more, each with its images")
    return folder


def _pixels(folder: ImageFolder, side: int, pool: ThreadPoolExecutor, console: Console) -> Pixels:
    """The folder's pixels; tells which images are skipped, and raises FolderError if a class is left with none."""
    watch = partial(track, description="reading", total=len(folder.items), console=console, transient=True)
    pixels = Pixels(folder, side, pool, watch)
    if pixels.skipped:
        lines = [f"{folder.path}: {len(pixels.skipped)} unreadable, skipped:", *pixels.skipped[:NAMED]]
        more = len(pixels.skipped) - NAMED
        click.echo("\n  ".join(lines + ([f"and {more} more"] if more > 0 else [])), err=True)
    for label, name in enumerate(folder.classes):
        if label not in pixels.labels:
            raise FolderError(f"{str(folder.path)!r}: no image of the class folder {name!r} can be read")
    return pixels


def _bfloat16_is_fit(device: torch.device, side: int) -> bool:
    """Whether bfloat16 is quicker on ``device`` and right for a network input of ``side`` pixels."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    # Up to 16 pixels the last stage sees a single one, and there torch 2.13's strided bfloat16 convolution leaves the
    # gradient of the weights that meet only padding uninitialised: NaN or 1e38.
    return side > 16 and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that ``path`` is at every moment either the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.replace(path)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
