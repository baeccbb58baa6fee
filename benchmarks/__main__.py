"""`python -m benchmarks` (`make bench`): every benchmark in turn, their goals in one table, data and charts.

Each runs in a process of its own. Its line of JSON becomes docs/results/NAME.json; docs/results/tables.md and the
charts are made from all that lie there.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import results, versions
from benchmarks.peers import ROOT, VENV_PYTHON
from benchmarks.results import DISTURBED_CORES, Sheet
from harness.machine import machine

FOLDER = ROOT / "docs" / "results"
# Name → the options that make it last minutes, and those of the smoke test.
SUITE: dict[str, tuple[list[str], list[str]]] = {
    "compare": (
        ["--seconds=3", "--warm-up=1"],
        ["--seconds=1", "--warm-up=0.5", "--rounds=1", "--only=resnet18", "--only=fastapi", "--only=flask-torch"],
    ),
    "openloop": ([], ["--quick"]),
    "footprint": ([], ["--quick"]),
    "sizes": ([], ["--quick"]),
    "graph": ([], ["--quick"]),
    "where": ([], ["--quick"]),
    "cache": ([], ["--quick"]),
    "offline": ([], ["--quick"]),
    "batching": ([], ["--quick"]),
}
EXTRA: dict[str, tuple[list[str], list[str]]] = {"gpu": ([], ["--quick"]), "limit": ([], ["--quick"])}
TIMEOUT_S = 1200


def run(name: str, options: list[str]) -> dict[str, Any] | None:
    """A benchmark's data, its tables printed as they come; None where it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline, last = time.monotonic() + TIMEOUT_S, ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith('{"benchmark"'):
                print(line, end="", flush=True)
            last = line
            if time.monotonic() > deadline:
                break
        status = process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        status = -1
    finally:
        # Its servers stop in its own cleanup, which an interrupt lets it do.
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    if status or not last.startswith('{"benchmark"'):
        return None
    data: dict[str, Any] = json.loads(last)
    return data


def write_tables(folder: Path, everything: dict[str, dict[str, Any]]) -> None:
    """Write tables.md from the data of all benchmarks."""
    goals = [{"benchmark": name, **goal} for name, data in everything.items() for goal in data.get("goals", [])]
    parts = ["# Results", "", "Made by `make bench` from the JSON beside it; do not edit.", ""]
    parts.append(results.markdown(results.goal_sheet(goals)))
    for name, data in everything.items():
        parts += [f"## {name}", "", *_origin(data), ""]
        parts += [results.markdown(Sheet(**sheet)) for sheet in data.get("sheets", [])]
        if (folder / f"{name}.svg").is_file():
            parts.append(f"![{name}]({name}.svg)\n")
    (folder / "tables.md").write_text("\n".join(parts), encoding="utf-8")


def _origin(data: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    lines = [
        f"{data['date']}, {data['cpu']}, {data['cores']} cores, Python {data['python']}, {versions}; "
        f"revision {data['revision']}; `{data['command']}`, {data['took_s']} s."
    ]
    if "photographs" in data:
        lines[0] += f" Photographs: {data['photographs']}."
    taken = data.get("others_cores_max", 0)
    if taken > DISTURBED_CORES:
        lines += ["", f"**Disturbed**: something else on the machine used up to {taken:.1f} cores meanwhile."]
    return lines


def _draw(folder: Path, python: Path, console: Console) -> None:
    if not python.exists():
        console.print("no charts: they are drawn in .venv-bench, which `make bench` sets up")
        return
    drawn = subprocess.run(
        [python, ROOT / "benchmarks" / "plots.py", folder], capture_output=True, text=True, timeout=120
    )
    if drawn.returncode:
        console.print(f"no charts: {drawn.stderr.strip()[-500:]}", markup=False)


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test of two minutes, whose figures mean nothing.")
@click.option("--only", multiple=True, type=click.Choice([*SUITE, *EXTRA]), help="Run only this; may be repeated.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data, tables and charts go.  [default: docs/results, with --quick build/bench/results]",
)
@click.option("--revision", help="What to call the code measured.  [default: git's revision]")
def main(quick: bool, only: tuple[str, ...], out: Path | None, revision: str | None) -> None:
    """Run the benchmarks; the last line of stdout is one JSON object."""
    console, begin = Console(width=120), time.monotonic()
    folder = out or (ROOT / "build" / "bench" / "results" if quick else FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "revision": revision or versions.revision(),
        "versions": versions.installed(Path(sys.executable)),
    }
    failed = []
    for name in only or SUITE:
        started = time.monotonic()
        options = {**SUITE, **EXTRA}[name][quick]
        console.rule(name)
        data = run(name, options)
        if data is None:
            failed.append(name)
            continue
        command = shlex.join(["python", "-m", f"benchmarks.{name}", *options])
        data = {**machine(), **about, **data, "command": command, "took_s": round(time.monotonic() - started)}
        (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    found = {name: folder / f"{name}.json" for name in (*SUITE, *EXTRA)}
    everything = {name: json.loads(path.read_text("utf-8")) for name, path in found.items() if path.is_file()}
    _draw(folder, VENV_PYTHON, console)
    write_tables(folder, everything)
    goals = [{"benchmark": name, **goal} for name, data in everything.items() for goal in data.get("goals", [])]
    console.print(results.table(results.goal_sheet(goals)))
    worst = max((float(data.get("others_cores_max", 0)) for data in everything.values()), default=0.0)
    if worst > DISTURBED_CORES:
        console.print(f"Caution: something else used up to {worst:.1f} cores; run this on a machine at rest.")
    if failed:
        console.print(f"Failed: {', '.join(failed)}")
    met = sum(goal["met"] for goal in goals)
    summary = {"benchmark": "all", **machine(), **about, "took_s": round(time.monotonic() - begin)}
    summary |= {"met": met, "of": len(goals), "failed": failed, "others_cores_max": worst, "goals": goals}
    print(json.dumps(summary))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
