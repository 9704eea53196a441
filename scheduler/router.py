"""Which actor gets the next batch: SWRR over nodes, guarded by what this lane has in flight on each.

Two rotations over the same nodes. The first holds nodes with an actor that runs nothing of ours; only when there is none, the
second offers a place behind a running batch, and only on actors whose batches are short: a place in a queue hides the round
trip there, and would cost seconds behind a long one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rayline.reports import ActorEndpoint
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import View
from scheduler.weights import WeightPolicy, fill_unknown

QUEUE_BEHIND_SECONDS: Final = 0.2
BUSY_PAUSE_SECONDS: Final = 0.05
FIRST_LOSS_PAUSE_SECONDS: Final = 0.5
LAST_LOSS_PAUSE_SECONDS: Final = 5.0
_EWMA_SHARE: Final = 0.2


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


@dataclass(slots=True)
class _Seat:
    """One actor process as this lane sees it. Times are monotonic seconds."""

    target: Target
    in_flight: int = 0
    service_seconds: float | None = None
    paused_until: float = 0.0
    losses: int = 0
    reserved: bool = False

    @property
    def concurrency(self) -> int:
        return max(1, self.target.endpoint.slots - 1)

    def idle(self, now: float) -> bool:
        return now >= self.paused_until and self.in_flight < self.concurrency and not self.reserved

    def spare(self, now: float) -> bool:
        quick = self.service_seconds is not None and self.service_seconds < QUEUE_BEHIND_SECONDS
        return now >= self.paused_until and quick and self.in_flight < self.target.endpoint.slots and not self.reserved


@dataclass(slots=True)
class _Node:
    seats: dict[str, _Seat] = field(default_factory=dict)
    draining: bool = False


class Router:
    """Owns the rotations, what is in flight for each actor, and the pauses after losses. Does not own the view or channels.

    Life: `refresh` on each change of the view; `pick` → `finished` for each batch.
    """

    def __init__(self, *, app: str, policy: WeightPolicy) -> None:
        self._app = app
        self._policy = policy
        self._nodes: dict[str, _Node] = {}
        self._seats: dict[str, _Seat] = {}
        self._idle: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
        self._spare: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()

    def refresh(self, view: View, version: str, now: float) -> None:
        """Take over nodes, actors and weights from the view. What is in flight on a vanished actor stays counted for its end."""
        routable = view.routable(self._app, version, now)
        weights = fill_unknown(self._policy.weigh({key: node for key, (node, _) in routable.items()}))
        for key in [key for key in self._nodes if key not in routable]:
            del self._nodes[key]
            self._idle.remove(key)
            self._spare.remove(key)
        for key, (node_view, endpoints) in routable.items():
            node = self._nodes.setdefault(key, _Node())
            incarnation = node_view.report.incarnation
            for instance in [i for i in node.seats if i not in {endpoint.instance for endpoint in endpoints}]:
                del node.seats[instance]
            for endpoint in endpoints:
                if endpoint.instance not in node.seats:
                    known = self._seats.get(endpoint.instance)
                    node.seats[endpoint.instance] = known or _Seat(Target(key, incarnation, endpoint))
            node.draining = node.draining and any(seat.target.incarnation == incarnation for seat in node.seats.values())
            self._idle.set_weight(key, weights[key])
            self._spare.set_weight(key, weights[key])
        left = {instance: seat for instance, seat in self._seats.items() if seat.in_flight}
        self._seats = left | {instance: seat for node in self._nodes.values() for instance, seat in node.seats.items()}
        self.wake(now)

    def wake(self, now: float) -> None:
        """Let actors back in whose pause is over."""
        for key in self._nodes:
            self._place(key, now)

    def pick(self, now: float, avoid: Iterable[str] = (), *, hedge: bool = False, alone: bool = False) -> Target | None:
        """The next actor, or None when none can take a batch now. `avoid` counts unless it leaves no node at all.

        For a `hedge` it counts in any case, and only an actor that runs nothing of ours will do. An actor picked `alone` gets
        nothing else until `finished`.
        """
        avoided = [key for key in avoid if key in self._nodes]
        if len(avoided) == len(self._nodes) and not hedge:
            avoided = []
        rotations = ((self._idle, _Seat.idle), (self._spare, _Seat.spare))
        for rotation, free in rotations[:1] if hedge or alone else rotations:
            for key in avoided:
                rotation.block(key)
            chosen = rotation.pick()
            for key in avoided:
                self._place(key, now)
            if chosen is not None:
                seat = min((s for s in self._nodes[chosen].seats.values() if free(s, now)), key=lambda s: s.in_flight)
                seat.in_flight += 1
                seat.reserved = alone
                self._place(chosen, now)
                return seat.target
        return None

    def finished(self, target: Target, now: float, *, seconds: float | None, alone: bool = False) -> None:
        """A batch ended on an actor; `seconds` is its service time where it ran to its end. `alone`: as it was picked."""
        seat = self._seats.get(target.endpoint.instance)
        if seat is None:
            return
        seat.in_flight -= 1
        seat.reserved = seat.reserved and not alone
        node = self._nodes.get(target.node)
        if not seat.in_flight and (node is None or target.endpoint.instance not in node.seats):
            del self._seats[target.endpoint.instance]
            return
        if seconds is not None:
            seat.losses = 0
            old = seat.service_seconds
            seat.service_seconds = seconds if old is None else old + _EWMA_SHARE * (seconds - old)
        self._place(target.node, now)

    def busy(self, target: Target, now: float) -> None:
        """The actor has no room (others send there too): leave it alone for a moment."""
        self._pause(target, now + BUSY_PAUSE_SECONDS, now)

    def lost(self, target: Target, now: float) -> None:
        """The actor died or does not answer: leave it alone, longer each time, until it is replaced or works again."""
        seat = self._seats.get(target.endpoint.instance)
        if seat is not None:
            pause = min(LAST_LOSS_PAUSE_SECONDS, FIRST_LOSS_PAUSE_SECONDS * 2**seat.losses)
            seat.losses += 1
            self._pause(target, now + pause, now)

    def draining(self, target: Target, now: float) -> None:
        """The actor says that its node goes: nothing more is sent to this incarnation."""
        node = self._nodes.get(target.node)
        if node is not None and target.endpoint.instance in node.seats:
            node.draining = True
            self._place(target.node, now)

    def service_seconds(self) -> float | None:
        """The slowest actor's mean service time, or None before the first batch ended."""
        return max((s.service_seconds for s in self._seats.values() if s.service_seconds is not None), default=None)

    def instances(self) -> set[str]:
        """Actors that batches may go to."""
        return {instance for node in self._nodes.values() for instance in node.seats}

    def _pause(self, target: Target, until: float, now: float) -> None:
        seat = self._seats.get(target.endpoint.instance)
        if seat is not None:
            seat.paused_until = max(seat.paused_until, until)
            self._place(target.node, now)

    def _place(self, key: str, now: float) -> None:
        node = self._nodes.get(key)
        if node is None:
            return
        for rotation, free in ((self._idle, _Seat.idle), (self._spare, _Seat.spare)):
            if not node.draining and any(free(seat, now) for seat in node.seats.values()):
                rotation.unblock(key)
            else:
                rotation.block(key)
