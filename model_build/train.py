"""``python -m model_build train DIR``: fine-tune a network on one's own classes, into a file that ``--weights`` takes.

The network is trained inside the serving contract, on the pixels the service will see: the same decoding, the same
normalisation, the same enlargement in the graph.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from classifier.architectures import ARCHITECTURES, DEFAULT
from model_build import datasets, distillation, mistakes
from model_build.distillation import Teacher
from model_build.initial import initial
from model_build.label_text import LabelsError
from model_build.listing import FolderError
from model_build.options import structure
from model_build.recipe import HEAD_LR, SCRATCH_LR, TUNING_LR, Recipe
from model_build.training import Training, TrainingError, replace_file
from model_build.weights import WeightsError

SUFFIX = ".safetensors"
SIDE = click.IntRange(8, 1024)


@dataclass(frozen=True)
class Options(Recipe):
    """What the command line says beyond the recipe; None where the default depends on other options.

    ``chosen``: that ``validation`` is of the command line.
    """

    source: Path
    architecture: str | None
    teacher: str | None
    temperature: float
    alpha: float
    chosen: bool
    out: Path | None
    init: str
    key: str | None
    size: int | None
    resize: int | None
    upsample: int | None
    labels: Path | None
    pool: bool | None
    stride: str | None
    activation: str | None
    threads: int | None
    device: str
    resume: bool


@click.command(name="train", context_settings={"show_default": True})
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--arch",
    "architecture",
    type=click.Choice(list(ARCHITECTURES)),
    help=f"The network, torchvision's of that name.  [default: the one whose keys --init PATH has, else {DEFAULT}]",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: DIR's name, .safetensors]")
@click.option(
    "--init",
    default="auto",
    metavar="auto|none|imagenet|demo|PATH",
    help="Weights to start from. auto: ImageNet's where they can be had, else none. none: from scratch. PATH: a state "
    "dict of torch.save or safetensors. The head starts afresh unless the classes are the same.",
)
@click.option("--key", metavar="NAME", help="Which set of weights of several in --init PATH.  [default: the average]")
@click.option(
    "--teacher",
    metavar="imagenet|demo|PATH",
    help="A trained network of the same classes, of any --arch, from whose probabilities this one learns, too.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(1, 100),
    default=distillation.TEMPERATURE,
    help="Of the softmax through which the teacher teaches: more shows more of the less probable classes.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=distillation.ALPHA,
    help="The weight of the teacher in the loss; the labels have the rest.",
)
@click.option("--frozen", is_flag=True, help="Train only the head: quick, for few images. Needs weights to start from.")
@click.option(
    "--size", type=SIDE, help="Side in pixels of the square the network sees.  [default: as in --init, else 224]"
)
@click.option(
    "--resize",
    type=SIDE,
    help="Shorter side in pixels before the centre crop of --size.  [default: as in --init, else 256/224 of --size]",
)
@click.option(
    "--upsample",
    type=SIDE,
    help="Side in pixels the graph enlarges its input to: images of 32 gain from 64.  "
    "[default: as in --init, else none]",
)
@click.option("--epochs", type=click.IntRange(1), default=10, help="Times each image is seen.")
@click.option("--batch-size", type=click.IntRange(2), default=64, help="Images a step.")
@click.option(
    "--lr",
    type=click.FloatRange(0, 100, min_open=True),
    help=f"Peak learning rate.  [default: {HEAD_LR} with --frozen, {SCRATCH_LR} from scratch, else {TUNING_LR}; "
    "times --batch-size/256]",
)
@click.option("--flip/--no-flip", default=True, help="Mirror half of the images; not for digits, text or arrows.")
@click.option(
    "--validation",
    metavar="FRACTION|DIR|ZIP",
    help="What to measure on: a share of each class that is held back, or images of their own; 0 is nothing.  "
    "[default: the folder val or test beside DIR's folder train, else 0.1]",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Class names in the order of the sorted folders: a text, CSV, YAML or JSON file.  "
    "[default: the folders' names]",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the split, the head and the order.")
@structure
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: one a core]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto: CUDA if present.")
@click.option("--resume/--no-resume", default=True, help="Go on after the last full epoch of an unfinished run.")
def train(**given: Any) -> None:
    """Train ResNet18, or another --arch, on the images in DIR: one subfolder a class, or a .zip of such a directory.

    DIR may hold folders called train and val (or valid, validation, dev, test), each with the class folders: then
    train is trained on, and val, else test, is measured on.

    It ends with a page beside --out: the confusion matrix and the worst mistakes.

    Every epoch is kept in a file beside --out until training ends, so the same command goes on after a crash.

    \b
    Example, for pets/cat/1.jpg, pets/dog/1.jpg, …:
      python -m model_build train pets --init imagenet --frozen --epochs 5
      make serve WEIGHTS=pets.safetensors
    """
    try:
        chosen = given["validation"] is not None
        _run(Options(**given if chosen else given | {"validation": datasets.SHARE}, chosen=chosen), Console())
    except (FolderError, WeightsError) as error:
        raise click.ClickException(str(error).replace("--weights", "--init")) from None
    except (LabelsError, TrainingError) as error:
        raise click.ClickException(str(error)) from None


def _run(options: Options, console: Console) -> None:
    out, device, share = _out(options), _device(options.device), datasets.share(options.validation)
    folder, others = datasets.find(options.source, options.validation, options.chosen)
    teacher = None
    if options.teacher is not None:
        teacher = Teacher.find(options.teacher, folder.classes, options.temperature, options.alpha)
    start = initial(options, folder.classes, teacher.checkpoint if teacher else None)
    if options.threads:
        torch.set_num_threads(options.threads)
    with _alone(out), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = datasets.read(folder, start.preprocessing, pool, console)
        rows, held = images.split(0.0 if others else share or 0.0, options.seed)
        judged = (images, held)
        if others:
            pixels = datasets.read(others, start.preprocessing, pool, console)
            judged = (pixels, datasets.unseen(pixels, images))
        kept = out.with_name(out.name + ".unfinished")
        training = Training(start, options, (images, rows), judged, kept, device, teacher)
        if options.resume and kept.is_file():
            training.restore()
            click.echo(f"going on after epoch {len(training.history)} of {options.epochs}, kept in {str(kept)!r}")
        try:
            _epochs(training, console)
        except KeyboardInterrupt:
            if training.history:
                click.echo(f"\n{len(training.history)} epochs are kept in {str(kept)!r}; the same command goes on")
            raise click.Abort from None
        precision, top1 = training.write(out)
        if text := mistakes.of(training, f"Mistakes of {out.name}"):
            path = out.with_suffix(".mistakes.html")
            replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))
            click.echo(f"wrote {path}: the confusion matrix and the worst mistakes")
        click.echo(
            f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB, {precision}), {start.classes} classes, "
            f"top-1 {_percent(top1)}\nto serve it: make serve WEIGHTS={shlex.quote(str(out))}"
        )
    kept.unlink(missing_ok=True)


def _epochs(training: Training, console: Console) -> None:
    """Train to the last epoch under a progress bar, keeping each; then the table of all."""
    epochs, (steps, _) = training.recipe.epochs, training.steps()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs * steps, completed=len(training.history) * steps, now="")

        def tick(loss: float, rate: float, speed: float) -> None:
            bar.update(task, advance=1, now=f"loss {loss:.3f} · lr {rate:.4f} · {speed:.0f} images/s")

        while len(training.history) < epochs:
            name = f"epoch {len(training.history) + 1} of {epochs}"
            bar.update(task, description=name)
            training.advance(tick)
            if not console.is_terminal:  # where no bar moves, a log still should
                loss, top1, _ = training.history[-1]
                click.echo(f"{name}: loss {loss:.3f}, top-1 {_percent(top1)}")
    table = Table("epoch", "loss", "top-1", "seconds", title=f"Validation on {len(training.judged[1])} images")
    for number, (loss, top1, seconds) in enumerate(training.history, 1):
        table.add_row(str(number), f"{loss:.3f}", _percent(top1), f"{seconds:.1f}")
    console.print(table)


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


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let no other training write the same files meanwhile. Raises UsageError where one does already."""
    lock = out.with_name(out.name + ".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise click.UsageError(f"--out {str(out)!r} is what another training writes just now") from None
        try:
            yield
        finally:
            lock.unlink()


def _device(name: str) -> torch.device:
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise click.UsageError("--device 'cuda': no CUDA device is usable here; cpu and auto are")
    return torch.device("cuda" if present and name != "cpu" else "cpu")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
