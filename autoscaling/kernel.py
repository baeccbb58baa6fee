"""The inner loop of the simulation: a fleet and its autoscaler, second by second, in the subset of Python numba knows.

It takes the decisions of ``autoscaling.hpa`` without its objects; tests/autoscaling/test_fleet.py compares the two.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

Array = Any  # numba's own types are not mypy's

PODS, PERCENT = 0, 1
MAX, MIN, DISABLED = 0, 1, 2
# The proposal of a metric that failed.
FAILED = -1
# Places of ``totals``.
OFFERED, LATE, POD_SECONDS, MACHINE_SECONDS, SECONDS, MOST_PODS = range(6)


def _compiled(function: Any) -> Any:
    """``function`` as machine code, kept beside this file or in the user's cache where either can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no folder to write to
        return numba.njit(nogil=True)(function)


@_compiled
def _proposal(amount_m: int, target_m: int, current: int, down: float, up: float) -> int:
    ratio = amount_m / (target_m * current)
    if 1.0 - down <= ratio <= 1.0 + up:
        return current
    return math.ceil(amount_m / target_m)


@_compiled
def _changed(amounts: Array, times: Array, count: int, period: int, now: int) -> int:
    total = 0
    for place in range(count):
        if now - times[place] < period:
            total += amounts[place]
    return total


@_compiled
def _record(amounts: Array, times: Array, outdated: Array, count: int, change: int, longest: int, now: int) -> int:
    last = -1
    for place in range(count):
        if now - times[place] > longest:
            outdated[place] = True
        if outdated[place]:
            last = place
    if last < 0:
        last = count
        count += 1
    amounts[last], times[last], outdated[last] = change, now, False
    return count


@_compiled
def _stop(policies: Array, select: int, current: int, grown: Array, shrunk: Array, now: int, sign: int) -> int:
    """The size that the policies of one direction, ``sign``, allow: the mildest's or the strictest's."""
    if select == DISABLED or policies.shape[0] == 0:
        return current
    chosen = current
    for place in range(policies.shape[0]):
        kind, value, period = policies[place]
        start = current
        start -= _changed(grown[0], grown[1], grown[3][0], period, now)
        start += _changed(shrunk[0], shrunk[1], shrunk[3][0], period, now)
        if kind == PODS:
            allowed = start + sign * value
        elif sign > 0:
            allowed = math.ceil(start * (1 + value / 100))
        else:
            allowed = int(start * (1 - value / 100))
        if place == 0 or (allowed - chosen) * sign * (1 if select == MAX else -1) > 0:
            chosen = allowed
    return max(chosen, current) if sign > 0 else min(chosen, current)


@_compiled
def _mean_m(cumulated: Array, until: int, window: int, factor: float) -> int:
    """The mean of ``window`` seconds before ``until``, in thousandths a second; 0 where the trace has not begun."""
    if until <= 0:
        return 0
    total = cumulated[until] - cumulated[max(until - window, 0)]
    return int(total / window * factor * 1000.0)


@_compiled
def _by_cpu(
    target: int, window: int, lag: int, now: int, first: int, size: int, ready: int, ready_at: Array,
    served: Array, able: Array, history: int, tol_down: float, tol_up: float,
) -> int:  # fmt: skip
    """Pods that the CPU's utilisation asks for; a pod that starts, or whose sample reaches back before, is unready."""
    known = 0
    while known < ready and ready_at[known] <= now - lag - window:
        known += 1
    last, before = now - lag - 1, now - lag - window - 1
    if known == 0 or before < first:
        return FAILED
    capacity = able[last % history] - able[before % history]
    if capacity <= 0:
        return FAILED
    used_m = int(100.0 * (served[last % history] - served[before % history]) / capacity * 10)
    ratio = used_m // 10 / target
    if not (ratio > 1.0 and known < size):
        return size if 1.0 - tol_down <= ratio <= 1.0 + tol_up else math.ceil(ratio * known)
    again = used_m * known // (10 * size) / target
    if 1.0 - tol_down <= again <= 1.0 + tol_up or again < 1.0:
        return size
    return max(math.ceil(again * size), size)


@_compiled
def run(
    offered: Array,
    cumulated: Array,
    counted: Array,
    crons: Array,
    averages: Array,
    single: Array,
    ups: Array,
    downs: Array,
    tolerances: Array,
    fleet: Array,
    span: Array,
    budget: float,
    wanted_s: Array,
    ready_s: Array,
    late_s: Array,
    totals: Array,
) -> None:
    """Run the seconds of ``span`` and add what they cost to ``totals``; stop once over ``budget`` late images.

    offered: images[n]; cumulated: images before each second[n + 1]; counted: bool[n], what is judged and paid for.
    crons: pods that schedules want, by minute of the trace [n // 60 + 1]; empty: there is no schedule.
    averages: [k, 4]: target a pod in thousandths, window s, offset s, headroom. tolerances: up, down.
    single: CPU per cent (0: none), its window s, queue's target a pod in thousandths (0: none), minimum, maximum,
    cooldown s. ups, downs: int[p + 1, 3]: kind, value, period s of each policy; last of all select, window s, unused.
    fleet: images a second a pod, start s, SLO s, sync s, lag s, pods a machine, machine's start s, linger s.
    span: first second, first second judged, end, phase of the sync, pods at the start.
    """
    rate, slo = fleet[0], fleet[2]
    start, sync, lag = int(fleet[1]), int(fleet[3]), int(fleet[4])
    packed, machine_start, linger = int(fleet[5]), int(fleet[6]), int(fleet[7])
    first, begin, end, phase, size = span
    cpu, cpu_window, queue_m, minimum, maximum, cooldown = single
    tol_up, tol_down = tolerances
    up_select, up_window, down_select, down_window = ups[-1, 0], ups[-1, 1], downs[-1, 0], downs[-1, 1]
    up_policies, down_policies = ups[:-1], downs[:-1]
    longest_up = longest_down = 0
    for place in range(up_policies.shape[0]):
        longest_up = max(longest_up, up_policies[place, 2])
    for place in range(down_policies.shape[0]):
        longest_down = max(longest_down, down_policies[place, 2])
    room = max(longest_up, longest_down) // sync + 4
    grown = (np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.bool_), np.zeros(1, np.int64))
    shrunk = (np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.bool_), np.zeros(1, np.int64))
    # Recommendations of the last syncs, by number of the sync; the size at the HPA's first one counts too.
    depth = max(up_window, down_window) // sync + 2
    log, syncs, size_at_first, first_sync = np.zeros(depth, np.int64), 0, size, -1

    ready_at = np.full(max(maximum, size) + 1, first - 1, np.int64)
    machines = -(-size // packed)
    machine_at = np.full(machines + maximum // packed + 2, first - 1, np.int64)  # from when a machine takes pods
    empty_since = np.full(machine_at.shape[0], first, np.int64)
    ready, queue, active_at = size, 0.0, first - 10**9
    history = lag + cpu_window + 2
    served_before, able_before, queues = np.zeros(history), np.zeros(history), np.zeros(history)
    served_total = able_total = 0.0

    for now in range(first, end):
        if (now - phase) % sync == 0:
            proposal, active, failed = FAILED, False, False
            for place in range(averages.shape[0]):
                until = now - lag - int(averages[place, 2])
                amount = _mean_m(cumulated, until, int(averages[place, 1]), averages[place, 3])
                active = active or amount > 0
                if size > 0:
                    proposal = max(proposal, _proposal(amount, int(averages[place, 0]), size, tol_down, tol_up))
            if crons.shape[0] > 0:
                active = active or crons[now // 60] > 0
                if size > 0:
                    proposal = max(proposal, _proposal(max(crons[now // 60], 1) * 1000, 1000, size, tol_down, tol_up))
            if queue_m > 0:
                seen = queues[(now - lag - 1) % history] if now - lag - 1 >= first else 0.0
                active = active or seen > 0
                if size > 0:
                    proposal = max(proposal, _proposal(int(seen * 1000.0), queue_m, size, tol_down, tol_up))
            if cpu > 0 and size > 0:
                of_cpu = _by_cpu(
                    cpu, cpu_window, lag, now, first, size, ready, ready_at,
                    served_before, able_before, history, tol_down, tol_up,
                )  # fmt: skip
                failed = of_cpu == FAILED
                proposal = max(proposal, of_cpu)
            if active:
                active_at = now
            kept = size
            log[syncs % depth] = FAILED
            hpa = size > 0 and not (minimum == 0 and not active and now - active_at > cooldown)
            if hpa and first_sync < 0:
                size_at_first, first_sync = size, now
            if size == 0:
                kept = min(1, maximum) if active else 0
            elif not hpa:
                kept = 0
            elif proposal != FAILED and not (failed and proposal < size):
                lowest = highest = proposal
                for back in range(1, min(syncs, depth - 1) + 1):
                    seen_then = log[(syncs - back) % depth]
                    if seen_then == FAILED:
                        continue
                    if back * sync < up_window:
                        lowest = min(lowest, seen_then)
                    if back * sync < down_window:
                        highest = max(highest, seen_then)
                if now - first_sync < up_window:
                    lowest = min(lowest, size_at_first)
                if now - first_sync < down_window:
                    highest = max(highest, size_at_first)
                log[syncs % depth] = proposal
                kept = min(max(size, lowest), highest)
                if kept > size:
                    kept = min(kept, _stop(up_policies, up_select, size, grown, shrunk, now, 1), maximum)
                elif kept < size:
                    kept = max(kept, _stop(down_policies, down_select, size, grown, shrunk, now, -1), max(minimum, 1))
                if kept > size:
                    grown[3][0] = _record(grown[0], grown[1], grown[2], grown[3][0], kept - size, longest_up, now)
                elif kept < size:
                    count = shrunk[3][0]
                    shrunk[3][0] = _record(shrunk[0], shrunk[1], shrunk[2], count, size - kept, longest_down, now)
            syncs += 1
            # The machines that are there, lingering ones too, take pods first.
            for place in range(size, kept):
                machine = place // packed
                if machine >= machines:
                    machine_at[machine] = now + machine_start
                    machines = machine + 1
                ready_at[place] = max(now, machine_at[machine]) + start
            if kept < ready:  # those that are starting go first; the rest drain: they answer what they hold
                drained = queue * (ready - kept) / ready
                queue -= drained
                if counted[now] and now >= begin:
                    totals[POD_SECONDS] += drained / rate
                ready = kept
            for machine in range(-(-kept // packed), -(-size // packed)):
                empty_since[machine] = now
            size = kept
        while machines > -(-size // packed) and now - empty_since[machines - 1] >= linger:
            machines -= 1
        while ready < size and ready_at[ready] <= now:
            ready += 1

        able = ready * rate
        waiting = queue + offered[now]
        served = min(waiting, able)
        queue = min(waiting - served, slo * able)
        late = waiting - served - queue
        served_total += served
        able_total += able
        served_before[now % history], able_before[now % history] = served_total, able_total
        queues[now % history] = queue
        if wanted_s.shape[0] > 0:
            wanted_s[now - first], ready_s[now - first], late_s[now - first] = size, ready, late
        if now >= begin and counted[now]:
            totals[OFFERED] += offered[now]
            totals[LATE] += late
            totals[POD_SECONDS] += size
            totals[MACHINE_SECONDS] += machines
            totals[SECONDS] += 1
            totals[MOST_PODS] = max(totals[MOST_PODS], size)
            if totals[LATE] > budget:
                return
