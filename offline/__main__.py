"""``python -m offline``: label every image below a folder with the model that the service would serve."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from offline.output import SUFFIXES, Layout, Output, OutputError, rows_of
from offline.source import Source, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offline.labelling import Labeller

TOP_K = 5
INTERRUPTED = 130  # as shells have it for Ctrl-C

console = Console(stderr=True, highlight=False)


class _Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute."""
        return Text(f"{task.speed:.1f} images/s" if task.speed else "– images/s")


def _known_suffix(_: click.Context, option: click.Parameter, value: Path) -> Path:
    if value.suffix not in SUFFIXES:
        raise click.BadParameter(f"{str(value)!r} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return value


@click.command(
    context_settings={"max_content_width": 110, "show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_known_suffix,
    help=(
        "The file to write: .csv, .jsonl, or .parquet where pyarrow is installed. If it holds rows of an earlier run, "
        "those images are not done again."
    ),
)
@click.option("--chinese", is_flag=True, help="Add the Chinese class names: label_zh.")
@click.option("--top-k", type=click.IntRange(1), default=TOP_K, help="Predictions of each image, in .jsonl.")
@click.pass_context
def main(ctx: click.Context, source: Path, out: Path, chinese: bool, top_k: int) -> None:
    """Label every image in SOURCE: a folder with all below it, a .zip, or a text file with a path a line.

    \b
    Examples:
      python -m offline photos/ --out labels.csv
      python -m offline photos.zip --out labels.jsonl --top-k 3 --chinese
      find . -name '*.jpg' -mtime -7 > new.txt; python -m offline new.txt --out new.csv
      RESNET18_MODEL=resnet18-onnx-fp32:latest python -m offline photos/ --out fp32.csv

    The model, the pixels and the limits are the service's, and so are the settings RESNET18_…: RUNTIME, ENGINE,
    PRECISION, DEVICE, MODEL, THREADS, MAX_BODY_BYTES (here of a file), MAX_PIXELS, DECODER, DECODE_…; MIN_CONFIDENCE
    adds "confident" to the lines of .jsonl; TRUNCATED=accept adds warnings, in a table as the message.

    A row an image, in the order of the paths: path, label, class_id and probability of the most probable class, or
    error and message of an image that can't be read, and the model. A line of .jsonl holds the top k, as the service's
    replies do.

    After a break, or Ctrl-C, the same command goes on where it stopped. To have images done again, remove their rows
    or the file.

    The exit status is 0; 1 if images have errors for rows; 2 if the command can't be carried out; 130 after Ctrl-C.
    """
    from classifier.settings import SettingsError
    from model_build.listing import FolderError
    from offline.labelling import InferenceError
    from runners.predictor import START_ERRORS

    if out.suffix != ".jsonl" and ctx.get_parameter_source("top_k") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--top-k {top_k}: only .jsonl holds more than the first; --out is {str(out)!r}")
    try:
        failed = _run(source, out, chinese, top_k if out.suffix == ".jsonl" else 1)
    except (SettingsError, FolderError, OutputError, InferenceError, *START_ERRORS) as error:
        console.print(f"offline: {error}", markup=False, soft_wrap=True)
        ctx.exit(2)
    except KeyboardInterrupt:
        message = f"stopped; what is done is in {str(rows_of(out))!r}, and the same command goes on from there"
        console.print(message, markup=False, soft_wrap=True)
        ctx.exit(INTERRUPTED)
    ctx.exit(1 if failed else 0)


def _run(source: Path, out: Path, chinese: bool, top_k: int) -> int:
    """Label the images; how many rows of the output are errors."""
    from runners import telemetry

    telemetry.off()
    from classifier import settings as _settings
    from offline.labelling import Labeller
    from runners import artifacts, backends, predictor
    from serving.placements import decoder_of

    settings = _settings.read()
    device = backends.pick_device(settings.device, settings.runtime)
    artifact = artifacts.open_artifact(artifacts.choose(settings, device))
    labels = artifact.manifest.labels
    if chinese and labels.zh is None:
        raise OutputError(f"--chinese: the model {artifact.tag!r} has no Chinese class names")
    if top_k > len(labels):
        raise OutputError(f"--top-k {top_k}: the model {artifact.tag!r} has {len(labels)} classes")
    found = Source.open(source, (out, rows_of(out)))
    output = Output(out, Layout(artifact.tag, top_k, chinese))
    try:
        names = [name for name in found.names if shown(name) not in output.done]
        if names:
            loaded = predictor.open_predictor(settings, artifact.tag, device, settings.threads_of(1))
            on = f"{loaded.name} on {loaded.backend.device}, {settings.threads_of(1)} threads"
            console.print(
                f"{artifact.tag}, {artifact.manifest.weights['origin']} weights; {on}", markup=False, soft_wrap=True
            )
            _label(
                Labeller(settings, loaded, decoder_of(settings, artifact), found, top_k, output.encode), names, output
            )
        output.finish()
    finally:
        output.close()
    told = f"; {output.failed} images have an error for a row" if output.failed else ""
    passed = f"; passed over, as no images: {found.skipped}" if found.skipped else ""
    console.print(
        f"{out}: {len(names)} images now, {len(output.done)} before{told}{passed}", markup=False, soft_wrap=True
    )
    return output.failed


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """What C libraries print of a broken file goes nowhere: it would tear the progress bar."""
    try:
        number = sys.stderr.fileno()
    except OSError:  # it is no file
        yield
        return
    sys.stderr.flush()
    ours, kept = sys.stderr, os.dup(number)
    with os.fdopen(kept, "w", encoding=ours.encoding, errors=ours.errors) as stderr:
        sys.stderr = stderr
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), number)
            yield
        finally:
            stderr.flush()
            os.dup2(kept, number)
            sys.stderr = ours


def _label(labeller: Labeller, names: list[str], output: Output) -> None:
    """Write the rows of ``names``, with a progress bar."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"))
    start = time.monotonic()
    rows = labeller.label(names)
    try:
        with _silenced(), Progress(*columns, console=console, refresh_per_second=2) as progress:
            task = progress.add_task("", total=len(names))
            for some in rows:
                output.write(some)
                progress.advance(task, len(some))
    finally:
        rows.close()
    seconds = time.monotonic() - start
    console.print(f"{len(names)} images in {seconds:.1f} s: {len(names) / seconds:.1f} images/s", markup=False)


if __name__ == "__main__":
    sys.exit(main())
