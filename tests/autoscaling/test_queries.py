"""The triggers' PromQL: what is written is recognised, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from autoscaling import queries
from autoscaling.hpa import Before, Cpu, Cron, GpuMemory, Offered, Queue, Trigger

TRIGGERS: tuple[Trigger, ...] = (
    Offered(120.5),
    Offered(7, 300),
    Queue(50),
    GpuMemory(60),
    Before(120, 85500, 1.1),
    Before(120, 604800 - 900),
)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_what_is_written_is_recognised(trigger: Trigger) -> None:
    target = trigger.percent if isinstance(trigger, GpuMemory) else trigger.per_pod  # type: ignore[union-attr]
    assert queries.trigger(queries.text(trigger, "production"), target) == trigger


def test_the_forms_are_those_of_the_manifests() -> None:
    where = '{namespace="default"}'
    assert queries.text(Offered(1)) == f"sum(rate(resnet18_images_total{where}[60s]))"
    assert queries.text(Queue(1)) == f"sum(resnet18_queue_images{where})"
    before = f"sum(rate(resnet18_images_total{where}[300s] offset 85500s)) * 1.1"
    assert queries.text(Before(1, 85500, 1.1)) == before


@pytest.mark.parametrize(
    ("query", "trigger"),
    [
        ("sum(rate(resnet18_images_total[1m]))", Offered(9, 60)),
        ('sum ( rate(resnet18_images_total{job="a b",pod=~"r.*"} [ 1m30s ]) )', Offered(9, 90)),
        ("sum(rate(resnet18_images_total[5m] offset 23h45m))", Before(9, 85500)),
        ("sum(rate(resnet18_images_total[5m] offset 1w)) * 2", Before(9, 604800, 2.0)),
        ("sum(resnet18_queue_images) or vector(0)", Queue(9)),
        ("sum(100*DCGM_FI_DEV_FB_USED/(DCGM_FI_DEV_FB_USED+DCGM_FI_DEV_FB_FREE))", GpuMemory(9)),
    ],
)
def test_a_query_may_be_written_in_other_ways(query: str, trigger: Trigger) -> None:
    assert queries.trigger(query, 9) == trigger


@pytest.mark.parametrize(
    "query",
    [
        "sum(rate(resnet18_admitted_images_total[60s]))",
        "rate(resnet18_images_total[60s])",
        "sum by (pod) (rate(resnet18_images_total[60s]))",
        "sum(rate(resnet18_images_total[60s])) * 2",
        "sum(rate(resnet18_images_total[]))",
        "sum(rate(resnet18_images_total[60s] offset 0s))",
        "sum(rate(resnet18_images_total[60s] offset -60s))",
        "sum(irate(resnet18_images_total[60s]))",
        "sum(increase(resnet18_images_total[60s]))",
        "avg(resnet18_queue_images)",
        'sum(100*DCGM_FI_DEV_FB_USED{a="b"}/(DCGM_FI_DEV_FB_USED+DCGM_FI_DEV_FB_FREE))',
        "",
    ],
)
def test_another_query_is_refused_and_quoted(query: str) -> None:
    with pytest.raises(queries.QueryError) as error:
        queries.trigger(query, 9)
    assert str(error.value).startswith(f"{query!r} is no query that can be simulated")


@pytest.mark.parametrize("matcher", ['outcome="ok"', 'job="a", outcome!~"overloaded"', 'outcome=~"ok"'])
def test_a_rate_of_some_outcomes_is_not_the_offered_rate(matcher: str) -> None:
    with pytest.raises(queries.QueryError, match="counts some outcomes alone"):
        queries.trigger(f"sum(rate(resnet18_images_total{{{matcher}}}[60s]))", 9)


@pytest.mark.parametrize("trigger", [Cpu(70), Cron("0 8 * * *", "0 9 * * *", 3)], ids=str)
def test_what_asks_no_prometheus_has_no_query(trigger: Trigger) -> None:
    with pytest.raises(queries.QueryError, match="asks no Prometheus"):
        queries.text(trigger)
