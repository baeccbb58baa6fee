"""From metrics to pods: the edges of the controller's arithmetic, worked by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import replicas
from autoscaling.replicas import Groups, Patience, Pod, Sample, Tolerances, UnknownError

if TYPE_CHECKING:
    from collections.abc import Sequence

TENTH = Tolerances()
NONE = Tolerances(0, 0)


def samples(*amounts: int) -> dict[str, Sample]:
    return {f"p{number}": Sample(amount) for number, amount in enumerate(amounts)}


def names(*numbers: int) -> frozenset[str]:
    return frozenset(f"p{number}" for number in numbers)


def by_utilisation(
    current: int, groups: Groups, amounts: Sequence[int], target: int, tolerances: Tolerances = TENTH, pods: int = 4
) -> int:
    requests = {f"p{number}": 1000 for number in range(pods)}
    return replicas.by_utilisation(current, groups, samples(*amounts), requests, target, tolerances)[0]


@pytest.mark.parametrize(
    ("ratio", "held"), [(1.1, True), (math.nextafter(1.1, 2), False), (0.9, True), (math.nextafter(0.9, 0), False)]
)
def test_the_bounds_of_the_tolerance_hold(ratio: float, held: bool) -> None:
    assert TENTH.hold(ratio) is held


def test_the_tolerance_goes_by_direction() -> None:
    tolerances = Tolerances(0.0, 0.5)
    assert [tolerances.hold(ratio) for ratio in (0.49, 0.5, 1.0, 1.01)] == [False, True, True, False]


def test_a_per_cent_is_cut_before_the_ratio_is_taken() -> None:
    # 70.9 % of 70 is over the target, 70 % is not.
    assert by_utilisation(4, Groups(4), [709] * 4, 70, NONE) == 4
    assert by_utilisation(4, Groups(4), [710] * 4, 70, NONE) == 5
    assert replicas.utilisation({"p0": 709}, {"p0": 1000}, 70) == (1.0, 70, 709)


def test_a_mean_is_cut_before_the_ratio_is_taken() -> None:
    assert replicas.usage({"p0": 10, "p1": 11}, 10) == (1.0, 10)
    assert replicas.by_pods(2, Groups(2), samples(10, 11), 10, NONE) == (2, 10)
    assert replicas.by_pods(2, Groups(2), samples(11, 11), 10, NONE) == (3, 11)


def test_a_missing_pod_counts_zero_when_growing_and_its_request_when_shrinking() -> None:
    missing = Groups(2, missing=names(2))
    # 100 % of 50, so 4; with a third pod at 0: 66 %, 3.96, rounded up.
    assert by_utilisation(3, missing, [1000, 1000], 50) == 4
    # 20 % of 50; with a third pod at 100 %: 46 %, 2.76.
    assert by_utilisation(3, missing, [200, 200], 50) == 3
    # 90 % of the request is not 100 % of the target: with a target of 200 % it counts as 200.
    assert by_utilisation(3, missing, [200, 200], 200) == 2
    assert replicas.by_pods(3, missing, samples(20, 20), 100, TENTH)[0] == 2


def test_what_is_filled_in_is_exact() -> None:
    # One pod at 200 m and one at its whole request are at 60 %; a thousandth less is 59 %.
    missing = Groups(1, missing=names(1))
    assert by_utilisation(3, missing, [200], 60, NONE) == 3
    assert by_utilisation(3, missing, [199], 60, NONE) == 2
    # 3 m and 0 m are 1 m each, the target.
    assert replicas.by_pods(2, missing, samples(3), 1, NONE)[0] == 2
    assert replicas.by_pods(2, missing, samples(4), 1, NONE)[0] == 4


def test_a_missing_pod_at_the_target_exactly_changes_nothing() -> None:
    assert by_utilisation(3, Groups(2, missing=names(2)), [500, 500], 50, NONE) == 3
    assert replicas.by_pods(3, Groups(2, missing=names(2)), samples(50, 50), 50, NONE)[0] == 3


def test_an_unready_pod_counts_zero_when_growing_and_not_at_all_when_shrinking() -> None:
    unready = Groups(2, unready=names(2))
    assert by_utilisation(3, unready, [1000, 1000, 990], 50) == 4
    # Without it the two that are ready want one.
    assert by_utilisation(3, unready, [200, 200, 990], 50) == 1


def test_what_is_filled_in_may_not_turn_the_direction() -> None:
    # 60 % of 50 is over; with two unready at 0 it is 30 %.
    assert by_utilisation(4, Groups(2, unready=names(2, 3)), [600, 600], 50, NONE) == 4
    # 40 % of 50 is under; with two missing at 100 % it is 70 %.
    assert by_utilisation(4, Groups(2, missing=names(2, 3)), [400, 400], 50, NONE) == 4


def test_the_number_of_samples_may_not_turn_the_direction() -> None:
    # Of nine pods wanted three are known, at twice the target: six, which would be going down.
    groups = Groups(2, missing=names(2))
    assert by_utilisation(9, groups, [1500, 1500], 50) == 9
    assert replicas.by_pods(9, groups, samples(150, 150), 50, TENTH)[0] == 9
    # And the other way round: three samples of one pod wanted.
    assert by_utilisation(1, Groups(2, missing=names(2)), [100, 100], 50, NONE) == 1


def test_a_tolerance_is_asked_again_after_filling_in() -> None:
    assert by_utilisation(4, Groups(3, unready=names(3)), [700, 700, 700], 50, TENTH) == 4
    assert by_utilisation(4, Groups(3, unready=names(3)), [700, 700, 700], 50, NONE) == 5


@pytest.mark.parametrize(
    "groups", [Groups(0, unready=names(0, 1)), Groups(0, ignored=names(0, 1)), Groups(0, names(0), ignored=names(1))]
)
def test_without_a_believed_sample_nothing_can_be_told(groups: Groups) -> None:
    with pytest.raises(UnknownError, match="did not receive metrics"):
        by_utilisation(2, groups, [100, 100], 50)
    with pytest.raises(UnknownError, match="did not receive metrics"):
        replicas.by_pods(2, groups, samples(1, 1), 50, TENTH)


def test_samples_of_unknown_pods_are_left_out() -> None:
    assert replicas.utilisation({"p0": 500, "other": 9000}, {"p0": 1000, "p1": 1000}, 50) == (1.0, 50, 500)
    with pytest.raises(UnknownError, match="matched known pods"):
        replicas.utilisation({"other": 500}, {"p0": 1000}, 50)
    with pytest.raises(UnknownError, match="matched known pods"):
        replicas.utilisation({"p0": 500}, {"p0": 0}, 50)


def group(*, sample_age_s: float = 0, **fields: float | bool | str | None) -> str:
    """In which group a pod of the default CPU patience is."""
    pod = Pod("p0", **({"start_age_s": 1000.0, "transition_age_s": 900.0} | fields))  # type: ignore[arg-type]
    groups = replicas.group([pod], {"p0": Sample(1, sample_age_s, 60)}, True)
    found = [name for name in ("unready", "missing", "ignored") if getattr(groups, name)]
    return found[0] if found else f"ready {groups.ready}"


def test_a_young_pod_must_be_ready_for_one_window_before_its_cpu_is_believed() -> None:
    assert group(start_age_s=299.0, transition_age_s=60.0) == "ready 1"
    assert group(start_age_s=299.0, transition_age_s=59.0) == "unready"
    assert group(start_age_s=299.0, transition_age_s=80.0, sample_age_s=20) == "ready 1"
    assert group(start_age_s=299.0, transition_age_s=80.0, sample_age_s=21) == "unready"
    assert group(start_age_s=299.0, transition_age_s=200.0, ready=False) == "unready"
    # At 300 s its youth is over.
    assert group(start_age_s=300.0, transition_age_s=59.0) == "ready 1"


def test_an_old_pod_that_was_never_ready_is_unready() -> None:
    # Its condition is from within its first 30 s.
    assert group(ready=False, transition_age_s=971.0) == "unready"
    assert group(ready=False, transition_age_s=970.0) == "ready 1"
    assert group(ready=True, transition_age_s=971.0) == "ready 1"


def test_a_pod_that_has_not_started_or_has_no_condition_is_unready() -> None:
    assert group(ready=None) == group(start_age_s=None) == group(phase="Pending") == "unready"
    assert group(phase="Failed") == group(deleted=True) == group(deleted=True, phase="Pending") == "ignored"


def test_readiness_counts_for_cpu_alone() -> None:
    pods = [Pod("p0", ready=False), Pod("p1", ready=None), Pod("p2")]
    found = replicas.group(pods, samples(1, 1), cpu=False, patience=Patience())
    assert found == Groups(2, missing=names(2))


def test_a_value_goes_by_the_ready_pods() -> None:
    assert replicas.by_value(5, 150, 100, 3, TENTH) == 5  # 4.5
    assert replicas.by_value(5, 110, 100, 3, TENTH) == 5
    assert replicas.by_value(5, 111, 100, 3, TENTH) == 4  # 3.33: fewer than there are, as three are ready
    # From no pods neither tolerance nor readiness counts.
    assert [replicas.by_value(0, amount, 100, 0, TENTH) for amount in (0, 1, 100, 101)] == [0, 1, 1, 2]


def test_an_average_goes_by_the_sum_alone() -> None:
    assert replicas.by_average(19, 20000, 1000, TENTH) == (19, 1053)
    assert replicas.by_average(19, 20900, 1000, TENTH) == (19, 1100)
    assert replicas.by_average(19, 20901, 1000, TENTH) == (21, 1101)
    assert replicas.by_average(20, 18000, 1000, TENTH) == (20, 900)
    assert replicas.by_average(20, 17999, 1000, TENTH) == (18, 900)
    assert replicas.by_average(0, 20900, 1000, TENTH) == (21, 20900)
    assert replicas.by_average(0, 0, 1000, TENTH) == (0, 0)


def test_sums_end_at_64_bits_and_sizes_at_32() -> None:
    assert replicas.total([2**62, 2**62, 2**62]) == 2**63 - 1
    assert replicas.by_average(1, 2**63 - 1, 1, TENTH) == (2**31 - 1, 2**63 - 1)
    assert replicas.by_average(2, 2**63 - 1, 1, TENTH) == (2**31 - 1, 2**63 - 1)
    assert replicas.by_value(1, 2**62, 1, 3, TENTH) == 2**31 - 1


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**5))
def test_more_load_never_asks_for_fewer_pods(current: int, some: int, more: int, target: int) -> None:
    fewer, _ = replicas.by_average(current, some, target, TENTH)
    larger, _ = replicas.by_average(current, some + more, target, TENTH)
    assert fewer <= larger


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2000), st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_pods_that_are_all_alike_need_what_the_ratio_says(
    count: int, amount: int, target: int, up: float, down: float
) -> None:
    ratio = amount // 10 / target
    held = 1 - down <= ratio <= 1 + up
    wanted = by_utilisation(count, Groups(count), [amount] * count, target, Tolerances(up, down), count)
    assert wanted == (count if held else math.ceil(ratio * count))
