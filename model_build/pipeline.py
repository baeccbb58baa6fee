"""From a checkpoint to artifacts in the store: export → gate → register, told on a console as it goes.

The boundary: it is given weights already found and pairs already checked to be possible, and it hands back what failed
its gate. What the command line means, and what becomes of the exit status, is ``__main__``'s. Importing this loads
torch, which is why ``__main__`` does so only to build.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from classifier import manifest as manifests
from classifier import runtimes
from classifier.architectures import DEFAULT
from classifier.manifest import Manifest
from model_build import export, gate, onnx, samples, scratch, store, temperature, verification
from model_build.errors import first_line
from model_build.verification import VerificationError
from runners import backends, devices, engines
from runners.artifacts import newest_build, store_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from model_build.gate import Report, Thresholds
    from model_build.samples import Samples
    from model_build.verification import Original
    from model_build.weights import Checkpoint


def build(
    checkpoint: Checkpoint,
    wanted: list[tuple[str, str]],
    calibration: Path | None,
    evaluation: Path | None,
    thresholds: Thresholds,
    console: Console,
    original: Original | None = None,
) -> list[tuple[str, str]]:
    """Build which of the ``wanted`` (runtime, precision) pairs are not yet registered, and print the table of them.

    The (artifact, reason) pairs that failed the gate. Raises SamplesError if ``calibration`` or ``evaluation``, each a
    directory or zip of images, or None for the default, can't be used, and StoreError if a disk is full. ``original``
    is what all is compared with besides; raises VerificationError where the checkpoint's network disagrees with it.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    architecture = checkpoint.architecture
    progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    with progress, scratch.folder("resnet18-build-") as aside:
        step = progress.add_task("reading images", total=2 + 3 * len(wanted))
        calibrate, evaluate = _samples(checkpoint, calibration, evaluation, lambda text: console.print(escape(text)))
        progress.advance(step)

        @cache
        def eager() -> NDArray[np.float32]:
            return gate.reference(export.contract(checkpoint), evaluate)

        options = {
            "revision": export.REVISION,
            "opset": onnx.OPSET,
            "thresholds": asdict(thresholds),
            "calibration": calibrate.digest(),
            "evaluation": evaluate.digest(),
            "network": {"upsample": checkpoint.upsample, "mean": checkpoint.mean, "std": checkpoint.std}
            | ({"bgr": True} if checkpoint.bgr else {})
            | ({"structure": told} if (told := checkpoint.structure.told()) else {})
            | ({"architecture": architecture} if architecture != DEFAULT else {}),
            **({"original": {"name": original.name, "digest": original.digest}} if original else {}),
        }
        untempered = temperature.missing(evaluate)
        if untempered is None:
            options["temperature"] = temperature.REVISION
        else:
            console.print(
                escape(f"temperature: {untempered}; T stays 1, the probabilities are the softmax's own"), soft_wrap=True
            )
        answers = None
        if original:
            progress.update(step, description=f"inferring with {original.name}")
            answers = verification.probabilities(original, checkpoint, evaluate, evaluation)
            compared = verification.compare(original, answers, eager(), evaluate)
            if (needed := compared.failure(thresholds)) is not None:
                raise VerificationError(f"{compared.sentence(f'nothing is built: {checkpoint.origin}')}; {needed}")
            console.print(escape(compared.sentence(checkpoint.origin)), soft_wrap=True, highlight=False)
        versions = {pair: store.version(checkpoint, *pair, options) for pair in wanted}
        present = {pair: store.registered(*pair, versions[pair], architecture) for pair in wanted}
        absent = [pair for pair in wanted if present[pair] is None]
        progress.update(step, total=1 + bool(absent) + 3 * len(absent))
        if absent:
            largest = sum(tensor.nbytes for tensor in checkpoint.state.values())
            # Quantising keeps the network twice more while it works.
            extra = 2 * any(precision == "int8" for _, precision in absent)
            store.check_room({aside: largest * (len(absent) + extra), store.models(): largest * len(absent)})
            progress.update(step, description="inferring with the eager network")
            eager()
            progress.advance(step)
        failures: list[tuple[str, str]] = []
        passed: list[tuple[Path, Manifest, str, Report]] = []
        for runtime, precision in absent:
            name = store_name(runtime, precision, architecture)
            folder = aside / name
            folder.mkdir()
            progress.update(step, description=f"exporting {name}")
            # It is judged where it will serve.
            device = "cpu" if precision in runtimes.find(runtime).on_cpu else "cuda:0"
            try:
                path = export.export(checkpoint, runtime, precision, folder, calibrate)
                progress.update(step, description=f"judging {name} on {len(evaluate)} images", advance=1)
                manifest = Manifest(
                    runtime=runtime,
                    precision=precision,
                    file=path.name,
                    digest=manifests.sha256(path),
                    preprocessing=checkpoint.preprocessing,
                    labels=checkpoint.labels,
                    weights={"origin": checkpoint.origin, "digest": checkpoint.digest},
                    export={"libraries": store.libraries(runtime), **options},
                    gate={},
                )
                backend = backends.load(folder, manifest, device)
                actual, tempered = gate.infer(backend, evaluate), eager()
                fitted = temperature.fit(actual, evaluate) if untempered is None else None
                if fitted and fitted.temperature != 1:
                    path = export.export(checkpoint, runtime, precision, folder, calibrate, fitted.temperature)
                    manifest = replace(manifest, digest=manifests.sha256(path))
                    backend = backends.load(folder, manifest, device)
                    # Compared at one temperature, so that what differs is the export's doing alone.
                    actual, tempered = gate.infer(backend, evaluate), temperature.scale(eager(), fitted.temperature)
                report = gate.judge(backend, evaluate, tempered, precision, thresholds, actual)
                failure = report.failure
                others = {} if failure else _other_engines(folder, manifest, evaluate, tempered, thresholds)
                against = None
                if original and answers is not None and not failure:
                    theirs = temperature.scale(answers, fitted.temperature) if fitted else answers
                    against = verification.compare(original, theirs, actual, evaluate)
                    needed = against.failure(thresholds) if precision == "fp32" else None
                    failure = f"{against.sentence('it disagrees:')}; {needed}" if needed else None
            except Exception as error:  # whatever a runtime raises for a GPU that is there and does not work
                computed = precision in runtimes.find(runtime).computes
                if (device == "cpu" and not computed) or not _of_device(error):
                    raise
                failure = first_line(error) if computed else f"the GPU can't be used: {first_line(error)}"
            if failure:
                failures.append((name, failure))
                # All three steps of what failed are over, one of what passed is to come.
                progress.update(step, completed=2 + 3 * len(failures) + 2 * len(passed))
                continue
            judged: dict[str, Any] = {}
            if others:
                judged["engines"] = {each: found.told() for each, found in others.items()}
            if fitted and evaluate.classes is not None:
                judged["confidence"] = fitted.told(actual, evaluate.classes)
                console.print(escape(fitted.sentence(name, judged["confidence"])), soft_wrap=True)
            if against:
                judged["original"] = against.told()
                console.print(escape(against.sentence(name)), soft_wrap=True, highlight=False)
            passed.append((path, replace(manifest, gate=report.body() | judged), versions[runtime, precision], report))
            for engine, found in others.items():
                console.print(escape(found.sentence(name, engine)))
            progress.advance(step)
        # Registered together at the end, so that a build that dies leaves the store serving what it served.
        rows = []
        for path, manifest, version, report in passed:
            name = store_name(manifest.runtime, manifest.precision, architecture)
            progress.update(step, description=f"registering {name}")
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            rows.append((store.register(path, manifest, version), size, manifest, report))
            progress.advance(step)
    if rows:
        console.print(_table(rows))
    for (runtime, _), tag in present.items():
        if tag is None:
            continue
        again = ""
        if tag not in newest_build(runtime).values():
            store.renew(tag)
            again = ", and is the newest again"
        console.print(
            f"[green]unchanged[/] {tag} is in the store already{again}; serve just it with RESNET18_MODEL={tag}"
        )
    return failures


def _other_engines(
    folder: Path, manifest: Manifest, evaluate: Samples, expected: NDArray[np.float32], thresholds: Thresholds
) -> dict[str, gate.EngineReport]:
    """What the gate says of the artifact with each other engine that is installed, where it is to serve on a CPU."""
    runtime = runtimes.find(manifest.runtime)
    if manifest.precision not in runtime.on_cpu:
        return {}
    return {
        name: gate.EngineReport(
            devices.cpu_family(),
            gate.judge(
                backends.load(folder, manifest, engine=name), evaluate, expected, manifest.precision, thresholds
            ),
        )
        for name in runtime.engines_for(manifest.precision)[1:]
        if engines.installed(name)
    }


def _of_device(error: Exception) -> bool:
    """Whether it is the device's fault, not the artifact's: other artifacts must not be lost to that."""
    return isinstance(devices.failure(error), devices.DeviceError | devices.DeviceLost | devices.OutOfMemory)


def _samples(
    checkpoint: Checkpoint, calibration: Path | None, evaluation: Path | None, notice: Callable[[str], None]
) -> tuple[Samples, Samples]:
    """What to calibrate on and what to judge on; the packaged defaults where none is given."""
    calibrate = evaluate = None
    if calibration:
        calibrate = samples.from_folder(checkpoint, calibration, samples.CROPS, notice, calibrating=True)
    if evaluation:
        evaluate = samples.from_folder(checkpoint, evaluation, notice=notice)
    if calibrate is None or evaluate is None:
        default_calibrate, default_evaluate = samples.defaults(checkpoint)
        calibrate, evaluate = calibrate or default_calibrate, evaluate or default_evaluate
    return calibrate, evaluate


def _table(rows: list[tuple[str, str, Manifest, Report]]) -> Table:
    labelled = any(report.top1 is not None for *_, report in rows)
    report = rows[0][3]
    table = Table(title=f"Built, and judged on {report.images} images ({escape(report.source)})", title_justify="left")
    accuracies = ["top-1 / top-5"] if labelled else []
    for heading in ("tag", "size", "sha256", "agreement", "largest Δp", *accuracies, "batch 1"):
        table.add_column(heading, justify="left" if heading in ("tag", "sha256") else "right")
    for tag, size, manifest, report in rows:
        accuracy = [f"{report.top1:.2%} / {report.top5:.2%}"] if report.top1 is not None else []
        table.add_row(
            tag,
            size,
            manifest.digest[:12],
            f"{report.agreement:.2%}",
            f"{report.largest_difference:.1e}",
            *accuracy,
            f"{report.latency_batch1_ms:.1f} ms",
        )
    return table
