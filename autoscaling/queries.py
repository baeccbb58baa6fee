"""The PromQL of the triggers, written and recognised.

    sum(rate(resnet18_images_total{namespace="default"}[60s]))                          Offered
    sum(rate(resnet18_images_total{namespace="default"}[300s] offset 85500s)) * 1.1     Before
    sum(resnet18_queue_images{namespace="default"})                                     Queue
    sum(100 * DCGM_FI_DEV_FB_USED{pod=~"resnet18-.*"} / (...)) or vector(0)             GpuMemory

Other selectors are accepted, but none by ``outcome``: offered includes answered, refused and failed images.
"""

from __future__ import annotations

import re

from autoscaling.hpa import Before, GpuMemory, Offered, Queue, Trigger

# Periods of PromQL, in seconds, in the order in which a duration has them.
_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = "".join(rf"(?:\d+{unit})?" for unit in _UNITS)
_SELECTOR = r"((?:\{[^{}]*\})?)"
# Without spaces, but for those in a selector's texts.
_RATE = re.compile(
    rf"sum\(rate\(resnet18_images_total{_SELECTOR}\[({_DURATION})\](?:offset({_DURATION}))?\)\)(?:\*(\d+\.?\d*))?"
)
_QUEUE = re.compile(rf"sum\(resnet18_queue_images{_SELECTOR}\)")
_USED, _FREE = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
_GPU = re.compile(rf"sum\(100\*{_USED}{_SELECTOR}/\({_USED}\1\+{_FREE}\1\)\)")
_KNOWN = 'such as sum(rate(resnet18_images_total{namespace="default"}[60s])), the same with an offset, the queue'


class QueryError(ValueError):
    """A query that is none of the known ones; the message quotes it."""


def text(trigger: Trigger, namespace: str = "default") -> str:
    """The query of ``trigger`` over the pods of ``namespace``. Raises QueryError for one that asks no Prometheus."""
    where = f'{{namespace="{namespace}"}}'
    match trigger:
        case Offered():
            return f"sum(rate(resnet18_images_total{where}[{trigger.window_s}s]))"
        case Before():
            rate = f"rate(resnet18_images_total{where}[{trigger.window_s}s] offset {trigger.offset_s}s)"
            return f"sum({rate})" + ("" if trigger.headroom == 1 else f" * {trigger.headroom!r}")
        case Queue():
            return f"sum(resnet18_queue_images{where})"
        case GpuMemory():
            pods = '{pod=~"resnet18-.*"}'
            return f"sum(100 * {_USED}{pods} / ({_USED}{pods} + {_FREE}{pods})) or vector(0)"
        case _:
            raise QueryError(f"{trigger} asks no Prometheus")


def trigger(query: str, target: float) -> Trigger:
    """The trigger that ``query`` with ``target`` a pod is. Raises QueryError."""
    plain = _unspaced(query).removesuffix("orvector(0)")
    if (match := _RATE.fullmatch(plain)) is not None:
        selector, window, offset, factor = match.groups()
        if re.search(r"[{,]outcome[!=]", selector):
            raise QueryError(f"{query!r} counts some outcomes alone: the offered rate has all, refused ones included")
        window_s, offset_s = _seconds(window), _seconds(offset or "")
        if window_s and offset_s:
            return Before(target, offset_s, float(factor or 1), window_s)
        if window_s and not offset and not factor:
            return Offered(target, window_s)
    elif _QUEUE.fullmatch(plain):
        return Queue(target)
    elif _GPU.fullmatch(plain):
        return GpuMemory(target)
    raise QueryError(f"{query!r} is no query that can be simulated; {_KNOWN}")


def _unspaced(query: str) -> str:
    """``query`` without white space outside quotes."""
    return "".join(
        part if number % 2 else re.sub(r"\s+", "", part) for number, part in enumerate(re.split(r'("[^"]*")', query))
    )


def _seconds(duration: str) -> int:
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([wdhms])", duration))
