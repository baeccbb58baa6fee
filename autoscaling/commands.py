"""``plan`` and ``check``: from a trace to a table, charts, plan.json and manifests, and back."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from autoscaling import output, reporting
from autoscaling.console import console
from autoscaling.fields import ManifestError
from autoscaling.fleet import FleetError
from autoscaling.kustomize import is_folder
from autoscaling.output import OutputError
from autoscaling.planner import Judge
from autoscaling.planner import plan as make
from autoscaling.prometheus import PrometheusError
from autoscaling.request import Request, asked, kept, options
from autoscaling.traces import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable

_TOLD = (TraceError, FleetError, ManifestError, OutputError, PrometheusError)


@click.command()
@options
@click.option("--out", type=click.Path(path_type=Path), default="build/plan", help="Where to write.", show_default=True)
def plan(out: Path, **given: Any) -> None:
    """Find the cheapest autoscaler that keeps a promise on a trace.

    Writes plan.json, charts and manifests to --out. Tunes on the first part of the trace, for two thirds of the images
    that may be late, and judges on the rest.
    """
    shown = console()
    try:
        typed = asked(given, Request())
        request = typed.pinned()
        _check_out(out)
        fleet, terms, prepared = request.fleet(), request.terms(), request.prepared()
        load = prepared.load
        split = request.split_s(len(load))
        reporting.gaps(prepared, shown)
        shown.print(reporting.ahead(split, len(load)), soft_wrap=True)
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=shown,
            transient=True,
        ) as bar:  # fmt: skip
            task = bar.add_task("compiling", total=None)
            made = make(load, fleet, terms, split, request.seed, lambda text: bar.update(task, description=text))
        made.body["request"] = asdict(request)
        _write(out, lambda folder: reporting.write(folder, made, prepared, fleet, typed))
    except _TOLD as error:
        raise click.UsageError(str(error)) from None
    shown.print(reporting.heading(typed, prepared, terms, split), soft_wrap=True)
    reporting.table(made.body, shown)
    told = [reporting.believe(made.body), *made.body["notes"], f"Written to {out}: plan.json, two charts, manifests."]
    shown.print("\n" + "\n\n".join(told), soft_wrap=not shown.is_terminal)


@click.command()
@click.argument("manifests", type=click.Path(path_type=Path))
@options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def check(manifests: Path, as_json: bool, **given: Any) -> None:
    """Simulate the autoscaler in MANIFESTS, a file or an overlay's folder, on a trace.

    Options that are not given come from the plan.json beside the manifests, if there is one. Of a folder that `plan`
    wrote, only its ScaledObject is read. The exit code is 1 if the promise is broken, and 2 if it can't be told.
    """
    from autoscaling.manifests import read as read_manifests

    shown = console()
    try:
        folder = manifests if is_folder(manifests) else manifests.parent
        request = asked(given, kept(folder / "plan.json"))
        file = (
            manifests / reporting.SCALED_OBJECT
            if folder == manifests and (folder / "plan.json").is_file()
            else manifests
        )
        manifest = read_manifests(file)
        fleet, terms, prepared = request.fleet(), request.terms(), request.prepared()
        load = prepared.load
        split = request.split_s(len(load))
        judge = Judge(load, fleet, terms, split, len(load))
        row = judge.row(str(manifests), manifest.autoscaler) | {"file": os.path.normpath(manifest.file)}
    except _TOLD as error:
        raise click.UsageError(str(error)) from None
    verdict = reporting.verdict(row, terms)
    if as_json:
        click.echo(json.dumps(row, indent=1))
        click.echo(verdict, err=True)
        raise SystemExit(0 if row["holds"] else 1)
    shown.print(f"Read: {manifest.kind} in {row['file']}.", soft_wrap=True)
    reporting.gaps(prepared, shown)
    for note in manifest.notes:
        shown.print(f"Note: {note}", soft_wrap=True)
    shown.print(reporting.heading(request, prepared, terms, split), soft_wrap=True)
    policies = [*judge.fixed_rows(), row]
    body = {"policies": policies, "bound": judge.bound, "chosen": row["name"], "terms": asdict(terms)}
    reporting.table(body, shown, "what was checked")
    shown.print(verdict, soft_wrap=True)
    raise SystemExit(0 if row["holds"] else 1)


def _check_out(out: Path) -> None:
    """Raise OutputError or FleetError, before the search, if ``out`` is neither new, nor empty, nor a plan's."""
    with output.writing(out):
        if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "plan.json").is_file())):
            raise OutputError(f"--out {str(out)!r} is there and holds no plan; another folder is needed")
    kept(out / "plan.json")
    output.check(out)


def _write(out: Path, fill: Callable[[Path], object]) -> None:
    """Put the files that ``fill`` writes into ``out``, and remove an older plan's HPA if there is no new one."""

    def fresh(folder: Path) -> None:
        fill(folder)
        if not (folder / reporting.HPA).exists():
            (out / reporting.HPA).unlink(missing_ok=True)

    with output.writing(out):
        output.put(out, fresh)
