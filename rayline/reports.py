"""Node reports: what is known of the nodes of all clusters, as records of `rayline.reports`.

A report carries one node or many, so that tiers stack. Within one incarnation of a node its state only moves forward
(starting → ready → draining → gone), whatever the order in which reports arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Final

import msgpack

from rayline.errors import FormatError

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
MAX_CPUS: Final = 1 << 16


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
class NodeReport:
    """One node as one reporter sees it.

    `incarnation` is the node's start (epoch ms): a larger one replaces all that is known of a smaller one. `seq` orders the
    reports of one reporter within one incarnation. `cpus` is None where unknown. `actors` is None where the reporter does not
    know them (an agent's notice), so that it overwrites nothing.
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

    @property
    def key(self) -> str:
        return f"{self.cluster}/{self.node}"


def encode_reports(reports: Sequence[NodeReport]) -> bytes:
    """One record value of `rayline.reports`: msgpack `{"v": 1, "nodes": […]}`."""
    packed: bytes = msgpack.packb({"v": 1, "nodes": [asdict(report) for report in reports]})
    return packed


def decode_reports(value: bytes) -> list[NodeReport]:
    """Read a record value; raises FormatError on anything else."""
    if len(value) > MAX_REPORT_BYTES:
        raise FormatError(f"a node report of {len(value)} bytes; the limit is {MAX_REPORT_BYTES}")
    try:
        data = msgpack.unpackb(value, raw=False)
        if data["v"] != 1:
            raise FormatError(f"node report of version {data['v']!r}; this Rayline reads version 1")
        return [_node(item) for item in data["nodes"]]
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not a node report: {error!r}") from error


def _node(item: dict[str, Any]) -> NodeReport:
    actors = item.get("actors")
    cpus = None if item.get("cpus") is None else float(item["cpus"])
    if cpus is not None and not 0 <= cpus < MAX_CPUS:
        raise ValueError(f"{cpus} CPUs")
    return NodeReport(
        cluster=_text(item["cluster"]),
        node=_text(item["node"]),
        incarnation=_number(item["incarnation"]),
        seq=_number(item["seq"]),
        state=NodeState(item["state"]),
        cpus=cpus,
        zone=None if item.get("zone") is None else _text(item["zone"]),
        actors=None if actors is None else tuple(_actor(actor) for actor in actors),
        reason=None if item.get("reason") is None else _text(item["reason"]),
    )


def _actor(item: dict[str, Any]) -> ActorEndpoint:
    return ActorEndpoint(
        app=_text(item["app"]),
        version=_text(item["version"]),
        name=_text(item["name"]),
        host=_text(item["host"]),
        port=_number(item["port"]),
        slots=_number(item["slots"]),
        instance=_text(item["instance"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value
