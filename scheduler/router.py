"""Which actor gets the next batch: SWRR over nodes, guarded by what is in flight on each.

A node stands in one of three tiers, and each tier has a rotation of its own; the first tier that has a node gives it:

- ROOM: an actor runs nothing of ours, by the node's last sample a core is left for one batch more, and of what other lanes
  use as well we have not taken more than our share;
- IDLE: an actor runs nothing of ours, but the cores are taken (by neighbours, by other lanes, or by us), or our share is;
- SPARE: a place behind a running batch, only where batches are short: it hides the round trip there, and would cost seconds
  behind a long one.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from rayline.app_spec import SchedulingPolicy
from rayline.reports import NodeState
from rayline.versions import VersionWeights
from scheduler.departures import Departures, Way
from scheduler.routes import Route, Routes
from scheduler.seats import QUEUE_BEHIND_SECONDS, NodeSeats, OwnShare, Seat, Target
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import Standing, View
from scheduler.weights import DEFAULT_INTERVAL_SECONDS, Weigher, WeightPolicy, policy_of
from scheduler.weights.fleet import Column, Floats

__all__ = ["QUEUE_BEHIND_SECONDS", "Pick", "Router", "Target", "Tier", "phase_of"]

BUSY_PAUSE_SECONDS: Final = 0.05
FIRST_LOSS_PAUSE_SECONDS: Final = 0.5
LAST_LOSS_PAUSE_SECONDS: Final = 5.0
# The largest usual time of a batch is forgotten at this pace, a batch.
USUAL_FADES: Final = 0.99
PICKS_KEPT: Final = 1_000
UPDATES_KEPT: Final = 4
CANDIDATES_SHOWN: Final = 20
# Only the relation of weights counts: what operators multiply them by must not take them beyond what a rotation holds.
MOST_WEIGHT: Final = 1e6
_FACTORS: Final = ("traffic", "version")
_SILENT: Final = (Standing.SUSPECT, Standing.LOST)


class Tier(IntEnum):
    """How good a place a node has; a smaller value is better. NONE: it has none."""

    ROOM = 0
    IDLE = 1
    SPARE = 2
    NONE = 3


_TIER_NAMES: Final[Mapping[Tier, bytes]] = {tier: tier.name.lower().encode() for tier in Tier if tier is not Tier.NONE}


class Pick(NamedTuple):
    """One decision, as it was made. `candidates` counts the nodes of the tier, `update` names the weights in force."""

    batch: str | None
    at: float
    node: str
    instance: str
    tier: Tier
    candidates: int
    running: int
    room: float
    avoided: tuple[str, ...]
    update: int


def phase_of(lane: str) -> float:
    """Where a lane begins, 0 to 1, by its name: names that end in consecutive numbers are spread evenly (van der Corput's
    sequence), others hashed."""
    digits = lane[len(lane.rstrip("0123456789")) :]
    number = int(digits[-9:]) if digits else zlib.crc32(lane.encode())
    return int(f"{number:b}"[::-1], 2) / (1 << number.bit_length())


class Router:
    """Owns the rotations, what is in flight for each actor, and the pauses after losses. Does not own the view or channels.

    Life: `refresh` on each change of the view and whenever reports came; `pick` → `finished` for each batch; `wake` from time to
    time. Weights are recomputed every `interval_seconds`, and at once when a node comes, goes, or gives notice.
    """

    def __init__(
        self,
        *,
        app: str,
        policy: WeightPolicy | SchedulingPolicy = SchedulingPolicy.HEADROOM,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
        cards: Mapping[str, float] | None = None,
        phase: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """`cards`: coefficients of card kinds where the app works on cards, else None. `phase`, 0 to 1, is where this lane begins
        in the order of nodes and actors: lanes with other phases begin elsewhere."""
        self._weigher = Weigher(
            policy=policy_of(policy) if isinstance(policy, SchedulingPolicy) else policy,
            interval_seconds=interval_seconds,
            cards=cards,
            seed=seed,
        )
        self._phase = phase
        self._nodes: dict[str, NodeSeats] = {}
        self._seats: dict[str, Seat] = {}
        self._paused: dict[str, Seat] = {}
        self._tiers: dict[str, Tier] = {}
        self._rotations: dict[Tier, SmoothWeightedRoundRobin[str]] = {
            tier: SmoothWeightedRoundRobin() for tier in Tier if tier is not Tier.NONE
        }
        self._order = tuple(self._rotations.items())
        # Nodes of the last tier that its rotation has not heard of yet: where others have room, nobody asks it.
        self._last: set[str] = set()
        self._weights: dict[str, float] = {}
        self._total = 0.0
        self._usual_seconds = 0.0  # the largest of the last batches'
        self._factor_of: Callable[[str], float] | None = None
        self._version_weights = VersionWeights()
        self._beside: tuple[str, ...] | None = None
        self._factors: dict[str, tuple[float, float]] = {}  # what operators multiply a node's weight by, where one is not 1
        self._multipliers: Floats | None = None  # the same as one number for each of `_multiplied_keys`; None: ask anew
        self._multiplied_keys: tuple[str, ...] = ()
        self._closed: set[str] = set()  # by an operator
        self._guarded = self._weigher.policy.guards_room  # when all nodes were placed last
        self._closed_since: float | None = None
        self._routes = Routes(app)
        self._evident: set[str] = set()  # nodes that the lane may have evidence of
        self._share = OwnShare()
        self._picks: deque[tuple[Any, ...]] = deque(maxlen=PICKS_KEPT)  # made a `Pick` for who asks
        self._history: deque[tuple[int, dict[str, float]]] = deque(maxlen=UPDATES_KEPT)
        self.departures = Departures()

    @property
    def policy(self) -> SchedulingPolicy:
        return self._weigher.policy.name

    @property
    def interval_seconds(self) -> float:
        return self._weigher.interval_seconds

    def set_policy(self, policy: SchedulingPolicy | str) -> None:
        """Weigh by another policy from the next `wake` or `refresh` on. Raises ValueError for a name that there is not."""
        if SchedulingPolicy(policy) is not self.policy:
            self._weigher.set_policy(policy_of(policy))

    def set_interval(self, seconds: float) -> None:
        """Recompute weights so often. Raises ValueError when it is not above 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"weights every {seconds!r} seconds: give a number above 0")
        self._weigher.set_interval(seconds)

    def set_factors(self, factor_of: Callable[[str], float] | None) -> None:
        """Multiply each node's weight by what an operator gives it, from the next `wake` or `refresh` on; 0 takes it out. None:
        no operator says anything."""
        self._factor_of, self._multipliers = factor_of, None
        self._weigher.hurry()

    def set_versions(self, weights: VersionWeights, *, beside: tuple[str, ...] | None) -> None:
        """Multiply each node's weight by that of the version that it answers with, from the next `refresh` on; 0 takes it out.

        `beside` names the versions that get work beside the newest, as in `Routes.update`.
        """
        self._version_weights, self._beside, self._multipliers = weights, beside, None
        self._weigher.hurry()

    @property
    def closed_since(self) -> float | None:
        """Since when (monotonic seconds) operators' weights keep new batches from every node; None where there is one left."""
        return self._closed_since

    def refresh(self, view: View, version: str, now: float) -> None:
        """Take over nodes, actors and samples from the view. What is in flight on a vanished actor stays counted for its end."""
        changes = self._routes.update(view, version, now, beside=self._beside)
        for key in changes.gone:
            self._note_departure(view, key, now)
            self._forget(key, now)
        start = int(self._phase * len(changes.come))
        for route in changes.come[start:] + changes.come[:start]:
            self._join(route, now)
        for route in changes.told:
            self._take_over(route, now)
        if changes.gone or changes.come:
            self._reweigh(now)
        self.wake(now)

    def wake(self, now: float) -> None:
        """Let actors back in whose pause is over, and recompute the weights when it is time."""
        if self._weigher.due(now):
            self._reweigh(now)
        for instance in [instance for instance, seat in self._paused.items() if now >= seat.paused_until]:
            seat = self._paused.pop(instance)
            node = self._nodes.get(seat.target.node)
            # A node that left and came back may have another seat for the same actor.
            if node is not None and node.seats.get(instance) is seat:
                node.settle(seat, now)
                self._place(seat.target.node, node)

    def pick(
        self, now: float, avoid: Iterable[str] = (), *, hedge: bool = False, alone: bool = False, batch: str | None = None
    ) -> Target | None:
        """The next actor, or None when none can take a batch now. `avoid` counts unless it leaves no node at all.

        For a `hedge` it counts in any case, and only an actor that runs nothing of ours will do. An actor picked `alone` gets
        nothing else until `finished`. `batch` names the batch in `explain_pick`.
        """
        avoided = tuple([key for key in avoid if key in self._nodes]) if avoid else ()
        if avoided and len(avoided) == len(self._nodes) and not hedge:
            avoided = ()
        for tier, rotation in self._order[: Tier.SPARE] if hedge or alone else self._order:
            if tier is Tier.SPARE and self._last:
                self._enter_last(rotation)
            chosen = self._pick_elsewhere(rotation, tier, avoided) if avoided else rotation.pick()
            if chosen is None:
                continue
            node = self._nodes[chosen]
            seat = node.choose()
            target = seat.target
            available, updates = rotation.available, self._weigher.updates
            instance = target.endpoint.instance
            self._picks.append((batch, now, chosen, instance, tier, available, node.running, node.room, avoided, updates))
            node.begin(now)
            self._evident.add(chosen)
            seat.in_flight += 1
            seat.reserved = alone
            node.settle(seat, now)
            self._place(chosen, node)
            return target
        return None

    def finished(
        self,
        target: Target,
        now: float,
        *,
        seconds: float | None,
        execute_seconds: float | None = None,
        usual_seconds: float = 1.0,
        alone: bool = False,
    ) -> None:
        """A batch ended on an actor; `seconds` is its service time where it ran to its end, `execute_seconds` that without the
        wait for its turn (where not known: the same), `usual_seconds` what one of its size takes on any node, above 0. `alone`:
        as it was picked."""
        instance = target.endpoint.instance
        seat = self._seats.get(instance)
        if seat is None:
            return
        seat.in_flight -= 1
        seat.reserved = seat.reserved and not alone
        node = self._nodes.get(target.node)
        if node is None or not seat.seated:
            if not seat.in_flight:
                del self._seats[instance]
            return
        node.end(now, seconds, usual_seconds)
        if seconds is not None:
            faded = USUAL_FADES * self._usual_seconds
            self._usual_seconds = usual_seconds if usual_seconds > faded else faded
            seat.losses = 0
            seat.served(seconds, seconds if execute_seconds is None else execute_seconds)
        node.settle(seat, now)
        self._place(target.node, node)

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
            self._place(target.node, node)
            self.departures.out(target.node, target.incarnation, Way.ACTOR, now, update=self._weigher.updates)

    def service_seconds(self) -> float | None:
        """The slowest actor's mean service time, or None before the first batch ended."""
        return max((s.service_seconds for s in self._seats.values() if s.service_seconds is not None), default=None)

    def instances(self) -> set[str]:
        """Actors that batches may go to."""
        return {instance for node in self._nodes.values() for instance in node.seats}

    def explain_node(self, key: str) -> dict[str, Any] | None:
        """Why a node gets what it gets, as plain values; None for a node that batches do not go to."""
        node = self._nodes.get(key)
        if node is None:
            return None
        weighed = self._weigher.weighed(key)
        weight = self._weights[key]
        tier = self._tiers[key]
        return {
            "policy": str(self.policy),
            "version": node.version,
            "weight": weight,
            "share": weight / self._total if self._total else None,
            "factors": {**weighed.factors, **self._factors_of(key)},
            "note": weighed.note,
            "update": self._weigher.updates,
            "tier": tier.name.lower(),
            "running": node.running,
            "room": None if math.isinf(node.room) else node.room,
            "batch_seconds": node.service_seconds(),
            "slowness": None if node.log_latency is None else math.exp(node.log_latency),
            "actors": len(node.seats),
            "actors_free": node.idle,
            "draining": node.draining,
        }

    def explain_pick(self, batch: str) -> list[dict[str, Any]]:
        """Every pick for a batch that is still remembered, oldest first, with the heaviest nodes that were weighed then."""
        weights = dict(self._history)
        found = []
        for pick in self.picks():
            if pick.batch == batch:
                known = weights.get(pick.update, {})
                heaviest = sorted(known.items(), key=lambda item: (-item[1], item[0]))[:CANDIDATES_SHOWN]
                room = None if math.isinf(pick.room) else pick.room
                found.append(
                    pick._asdict()
                    | {"tier": pick.tier.name.lower(), "room": room, "weight": known.get(pick.node), "weights": dict(heaviest)}
                )
        return found

    def last_pick(self) -> bytes | None:
        """Why the last pick fell where it fell, as the `pick` header of its results tells it."""
        if not self._picks:
            return None
        _, _, node, _, tier, candidates, running, _, avoided, update = self._picks[-1]
        weight = self._weights.get(node, 0.0)
        told = b"".join(b",%s=%.4g" % (name.encode(), factor) for name, factor in self._factors_of(node).items())
        return b"tier=%s,weight=%.4g,share=%.4f,nodes=%d,running=%d,avoided=%d,update=%d%s" % (
            _TIER_NAMES[tier],
            weight,
            weight / self._total if self._total else 0.0,
            candidates,
            running,
            len(avoided),
            update,
            told,
        )

    def picks(self) -> tuple[Pick, ...]:
        """The last picks, oldest first."""
        return tuple(map(Pick._make, self._picks))

    def weights(self) -> Mapping[str, float]:
        """The weights in force, by node."""
        return self._weights

    def _join(self, route: Route, now: float) -> None:
        key = route.key
        self.departures.back(key)
        self._nodes[key] = NodeSeats(incarnation=route.node.incarnation)
        self._tiers[key] = Tier.NONE
        self._weigher.fleet.join(key, now)
        for _, rotation in self._order:
            rotation.set_weight(key, None)
            rotation.block(key)

    def _note_departure(self, view: View, key: str, now: float) -> None:
        """The node leaves with the update of weights that comes next."""
        facts, update = view.node(key), self._weigher.updates + 1
        if facts is not None and view.standing(key, now) in _SILENT:
            self.departures.silent(facts, now, update=update)
        elif facts is None or facts.state > NodeState.READY:
            self.departures.out(key, self._nodes[key].incarnation, Way.NEWS, now, update=update)

    def _forget(self, key: str, now: float) -> None:
        node = self._nodes.pop(key)
        self._drop_seats(node.seats.values())
        del self._tiers[key]
        self._evident.discard(key)
        self._last.discard(key)
        self._weigher.fleet.leave(key, now)
        for _, rotation in self._order:
            rotation.remove(key)

    def _drop_seats(self, seats: Iterable[Seat]) -> None:
        """These are not in the view any more; where something of ours is in flight, its end is still to be counted."""
        for seat in seats:
            seat.idle = seat.spare = seat.seated = False
            if not seat.in_flight:
                del self._seats[seat.target.endpoint.instance]

    def _take_over(self, route: Route, now: float) -> None:
        """Bring one node up to what the view says of it."""
        key, facts, endpoints = route.key, route.node, route.endpoints
        node = self._nodes[key]
        if node.endpoints is not endpoints and node.endpoints != endpoints:
            start = int(self._phase * len(endpoints))
            seats = {}
            for endpoint in endpoints[start:] + endpoints[:start]:
                instance = endpoint.instance
                seat = self._seats.get(instance) or Seat(Target(key, facts.incarnation, endpoint))
                seats[instance] = self._seats[instance] = seat
            left = [seat for instance, seat in node.seats.items() if instance not in seats]
            before = node.version
            node.reseat(seats, endpoints, now)
            if self._version_weights and before != node.version:
                self._multipliers = None
                self._weigher.hurry()
            self._drop_seats(left)
            node.draining = node.draining and any(seat.target.incarnation == node.incarnation for seat in seats.values())
            self._place(key, node)
        load = facts.load
        if load is None or load is not node.load:
            self._weigher.fleet.observe(key, facts, facts.heard)
        if load is not None and load is not node.load:
            node.sample(load, facts.cpus, now, self._share)
            self._place(key, node)

    def _reweigh(self, now: float) -> None:
        nodes = self._nodes
        self._look_at_latency(now)
        keys, weights = self._weigher.update(now)
        were_closed = self._closed
        weights = self._multiplied(keys, weights)
        self._weights = dict(zip(keys, weights.tolist(), strict=True))
        self._total = float(weights.sum())
        guards_room = self._weigher.policy.guards_room
        turned = nodes if guards_room is not self._guarded else were_closed ^ self._closed
        self._guarded = guards_room
        for key in turned:
            if (node := nodes.get(key)) is not None:
                self._place(key, node)
        every_one = bool(nodes) and len(self._closed) == len(nodes)
        self._closed_since = (now if self._closed_since is None else self._closed_since) if every_one else None
        for _, rotation in self._order:
            rotation.reweigh(keys, weights)
        self._history.append((self._weigher.updates, self._weights))

    def _multiplied(self, keys: tuple[str, ...], weights: Floats) -> Floats:
        """Weights as operators want them."""
        if self._factor_of is None and not self._version_weights:
            self._factors, self._closed, self._multipliers = {}, set(), None
            return weights
        multipliers = self._multipliers
        if multipliers is None or keys is not self._multiplied_keys:
            multipliers = self._ask_operators(keys)
        weights = weights * multipliers
        most = float(weights.max(initial=0.0))
        return weights * (MOST_WEIGHT / most) if most > MOST_WEIGHT else weights

    def _ask_operators(self, keys: tuple[str, ...]) -> Floats:
        """What each of these nodes is multiplied by; notes it, and who is closed."""
        nodes, factor_of, of_version = self._nodes, self._factor_of, self._version_weights
        traffic = [1.0] * len(keys) if factor_of is None else list(map(factor_of, keys))
        version = [1.0] * len(keys)
        if of_version:
            names = [nodes[key].version for key in keys]
            known = {name: of_version.of(name) for name in set(names)}
            version = [known[name] for name in names]
        multipliers = np.array(traffic) * np.array(version)
        here = np.flatnonzero((np.array(traffic) != 1.0) | (np.array(version) != 1.0)).tolist()
        self._factors = {keys[row]: (traffic[row], version[row]) for row in here}
        self._closed = {keys[row] for row in np.flatnonzero(multipliers <= 0).tolist()}
        self._multipliers, self._multiplied_keys = multipliers, keys
        return multipliers

    def _factors_of(self, key: str) -> dict[str, float]:
        """What operators multiply a node's weight by, by name, where that is not 1."""
        found = self._factors.get(key)
        return {} if found is None else {name: factor for name, factor in zip(_FACTORS, found, strict=True) if factor != 1.0}

    def _look_at_latency(self, now: float) -> None:
        """What the lane saw of the speed of those nodes to which it sent anything lately."""
        fleet, usual_seconds = self._weigher.fleet, self._usual_seconds or 1.0
        latencies, errors = fleet.column(Column.LOG_LATENCY), fleet.column(Column.LATENCY_ERROR)
        for key in list(self._evident):
            node, row = self._nodes[key], fleet.row(key)
            latencies[row] = latency = node.update_latency(now, usual_seconds)
            errors[row] = node.log_error
            if math.isnan(latency) and not node.running:
                self._evident.discard(key)

    def _pick_elsewhere(self, rotation: SmoothWeightedRoundRobin[str], tier: Tier, avoided: tuple[str, ...]) -> str | None:
        """Pick with some nodes out of the rotation for this once."""
        here = [key for key in avoided if self._tiers[key] is tier]
        for key in here:
            rotation.block(key)
        chosen = rotation.pick()
        for key in here:
            rotation.unblock(key)
        return chosen

    def _pause(self, target: Target, until: float, now: float) -> None:
        instance = target.endpoint.instance
        seat = self._seats.get(instance)
        if seat is None:
            return
        seat.paused_until = max(seat.paused_until, until)
        node = self._nodes.get(target.node)
        if node is not None and instance in node.seats:
            self._paused[instance] = seat
            node.settle(seat, now)
            self._place(target.node, node)

    def _place(self, key: str, node: NodeSeats) -> None:
        """Put a node into the tier where it belongs now."""
        if node.draining or (self._closed and key in self._closed):
            tier = Tier.NONE
        elif node.idle:
            tier = Tier.ROOM if node.has_room or not self._weigher.policy.guards_room else Tier.IDLE
        else:
            tier = Tier.SPARE if node.spare else Tier.NONE
        old = self._tiers[key]
        if tier is old:
            return
        self._tiers[key] = tier
        if key in self._last:
            self._last.remove(key)
        elif old is not Tier.NONE:
            self._rotations[old].block(key)
        if tier is Tier.SPARE:
            self._last.add(key)
        elif tier is not Tier.NONE:
            self._enter(self._rotations[tier], key)

    def _enter_last(self, rotation: SmoothWeightedRoundRobin[str]) -> None:
        # The order counts for nothing: whoever stands in a rotation takes its turns by its place among all nodes.
        for key in self._last:
            self._enter(rotation, key)
        self._last.clear()

    def _enter(self, rotation: SmoothWeightedRoundRobin[str], key: str) -> None:
        # A rotation hears of new weights only for the nodes that stand in it.
        rotation.set_weight(key, self._weights.get(key))
        rotation.unblock(key)
