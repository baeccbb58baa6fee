"""One sync of the controller, and what it leaves for the next."""

from __future__ import annotations

from autoscaling import sync
from autoscaling.behavior import Change, Policy, Recommendation, Rules
from autoscaling.sync import Both, Condition, Failure, History, Plain

BOUNDS = (1, 100)
AT_ONCE = Both(Rules((Policy("Percent", 1000, 15),), 0), Rules((Policy("Percent", 100, 15),), 0))


def reconcile(current: int, *proposals: int | Failure, history: History | None = None) -> sync.Decision:
    return sync.reconcile(BOUNDS, AT_ONCE, current, proposals, history or History(()), 1000.0)


def test_the_largest_proposal_wins() -> None:
    assert reconcile(5, 3, 7, 4).replicas == 7
    assert reconcile(5, 3, 2).replicas == 3
    assert reconcile(5, 0, 0).replicas == 1


def test_a_failing_metric_forbids_going_down_and_not_up() -> None:
    failed = Failure("FailedGetExternalMetric")
    down = reconcile(5, failed, 3)
    assert (down.replicas, down.reason, down.proposal) == (5, "FailedGetExternalMetric", None)
    assert down.conditions["ScalingActive"] == Condition(False, "FailedGetExternalMetric")
    assert reconcile(5, 7, failed).replicas == 7
    assert reconcile(5, 5, failed).reason == "DesiredWithinRange"
    assert reconcile(5, failed, Failure("FailedGetPodsMetric")).reason == "FailedGetExternalMetric"
    # A failed sync leaves no recommendation.
    assert down.history == History(())


def test_without_a_metric_nothing_changes() -> None:
    assert reconcile(5).replicas == 5


def test_no_pods_means_that_scaling_is_switched_off() -> None:
    decision = reconcile(0, 7)
    assert (decision.replicas, decision.reason) == (0, "ScalingDisabled")
    # With a minimum of 0 it goes on; but any per cent of no pods is none.
    by_pods = Both(Rules((Policy("Pods", 9, 15),), 0), AT_ONCE.down)
    assert sync.reconcile((0, 9), by_pods, 0, [7], History(()), 0.0).replicas == 7
    assert sync.reconcile((0, 9), AT_ONCE, 0, [7], History(()), 0.0).replicas == 0


def test_a_size_outside_the_bounds_is_put_right_whatever_the_metrics_say() -> None:
    assert (reconcile(200, 7).replicas, reconcile(200, 7).reason) == (100, "TooManyReplicas")
    few = sync.reconcile((3, 9), AT_ONCE, 2, [Failure("x")], History(()), 1000.0)
    assert (few.replicas, few.reason) == (3, "TooFewReplicas")
    assert few.history.ups == (Change(1, 1000.0),)


def test_a_size_at_a_bound_goes_by_the_metrics() -> None:
    assert (reconcile(100, 7).replicas, reconcile(100, 107).reason) == (7, "TooManyReplicas")
    assert (reconcile(1, 7).replicas, reconcile(1, 0).reason) == (7, "TooFewReplicas")


def test_the_first_sync_takes_the_size_for_a_recommendation() -> None:
    held = Both(AT_ONCE.up, Rules((Policy("Percent", 100, 15),), 300))
    first = sync.reconcile(BOUNDS, held, 8, [3], History(), 0.0)
    assert (first.replicas, first.reason) == (8, "ScaleDownStabilized")
    assert first.history.log == (Recommendation(8, 0.0), Recommendation(3, 0.0))
    later = sync.reconcile(BOUNDS, held, 8, [3], first.history, 300.0)
    assert (later.replicas, later.reason) == (3, "DesiredWithinRange")
    assert sync.reconcile(BOUNDS, held, 8, [3], History(()), 0.0).replicas == 3


def test_changes_are_kept_by_direction_and_held_against_the_policies() -> None:
    held = Both(Rules((Policy("Pods", 4, 60),), 0), Rules((Policy("Pods", 2, 60),), 0))
    up = sync.reconcile(BOUNDS, held, 5, [30], History(()), 0.0)
    assert (up.replicas, up.reason, up.proposal) == (9, "ScaleUpLimit", 30)
    assert up.history.ups == (Change(4, 0.0),)
    again = sync.reconcile(BOUNDS, held, 9, [30], up.history, 59.0)
    assert (again.replicas, again.conditions["AbleToScale"].reason) == (9, "ReadyForNewScale")
    assert sync.reconcile(BOUNDS, held, 9, [30], up.history, 60.0).replicas == 13
    # Two may go in a minute, but four came in it: back to five and two less.
    down = sync.reconcile(BOUNDS, held, 9, [1], up.history, 30.0)
    assert (down.replicas, down.history.downs) == (3, (Change(6, 30.0),))


def test_without_behavior_no_change_is_kept_and_four_or_twice_as_many_come_at_once() -> None:
    first = sync.reconcile(BOUNDS, Plain(), 1, [50], History(()), 0.0)
    second = sync.reconcile(BOUNDS, Plain(), 4, [50], first.history, 1.0)
    assert (first.replicas, second.replicas, second.history.ups) == (4, 8, ())
    # The highest wish of the window is followed, though the load is gone: only behavior's windows keep the size.
    after = sync.reconcile(BOUNDS, Plain(), 8, [2], second.history, 300.0)
    assert (after.replicas, after.reason) == (16, "ScaleUpLimit")
    assert after.conditions["ScalingLimited"] == Condition(True, "ScaleUpLimit")
    assert sync.reconcile(BOUNDS, Plain(), 8, [2], second.history, 301.1).replicas == 2
    assert sync.reconcile(BOUNDS, Both(), 8, [2], second.history, 300.0).replicas == 8


def test_a_window_up_is_told_as_such() -> None:
    held = Both(Rules((Policy("Percent", 1000, 15),), 60), AT_ONCE.down)
    decision = sync.reconcile(BOUNDS, held, 5, [9], History((Recommendation(6, 970.0),)), 1000.0)
    assert (decision.replicas, decision.reason) == (6, "ScaleUpStabilized")
    assert decision.conditions["AbleToScale"] == Condition(True, "SucceededRescale")
