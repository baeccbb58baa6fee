"""``python -m model_build compare DIR``: which network to serve, by figures measured on this machine."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console

from classifier.architectures import ARCHITECTURES
from model_build import comparison, costs, datasets, scratch, selection
from model_build.label_text import LabelsError
from model_build.listing import FolderError
from model_build.samples import CROPS, Samples
from model_build.train import train
from model_build.training import crop
from model_build.weights import WeightsError, find

if TYPE_CHECKING:
    from model_build.comparison import Row
    from model_build.folders import ImageFolder
    from model_build.weights import Checkpoint

# Options of training that ``compare`` hands on as they are.
HANDED_ON = ("init", "epochs", "size", "resize", "upsample", "batch_size", "seed", "threads")


@click.command(name="compare", context_settings={"show_default": True})
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--archs", default=",".join(ARCHITECTURES), metavar="LIST", help="The networks, separated by commas.")
@click.option(
    "--weights",
    "given",
    multiple=True,
    metavar="ARCH=FILE",
    help="Take a trained network of --archs from a file instead of training it; repeat for several.",
)
@click.option("--precisions", default="fp32,int8", metavar="LIST", help=f"Comma-separated: {selection.LISTED}.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write.  [default: DIR's name, -compare]")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Measurements of each artifact; medians count.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600, min_open=True), default=1.0, help="Of each measurement of a time."
)
@click.option("--init", type=click.Choice(["auto", "none", "imagenet"]), default="auto", help="As in train.")
@click.option("--epochs", type=click.IntRange(1), default=3, help="As in train.")
@click.option("--size", type=int, help="As in train.")
@click.option("--resize", type=int, help="As in train.")
@click.option("--upsample", type=int, help="As in train.")
@click.option("--batch-size", type=int, help="As in train.")
@click.option("--seed", type=int, help="As in train.")
@click.option("--threads", type=int, help="As in train.")
def compare(source: Path, archs: str, given: tuple[str, ...], precisions: str, out: Path | None, **rest: Any) -> None:
    """Compare networks on the images in DIR: train each briefly, or take it from a file, and measure what decides.

    Parameters, file size, accuracy, latency, throughput and memory of each precision, on ONNX Runtime and this CPU.
    All are judged on the same images, which training does not see. The folder --out gets the page index.html and the
    trained weights.

    \b
    Example:
      python -m model_build compare pets --archs resnet18,mobilenet_v2 --epochs 5
      make serve WEIGHTS=pets-compare/mobilenet_v2.safetensors
    """
    names = _names(archs)
    files = _files(given, names)
    wanted = [precision for _, precision in selection.pairs((comparison.RUNTIME,), precisions)]
    folder = out or Path(f"{source.resolve().stem}-compare")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--out {str(folder)!r} can't be written: {error.strerror}") from None
    rounds, seconds = rest.pop("rounds"), rest.pop("seconds")
    try:
        for name in names:
            if name not in files:
                files[name] = folder / f"{name}.safetensors"
                click.echo(f"training {name}")
                train.main(_training(source, name, files[name], rest), standalone_mode=False)
        checkpoints = [find(str(files[name]), architecture=name) for name in names]
        with scratch.folder("resnet18-compare-") as aside:
            rows = _rows(source, checkpoints, wanted, rest["seed"] or 0, aside)
            rows = comparison.measured(rows, rounds, seconds)
    except (FolderError, WeightsError, LabelsError) as error:
        raise click.ClickException(str(error)) from None
    _tell(source, folder, rows, [name for name in names if any(text.startswith(f"{name}=") for text in given)])


def _names(archs: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in archs.split(",") if name.strip()))
    for name in names:
        if name not in ARCHITECTURES:
            raise click.UsageError(f"--archs {name!r}: must be among {', '.join(ARCHITECTURES)}")
    if not names:
        raise click.UsageError(f"--archs {archs!r} names no network; {', '.join(ARCHITECTURES)} are possible")
    return names


def _files(given: tuple[str, ...], names: list[str]) -> dict[str, Path]:
    files = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or name not in names:
            raise click.UsageError(f"--weights {text!r} must be ARCH=FILE, with ARCH one of {', '.join(names)}")
        files[name] = Path(path)
    return files


def _training(source: Path, name: str, file: Path, rest: dict[str, Any]) -> list[str]:
    """The command line of ``train``."""
    options = {f"--{option.replace('_', '-')}": rest[option] for option in HANDED_ON if rest[option] is not None}
    words = [word for option, value in options.items() for word in (option, str(value))]
    return [str(source), "--arch", name, "--out", str(file), *words]


def _rows(source: Path, checkpoints: list[Checkpoint], precisions: list[str], seed: int, aside: Path) -> list[Row]:
    """The artifacts of all ``checkpoints``, judged on the images that ``train`` holds back."""
    found, others = datasets.find(source, datasets.SHARE, chosen=False)
    rows: list[Row] = []
    for checkpoint in checkpoints:
        click.echo(f"exporting and judging {checkpoint.architecture}")
        calibration, evaluation = _samples(checkpoint, found, others, seed)
        rows += comparison.judged(checkpoint, precisions, calibration, evaluation, aside)
    return rows


def _samples(
    checkpoint: Checkpoint, folder: ImageFolder, others: ImageFolder | None, seed: int
) -> tuple[Samples, Samples]:
    """Images to calibrate and to judge on, as ``checkpoint`` sees them, with its classes. Raises FolderError."""
    classes = datasets.indexes(checkpoint.labels.en, folder.classes, f"the file {checkpoint.origin}")
    with ThreadPoolExecutor(costs.cores()) as pool:
        images = datasets.read(folder, checkpoint.preprocessing, pool, Console(quiet=True))
        rows, held = images.split(0.0 if others else float(datasets.SHARE), seed)
        parts = [(images, rows[:: max(1, len(rows) // CROPS)][:CROPS]), (images, held)]
        if others:
            pixels = datasets.read(others, checkpoint.preprocessing, pool, Console(quiet=True))
            parts[1] = (pixels, datasets.unseen(pixels, images))
        samples = []
        for part, which in parts:
            squares, labels = next(part.batches(which, len(which)))
            centres = np.ascontiguousarray(crop(squares, checkpoint.preprocessing.size))
            samples.append(Samples(centres, classes[labels], folder.name))
    return samples[0], samples[1]


def _tell(source: Path, folder: Path, rows: list[Row], taken: list[str]) -> None:
    """Print the table and write the page. Raises UsageError if it can't be written."""
    today = datetime.datetime.now(datetime.UTC).date()
    about = [
        f"Measured on {today}, on {costs.cores()} cores, with ONNX Runtime. Latency is that of one image on one core; "
        f"throughput is of all cores, in batches of {costs.BATCH}; memory is that of a process that infers, with "
        "Python and the runtime.",
    ]
    if taken:
        about.append(f"{', '.join(taken)} come from files: their training may have seen the images they are judged on.")
    console = Console(width=max(120, Console().width))
    console.print(comparison.table(rows, f"Compared on {source}"))
    path = folder / "index.html"
    try:
        path.write_text(comparison.document(f"Networks for {source.name}", rows, about), encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--out {str(folder)!r} can't be written: {error.strerror}") from None
    for row in rows:
        if row.failure:
            click.echo(f"{row.name} would not be registered: {row.failure}")
    click.echo("\n".join([*about, f"wrote {path}"]))
