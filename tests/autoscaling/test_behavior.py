"""Windows and policies hold a size back as ``behavior`` says: their edges, worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import behavior
from autoscaling.behavior import DOWN_DEFAULT, UP_DEFAULT, Change, Policy, Recommendation, Rules

NOW = 1000.0


def log(*entries: tuple[int, float]) -> tuple[Recommendation, ...]:
    return tuple(Recommendation(size, NOW - age) for size, age in entries)


def events(*entries: tuple[int, float]) -> tuple[Change, ...]:
    return tuple(Change(change, NOW - age) for change, age in entries)


@pytest.mark.parametrize(("age", "kept"), [(299.999, 8), (300, 3), (301, 3)])
def test_a_recommendation_as_old_as_the_window_no_longer_counts(age: float, kept: int) -> None:
    assert behavior.stabilise(log((8, age)), 10, 3, 0, 300, NOW)[0] == kept
    assert behavior.stabilise(log((4, age)), 2, 9, 300, 0, NOW)[0] == (4 if kept == 8 else 9)


@pytest.mark.parametrize(("age", "kept"), [(300, 8), (300.001, 3)])
def test_without_behavior_one_as_old_as_the_window_still_counts(age: float, kept: int) -> None:
    assert behavior.stabilise_down(log((8, age)), 3, 300, NOW)[0] == kept


def test_both_windows_act_at_once_and_the_size_between_them_is_kept() -> None:
    seen = log((4, 100), (9, 50))
    for current, kept in ((2, 4), (6, 6), (12, 9)):
        assert behavior.stabilise(seen, current, 7, 300, 300, NOW)[0] == kept


def test_the_log_replaces_the_last_entry_that_both_windows_have_forgotten() -> None:
    new = Recommendation(5, NOW)
    seen = log((1, 400), (2, 350), (3, 200))
    assert behavior.stabilise(seen, 5, 5, 60, 300, NOW)[1] == (seen[0], new, seen[2])
    assert behavior.stabilise(seen, 5, 5, 60, 360, NOW)[1] == (new, seen[1], seen[2])
    assert behavior.stabilise(seen, 5, 5, 600, 300, NOW)[1] == (*seen, new)
    assert behavior.stabilise(log((1, 300)), 5, 5, 60, 300, NOW)[1] == (*log((1, 300)), new)


@pytest.mark.parametrize(("age", "counted"), [(14.999, 4), (15, 0), (16, 0)])
def test_a_change_as_old_as_the_period_no_longer_counts(age: float, counted: int) -> None:
    assert behavior.changed(events((4, age)), 15, NOW) == counted


def test_each_policy_counts_from_the_size_at_the_start_of_its_own_period() -> None:
    rules = Rules((Policy("Pods", 3, 60), Policy("Percent", 50, 15)), 0)
    # 10 pods now, 6 of them added 30 s ago: 4 + 3 a minute, but 10 and half in 15 s.
    assert behavior.ceiling(10, rules, events((6, 30)), (), NOW) == 15
    assert behavior.ceiling(10, Rules(rules.policies, 0, "Min"), events((6, 30)), (), NOW) == 7


def test_changes_of_both_directions_move_the_start() -> None:
    rules = Rules((Policy("Pods", 1, 60),), 0)
    assert behavior.ceiling(10, rules, events((4, 30)), events((2, 20)), NOW) == 10 - 4 + 2 + 1
    assert behavior.ground(10, rules, events((4, 30)), events((2, 20)), NOW) == 10 - 4 + 2 - 1


def test_a_per_cent_up_is_rounded_up_and_a_per_cent_down_is_cut() -> None:
    tenth = Rules((Policy("Percent", 10, 60),), 0)
    assert [behavior.ceiling(size, tenth, (), (), NOW) for size in (1, 7, 10, 0)] == [2, 8, 11, 0]
    assert [behavior.ground(size, tenth, (), (), NOW) for size in (1, 7, 10, 0)] == [0, 6, 9, 0]
    half = Rules((Policy("Percent", 50, 60),), 0)
    assert behavior.ceiling(1000, half, (), (), NOW) == 1500
    assert behavior.ground(1000, half, (), (), NOW) == 500
    # As floats have it: 1 - 10 / 100 is 0.9, and 9 * 1.1 is over 9.9.
    assert behavior.ceiling(9, tenth, (), (), NOW) == math.ceil(9 * 1.1) == 10


def test_the_policy_is_chosen_by_the_size_of_the_change() -> None:
    both = (Policy("Pods", 2, 60), Policy("Percent", 50, 60))
    assert [behavior.ceiling(10, Rules(both, 0, select), (), (), NOW) for select in ("Max", "Min")] == [15, 12]
    assert [behavior.ground(10, Rules(both, 0, select), (), (), NOW) for select in ("Max", "Min")] == [5, 8]


def test_a_disabled_direction_stays() -> None:
    rules = Rules((Policy("Pods", 2, 60),), 0, "Disabled")
    assert behavior.ceiling(10, rules, (), (), NOW) == behavior.ground(10, rules, (), (), NOW) == 10
    assert behavior.ceiling(10, Rules((), 0), (), (), NOW) == behavior.ground(10, Rules((), 0), (), (), NOW) == 10


@pytest.mark.parametrize(
    ("current", "desired", "bounds", "limits", "expected"),
    [
        (10, 30, (1, 20), (0, 15), (15, "ScaleUpLimit")),
        (10, 30, (1, 15), (0, 20), (15, "TooManyReplicas")),
        (10, 30, (1, 20), (0, 20), (20, "TooManyReplicas")),
        (10, 20, (1, 20), (0, 20), (20, "DesiredWithinRange")),
        (10, 30, (1, 99), (0, 3), (10, "ScaleUpLimit")),
        (10, 1, (2, 20), (5, 99), (5, "ScaleDownLimit")),
        (10, 1, (5, 20), (2, 99), (5, "TooFewReplicas")),
        (10, 1, (5, 20), (5, 99), (5, "TooFewReplicas")),
        (10, 5, (5, 20), (5, 99), (5, "DesiredWithinRange")),
        (10, 1, (2, 20), (14, 99), (10, "ScaleDownLimit")),
        (10, 10, (1, 20), (0, 99), (10, "DesiredWithinRange")),
        (10, 10, (1, 5), (0, 99), (10, "DesiredWithinRange")),
        (10, 10, (12, 20), (0, 99), (10, "DesiredWithinRange")),
    ],
)
def test_bounds_and_policies_with_the_controllers_reason(
    current: int, desired: int, bounds: tuple[int, int], limits: tuple[int, int], expected: tuple[int, str]
) -> None:
    assert behavior.limit(current, desired, bounds, limits) == expected


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (1, 99, (4, "ScaleUpLimit")),
        (2, 99, (4, "ScaleUpLimit")),
        (3, 99, (6, "ScaleUpLimit")),
        (3, 6, (6, "DesiredWithinRange")),
        (10, 99, (20, "TooManyReplicas")),
        (11, 99, (20, "TooManyReplicas")),
        (9, 1, (2, "TooFewReplicas")),
        (9, 2, (2, "DesiredWithinRange")),
    ],
)
def test_without_behavior_a_sync_at_most_doubles_or_makes_four(
    current: int, desired: int, expected: tuple[int, str]
) -> None:
    assert behavior.limit_plainly(current, desired, (2, 20)) == expected


def test_a_change_takes_the_place_of_the_last_outdated_one() -> None:
    rules = Rules((Policy("Pods", 1, 60), Policy("Percent", 10, 30)), 0)
    old, older, young = Change(7, NOW - 61), Change(9, NOW - 90), Change(6, NOW - 60)
    new = Change(5, NOW)
    assert behavior.recorded((young,), 5, rules, NOW) == (young, new)
    assert behavior.recorded((old, older, young), 5, rules, NOW) == (Change(7, NOW - 61, True), new, young)
    assert behavior.recorded((Change(1, NOW - 1, True),), 5, rules, NOW) == (new,)


def test_a_size_is_rounded_up_and_ends_at_32_bits() -> None:
    assert [behavior.size(wanted) for wanted in (0.0, 2.0, 2.000001, math.inf, 2.0**31)] == [
        0,
        2,
        3,
        2147483647,
        2147483647,
    ]


SIZES = st.integers(0, 200)
AGES = st.floats(0, 700)
RULES = st.builds(
    Rules,
    st.lists(
        st.builds(Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 300), st.integers(1, 600)), min_size=1
    ).map(tuple),
    st.integers(0, 600),
    st.sampled_from(["Max", "Min", "Disabled"]),
)
EVENTS = st.lists(st.tuples(st.integers(1, 50), AGES), max_size=6).map(lambda drawn: events(*drawn))


@settings(deadline=None)
@given(SIZES, SIZES, st.lists(st.tuples(SIZES, AGES), max_size=8), st.integers(0, 600), st.integers(0, 600))
def test_windows_only_hold_back(current: int, desired: int, seen: list[tuple[int, float]], up: int, down: int) -> None:
    kept, _ = behavior.stabilise(log(*seen), current, desired, up, down, NOW)
    assert min(current, desired) <= kept <= max(current, desired)
    assert behavior.stabilise(log(*seen), current, desired, 0, 0, NOW)[0] == desired


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 200), SIZES, RULES, RULES, EVENTS, EVENTS)
def test_policies_only_hold_back(
    current: int, desired: int, up: Rules, down: Rules, ups: tuple[Change, ...], downs: tuple[Change, ...]
) -> None:
    limits = behavior.ground(current, down, ups, downs, NOW), behavior.ceiling(current, up, ups, downs, NOW)
    kept, reason = behavior.limit(current, desired, (1, 200), limits)
    assert min(current, max(desired, 1)) <= kept <= max(current, desired)
    assert (reason == "DesiredWithinRange") == (kept == desired)


def test_the_defaults_are_those_of_autoscaling_v2() -> None:
    assert Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), 0, "Max", 0.1) == UP_DEFAULT
    assert Rules((Policy("Percent", 100, 15),), 300, "Max", 0.1) == DOWN_DEFAULT
    assert [behavior.ceiling(size, UP_DEFAULT, (), (), NOW) for size in (1, 4, 5)] == [5, 8, 10]
    assert behavior.ground(9, DOWN_DEFAULT, (), (), NOW) == 0
