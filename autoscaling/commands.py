"""``plan`` and ``check``: from a trace to a table, charts, plan.json and manifests, and back."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from autoscaling import reporting
from autoscaling.fields import ManifestError
from autoscaling.fleet import FleetError
from autoscaling.planner import Judge
from autoscaling.planner import plan as make
from autoscaling.prometheus import PrometheusError
from autoscaling.request import Request, asked, kept, options
from autoscaling.traces import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

console = Console()


@click.command()
@options
@click.option("--out", type=click.Path(path_type=Path), default="build/plan", help="Where to write.", show_default=True)
def plan(out: Path, **given: Any) -> None:
    """Find the cheapest autoscaler that keeps a promise on a trace.

    Writes plan.json, charts and manifests to --out. Tunes on the first part of the trace, for two thirds of the images
    that may be late, and judges on the rest.
    """
    request = asked(given, Request())
    try:
        _check_out(out)
        fleet, prepared = request.fleet(), request.prepared()
        reporting.gaps(prepared, console)
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console,
            transient=True,
        ) as bar:  # fmt: skip
            task = bar.add_task("compiling", total=None)
            load = prepared.load
            made = make(
                load, fleet, request.terms(), request.split_s(len(load)), request.seed,
                lambda text: bar.update(task, description=text),
            )  # fmt: skip
        made.body["request"] = asdict(request)
        _written(out, lambda folder: reporting.write(folder, made, prepared, fleet))
    except (TraceError, FleetError, ManifestError, PrometheusError) as error:
        raise click.UsageError(str(error)) from None
    reporting.table(made.body, console)
    told = f"\n{reporting.believe(made.body)}\n\nWritten to {out}: plan.json, two charts, manifests."
    console.print(told, highlight=False, markup=False)


@click.command()
@click.argument("manifests", type=click.Path(path_type=Path))
@options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def check(manifests: Path, as_json: bool, **given: Any) -> None:
    """Simulate the autoscaler in MANIFESTS, a file or an overlay's folder, on a trace.

    Options that are not given come from the plan.json beside the manifests, if there is one. Of a folder that `plan`
    wrote, only its ScaledObject is read.
    """
    from autoscaling.manifests import read as read_manifests

    try:
        folder = manifests if manifests.is_dir() else manifests.parent
        request = asked(given, kept(folder / "plan.json"))
        if (folder / "plan.json").is_file() and manifests.is_dir():
            manifests = manifests / reporting.SCALED_OBJECT
        manifest = read_manifests(manifests)
        fleet, prepared = request.fleet(), request.prepared()
        load = prepared.load
        judge = Judge(load, fleet, request.terms(), request.split_s(len(load)), len(load))
        row = judge.row(manifest.file or str(manifests), manifest.autoscaler)
    except (TraceError, FleetError, ManifestError, PrometheusError) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    reporting.gaps(prepared, console)
    for note in manifest.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
    body = {
        "policies": [*judge.fixed_rows(), row],
        "bound": judge.bound,
        "chosen": row["name"],
        "terms": asdict(judge.terms),
    }
    reporting.table(body, console)


def _check_out(out: Path) -> None:
    """Raise UsageError or FleetError, before the search, if ``out`` is neither new, nor empty, nor a plan's."""
    with _writing(out):
        if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "plan.json").is_file())):
            raise click.UsageError(f"--out {str(out)!r} is there and holds no plan; another folder is needed")
        kept(out / "plan.json")
        with _scratch(out):
            pass


def _written(out: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder, then put its files into ``out``, each whole. All other files there stay."""
    with _writing(out), _scratch(out) as fresh:
        write(fresh)
        out.mkdir(parents=True, exist_ok=True)
        if not (fresh / reporting.HPA).exists():
            (out / reporting.HPA).unlink(missing_ok=True)
        for file in sorted(fresh.iterdir()):
            file.replace(out / file.name)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder in ``out``, or in the nearest folder above it: from there, files can be renamed into it."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=there) as folder:
        yield Path(folder)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """What the system refuses meanwhile is told of --out."""
    try:
        yield
    except OSError as error:
        raise click.UsageError(f"--out {str(out)!r} can't be written: {error.strerror or error}") from None
