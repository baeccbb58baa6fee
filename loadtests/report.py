"""A load test's report: a run, or a search for the capacity, as one JSON object and as an HTML page beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.machine import machine
from loadtests import markup, samples, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.capacity import Capacity
    from loadtests.session import Result

FORMAT = 1


class ReportError(ValueError):
    """A file that is not one of our reports."""


def of_run(
    result: Result,
    findings: Sequence[verdict.Finding],
    *,
    url: str,
    model: dict[str, Any],
    capacity: float | None,
    seed: int,
    law: str,
) -> dict[str, Any]:
    """The report of a profile's run."""
    profile = result.profile
    step = max(1.0, profile.seconds / 1200)
    begin, bands = 0.0, []
    for phase in profile.phases:
        bands.append((begin, begin + phase.seconds, phase.name))
        begin += phase.seconds
    return {
        "format": FORMAT,
        "kind": "run",
        "profile": profile.name,
        "about": profile.about,
        "url": url,
        "machine": machine(),
        "model": model,
        "slo_ms": result.total.slo_ms,
        "limit": capacity,
        "seed": seed,
        "arrivals": law,
        "mix": profile.mix,
        "total": result.total.body(),
        "phases": [phase.body() for phase in result.phases],
        "kinds": [kind.body() for kind in result.kinds],
        "judged": profile.judged or "total",
        "recovery_s": result.recovery_s,
        "generator": {"cpu_shares": [round(share, 3) for share in result.run.cpu_shares], "warning": result.generator},
        "failures": result.run.examples,
        "timeline": samples.timeline(result.samples, profile.seconds, result.total.slo_ms, step),
        "tail": samples.tail(result.samples),
        "bands": bands,
        "warm_up_s": profile.warm_up_s,
        "server": result.panels,
        "memory": result.memory,
        "thresholds": [finding.body() for finding in findings],
        "passed": all(finding.holds for finding in findings),
        "verdict": verdict.line(findings),
    }


def of_capacity(found: Capacity, *, url: str, model: dict[str, Any], rule: Any, seed: int, law: str) -> dict[str, Any]:
    """The report of a search for the capacity."""
    line = (
        f"{found.rate:.1f} requests a second hold {rule.quantile:.1%} within {rule.slo_ms:g} ms "
        f"(at {rule.confidence:.0%} confidence)"
    )
    if found.warning:
        line += f"; the server may hold more: {found.warning}"
    return {
        "format": FORMAT,
        "kind": "limit",
        "url": url,
        "machine": machine(),
        "model": model,
        "slo_ms": rule.slo_ms,
        "quantile": rule.quantile,
        "confidence": rule.confidence,
        "limit": round(found.rate, 2),
        "seed": seed,
        "arrivals": law,
        "total": found.best.body(),
        "trials": [trial.body() for trial in found.trials],
        "failures": [f"at {trial.rate:.1f}/s: {example}" for trial in found.trials for example in trial.examples],
        "generator": {"cpu_shares": list(found.best.cpu_shares), "warning": found.warning},
        "verdict": line,
        "passed": True,
    }


def write(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """``report.json`` and ``report.html`` in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_html = folder / "report.json", folder / "report.html"
    as_json.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    as_html.write_text(markup.page(report), encoding="utf-8")
    return as_json, as_html


def read(file: Path) -> dict[str, Any]:
    """A report.json. Raises ReportError."""
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{file}: {error}") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.get("kind") not in ("run", "limit"):
        raise ReportError(f"{file} is no report of a load test in format {FORMAT}")
    return body
