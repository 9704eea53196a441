"""An operator's orders to one node: they go into the live configuration, and the node's own reports answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from deploy.node_watch import NodeWatch
from rayline.bus import KafkaSettings, Publisher
from rayline.config import Change, ConfigKey, Scope
from rayline.errors import NodeError
from rayline.reports import NodeReport, NodeState
from rayline.topics import CONFIG
from rayline.yaml_lines import suggestion

# Longer than the longest interval of beats would be patient; a node that beats more rarely is found by its state changes.
MEMORY_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 10.0
DRAIN: Final = "drain"
CORDON: Final = "cordon"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an order: the node (`cluster/pod`), its state now, and how long that took (seconds)."""

    node: str
    state: NodeState
    seconds: float


async def drain_node(settings: KafkaSettings, name: str, *, gone_seconds: float | None) -> Answered:
    """Order a drain and return when the node drains, or with `gone_seconds`, when it is gone.

    Raises:
        NodeError: no such node, or it did not answer or did not leave in time.
    """
    async with _watching(settings) as watch:
        report = _find(watch, name)
        begun = time.monotonic()
        await _order(settings, report, DRAIN, True)
        until = NodeState.DRAINING if gone_seconds is None else NodeState.GONE
        await _wait(watch, report, lambda now: now.state >= NodeState.DRAINING, ANSWER_SECONDS, "drain")
        if gone_seconds is not None:
            await _wait(watch, report, lambda now: now.state >= until, gone_seconds, "leave")
        return Answered(report.key, _now(watch, report).state, time.monotonic() - begun)


async def cordon_node(settings: KafkaSettings, name: str, *, cordoned: bool) -> Answered:
    """Keep new work away from a node, or lift that; returns when the node says so itself.

    Raises:
        NodeError: no such node, or it did not answer in time.
    """
    async with _watching(settings) as watch:
        report = _find(watch, name)
        begun = time.monotonic()
        await _order(settings, report, CORDON, True if cordoned else None)
        what = "stay without new work" if cordoned else "take new work"
        await _wait(watch, report, lambda now: bool(now.cordoned) is cordoned, ANSWER_SECONDS, what)
        return Answered(report.key, _now(watch, report).state, time.monotonic() - begun)


@asynccontextmanager
async def _watching(settings: KafkaSettings) -> AsyncIterator[NodeWatch]:
    watch = NodeWatch(settings, since_seconds=MEMORY_SECONDS)
    await watch.start()
    try:
        await watch.caught_up()
        yield watch
    finally:
        await watch.close()


def _find(watch: NodeWatch, name: str) -> NodeReport:
    """The node of this name: `cluster/pod`, or the pod's name alone where only one cluster has it."""
    reports = [node.report for node in watch.nodes()]
    found = [report for report in reports if name in (report.key, report.node)]
    present = [report for report in found if report.state is not NodeState.GONE]
    if len(present) == 1:
        return present[0]
    if present:
        raise NodeError(f"several nodes are called {name!r}: say which one: {', '.join(report.key for report in present)}")
    if found:
        raise NodeError(f"the node {found[0].key} is gone already: {found[0].reason or 'no reason given'}")
    known = sorted(report.key for report in reports if report.state is not NodeState.GONE)
    raise NodeError(f"no node {name!r} reports itself{suggestion(name, known)}; known: {', '.join(known) or 'none'}")


async def _order(settings: KafkaSettings, report: NodeReport, setting: str, value: Any) -> None:
    key = ConfigKey(Scope.NODE, (report.cluster, report.node), setting)
    async with Publisher(settings=settings, client_id="rayline-node-orders") as publisher:
        await publisher.publish(CONFIG, key=str(key).encode(), value=None if value is None else Change(key, value).encode())


async def _wait(watch: NodeWatch, report: NodeReport, condition: Callable[[NodeReport], bool], seconds: float, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await watch.wait_until(lambda: condition(_now(watch, report)))
    except TimeoutError as error:
        now = _now(watch, report)
        raise NodeError(
            f"the node {report.key} did not {what} within {seconds:g} s; it says {now.state.name.lower()}"
            f"{f' ({now.reason})' if now.reason else ''}: see `rayline status`, and its log"
        ) from error


def _now(watch: NodeWatch, report: NodeReport) -> NodeReport:
    """The same pod as reported now; another one of its name means that it is gone."""
    for node in watch.nodes():
        if node.report.key == report.key and node.report.incarnation == report.incarnation:
            return node.report
    return NodeReport(report.cluster, report.node, report.incarnation, report.seq, NodeState.GONE)
