"""Node reports: what is known of the nodes of all clusters, as records of `rayline.reports`.

A report carries one node or many, so that tiers stack. Within one incarnation of a node its state only moves forward
(starting → ready → draining → gone), whatever the order in which reports arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

import msgpack

from rayline.errors import FormatError

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
MAX_CPUS: Final = 1 << 16
DEFAULT_INTERVAL_MS: Final = 1000
MAX_INTERVAL_MS: Final = 600_000
MAX_ENVIRONMENTS: Final = 50
MAX_PEER_TAGS: Final = 4_000
_TAG_BYTES: Final = 8
_MEASURES: Final = (
    "cores",
    "host_cpu",
    "own_cpu",
    "host_memory",
    "throttled",
    "cpu_pressure",
    "memory_pressure",
    "io_pressure",
    "disk_free",
    "clock_skew_ms",
)


class NodeState(IntEnum):
    """The life of one incarnation of a node; a larger value is later."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    GONE = 3


@dataclass(frozen=True, slots=True)
class ActorEndpoint:
    """Where one actor of an app listens. `instance` is new for each process; `slots` is how many streams a lane may open."""

    app: str
    version: str
    name: str
    host: str
    port: int
    slots: int
    instance: str


@dataclass(frozen=True, slots=True)
class CardLoad:
    """One accelerator card: its kind (as `nvidia-smi` names it) and its utilisation, 0 to 1, None where unknown."""

    kind: str
    utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentLoad:
    """How far a node is with the environment of one app's version: `phase` as `runtime_env.node.activation` names it.

    `share` (0 to 1) of its bytes are here while they are fetched. `reason`, `remedy` and `retry_seconds` (until the next attempt)
    stand where it failed.
    """

    app: str
    version: str
    phase: str
    share: float | None = None
    reason: str | None = None
    remedy: str | None = None
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The generations of an app's models on a node: which is `wanted`, and which its actors are `serving` (0: the bundle's own).

    `reason` says why the wanted one could not be put in place.
    """

    app: str
    wanted: int
    serving: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """One sample of what a node has and does. A fact that could not be read is None, never 0.

    `cores` is what the node may use (cgroup limit or machine), `host_cpu` and `host_memory` the utilisation of the machine under
    it by everybody (0 to 1), `own_cpu` the cores that the node's own processes use (0 to `cores`), `own_memory_bytes` what they
    hold. `throttled` is the share of scheduler periods in which the cgroup was stopped, `cpu_pressure`, `memory_pressure` and
    `io_pressure` the share of time in which some task stalled (PSI `some`), all 0 to 1 over the last sample. `disk_free` is the
    free share of the node's own disk (0 to 1), `clock_skew_ms` its clock minus the broker's. `jobs_in_flight` counts the jobs
    that its actors are working on. `environments` are those that its apps need, `models` those of apps with published ones, at
    most `MAX_ENVIRONMENTS` of each.
    """

    cores: float | None = None
    host_cpu: float | None = None
    own_cpu: float | None = None
    host_memory: float | None = None
    own_memory_bytes: int | None = None
    throttled: float | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None
    disk_free: float | None = None
    clock_skew_ms: float | None = None
    jobs_in_flight: int | None = None
    cards: tuple[CardLoad, ...] = ()
    environments: tuple[EnvironmentLoad, ...] = ()
    models: tuple[ModelLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerPresence:
    """Where a node gives blobs to others, and which: `host` is an IP address, `holds` and `wants` are tags of swarms (16 hex
    digits each, `runtime_env.peers.metainfo`), what it has whole and what it is fetching; at most `MAX_PEER_TAGS` each.
    `receives` and `sends` are bytes per second now, `limit` what it may receive (None: no limit).
    """

    host: str
    port: int
    holds: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    receives: int = 0
    sends: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class FactSeqs:
    """For a merged report: the `seq` of the report that each of its facts comes from; -1 where nobody said anything of it."""

    beat: int = -1
    actors: int = -1
    cpus: int = -1
    zone: int = -1
    reason: int = -1
    load: int = -1
    cordoned: int = -1


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node as one reporter sees it.

    `incarnation` is the node's start (epoch ms): a larger one replaces all that is known of a smaller one. `seq` orders the
    reports of one reporter within one incarnation. `cpus` is None where unknown. `actors` is None where the reporter does not
    know them (an agent's beat), so that it overwrites nothing. `beat` is True where the node's own agent speaks, or is passed on:
    proof of life. `age_ms` is how old the report was when it was sent (0 from the agent itself; a resource adds the time since it
    heard). `cordoned` is True while an operator keeps new work away from the node, which can be lifted; None where the reporter
    does not know (everybody but the node's own agent). `interval_ms` is how often the reporter speaks; `seqs` stands in merged
    reports only. `peer` stands in the beats of nodes that give blobs to each other, and is not merged.
    """

    cluster: str
    node: str
    incarnation: int
    seq: int
    state: NodeState
    cpus: float | None = None
    zone: str | None = None
    actors: tuple[ActorEndpoint, ...] | None = None
    reason: str | None = None
    beat: bool = False
    age_ms: int = 0
    load: NodeLoad | None = None
    cordoned: bool | None = None
    interval_ms: int = DEFAULT_INTERVAL_MS
    seqs: FactSeqs | None = None
    peer: PeerPresence | None = None

    @property
    def key(self) -> str:
        return f"{self.cluster}/{self.node}"


_ACTOR_FIELDS: Final = tuple(field.name for field in fields(ActorEndpoint))
_ENVIRONMENT_FIELDS: Final = tuple(field.name for field in fields(EnvironmentLoad))
_WHOLE_MEASURES: Final = frozenset({"own_memory_bytes", "jobs_in_flight"})
_MEASURE_NAMES: Final = frozenset(_MEASURES)
_LOAD_FIELDS: Final = (*_MEASURES, *sorted(_WHOLE_MEASURES))
_STATES: Final = {int(state): state for state in NodeState}


def encode_reports(reports: Sequence[NodeReport]) -> bytes:
    """One record value of `rayline.reports`: msgpack `{"v": 1, "nodes": […]}`; what has its default is left out."""
    packed: bytes = msgpack.packb({"v": 1, "nodes": [report_fields(report) for report in reports]})
    return packed


def report_fields(report: NodeReport) -> dict[str, Any]:
    """One report as it stands in a record."""
    item: dict[str, Any] = {
        "cluster": report.cluster,
        "node": report.node,
        "incarnation": report.incarnation,
        "seq": report.seq,
        "state": int(report.state),
    }
    if report.cpus is not None:
        item["cpus"] = report.cpus
    if report.zone is not None:
        item["zone"] = report.zone
    if report.actors is not None:
        item["actors"] = [{name: getattr(actor, name) for name in _ACTOR_FIELDS} for actor in report.actors]
    if report.reason is not None:
        item["reason"] = report.reason
    if report.beat:
        item["beat"] = True
    if report.age_ms:
        item["age_ms"] = report.age_ms
    if report.load is not None:
        item["load"] = _load_fields(report.load)
    if report.interval_ms != DEFAULT_INTERVAL_MS:
        item["interval_ms"] = report.interval_ms
    if report.cordoned is not None:
        item["cordoned"] = report.cordoned
    if report.seqs is not None:
        seqs = report.seqs
        item["seqs"] = [seqs.beat, seqs.actors, seqs.cpus, seqs.zone, seqs.reason, seqs.load, seqs.cordoned]
    if report.peer is not None:
        peer = report.peer
        item["peer"] = {"host": peer.host, "port": peer.port, "holds": _packed(peer.holds), "wants": _packed(peer.wants)}
        item["peer"] |= {"receives": peer.receives, "sends": peer.sends, "limit": peer.limit}
    return item


def _load_fields(load: NodeLoad) -> dict[str, Any]:
    item = {name: value for name in _LOAD_FIELDS if (value := getattr(load, name)) is not None}
    if load.cards:
        item["cards"] = [{"kind": card.kind, "utilisation": card.utilisation} for card in load.cards]
    if load.environments:
        item["environments"] = [
            {name: value for name in _ENVIRONMENT_FIELDS if (value := getattr(one, name)) is not None}
            for one in load.environments[:MAX_ENVIRONMENTS]
        ]
    if load.models:
        item["models"] = [[one.app, one.wanted, one.serving, one.reason] for one in load.models[:MAX_ENVIRONMENTS]]
    return item


def decode_reports(value: bytes) -> list[NodeReport]:
    """Read a record value; raises FormatError on anything else."""
    if len(value) > MAX_REPORT_BYTES:
        raise FormatError(f"a node report of {len(value)} bytes; the limit is {MAX_REPORT_BYTES}")
    try:
        return read_nodes(msgpack.unpackb(value, raw=False))
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not a node report: {error!r}") from error


def read_nodes(data: dict[str, Any]) -> list[NodeReport]:
    """The nodes of an unpacked record; raises FormatError on another version, ValueError, TypeError or KeyError on nonsense."""
    if data["v"] != 1:
        raise FormatError(f"node report of version {data['v']!r}; this Rayline reads version 1")
    return [_node(item) for item in data["nodes"]]


def _node(item: dict[str, Any]) -> NodeReport:
    """A large platform brings a hundred thousand of these each second: what is left out costs nothing."""
    get = item.get
    cpus, zone, reason, cordoned = get("cpus"), get("zone"), get("reason"), get("cordoned")
    actors, load, seqs, peer = get("actors"), get("load"), get("seqs"), get("peer")
    if cpus is not None:
        cpus = float(cpus)
        if not 0 <= cpus < MAX_CPUS:
            raise ValueError(f"{cpus} CPUs")
    return NodeReport(
        _text(item["cluster"]),
        _text(item["node"]),
        _number(item["incarnation"]),
        _number(item["seq"]),
        _STATES[_number(item["state"])],
        cpus,
        None if zone is None else _text(zone),
        None if actors is None else tuple([_actor(actor) for actor in actors]),
        None if reason is None else _text(reason),
        get("beat") is True,
        _number(get("age_ms", 0)),
        None if load is None else _load(load),
        cordoned if isinstance(cordoned, bool) else None,
        _interval(item["interval_ms"]) if "interval_ms" in item else DEFAULT_INTERVAL_MS,
        None if seqs is None else _seqs(seqs),
        None if peer is None else _peer(peer),
    )


def _seqs(items: list[Any]) -> FactSeqs:
    if any(type(number) is not int for number in items):
        raise TypeError(f"{items!r} are not whole numbers")
    return FactSeqs(*items)


def _peer(item: dict[str, Any]) -> PeerPresence:
    port = _number(item["port"])
    if not 0 < port < 1 << 16:
        raise ValueError(f"port {port}")
    limit = item.get("limit")
    return PeerPresence(
        str(ip_address(_text(item["host"]))),
        port,
        _tags(item["holds"]),
        _tags(item["wants"]),
        _number(item.get("receives", 0)),
        _number(item.get("sends", 0)),
        None if limit is None else _number(limit),
    )


def _packed(tags: tuple[str, ...]) -> bytes:
    return bytes.fromhex("".join(tags[:MAX_PEER_TAGS]))


def _tags(packed: object) -> tuple[str, ...]:
    """Half of the bytes of their digits: beats carry them each second."""
    if type(packed) is not bytes or len(packed) % _TAG_BYTES or len(packed) > MAX_PEER_TAGS * _TAG_BYTES:
        raise ValueError(f"tags that are not up to {MAX_PEER_TAGS} times {_TAG_BYTES} bytes")
    return tuple(packed[at : at + _TAG_BYTES].hex() for at in range(0, len(packed), _TAG_BYTES))


def _load(item: dict[str, Any]) -> NodeLoad:
    values: dict[str, Any] = {}
    for name, value in item.items():
        if name in _WHOLE_MEASURES:
            values[name] = None if value is None else _number(value)
        elif name == "cards":
            values[name] = tuple(CardLoad(_text(card["kind"]), _measure(card.get("utilisation"))) for card in value)
        elif name == "environments":
            values[name] = tuple(_environment(one) for one in value[:MAX_ENVIRONMENTS])
        elif name == "models":
            values[name] = tuple(_models(*one) for one in value[:MAX_ENVIRONMENTS])
        elif name in _MEASURE_NAMES:
            values[name] = _measure(value)
    return NodeLoad(**values)


def _models(app: object, wanted: object, serving: object, reason: object) -> ModelLoad:
    return ModelLoad(_text(app), _number(wanted), _number(serving), None if reason is None else _text(reason))


def _environment(item: dict[str, Any]) -> EnvironmentLoad:
    reason, remedy = item.get("reason"), item.get("remedy")
    return EnvironmentLoad(
        _text(item["app"]),
        _text(item["version"]),
        _text(item["phase"]),
        _measure(item.get("share")),
        None if reason is None else _text(reason),
        None if remedy is None else _text(remedy),
        _measure(item.get("retry_seconds")),
    )


def _actor(item: dict[str, Any]) -> ActorEndpoint:
    app, version, name, host = item["app"], item["version"], item["name"], item["host"]
    port, slots, instance = item["port"], item["slots"], item["instance"]
    for text in (app, version, name, host, instance):
        if type(text) is not str:
            raise TypeError(f"{text!r} is not text")
    return _endpoint(app, version, name, host, _number(port), _number(slots), instance)


# Everybody is told of the same actors again and again: one object for each is enough.
_endpoint = lru_cache(maxsize=1 << 18)(ActorEndpoint)


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return value


def _measure(value: object) -> float | None:
    """A finite number, or None: what is not one is not known."""
    if value is None:
        return None
    if type(value) is float or type(value) is int:
        number = float(value)
        if math.isfinite(number):
            return number
    raise TypeError(f"{value!r} is not a finite number")


def _interval(value: object) -> int:
    interval_ms = _number(value)
    if not 0 < interval_ms <= MAX_INTERVAL_MS:
        raise ValueError(f"an interval of {interval_ms} ms")
    return interval_ms


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
