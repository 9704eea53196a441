"""The process of one keeper: waits for the lease, reads, decides, orders. What it decides is `scheduler.keeper`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from typing import Any, Final

from deploy.cluster_log import ClusterLog
from deploy.keeper.lease import Lease, LeaseOptions, Term
from deploy.node_watch import NodeWatch
from rayline.bus import KafkaSettings, ensure_topics
from rayline.clusters import ClusterBook
from rayline.clusters import Lease as LeaseEntry
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.errors import MemberFenced, ProducerFenced, TransactionIndefinite
from rayline.events import Event
from rayline.metrics import MetricsBoard, ProcessMetrics, Sample, declared
from rayline.reports import NodeState
from rayline.topics import platform_topics
from scheduler.keeper import ActionKind, Limits, NodeFact, decide

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.5
_REPORT_MEMORY_SECONDS: Final = 10.0
_LATE_LOOK_SECONDS: Final = 10.0
_LOOKS: Final = "looks"
EXIT_FENCED: Final = 3


async def run(*, name: str, lease: LeaseOptions | None = None) -> int:
    """Be a keeper until SIGTERM or SIGINT; the exit code. Kafka's settings come from the environment."""
    settings = KafkaSettings.from_env(os.environ)
    await ensure_topics(settings, platform_topics())
    keeper = KeeperProcess(settings=settings, name=name, lease=lease)
    identity = ProcessIdentity(role=Role.KEEPER, name=name, registrar=True)
    async with ProcessMetrics(identity=identity) as metrics, watch_config(settings, keeper, name=name) as watch:
        metrics.tell_by(watch)
        keeper.measure(metrics.board)
        running = asyncio.create_task(keeper.run(), name=f"keeper {name}")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        await asyncio.wait({running})
    exit_code = 0
    try:
        if not running.cancelled():
            running.result()
    except* ProducerFenced as fenced:
        _log.critical("this keeper stops: %s", fenced.exceptions[0])
        exit_code = EXIT_FENCED
    return exit_code


def watch_config(settings: KafkaSettings, keeper: KeeperProcess, *, name: str) -> ConfigWatch:
    """Live settings of a keeper, to be entered."""
    identity = ProcessIdentity(role=Role.KEEPER, name=name, registrar=True)
    watch = ConfigWatch(settings=settings, identity=identity)
    watch.on("keeper.starting_pods", lambda pods: keeper.set_limits(starting_pods=pods))
    watch.on("keeper.building_clusters", lambda clusters: keeper.set_limits(building_clusters=clusters))
    watch.on("keeper.surge_pods", lambda pods: keeper.set_limits(surge=pods))
    watch.on("keeper.join_seconds", lambda seconds: keeper.set_limits(join_ms=round(seconds * 1000)))
    watch.on("keeper.silent_seconds", lambda seconds: keeper.set_limits(silent_ms=round(seconds * 1000)))
    return watch


class KeeperProcess:
    """Stands by, leads, stands by again.

    Owns nothing that outlives it: what it ordered stands in `rayline.clusters`. `name` is its lasting name in the group of
    keepers. Life: `run` until cancelled; where it cannot go on it raises BusError (ProducerFenced: another one leads, and
    this one did not know), and is simply started again.
    """

    def __init__(
        self, *, settings: KafkaSettings, name: str, limits: Limits | None = None, lease: LeaseOptions | None = None
    ) -> None:
        self._settings = settings
        self._name = name
        self._limits = limits or Limits()
        self._lease = lease or LeaseOptions()
        self._actions: Counter[str] = Counter(dict.fromkeys((kind.value for kind in ActionKind), 0))
        # Only while it leads (monotonic seconds).
        self._looked_at: float | None = None

    def measure(self, board: MetricsBoard) -> None:
        """Let its metrics tell what it does, and whether it looks at the clusters while it leads."""

        def read(_: float) -> list[Sample]:
            if self._looked_at is None:
                board.rest(_LOOKS)
            elif not board.expects(_LOOKS):
                board.expect(_LOOKS, limit_seconds=_LATE_LOOK_SECONDS, now=time.monotonic())
            board.done(_LOOKS, self._looked_at or 0.0)
            told = [Sample(declared.KEEPER_ACTIONS, count, {declared.ACTION: kind}) for kind, count in self._actions.items()]
            return [Sample(declared.LEADING, int(self._looked_at is not None)), *told]

        board.source(read)

    @property
    def limits(self) -> Limits:
        return self._limits

    def set_limits(self, **limits: Any) -> None:
        """Change fields of the limits, from the next look on."""
        self._limits = replace(self._limits, **limits)

    async def run(self) -> None:
        """Lead whenever the lease is ours."""
        async with Lease(self._settings, name=self._name, options=self._lease) as lease, asyncio.TaskGroup() as tasks:
            tasks.create_task(lease.run(), name="lease")
            assignment = await lease.wait_assigned()
            while True:
                try:
                    async with lease.term() as term:
                        await self._lead(lease, term)
                except MemberFenced as error:
                    # The group moves on; only its next assignment can say whether to lead again.
                    _log.warning("keeper %s leads no more: %s", self._name, error)
                    assignment = await lease.wait_assigned(after=assignment)
                except TransactionIndefinite as error:
                    _log.warning("keeper %s reads back what stands written: %s", self._name, error)

    async def _lead(self, lease: Lease, term: Term) -> None:
        """Claim the next epoch and order until something says that it is over."""
        watch = NodeWatch(self._settings, since_seconds=_REPORT_MEMORY_SECONDS)
        await watch.start()
        try:
            # Begun only after the predecessor was fenced: what it wrote is all there, and nothing will be added.
            async with ClusterLog(self._settings, client_id=f"rayline-{self._name}") as log:
                book = await log.read()
                claim = LeaseEntry(epoch=book.epoch + 1, holder=self._name)
                told = Event("keeper", "lease.taken", self._name, f"{self._name} leads from epoch {claim.epoch} on")
                await term.commit([claim], [told])
                book.take(claim)
                _log.info("keeper %s leads in epoch %d", self._name, claim.epoch)
                await self._order(claim.epoch, lease, term, log, watch)
        finally:
            self._looked_at = None
            await watch.close()

    async def _order(self, epoch: int, lease: Lease, term: Term, log: ClusterLog, watch: NodeWatch) -> None:
        changes = log.changes()
        changed = asyncio.ensure_future(anext(changes))
        try:
            while True:
                await lease.wait_assigned()
                wake_at_ms = await self._turn(epoch, term, log.book, watch)
                seconds = _LOOK_SECONDS if wake_at_ms is None else min(_LOOK_SECONDS, wake_at_ms / 1000 - time.time())
                await asyncio.wait({changed}, timeout=max(0.0, seconds))
                if changed.done():
                    changed.result()
                    changed = asyncio.ensure_future(anext(changes))
        finally:
            changed.cancel()
            await asyncio.wait({changed})
            await changes.aclose()

    async def _turn(self, epoch: int, term: Term, book: ClusterBook, watch: NodeWatch) -> int | None:
        """Decide once; when to look again at the latest (epoch ms)."""
        plan = decide(book, node_facts(watch), epoch=epoch, now_ms=round(time.time() * 1000), limits=self._limits)
        if plan.orders:
            await term.commit(plan.orders, [action.event() for action in plan.actions])
            for order in plan.orders:
                book.take(order)
            for action in plan.actions:
                self._actions[action.kind.value] += 1
                _log.info("%s", action.text())
        self._looked_at = time.monotonic()
        return plan.wake_at_ms


def node_facts(watch: NodeWatch) -> dict[str, NodeFact]:
    """What the reports say of each pod, by its name."""
    joined = {report.node for report in watch.joined()}
    # While nobody at all is heard, we are the deaf one: nobody grows more silent by that.
    horizon = watch.view.horizon(time.monotonic())
    return {
        node.report.node: NodeFact(
            joined=node.report.node in joined,
            seen=node.report.actors is not None,
            leaving=node.report.state is NodeState.DRAINING,
            silent_ms=round(max(0.0, horizon - node.heard) * 1000),
        )
        for node in watch.nodes()
    }
