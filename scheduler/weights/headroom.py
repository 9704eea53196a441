"""The default: a node's weight is what it could do for us now, by what it says, what the lane sees, and how long it is here.

weight = power · room · speed · health · ramp

- *power*: cores (or cards by their coefficients).
- *room*: the root of the share that neighbours leave us: 1 - (the machine's utilisation - our own). Our own work counts as
  ours, so that a node's weight does not depend on how much it has from us; nor can an idle one fall to nothing.
- *speed*: how fast batches end there, seen by this lane, in relation to the other nodes; 1 unless the difference is large, and
  then the square: what a batch takes has a part that no node's speed changes, so that the whole understates the difference.
- *health*: throttling, stalls for memory and disk, full memory or disk, a clock that is off.
- *ramp*: a newcomer starts small; one that keeps leaving and coming back starts small for longer.

Nothing is multiplied by 0: each factor has a floor. A node that gets worse falls at the next update; one that gets better rises a
part of the way at each, so that a flapping signal keeps it low. What is not known counts as the mean of what is known.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import UNKNOWN, Column, Fleet, Floats, known_or, mean_known
from scheduler.weights.policy import Weights, power_of

STALE_SECONDS: Final = 10.0
LEAST_ROOM: Final = 0.05
# How much of a change for the better an update takes over; for the worse it is all.
RISE_SHARE: Final = 0.35
LEAST_SPEED: Final = 0.1
# A node is slow when its batches take so many times as long, and stand out from how much nodes differ anyway; it is so until they
# hardly do.
SLOW_RATIO: Final = 1.5
SLOW_DEVIATIONS: Final = 3.0
SLOW_ERRORS: Final = 3.0
WELL_RATIO: Final = 1.25
WELL_DEVIATIONS: Final = 1.5
SLOW_POWER: Final = 2.0
# A node that was slow is well again, for what it takes to be called slow, from here on.
WELL_SPEED: Final = 0.9
MAD_TO_DEVIATION: Final = 1.4826
LEAST_HEALTH: Final = 0.05
THROTTLED_FROM: Final = 0.1
FULL_MEMORY: Final = 0.95
FULL_DISK: Final = 0.05
CLOCK_OFF_MS: Final = 2_000.0
RAMP_SECONDS: Final = 10.0
RAMP_START: Final = 0.1
MAX_FLAPS: Final = 5.0


class HeadroomWeights:
    """Owns nothing: what it remembers stands in the fleet's columns HEALTH, SPEED and ROOM."""

    name = SchedulingPolicy.HEADROOM
    guards_room = True

    def weigh(self, fleet: Fleet, now: float) -> Weights:
        fresh = now - fleet.column(Column.SAMPLED_AT) <= STALE_SECONDS
        power = power_of(fleet)
        room = settle(fleet.column(Column.ROOM), np.where(fresh, room_of(fleet), UNKNOWN))
        speed = settle(fleet.column(Column.SPEED), speed_of(fleet))
        health = settle(fleet.column(Column.HEALTH), np.where(fresh, health_of(fleet), UNKNOWN))
        ramp = ramp_of(fleet, now)
        values = power * known_or(room, mean_known(room, 1.0)) * known_or(speed, 1.0) * known_or(health, 1.0) * ramp
        factors = {"cores": power, "room": room, "speed": speed, "health": health, "ramp": ramp}
        return Weights(values, factors)


def room_of(fleet: Fleet) -> Floats:
    """The root of the share of the node that neighbours leave us, which is `LEAST_ROOM` to 1.

    The root, because pods of one full machine are neighbours to each other: what one of them gets more of, the others have less
    of, and a weight in proportion would keep any such difference; the root lets it fade.
    """
    # Of what it was promised: a limit that was lowered must not make the little it gets look like much.
    whole = np.fmax(fleet.column(Column.CORES), fleet.column(Column.CPUS))
    ours = np.minimum(fleet.column(Column.OWN_CPU) / whole, fleet.column(Column.HOST_CPU))
    return np.sqrt(np.clip(1.0 - (fleet.column(Column.HOST_CPU) - ours), LEAST_ROOM, 1.0))


def speed_of(fleet: Fleet) -> Floats:
    """In relation to the median node, `LEAST_SPEED` to 1. A node that was slow stays so until it is clearly not. One that was
    known, but without evidence now, is tried again: it rises as if it were well."""
    log_latency, before = fleet.column(Column.LOG_LATENCY), fleet.column(Column.SPEED)
    error = known_or(fleet.column(Column.LATENCY_ERROR), 0.0)
    known = np.sort(log_latency[~np.isnan(log_latency)])
    if not len(known):
        return np.where(np.isnan(before), UNKNOWN, 1.0)
    # The lower median: of two nodes the faster one is the measure, and nothing tells how much they differ anyway.
    median = known[(len(known) - 1) // 2]
    spread = MAD_TO_DEVIATION * float(np.median(np.abs(known - median))) if len(known) > 2 else 0.0
    slower = log_latency - median
    bound = np.where(
        before < WELL_SPEED,
        max(math.log(WELL_RATIO), WELL_DEVIATIONS * spread),
        np.maximum(max(math.log(SLOW_RATIO), SLOW_DEVIATIONS * spread), SLOW_ERRORS * error),
    )
    speed = np.where(slower > bound, np.clip(np.exp(-SLOW_POWER * slower), LEAST_SPEED, 1.0), 1.0)
    return np.where(np.isnan(log_latency) & np.isnan(before), UNKNOWN, speed)


def health_of(fleet: Fleet) -> Floats:
    """What ails the node itself, `LEAST_HEALTH` to 1. A fact that is not known does not count against it."""
    throttled = known_or(fleet.column(Column.THROTTLED), 0.0)
    throttled = np.where(throttled < THROTTLED_FROM, 0.0, throttled)
    # In the periods in which it was stopped, what it got is all it can get.
    got = known_or(fleet.column(Column.OWN_CPU) / np.fmax(fleet.column(Column.CORES), fleet.column(Column.CPUS)), 1.0)
    health = 1.0 - throttled * (1.0 - np.clip(got, 0.0, 1.0))
    health = health * np.square(1.0 - known_or(fleet.column(Column.MEMORY_PRESSURE), 0.0))
    health = health * (1.0 - 0.5 * known_or(fleet.column(Column.IO_PRESSURE), 0.0))
    health = np.where(fleet.column(Column.HOST_MEMORY) > FULL_MEMORY, health * 0.5, health)
    health = np.where(fleet.column(Column.DISK_FREE) < FULL_DISK, health * 0.1, health)
    health = np.where(np.abs(fleet.column(Column.CLOCK_SKEW_MS)) > CLOCK_OFF_MS, health * 0.5, health)
    return np.maximum(health, LEAST_HEALTH)


def ramp_of(fleet: Fleet, now: float) -> Floats:
    """`RAMP_START` to 1 over `RAMP_SECONDS` from when the node joined; twice as long for each time it came back lately."""
    length = RAMP_SECONDS * np.exp2(np.minimum(fleet.column(Column.FLAPS), MAX_FLAPS))
    return np.clip((now - fleet.column(Column.JOINED_AT)) / length, RAMP_START, 1.0)


def settle(memory: Floats, seen: Floats) -> Floats:
    """Down at once, up by a share of the way; unknown keeps what was known. Writes to `memory` and returns a copy of it."""
    rising = memory + RISE_SHARE * (seen - memory)
    settled = np.where(np.isnan(memory) | (seen < memory), seen, rising)
    memory[:] = np.where(np.isnan(seen), memory, settled)
    return memory.copy()
