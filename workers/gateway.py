"""The control plane of one Ray cluster: keeps each app's actors on each pod, reports where they listen. Jobs never pass here."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rayline.app_spec import AppSpec, Limits
from rayline.config import AppValues
from rayline.errors import BusError
from rayline.metrics import MetricsBoard, Sample
from rayline.metrics.declared import ACTORS, PHASE
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.rollout import Shares
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION
from runtime_env.preflight import preflight
from workers.cluster import ray_environment, wait_for_head
from workers.pool import (
    ActorDied,
    ActorKey,
    ActorPhase,
    ActorUnavailable,
    Drain,
    Failures,
    Observed,
    Place,
    PodNode,
    Remove,
    plan,
    wanted_models,
    withheld,
)

STEP_SECONDS: Final = 1.0
HURRY_SECONDS: Final = 0.2
ANSWER_MARGIN_SECONDS: Final = 5.0
# An actor that did not answer for so long is left out of the report: four beats.
STALE_SECONDS: Final = 4.0
DRAIN_SECONDS: Final = 30.0
GONE_REPORT_SECONDS: Final = 60.0
MAX_REASON_CHARS: Final = 2_000
# A broker that is slow or away must not hold up the care for actors.
PUBLISH_SECONDS: Final = 2.0
# Rounds take as long as Ray takes to answer; connecting to a head that starts takes longest.
ROUND_SECONDS: Final = 20.0
_ROUNDS: Final = "rounds"

# Takes reports and the partition of `rayline.reports` that they belong to.
ReportSink = Callable[[list[NodeReport], int], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Member:
    """One actor as this gateway knows it; times are monotonic seconds."""

    handle: Any
    phase: ActorPhase
    since: float
    endpoint: ActorEndpoint | None = None
    reason: str | None = None
    wanted_models: int = 0
    models_problem: str | None = None
    waiting: bool = False
    asked: Any = None
    asked_at: float = 0.0
    answered_at: float = 0.0


class Gateway:
    """Owns the decisions about one cluster's actors and the seq of its reports. Owns no state that a restart loses: actors are
    found again by name. Does not own pods (their agents do), nor the connection to Kafka.

    Life cycle: `set_apps` and `set_shares` at any time and from any thread of the loop; `run` connects, steps until `stop`, and
    leaves the actors.
    `round_at` is when the broker last took a whole round of reports (monotonic seconds).
    """

    def __init__(
        self,
        *,
        cluster: str,
        address: str,
        token_path: Path,
        token: str,
        sink: ReportSink,
        check: Callable[[AppSpec], None] = preflight,
    ) -> None:
        self._cluster = cluster
        self._address = address
        self._token_path = token_path
        self._token = token
        self._sink = sink
        self._check = check
        self._pool: Any = None
        self._wanted: dict[str, AppSpec] | None = None
        self._accepted: dict[str, AppSpec] = {}
        self._shares = Shares()
        self._checks: dict[tuple[str, str], Future[None]] = {}
        self._checked_at: dict[tuple[str, str], float] = {}
        self._checker = ThreadPoolExecutor(max_workers=2, thread_name_prefix="rayline-preflight")
        self._members: dict[ActorKey, _Member] = {}
        self._failures: dict[ActorKey, Failures] = {}
        self._gone: dict[tuple[str, int], tuple[PodNode, float]] = {}
        self._seq = 0
        self._wake = asyncio.Event()
        self._stopped = False
        self.round_at = 0.0

    def samples(self, _: float) -> list[Sample]:
        """What it knows, for its metrics."""
        # The dictionary changes in the thread of a round.
        phases = Counter(member.phase.name.lower() for member in list(self._members.values()))
        return [Sample(ACTORS, phases[phase.name.lower()], {PHASE: phase.name.lower()}) for phase in ActorPhase]

    def set_apps(self, apps: Sequence[AppSpec]) -> None:
        """All apps that should run here; what is not among them is drained and removed."""
        self._wanted = {spec.name: spec for spec in apps}
        self._wake.set()

    def set_shares(self, values: AppValues) -> None:
        """On which share of its nodes each app's newest version is to run; the others have the one before."""
        self._shares = Shares(values)
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Step until `stop`. Raises ClusterError when the cluster cannot be reached."""
        os.environ.update(ray_environment(self._token_path))
        # After the variables are set: Ray reads them when it is imported.
        from workers.ray_pool import RayPool

        self._pool = RayPool(cluster=self._cluster, address=self._address, token=self._token)
        await asyncio.to_thread(self._connect)
        try:
            await self._step_until_stopped()
        finally:
            self._checker.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(self._pool.close)

    def _connect(self) -> None:
        wait_for_head(self._address)
        self._pool.connect()
        now = time.monotonic()
        self._members = {key: _Member(handle, ActorPhase.STARTING, now) for key, handle in self._pool.adopt().items()}
        _log.info("gateway of %s: %d actors adopted", self._cluster, len(self._members))

    async def _step_until_stopped(self) -> None:
        published: frozenset[NodeReport] = frozenset()
        published_at = 0.0
        while not self._stopped:
            self._wake.clear()
            started = time.monotonic()
            seen = await asyncio.to_thread(self._step, started)
            news = [report for report in seen if report not in published]
            # News that did not get through are news again at the next step.
            if news and await self._publish(news, CHANGES_PARTITION):
                published = frozenset(seen)
            if started - published_at >= STEP_SECONDS * 0.9:
                published_at = started
                if await self._publish(seen, BEATS_PARTITION):
                    self.round_at = time.monotonic()
            pause = HURRY_SECONDS if self._in_hurry() else STEP_SECONDS
            try:
                async with asyncio.timeout(max(0.01, started + pause - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _publish(self, reports: Sequence[NodeReport], partition: int) -> bool:
        self._seq = max(self._seq + 1, time.time_ns() // 1_000_000)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._sink([replace(report, seq=self._seq) for report in reports], partition)
            return True
        except (TimeoutError, BusError) as error:
            _log.error("gateway of %s: report %d was not published: %r", self._cluster, self._seq, error)
            return False

    def _in_hurry(self) -> bool:
        moving = (ActorPhase.STARTING, ActorPhase.DRAINING)
        return any(member.phase in moving and not member.waiting for member in self._members.values()) or any(
            not check.done() for check in self._checks.values()
        )

    def _step(self, now: float) -> tuple[NodeReport, ...]:
        """One round: look, decide, act, ask. Returns what is now known of the nodes, with seq 0."""
        living, dead = self._pool.nodes()
        self._read_answers(now)
        self._end_silent(now)
        held = self._accept_apps(now)
        observed = {key: Observed(member.phase, member.since) for key, member in self._members.items()}
        for action in (
            plan(
                apps=self._accepted,
                nodes=living,
                actors=observed,
                failures=self._failures,
                now=now,
                held=held,
                models=wanted_models({key: member.wanted_models for key, member in self._members.items()}),
                spec_on=self._spec_on,
            )
            if self._wanted is not None
            else ()
        ):
            self._act(action, now)
        self._ask(now)
        return self._reports(living, dead, now)

    def _spec_on(self, spec: AppSpec, node: PodNode) -> AppSpec:
        return self._shares.spec_on(spec, f"{self._cluster}/{node.pod}")

    def _accept_apps(self, now: float) -> set[str]:
        """Move apps whose code can be loaded into `_accepted`; returns the names of those that are not decided yet."""
        wanted = self._wanted or {}
        for name in set(self._accepted) - set(wanted):
            del self._accepted[name]
        for name, spec in wanted.items():
            key = (name, spec.version)
            if self._accepted.get(name) == spec:
                continue
            if spec.bundle:
                # Each node tries it in the app's own environment, before an actor starts there.
                self._accepted[name] = spec
                continue
            check = self._checks.get(key)
            if check is None:
                self._checks[key] = self._checker.submit(self._check, spec)
            elif check.done():
                if check.exception() is None:
                    self._accepted[name] = spec
                    del self._checks[key]
                    self._checked_at.pop(key, None)
                elif now - self._checked_at.setdefault(key, now) > 10:
                    del self._checks[key], self._checked_at[key]
        for key in [key for key in self._checks if key[0] not in wanted or wanted[key[0]].version != key[1]]:
            if self._checks[key].done() or self._checks[key].cancel():
                del self._checks[key]
        return set(wanted) - set(self._accepted)

    def _read_answers(self, now: float) -> None:
        by_reference = {member.asked: (key, member) for key, member in self._members.items() if member.asked is not None}
        for reference in self._pool.answered(list(by_reference)):
            key, member = by_reference[reference]
            member.asked = None
            self._read_answer(key, member, reference, now)

    def _read_answer(self, key: ActorKey, member: _Member, reference: Any, now: float) -> None:
        try:
            answer = self._pool.answer(reference)
        except ActorDied as error:
            _log.warning("actor %s died: %s", key.name, error)
            del self._members[key]
            self._note_failure(key, now)
            return
        except ActorUnavailable:
            if member.phase is ActorPhase.DRAINING:
                self._drop(key)
            else:
                self._enter(member, ActorPhase.STARTING, now)
            return
        member.answered_at = now
        if member.phase is ActorPhase.DRAINING:
            if not answer.get("here", 0):
                self._drop(key)
            return
        member.reason = answer.pop("reason")
        member.waiting = answer.pop("waiting", False)
        if member.waiting:
            # The node's agent prepares the app's environment, and tries again by itself what failed.
            self._enter(member, ActorPhase.STARTING, now)
            return
        answer.pop("pid")
        member.wanted_models, member.models_problem = answer.pop("wanted_models", 0), answer.pop("models_problem", None)
        if member.reason is not None:
            if member.phase is not ActorPhase.FAILED:
                self._note_failure(key, now)
                _log.error("actor %s: %s", key.name, member.reason)
            self._enter(member, ActorPhase.FAILED, now)
            return
        member.endpoint = ActorEndpoint(**answer)
        self._enter(member, ActorPhase.READY, now)
        self._failures.pop(key, None)

    def _note_failure(self, key: ActorKey, now: float) -> None:
        count = self._failures[key].count if key in self._failures else 0
        self._failures[key] = Failures(count + 1, now)

    def _enter(self, member: _Member, phase: ActorPhase, now: float) -> None:
        if member.phase is not phase:
            member.phase, member.since = phase, now
        if phase is not ActorPhase.READY:
            member.endpoint = None

    def _end_silent(self, now: float) -> None:
        """Processes that do not even answer Ray: code that holds the interpreter lock, or a frozen process."""
        for key, member in list(self._members.items()):
            limits = self._accepted[key.app].limits if key.app in self._accepted else Limits()
            silent = now - member.asked_at if member.asked is not None else 0.0
            if member.phase is ActorPhase.DRAINING:
                if now - member.since > DRAIN_SECONDS:
                    self._drop(key)
            elif member.phase is ActorPhase.STARTING:
                if silent > limits.startup_seconds + ANSWER_MARGIN_SECONDS:
                    self._note_failure(key, now)
                    member.reason = f"app {key.app} did not load in limits.startup_seconds = {limits.startup_seconds:g}"
                    self._enter(member, ActorPhase.FAILED, now)
            elif silent > limits.execute_seconds + ANSWER_MARGIN_SECONDS:
                _log.error("actor %s has not answered for %.1f s and is started again", key.name, silent)
                self._pool.restart(member.handle)
                member.asked = None
                self._enter(member, ActorPhase.STARTING, now)

    def _act(self, action: Place | Drain | Remove, now: float) -> None:
        key = action.key
        if isinstance(action, Place):
            newest = self._accepted[key.app]
            older = newest.previous if newest.previous is not None and newest.previous.version == key.version else None
            handle = self._pool.place(key, replace(older or newest, previous=None), action.node_id)
            self._members[key] = _Member(handle, ActorPhase.STARTING, now)
        elif isinstance(action, Drain):
            member = self._members[key]
            member.asked = None
            self._pool.ask(member.handle, "drain")
            self._enter(member, ActorPhase.DRAINING, now)
        else:
            self._drop(key)

    def _drop(self, key: ActorKey) -> None:
        self._pool.remove(self._members.pop(key).handle)

    def _ask(self, now: float) -> None:
        for member in self._members.values():
            slow = member.waiting or member.phase in (ActorPhase.READY, ActorPhase.FAILED)
            every = STEP_SECONDS * 0.9 if slow else 0.0
            if member.asked is None and now - member.answered_at >= every:
                method = "statistics" if member.phase is ActorPhase.DRAINING else "endpoint"
                member.asked, member.asked_at = self._pool.ask(member.handle, method), now

    def _reports(self, living: Sequence[PodNode], dead: Sequence[PodNode], now: float) -> tuple[NodeReport, ...]:
        reports = [self._report(node, now) for node in living]
        for node in dead:
            self._gone.setdefault((node.pod, node.incarnation), (node, now))
        for node, since in self._gone.values():
            if now - since < GONE_REPORT_SECONDS:
                reports.append(
                    NodeReport(
                        cluster=self._cluster,
                        node=node.pod,
                        incarnation=node.incarnation,
                        seq=0,
                        state=NodeState.GONE,
                        cpus=node.cpus,
                        zone=node.zone,
                        actors=(),
                        reason="left the cluster",
                    )
                )
        return tuple(reports)

    def _report(self, node: PodNode, now: float) -> NodeReport:
        here = {
            key: member for key, member in self._members.items() if (key.pod, key.incarnation) == (node.pod, node.incarnation)
        }
        held = withheld({key for key, member in here.items() if member.phase is ActorPhase.READY})
        actors = tuple(
            member.endpoint
            for key, member in sorted(here.items(), key=lambda item: item[0])
            if member.endpoint is not None and now - member.answered_at < STALE_SECONDS and key not in held
        )
        told = {reason for member in here.values() for reason in (member.reason, member.models_problem) if reason is not None}
        reasons = sorted(told | self._check_errors())
        return NodeReport(
            cluster=self._cluster,
            node=node.pod,
            incarnation=node.incarnation,
            seq=0,
            state=NodeState.READY if actors else NodeState.STARTING,
            cpus=node.cpus,
            zone=node.zone,
            actors=actors,
            reason="; ".join(reasons)[:MAX_REASON_CHARS] or None,
        )

    def _check_errors(self) -> set[str]:
        errors = (check.exception() for check in self._checks.values() if check.done() and not check.cancelled())
        return {str(error) for error in errors if error is not None}


def _measure(board: MetricsBoard, gateway: Gateway) -> None:
    def read(now: float) -> list[Sample]:
        board.done(_ROUNDS, gateway.round_at)
        return gateway.samples(now)

    board.source(read)
    board.expect(_ROUNDS, limit_seconds=ROUND_SECONDS, now=time.monotonic())


async def run_gateway(gateway: Gateway, *, apps: AsyncIterable[Sequence[AppSpec]], board: MetricsBoard | None = None) -> None:
    """Be the gateway of its cluster: `apps` gives all apps each time that something about them changes; runs until cancelled."""
    if board is not None:
        _measure(board, gateway)

    async def follow() -> None:
        async for specs in apps:
            gateway.set_apps(specs)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(), name="gateway")
        tasks.create_task(follow(), name="apps")
