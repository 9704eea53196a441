"""One node's actors as this lane sees them: what is in flight on each, which are free, and how fast batches end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from rayline.reports import ActorEndpoint, NodeLoad

# Behind a batch that runs shorter than this another one may wait: the actor then never idles, and turns nobody away.
QUEUE_BEHIND_SECONDS: Final = 0.2
EWMA_SHARE: Final = 0.2
# What ended since the last update of weights counts against so many batches before: a few say little, many say all.
PRIOR_BATCHES: Final = 6
# Of ln(seconds), as far as one more batch would show it.
PRIOR_VARIANCE: Final = 1.0
# One that still runs is evidence from so many times what is usual on: single batches differ that much by themselves.
RUNNING_PATIENCE: Final = 3.0
# What a lane saw of a node's speed counts for so long without a new batch.
EVIDENCE_SECONDS: Final = 60.0
# A batch of ours needs about one core; a node takes one more while at least so much of a core is left for it.
CORES_FOR_ONE_MORE: Final = 1.0
# Over so long our share of all work is taken.
SHARE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a batch goes: one actor process on one incarnation of a node (`node` is `cluster/name`)."""

    node: str
    incarnation: int
    endpoint: ActorEndpoint

    @property
    def cluster_name(self) -> str:
        return self.node.partition("/")[0]

    @property
    def node_name(self) -> str:
        return self.node.partition("/")[2]


@dataclass(slots=True, eq=False)
class Seat:
    """One actor process. Times are monotonic seconds. `idle` and `spare` are what the node counted it as.

    `service_seconds` is from dispatch to answer, `execute_seconds` without the wait for those before it.
    """

    target: Target
    in_flight: int = 0
    service_seconds: float | None = None
    execute_seconds: float | None = None
    paused_until: float = 0.0
    losses: int = 0
    reserved: bool = False  # the batch there wants to be alone
    seated: bool = False  # the view says that it is there
    idle: bool = False
    spare: bool = False
    slots: int = field(init=False)
    concurrency: int = field(init=False)  # batches that it runs at once

    def __post_init__(self) -> None:
        self.slots = self.target.endpoint.slots
        self.concurrency = max(1, self.slots - 1)

    def served(self, seconds: float, execute_seconds: float) -> None:
        """A batch ended after so long, of which it ran so long."""
        old, ran = self.service_seconds, self.execute_seconds
        self.service_seconds = seconds if old is None else old + EWMA_SHARE * (seconds - old)
        self.execute_seconds = execute_seconds if ran is None else ran + EWMA_SHARE * (execute_seconds - ran)


@dataclass(slots=True)
class OwnShare:
    """Owns the estimate of what part of the work on all nodes is this lane's, 0 to 1, by the samples of the last seconds.

    The rest is that of other lanes and apps. Nobody needs to tell how many lanes there are, nor how busy each is.
    """

    value: float = 1.0
    _ours: float = 0.0
    _everybody: float = 0.0
    _faded_to: float = 0.0

    def observe(self, ours: float, everybody: float, now: float) -> None:
        """Cores that one node gave to our batches, and to everybody's, by one sample."""
        if now > self._faded_to:
            kept = math.exp((self._faded_to - now) / SHARE_SECONDS)
            self._ours, self._everybody, self._faded_to = self._ours * kept, self._everybody * kept, now
        self._ours += ours
        self._everybody += everybody
        self.value = min(1.0, self._ours / self._everybody) if self._everybody > 0 else 1.0


@dataclass(slots=True)
class NodeSeats:
    """Owns the count of free seats, the room that is left, and the evidence of the node's speed. Does not own pauses' lengths."""

    incarnation: int
    endpoints: tuple[ActorEndpoint, ...] = ()
    seats: dict[str, Seat] = field(default_factory=dict)
    draining: bool = False
    running: int = 0  # batches in flight on seats that are in the view
    idle: int = 0  # seats that run nothing beyond what they can at once
    spare: int = 0  # seats with a place behind a running batch
    places: int = 0  # batches that all seats can run at once
    room: float = math.inf  # batches that fit on the cores that are left to us
    load: NodeLoad | None = None  # the last sample
    sampled_at: float = -math.inf
    log_latency: float | None = None  # mean of ln(a batch's seconds over what is usual for its size), as of the last update
    ended_at: float = -math.inf  # when the last batch ended, or the first one began
    _batch_seconds: float = 0.0  # the time integral of `running`
    _counted_to: float = -math.inf
    _log_sum: float = 0.0  # the same of what ended since the last update, and how many those were
    _log_squares: float = 0.0
    _log_count: int = 0
    log_error: float = 0.0  # the standard error of `log_latency`

    @property
    def version(self) -> str:
        """The app's version that it answers with; empty before it has actors."""
        return self.endpoints[0].version if self.endpoints else ""

    def reseat(self, seats: dict[str, Seat], endpoints: tuple[ActorEndpoint, ...], now: float) -> None:
        """Other actors are here now; some may be the same."""
        self._count(now)
        for seat in self.seats.values():
            seat.idle = seat.spare = seat.seated = False
        self.idle = self.spare = 0
        self.seats, self.endpoints = seats, endpoints
        self.running = sum(seat.in_flight for seat in seats.values())
        self.places = sum(seat.concurrency for seat in seats.values())
        for seat in seats.values():
            seat.seated = True
            self.settle(seat, now)

    def settle(self, seat: Seat, now: float) -> None:
        """Count a seat anew after anything about it has changed."""
        idle = spare = False
        if seat.seated and not seat.reserved and now >= seat.paused_until:
            in_flight, seconds = seat.in_flight, seat.execute_seconds
            idle = in_flight < seat.concurrency
            spare = seconds is not None and seconds < QUEUE_BEHIND_SECONDS and in_flight < seat.slots
        if idle is not seat.idle:
            self.idle += 1 if idle else -1
            seat.idle = idle
        if spare is not seat.spare:
            self.spare += 1 if spare else -1
            seat.spare = spare

    def choose(self) -> Seat:
        """The seat with the least in flight among the free ones, the first in order among equals."""
        best: Seat | None = None
        for seat in self.seats.values():
            if (seat.idle or (seat.spare and not self.idle)) and (best is None or seat.in_flight < best.in_flight):
                best = seat
                if not seat.in_flight:
                    break
        if best is None:
            raise AssertionError("a node without a free seat was picked")
        return best

    def begin(self, now: float) -> None:
        self._count(now)
        if not self.running:
            self.ended_at = now
        self.running += 1

    def end(self, now: float, seconds: float | None, usual_seconds: float = 1.0) -> None:
        self._count(now)
        self.running -= 1
        self.ended_at = now
        if seconds is not None:
            seen = math.log(max(seconds, 1e-6) / usual_seconds)
            self._log_sum += seen
            self._log_squares += seen * seen
            self._log_count += 1

    def update_latency(self, now: float, usual_seconds: float) -> float:
        """Take what ended since the last update into the mean, and return the evidence of how long a batch takes, in relation to
        what is usual (ln), NaN where there is none: what ended, and what has been running for longer.

        All batches between two updates count alike: the last few alone would be chance, above all where a node stops and goes.
        """
        count = self._log_count
        if count:
            seen, old = self._log_sum / count, self.log_latency
            share = 1.0 if old is None else count / (count + PRIOR_BATCHES)
            self.log_latency = seen if old is None else old + share * (seen - old)
            variance = max(0.0, self._log_squares / count - seen * seen) + PRIOR_VARIANCE / count
            self.log_error = math.sqrt(share * share * variance / count + ((1.0 - share) * self.log_error) ** 2)
            self._log_sum, self._log_squares, self._log_count = 0.0, 0.0, 0
        quiet = now - self.ended_at
        if self.running and quiet > 0:
            running_for = math.log(quiet / usual_seconds / RUNNING_PATIENCE)
            return running_for if self.log_latency is None else max(self.log_latency, running_for)
        return math.nan if self.log_latency is None or quiet > EVIDENCE_SECONDS else self.log_latency

    def sample(self, load: NodeLoad, cpus: float | None, now: float, share: OwnShare) -> None:
        """A new sample of the node: our part of what is left of its cores, and what we got of them since the last one.

        Neighbours and other lanes come out of the machine's utilisation, what is ours out of our batches. Of free cores and of
        the actors' places only so much counts as the lane's own share of all work: others will fill theirs before they tell.
        """
        self._count(now)
        since = now - self.sampled_at
        ours = self._batch_seconds / since if 0 < since < math.inf else float(self.running)
        self.load, self.sampled_at, self._batch_seconds = load, now, 0.0
        cores = load.cores if cpus is None else min(cpus, load.cores or cpus)
        if cores is None or load.host_cpu is None:
            self.room = math.inf
            return
        left = cores * (1.0 - load.host_cpu)
        got = ours if load.own_cpu is None else min(ours, load.own_cpu)
        share.observe(got, load.own_cpu or got, now)
        places = max(1, round(share.value * self.places))
        self.room = min(max(min(left, CORES_FOR_ONE_MORE), left * share.value) + got, places)

    def service_seconds(self) -> float | None:
        """Mean over its actors of how long their batches took lately."""
        known = [seat.service_seconds for seat in self.seats.values() if seat.service_seconds is not None]
        return sum(known) / len(known) if known else None

    @property
    def has_room(self) -> bool:
        return self.running + CORES_FOR_ONE_MORE <= self.room

    def _count(self, now: float) -> None:
        if now > self._counted_to:
            if self.running:
                self._batch_seconds += self.running * (now - self._counted_to)
            self._counted_to = now
