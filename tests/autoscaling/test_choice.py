"""The cheapest machine by rate: checked by trying all, and what the command prints and refuses."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from autoscaling import choice, machines
from autoscaling.machines import Machine, MachinesError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = machines.read(machines.PACKAGED)


def test_a_fleet_holds_its_rate_and_one_machine_less_would_not() -> None:
    for machine in TABLE:
        for rate in choice.RATES:
            found = choice.fleet(machine, rate, 1000, 0.8)
            assert found is not None
            capacity = 0.8 * machine.capacity(1000)
            assert found.number * capacity >= rate * (1 - 1e-9)
            assert found.number == 1 or (found.number - 1) * capacity < rate
            hourly = found.number * machine.usd_per_hour
            assert found.usd_per_million == pytest.approx(hourly / (3600 * rate) * 1e6)


@pytest.mark.parametrize("rate", choice.RATES)
def test_the_cheapest_is_the_cheapest_of_all(rate: float) -> None:
    best = choice.cheapest(TABLE, rate, 1000, 0.8)
    costs = [math.ceil(rate / (0.8 * m.capacity(1000))) * m.usd_per_hour for m in TABLE]
    assert best.usd_per_hour == pytest.approx(min(costs))


@pytest.mark.parametrize(
    ("rate", "gpu"), [(1, "T4"), (10, "T4"), (10.1, "A10G"), (50, "A10G"), (51, "A100"), (2000, "A100")]
)
def test_the_common_rule(rate: float, gpu: str) -> None:
    found = choice.by_rule(TABLE, rate, 1000, 0.8)
    assert found is not None
    assert gpu in found.machine.gpu.split()
    assert choice.by_rule([m for m in TABLE if not m.gpus], rate, 1000, 0.8) is None


def test_a_gpu_wins_once_the_cores_it_comes_with_are_cheap_enough() -> None:
    cpu = Machine("c", 0.10, 2, alpha_ms=8.0, beta_ms=0.0, host_ms=2.0, measured=True)
    gpu = Machine("g", 0.50, 8, alpha_ms=0.2, beta_ms=1.0, host_ms=2.0, measured=True, gpu="T4", gpus=1)
    # 160 and 3,200 images a second: five of the first cost what one of the second does.
    assert choice.cheapest([cpu, gpu], 640, 1000, 0.8).machine is cpu
    assert choice.cheapest([cpu, gpu], 801, 1000, 0.8).machine is gpu


def test_no_machine_holds_an_slo_of_a_millisecond() -> None:
    with pytest.raises(MachinesError, match="no machine of the table answers one image within the SLO of 1 ms"):
        choice.cheapest(TABLE, 1, 1, 0.8)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(choice.machines, arguments)
    return done.exit_code, done.output


def test_the_table_says_what_is_assumed_what_bounds_and_when_prices_are_of() -> None:
    code, output = run("--rate", "40")
    assert code == 0, output
    for machine in TABLE:
        (line,) = [line for line in output.splitlines() if line.startswith(f" {machine.type} ")]
        assert " assumed " in line
        assert machine.bound(1000) in line
    for rate in choice.RATES:
        assert any(line.split()[:1] == [f"{rate:,.0f}"] for line in output.splitlines())
    assert "prices of 2026-09-24: AWS" in output
    assert "The host's cores bound 6 of 7 machines with a GPU" in output


def test_what_was_measured_is_not_marked_as_assumed() -> None:
    code, output = run("--on", "c7i.large", "--alpha-ms", "5", "--beta-ms", "0.1", "--host-ms", "2")
    assert code == 0, output
    lines = {line.split()[0]: line for line in output.splitlines() if line.startswith(" c") and line.split()}
    assert lines["c7i.large"].split()[1:5] == ["5", "0.1", "2", "measured"]
    assert " assumed " in lines["c6i.large"]
    assert "times what c7i.large was found to differ" in output.replace("\n", " ")


def test_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    row = {"type": "[red]x[/nope]", "usd_per_hour": 1, "vcpu": 2, "alpha_ms": 9, "beta_ms": 0, "host_ms": 1}
    (tmp_path / "m.json").write_text(json.dumps({"machines": [row | {"measured": False}]}))
    code, shown = run("--machines", str(tmp_path / "m.json"))
    assert code == 0 and "[red]x[/nope]" in shown


def test_a_table_of_one_s_own(tmp_path: Path) -> None:
    row = {"type": "mine", "usd_per_hour": 1, "vcpu": 2, "alpha_ms": 8, "beta_ms": 0, "host_ms": 2, "measured": True}
    (tmp_path / "t").write_text(json.dumps({"machines": [row]}))
    code, output = run("--machines", str(tmp_path / "t"), "--rate", "100")
    assert code == 0, output
    assert "mine" in output
    assert "assumed" not in output
    assert "not in the table" in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rate", "0"], "--rate 0: it must be a number more than 0"),
        (["--rate", "-3"], "--rate -3"),
        (["--rate", "nan"], "--rate nan"),
        (["--rate", "many"], "'many' is not a valid float"),
        (["--fill", "1.5"], "--fill 1.5: it must be more than 0 and at most 1"),
        (["--slo-ms", "0"], "--slo-ms 0"),
        (["--slo-ms", "1"], "within the SLO of 1 ms"),
        (["--machines", "nowhere.json"], "'nowhere.json' can't be read"),
        (["--alpha-ms", "3"], "--alpha-ms 3.0: name the machine"),
        (["--on", "c7i.large"], "--on 'c7i.large': give a figure"),
        (["--on", "abacus", "--alpha-ms", "3"], "--on 'abacus': there are c7i.large"),
        (["--on", "c7i.large", "--alpha-ms", "0"], "α of 0 ms"),
        (["--on", "c7i.large", "--model-url", "http://127.0.0.1:1/model"], "does not answer"),
        (["--on", "c7i.large", "--model-url", "http://a/", "--beta-ms", "1"], "leave --alpha-ms and --beta-ms out"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(arguments: list[str], told: str) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert told in output
    assert "Traceback" not in output
