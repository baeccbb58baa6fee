"""``python -m autoscaling``: plan and check as a user runs them; bad input is a sentence and leaves nothing."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from autoscaling import charts, request
from autoscaling.__main__ import COMMANDS, main
from autoscaling.hpa import Cron
from autoscaling.manifests import read
from autoscaling.prometheus import History
from autoscaling.request import Request, asked
from tests.autoscaling.test_planner import wavy
from tests.autoscaling.test_schedule import bursty

pytestmark = pytest.mark.slow

PLANNED = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "overlays" / "planned"
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str | Path | float) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def a_trace(folder: Path, days: int = 2) -> Path:
    path = folder / "trace.csv"
    minutes = wavy(days).offered.reshape(-1, 60).sum(1)
    rows = [f"{1_699_920_000 + 60 * number},{count:g}" for number, count in enumerate(minutes)]
    path.write_text("\n".join(["timestamp,images", *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    out = folder / "out"
    result = run("plan", "--trace", a_trace(folder), "--rate", 100, "--out", out, "--seed", 4)
    assert result.exit_code == 0, result.output
    assert "offered rate, tuned" in result.output and "It hangs on" in result.output.replace("\n", " ")
    return out


def test_a_plan_writes_its_figures_charts_and_manifests(planned: Path) -> None:
    assert {path.name for path in planned.iterdir()} == {
        "plan.json", "course.svg", "trade.svg", "scaledobject.yaml", "hpa.yaml"
    }  # fmt: skip
    body = json.loads((planned / "plan.json").read_text())
    assert {"bound", "policies", "chosen"} <= set(body)
    keys = {"name", "late_share", "replica_seconds", "usd", "saved", "share_of_foresight", "settings"}
    for row in body["policies"]:
        assert keys <= set(row)
        assert set(row["saved"]) == {"fixed_fleet", "five_minute_peak", "highest_second"}
    assert body["chosen"] in {row["name"] for row in body["policies"]}
    assert list(planned.parent.glob(".out-*")) == []


@pytest.mark.parametrize("name", ["", "scaledobject.yaml", "hpa.yaml"])
def test_check_gives_the_digits_of_the_plan(planned: Path, name: str) -> None:
    body = json.loads((planned / "plan.json").read_text())
    expected = next(row for row in body["policies"] if row["name"] == body["chosen"])
    result = run("check", planned / name, "--json")
    assert result.exit_code == 0, result.output
    got = json.loads(result.stdout)
    file = planned / (name or "scaledobject.yaml")
    assert (got["name"], got["file"]) == (str(planned / name), str(file))
    assert "The promise is kept" in result.stderr
    for key in ("late_share", "replica_seconds", "usd", "saved", "settings"):
        assert got[key] == expected[key]


def test_a_schedule_is_written_for_keda_and_comes_back(tmp_path: Path) -> None:
    trace = tmp_path / "bursts.txt"
    trace.write_text("\n".join(f"{count:g}" for count in bursty(4, 1800, 600).offered), encoding="utf-8")
    out = tmp_path / "out"
    result = run("plan", "--trace", trace, "--rate", 100, "--split", 3, "--out", out)
    assert result.exit_code == 0, result.output
    body = json.loads((out / "plan.json").read_text())
    assert body["chosen"] == "offered rate + schedule"
    assert any(isinstance(one, Cron) for one in read(out / "scaledobject.yaml").autoscaler.triggers)
    assert not (out / "hpa.yaml").exists()
    got = json.loads(run("check", out, "--json").stdout)
    assert got["late_share"] == next(row for row in body["policies"] if row["name"] == body["chosen"])["late_share"]


def test_check_takes_an_overlay_and_shows_the_baselines(tmp_path: Path) -> None:
    overlay = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "overlays" / "seed"
    result = run("check", overlay, "--trace", a_trace(tmp_path), "--rate", 100)
    assert "foresight" in result.output and "fixed" in result.output
    # The overlay is named as it was asked for, and the file that holds its autoscaler besides.
    assert f"* {overlay}" in result.output and "/../" not in result.output
    assert "Read: HorizontalPodAutoscaler in " in result.output
    assert result.exit_code == 1 and "The promise is broken: 20." in result.output and "broken" in result.output


def test_a_kept_promise_is_said_and_ends_with_0(planned: Path) -> None:
    result = run("check", planned)
    assert result.exit_code == 0 and "The promise is kept: " in result.output
    assert f"Read: ScaledObject in {planned / 'scaledobject.yaml'}." in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rate", "0"], "--rate 0 is not allowed; it is to be more than 0"),
        (["--rate", "-3"], "--rate -3 is not allowed"),
        (["--rate", "nan"], "--rate nan is not allowed"),
        (["--slo-ms", "0"], "--slo-ms 0 is not allowed"),
        (["--late", "1"], "--late 1 is not allowed; it is a share"),
        (["--scale", "0"], "--scale 0 is not allowed"),
        (["--split", "400"], "--split 400 is outside the trace"),
        (["--from-day", "99"], "--from-day 99 --to-day the last leave nothing"),
        (["--from-day", "nan"], "--from-day nan is not"),
        (["--to-day", "inf"], "--to-day inf is not"),
        (["--split", "nan"], "--split nan is not allowed"),
        (["--trace", ""], "--trace '' names no file"),
        (["--trace", "a.csv", "--prometheus", "http://x"], "one of them"),
        (["--trace", "nowhere.csv"], "nowhere.csv: it can't be read as a trace"),
        (["--rate", "1e-9"], "the highest second has the images of"),
        (["--start-s", "9" * 20], f"--start-s {'9' * 20} is not allowed; it is to be a whole number, 0 or more, and"),
        (["--start-s", "-5"], "--start-s -5 is not allowed"),
        (["--step-s", "0"], "--step-s 0 is not allowed; it is to be a whole number, 1 or more"),
        (["--pods-per-machine", "0"], "--pods-per-machine 0 is not allowed"),
        (["--to-day", "1e308"], "--to-day 1e+308 is not allowed; it is to be 0 or more, and at most 400"),
        (["--scale", "1e30"], "--scale 1e+30 is not allowed"),
        (["--usd-per-hour", "inf"], "--usd-per-hour inf is not allowed; it is to be more than 0"),
        (["--days", "7"], "--days 7 says nothing of a trace; leave it out"),
        (["--prometheus", "http://127.0.0.1:9", "--step-s", "5"], "--step-s 5 says nothing of a Prometheus"),
        (["--prometheus", "http://127.0.0.1:9", "--days", "1e9"], "--days 1e+09 is not allowed"),
        (["--prometheus", "http://127.0.0.1:9", "--end", "later"], "--end 'later' is no time; Unix seconds or ISO"),
        (["--prometheus", "http://127.0.0.1/a b"], "'http://127.0.0.1/a b' is no address of a Prometheus"),
        (["--prometheus", "http://127.0.0.1:9"], "no Prometheus answers at http://127.0.0.1:9"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(tmp_path: Path, arguments: list[str], told: str) -> None:
    out = tmp_path / "out"
    result = run("plan", "--out", out, *arguments)
    assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert list(tmp_path.iterdir()) == []


def test_the_overlay_planned_is_the_plan_of_the_packaged_trace(tmp_path: Path) -> None:
    result = run("plan", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "scaledobject.yaml").read_text() == (PLANNED / "scaledobject.yaml").read_text()


def test_a_folder_that_is_no_plan_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    result = run("plan", "--out", tmp_path)
    assert result.exit_code == 2 and "holds no plan" in result.output
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"format_version": "1.2"}', "{}", "[]", "no JSON"])
def test_a_plan_of_another_program_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    (tmp_path / "src").mkdir()
    result = run("plan", "--out", tmp_path)
    assert result.exit_code == 2 and "is no plan of this version" in " ".join(result.output.split()), result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "src"]


def test_a_new_plan_replaces_the_old_and_nothing_beside_it(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(planned, out)
    (out / "notes.txt").write_text("mine")
    (out / "src").mkdir()
    (out / "plan.json").write_text((out / "plan.json").read_text().replace('"seed": 0', '"seed": 7'))
    (tmp_path / "link").symlink_to(out)
    monkeypatch.chdir(out)
    for place in (".", tmp_path / "link"):
        result = run("plan", "--trace", a_trace(tmp_path), "--rate", 100, "--out", place)
        assert result.exit_code == 0, result.output
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "src").is_dir()
    assert json.loads((out / "plan.json").read_text())["request"]["seed"] == 0
    assert not list(out.glob(".*"))


def test_an_empty_folder_is_a_place_for_a_plan(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("plan", "--trace", a_trace(tmp_path), "--rate", 100, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("name", ["file/x", "x" * 300])
def test_where_nothing_can_be_written_is_told_before_the_search(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    result = run("plan", "--trace", "nowhere.csv", "--out", tmp_path / name)
    assert result.exit_code == 2 and "can't be written" in " ".join(result.output.split()), result.output


def test_a_trace_of_seconds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("5\n6\n")
    result = run("plan", "--trace", tmp_path / "two.csv", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "the trace has 2 s; 90 are needed" in " ".join(result.output.split())


def test_a_trace_that_is_given_goes_before_a_kept_prometheus() -> None:
    before = Request(prometheus="http://x", days=4)
    assert (asked({"trace": "a.csv"}, before).prometheus, asked({"trace": "a.csv"}, before).trace) == (None, "a.csv")
    assert asked({"prometheus": "http://y"}, Request(trace="a.csv")).trace is None


def test_a_history_keeps_its_end_and_a_trace_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked_for = asked({"prometheus": "http://x"}, Request()).pinned()
    assert asked_for.days == 14 and asked_for.end is not None and asked_for.pinned() == asked_for
    seen: list[float | None] = []

    def history(url: str, days: float, *, end: float | None = None) -> History:
        seen.append(end)
        return History(0, 60, np.full(1440, 60.0))

    monkeypatch.setattr(request, "history", history)
    asked_for.prepared()
    assert seen == [asked_for.end]
    monkeypatch.chdir(tmp_path)
    assert Request(trace="a.csv").pinned().trace == str(tmp_path / "a.csv")
    assert Request().pinned() == Request()


def test_the_manifests_quote_the_command_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_trace(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = run("plan", "--trace", "trace.csv", "--rate", 100, "--out", "o [bold]:x:")
    assert result.exit_code == 0, result.output
    assert "Written to o [bold]:x:: plan.json" in result.output
    text = (tmp_path / "o [bold]:x:" / "scaledobject.yaml").read_text()
    assert "plan --trace trace.csv --rate" in text and "--days" not in text and str(tmp_path) not in text
    assert 'namespace="default" in each query' in text
    assert "trace.csv, judged from 2023-11-15 " in result.output and "* offered rate, tuned" in result.output
    assert result.output.index("Tuning on 1.33 days") < result.output.index("judged from")
    assert "No schedule was tried: the part to tune on has 1.3 days, and 2 are needed" in result.output
    monkeypatch.chdir("/")
    assert run("check", tmp_path / "o [bold]:x:").exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("rate", "fast", "--rate 'fast' is not allowed; it is to be more than 0"),
        ("rate", 10**400, "--rate 1000"),
        ("rate", None, "--rate None is not allowed"),
        ("step_s", 0, "--step-s 0 is not allowed"),
        ("start_s", -5, "--start-s -5 is not allowed"),
        ("start_s", True, "--start-s True is not allowed"),
        ("pay", "beer", "--pay 'beer' is not allowed; it is to be pods or machines"),
        ("trace", "a\0b", "--trace 'a\\x00b' is not allowed; it is to be a text"),
        ("zeros", 1, "--zeros 1 is not allowed; it is to be true or false"),
        ("colour", "red", "its request has 'colour'"),
    ],
)
def test_a_kept_value_that_can_not_be_is_told(tmp_path: Path, name: str, value: object, told: str) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"request": {"rate": 100, name: value}}))
    result = run("check", tmp_path)
    assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert "is no plan of this version" in " ".join(result.output.split())


@pytest.mark.parametrize("content", ["no JSON", "[" * 200_000, "[]", '{"request": 7}', '{"request": {}}', "\udcff"])
def test_what_is_no_plan_is_told_without_python_s_words(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content, errors="surrogateescape")
    result = run("check", tmp_path)
    assert result.exit_code == 2 and "is no plan of this version: " in " ".join(result.output.split())
    assert "Error(" not in result.output


def test_a_path_that_no_system_takes_is_told() -> None:
    for path in (Path("a" * 300), Path("a" * 300) / "x.yaml"):
        result = run("check", path)
        assert result.exit_code == 2 and "can't be read: File name too long" in " ".join(result.output.split())


def test_what_check_cannot_read_is_told(tmp_path: Path) -> None:
    result = run("check", tmp_path / "none.yaml")
    assert result.exit_code == 2 and "none.yaml" in result.output
    (tmp_path / "plan.json").write_text("{}")
    result = run("check", tmp_path)
    assert result.exit_code == 2 and "is no plan of this version" in result.output


def test_charts_are_svg_that_hold_their_lines(planned: Path) -> None:
    for name, shape in (("course.svg", "polyline"), ("trade.svg", "circle")):
        root = ElementTree.parse(planned / name).getroot()
        assert root.tag == f"{SVG}svg" and len(root.findall(f"{SVG}{shape}")) >= 5
    names = [text.text for text in ElementTree.parse(planned / "trade.svg").iter(f"{SVG}text")]
    assert "the promise" in names and "foresight" in names
    assert any("Small and grey: each setting that was tried, on the tuned part." in str(name) for name in names)
    captions = [text.text or "" for text in ElementTree.parse(planned / "course.svg").iter(f"{SVG}text")]
    assert any("the judged day with the most images, 2023-11-15 (UTC)" in text for text in captions)


def test_a_chart_names_what_it_draws_and_escapes_it() -> None:
    hours = np.arange(60) / 60
    panel = charts.Panel("a & b", [charts.Line("<wanted>", charts.GREEN, np.arange(60.0), stepped=True)])
    root = ElementTree.fromstring(charts.over_time([panel], hours, "title"))
    assert {"a & b", "<wanted>"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_every_command_has_its_help() -> None:
    shown = run("--help").output
    for name in COMMANDS:
        assert name in shown
        result = run(name, "--help")
        assert result.exit_code == 0 and "Usage:" in result.output, name
