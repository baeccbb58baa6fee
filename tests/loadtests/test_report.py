"""Reports: one file each that needs nothing else, and says what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from click.testing import CliRunner

from loadtests import markup, profiles, report, samples, verdict
from loadtests.__main__ import main
from loadtests.capacity import Capacity, Rule, Trial
from loadtests.samples import DTYPE


def body(latency: float = 0.02, passed: bool = True) -> dict[str, Any]:
    """A report as ``of_run`` makes it, of 400 samples over 4 s."""
    from loadtests.samples import Run
    from loadtests.session import Result

    rows = np.zeros(400, DTYPE)
    rows["at"], rows["latency"], rows["status"] = np.linspace(0, 3.99, 400), latency, 200
    profile = profiles.read()["overload"].lasting(4.0)
    total = samples.summarise("overload", rows, 4.0, 100.0)
    result = Result(
        profile=profile,
        run=Run(rows, [0.25], ["wrong_label: <script>alert(1)</script>"]),
        total=total,
        phases=[total, total, total],
        kinds=[total],
        judged=total,
        recovery_s=0.0,
        generator="",
        panels={"Waiting images": {"queue": [(0.0, 1.0), (1.0, 5.0), (2.0, 2.0)]}},
        memory={"source": "x", "points": [(0.0, 100.0), (2.0, 101.0)], "start_mb": 100.0, "growth_mb": 1.0},
    )
    findings = [verdict.Finding(verdict.Threshold("p99_ms", max=100.0 if passed else 1.0), total.p99_ms)]
    return report.of_run(result, findings, url="http://a", model={"tag": "m:1"}, capacity=100.0, seed=1, law="poisson")


def test_the_page_needs_nothing_else_and_escapes_what_servers_say(tmp_path: Path) -> None:
    as_json, as_html = report.write(body(), tmp_path / "out")
    page = as_html.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|@import|url\(|https?://(?!a\b)", page)
    assert "<script>" not in page and "&lt;script&gt;" in page
    for title in ("Latency over time", "Offered and answered", "took longer", "memory", "Server: Waiting images"):
        assert title in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
    assert page.count("<svg") == 5
    assert report.read(as_json)["total"]["planned"] == 400


def test_the_verdict_is_on_the_page_and_in_the_json() -> None:
    failed = body(passed=False)
    assert failed["passed"] is False and failed["verdict"].startswith("FAILED: p99_ms is 20")
    page = markup.page(failed)
    assert 'class="verdict bad"' in page and failed["verdict"] in page
    assert 'class="verdict good"' in markup.page(body())


def test_a_limits_page_has_a_row_a_trial() -> None:
    rows = np.zeros(1000, DTYPE)
    rows["latency"] = 0.02
    trials = [Trial(rate, samples.summarise(f"{rate}", rows, 5.0, 100.0), 3) for rate in (50.0, 100.0, 75.0)]
    made = report.of_capacity(
        Capacity(75.0, trials[-1], trials), url="http://a", model={}, rule=Rule(100.0), seed=1, law="poisson"
    )
    page = markup.page(made)
    assert page.count("<tr>") == 4 and "75.0 requests a second hold 99.0% within 100 ms" in page


def test_two_reports_are_laid_side_by_side(tmp_path: Path) -> None:
    first, _ = report.write(body(0.02), tmp_path / "a")
    second, _ = report.write(body(0.05), tmp_path / "b")
    done = CliRunner().invoke(main, ["compare", str(first), str(second), "--out", str(tmp_path / "both.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert re.search(r"<th>p99 ms</th><td>20.0</td><td>50.0</td><td>2.50</td>", page)
    assert page.count("<svg") == 3


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"format": 99}))
    done = CliRunner().invoke(main, ["compare", str(other), str(other)])
    assert done.exit_code == 2 and "is no report of a load test" in done.output
