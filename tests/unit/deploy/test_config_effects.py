"""Every setting does what it says: one record of the config topic, one change of behaviour in the process that takes it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from aiokafka.structs import TopicPartition

from deploy.agent_process import _watch_config as watch_agent
from deploy.config_set import read_set
from deploy.gateway_process import watch_config as watch_gateway
from deploy.keeper.process import KeeperProcess
from deploy.keeper.process import watch_config as watch_keeper
from deploy.resource_process import ResourceService
from deploy.resource_process import watch_config as watch_resource
from ingest.admission import Rejection
from ingest.lane import Lane
from ingest.ledger import Ledger
from ingest.partition import PartitionState
from ingest.publisher import ResultPublisher
from ingest.tuning import LaneTuning, manifest_values
from rayline.app_spec import AppSpec, Batching, SchedulingPolicy
from rayline.bus import KafkaSettings
from rayline.config import SETTINGS, Answer, AppValues, ConfigWatch, ProcessIdentity, Role, decode_applied
from rayline.config import Verdict as Answered
from rayline.metrics.board import MetricsBoard
from rayline.printed import Stream
from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from rayline.rollout import place_of
from rayline.stalls import StallKind
from rayline.telemetry import Tracing
from rayline.wire import ANSWER_SCHEMA, AnswerHead, JobStatus, Verdict
from runtime_env.peers.throttle import Throttle
from scheduler.batch import ALWAYS, Cause, Death, Sent
from scheduler.dispatcher import new_batch
from scheduler.flights import CalledOff, Flight
from scheduler.keeper import NodeFact
from scheduler.listener import Heard
from scheduler.resource import Resource
from scheduler.retry import Again, decide
from scheduler.router import Target
from tests.unit.ingest.jobs import Record, job
from tests.unit.scheduler.keeper.world import World as Cluster
from workers.agent import Agent, PodOptions
from workers.gateway import Gateway
from workers.heartbeat import Heartbeat
from workers.notices import OperatorOrder
from workers.output.cell import BatchCell
from workers.output.frames import SOCKET_NAME, Frame
from workers.output.frames import Hello as WorkerHello
from workers.output.intake import OutputIntake
from workers.output.limits import OutputLimits
from workers.output.outbox import Outbox
from workers.peering import Peering
from workers.pool import PodNode

NOWHERE = KafkaSettings("127.0.0.1:1")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


Test = TypeVar("Test", bound=Callable[..., Any])


class Tuned:
    """A watch without Kafka: records are handed to it."""

    def __init__(self, watch: ConfigWatch, **parts: Any) -> None:
        self.watch = watch
        self.parts = SimpleNamespace(**parts)
        self._version = 0
        watch._state.start(watch._apply)

    def set(self, key: str, value: str) -> None:
        self._version += 1
        answers = self.watch._state.take(key=key.encode(), value=value.encode(), version=self._version, apply=self.watch._apply)
        assert [answer.verdict for answer in answers] == [Answered.APPLIED], answers


@pytest.fixture
async def lane() -> AsyncIterator[Tuned]:
    spec = AppSpec("app", "1", "/nowhere", "m:f", batching=Batching(max_jobs=64, linger_ms=10.0), sla_seconds=60.0)
    tracing = Tracing()
    one = Lane(settings=NOWHERE, spec=spec, instance="0", channels=lambda _: None, result_partitions=1, tracing=tracing)  # type: ignore[arg-type, return-value]
    watch = ConfigWatch(
        settings=NOWHERE, identity=ProcessIdentity(role=Role.LANE, app="app", name="0"), base=manifest_values(spec)
    )
    tuning = LaneTuning(lane=one, spec=spec, tracing=tracing)
    tuning.wire(watch)
    yield Tuned(watch, lane=one, tracing=tracing, tuning=tuning)
    await one._publisher.close()
    await one._consumer.stop()


def fill(tuned: Tuned, *, payload: bytes = b"x" * 8, most: int = 100) -> int | None:
    """How many jobs close a batch; None: more than `most`."""
    batcher = tuned.parts.lane._batcher
    batcher.due(float("inf"))
    for count in range(1, most + 1):
        if batcher.add(job(count, payload=payload), 0.0) is not None:
            return count
    return None


def closes_after(tuned: Tuned, *, expires: float = 1e9) -> float:
    """Seconds until a batch of one job goes."""
    batcher = tuned.parts.lane._batcher
    batcher.due(float("inf"))
    batcher.add(job(1, expires=expires), 0.0)
    due = batcher.next_due()
    assert due is not None
    return round(due, 6)


def held_back(tuned: Tuned, payload: bytes) -> bool:
    """Whether the lane stops reading with one job in its hands."""
    one: Lane = tuned.parts.lane
    state = PartitionState(ledger=Ledger(owner="a", committed=0))
    state.halted = True
    assert state.ledger.read(0)
    state.take(job(0, payload=payload))
    one._partitions[TopicPartition("app.requests", 0)] = state
    one._regulate()
    return one._held_back


def admitted(tuned: Tuned, value: bytes) -> Any:
    return tuned.parts.lane._admission.admit("app.requests", 0, Record(value=value), 0.0)


def picks(tuned: Tuned, *, busy: str = "", versions: tuple[str, str] = ("1", "1")) -> Counter[str]:
    """Where a hundred short batches go, of two nodes alike in two clusters; neighbours keep the one in `busy` busy."""
    one: Lane = tuned.parts.lane
    of = dict(zip("ab", versions, strict=True))
    actors = {name: (ActorEndpoint("app", of[name], f"x{name}", "127.0.0.1", 1, 2, f"i{name}"),) for name in "ab"}
    now = time.monotonic()
    load = {name: NodeLoad(cores=1.0, host_cpu=0.95 if name == busy else 0.0, own_cpu=0.0) for name in actors}
    reports = [
        NodeReport(name, "n", 1, 1, NodeState.READY, 1.0, actors=found, load=load[name] if busy else None)
        for name, found in actors.items()
    ]
    one._view.apply(reports, now)
    one._router.refresh(one._view, "1", now)
    went: Counter[str] = Counter()
    for _ in range(100):
        target = one._router.pick(now)
        if target is not None:
            went[target.cluster_name] += 1
            one._router.finished(target, now, seconds=0.001)
    return went


def weighs_anew_after(tuned: Tuned, seconds: float) -> bool:
    """Whether weights that were computed just now are due again after so long."""
    weigher = tuned.parts.lane._router._weigher
    weigher.update(0.0)
    return bool(weigher.due(seconds))


def results_taken(tuned: Tuned) -> int:
    """How many results of one partition, of any number that wait, a transaction takes."""
    publisher, shares = tuned.parts.lane._publisher, dict[TopicPartition, Any]()
    publisher._partitions[TopicPartition("app.requests", 0)] = SimpleNamespace(waiting=1, owned=True, share=lambda most, _: most)
    publisher._take_shares(shares)
    return int(shares[TopicPartition("app.requests", 0)])


def late_after(tuned: Tuned) -> float:
    times = tuned.parts.lane._dispatcher._times
    for _ in range(40):
        times.observe(8, 1.0)
    return float(times.late_after_seconds(8))


def budget(tuned: Tuned, deposits: int = 0) -> float:
    found = tuned.parts.lane._dispatcher._budget
    now = time.monotonic()
    before = found.available(now)
    found.deposit(deposits, now)
    return round(found.available(now) - (before if deposits else 0), 3)


def again_after(cause: Cause) -> Callable[[Tuned], bool]:
    """Whether a job runs again after this happened to it once, alone in its batch."""

    def again(tuned: Tuned) -> bool:
        dispatcher = tuned.parts.lane._dispatcher
        batch = new_batch([job(1)], 1, "t")
        death = Death("c/n", 1, ALWAYS, alone=True) if cause is Cause.KILLED else None
        rules = dispatcher._trials.rules(dispatcher._spec, 0.0)
        (decision,) = decide(batch, batch.jobs, cause, rules, node="c/n", death=death)
        return isinstance(decision, Again)

    return again


def again_after_an_error(tuned: Tuned) -> bool:
    """Whether the dispatcher puts a job that raised aside, to run once more."""
    dispatcher = tuned.parts.lane._dispatcher
    target: Any = SimpleNamespace(cluster_name="c", node_name="n", endpoint=SimpleNamespace(version="1"))
    flight = Flight(new_batch([job(1)], 1, "t"), target, 0.0, {0: job(1)}, [])
    flight.sent = Sent("c", "n", "1", "t-1", 1)
    raised = {"index": [0], "status": [JobStatus.ERROR], "value": [None], "error_type": ["E"], "error_message": ["no"]}
    dispatcher._take(flight, pa.RecordBatch.from_pydict(raised, schema=ANSWER_SCHEMA), AnswerHead("b", True, Verdict.DONE))
    return bool(flight.errors)


# Setting → the record's value, what is seen before, and what is seen after.
LANE_EFFECTS: dict[str, tuple[str, Callable[[Tuned], Any], Any, Any]] = {
    "batching.max_jobs": ("3", fill, 64, 3),
    "batching.max_bytes": ("16", fill, 64, 2),
    "batching.linger_ms": ("70", closes_after, 0.01, 0.07),
    "batching.slack_margin_ms": ("999", lambda tuned: closes_after(tuned, expires=1.0), 0.01, 0.001),
    "in_flight.max_jobs": ("1", lambda tuned: held_back(tuned, b"x"), False, True),
    "in_flight.max_bytes": ("1048576", lambda tuned: held_back(tuned, bytes(2**20)), False, True),
    "limits.max_job_bytes": ("3", lambda tuned: isinstance(admitted(tuned, b"1234"), Rejection), False, True),
    "retries.errors": ("1", again_after_an_error, False, True),
    "retries.evictions": ("0", again_after(Cause.EVICTED), True, False),
    "retries.timeouts": ("0", again_after(Cause.HUNG), True, False),
    "retries.kills": ("1", again_after(Cause.KILLED), True, False),
    "budget.extra_share": ("0.5", lambda tuned: budget(tuned, 100), 20.0, 50.0),
    "budget.reserve_jobs": ("10", budget, 256.0, 10.0),
    "hedging.late_factor": ("3", late_after, 2.0, 3.0),
    "hedging.late_floor_ms": ("9000", late_after, 2.0, 9.0),
    "weights.policy": ('"static"', lambda tuned: picks(tuned, busy="a")["a"] < 40, True, False),
    "weights.interval_seconds": ("9", lambda tuned: weighs_anew_after(tuned, 5.0), True, False),
    "transactions.max_results": ("90", results_taken, 8_000, 90),
    "trace.sampling": ("0", lambda tuned: tuned.parts.tracing.start("x", TRACEPARENT) is not None, True, False),
}
SHOWN: set[str] = set(LANE_EFFECTS)


def shows(*names: str) -> Callable[[Test], Test]:
    """This test shows the effect of these settings."""
    SHOWN.update(names)
    return lambda test: test


def test_each_setting_has_a_test_of_its_effect() -> None:
    assert SETTINGS.keys() == SHOWN


@pytest.mark.parametrize("name", LANE_EFFECTS)
async def test_a_lanes_setting_changes_what_it_does(lane: Tuned, name: str) -> None:
    value, seen, before, after = LANE_EFFECTS[name]
    assert seen(lane) == before
    lane.set(f"app/app/{name}", value)
    assert seen(lane) == after


def watched_publisher(lane: Tuned, monkeypatch: pytest.MonkeyPatch) -> tuple[ResultPublisher, list[float]]:
    """The lane's, and in how many seconds each of its transactions would close."""
    publisher = lane.parts.lane._publisher
    closing: list[float] = []

    async def commit(*_: object) -> None:
        closing.append(publisher._closes() - time.monotonic())

    monkeypatch.setattr(publisher, "_build", lambda *_: None)
    monkeypatch.setattr(publisher, "_commit", commit)
    monkeypatch.setattr(publisher, "_account", lambda _: None)
    monkeypatch.setattr(publisher._consumer, "member", lambda: None)
    return publisher, closing


@shows("transactions.interval_ms")
async def test_a_transaction_under_load_stays_open_as_long_as_it_is_told(lane: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, closing = watched_publisher(lane, monkeypatch)
    results_taken(lane)
    for value in ("4000", "2000"):
        lane.set("app/app/transactions.interval_ms", value)
        publisher._last_end = time.monotonic()
        await publisher._publish()
    assert closing == [pytest.approx(4.0, abs=0.9), pytest.approx(2.0, abs=0.9)]


@shows("transactions.max_interval_ms")
async def test_a_transaction_stays_open_as_long_as_a_batch_takes_up_to_what_it_is_told(
    lane: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, closing = watched_publisher(lane, monkeypatch)
    results_taken(lane)
    for _ in range(100):
        publisher.observe_service(9.0)
    for value in ("4000", "2000"):
        lane.set("app/app/transactions.max_interval_ms", value)
        publisher._last_end = time.monotonic()
        await publisher._publish()
    for _ in range(100):
        publisher.observe_service(1.0)
    await publisher._publish()
    assert closing == [pytest.approx(4.0, abs=0.9), pytest.approx(2.0, abs=0.9), pytest.approx(1.0, abs=0.9)]


@pytest.mark.parametrize(("setting", "service_seconds"), [("interval_ms", 0.0), ("max_interval_ms", 9.0)])
async def test_a_transaction_that_is_open_closes_by_the_interval_that_it_is_told_meanwhile(
    lane: Tuned, setting: str, service_seconds: float
) -> None:
    publisher = lane.parts.lane._publisher
    publisher._service_seconds = service_seconds
    lane.set(f"app/app/transactions.{setting}", "5000")
    publisher._opened_at = publisher._last_end = time.monotonic()
    publisher._work.clear()
    waiting = asyncio.create_task(publisher._more_ended())
    await asyncio.sleep(0)
    async with asyncio.timeout(4):
        lane.set(f"app/app/transactions.{setting}", "1")
        assert await waiting, "woken to look again"
        publisher._opened_at -= 0.05
        assert not await publisher._more_ended()


async def test_a_batch_that_is_open_goes_by_what_the_lane_is_told_meanwhile(lane: Tuned) -> None:
    one: Lane = lane.parts.lane
    gone: list[list[int]] = []
    one._submit = lambda closed: gone.extend([[job.offset for job in batch.jobs] for batch in closed])  # type: ignore[method-assign]
    offsets = iter(range(100))

    def open_batch(*, jobs: int, expires: float = 1e9) -> None:
        for _ in range(jobs):
            assert one._batcher.add(job(next(offsets), payload=b"x" * 8, expires=expires), time.monotonic()) is None
        one._arm_linger()

    async def goes(setting: str, value: str) -> list[int]:
        """The jobs of the batch that goes because of a new value."""
        await asyncio.sleep(0)
        assert not gone
        lane.set(f"app/app/{setting}", value)
        async with asyncio.timeout(5):
            while not gone:  # noqa: ASYNC110 - the lane's own timer
                await asyncio.sleep(0.001)
        return gone.pop()

    lane.set("app/app/batching.linger_ms", "50000")
    open_batch(jobs=2)
    assert await goes("batching.linger_ms", "1") == [0, 1]
    lane.set("app/app/batching.linger_ms", "50000")
    open_batch(jobs=3)
    assert await goes("batching.max_jobs", "3") == [2, 3, 4]
    lane.set("app/app/batching.max_jobs", "64")
    open_batch(jobs=3)
    assert await goes("batching.max_bytes", "20") == [5, 6, 7]
    lane.set("app/app/batching.max_bytes", "1000")
    open_batch(jobs=1, expires=time.monotonic() + 20)
    assert await goes("batching.slack_margin_ms", "20000") == [8]


async def test_a_batch_in_flight_is_late_by_what_the_lane_is_told_meanwhile(lane: Tuned) -> None:
    dispatcher = lane.parts.lane._dispatcher
    flight = Flight(
        new_batch([job(1, expires=1_000.0)], 1, "t"),
        Target("c/n", 1, ActorEndpoint("app", "1", "x", "h", 1, 2, "i")),
        5.0,
        {},
        [],
    )
    for _ in range(40):
        dispatcher._times.observe(1, 1.0)
    dispatcher._flights.add(flight)
    seen = []
    for setting, value in (("hedging.late_factor", "9"), ("hedging.late_factor", "3"), ("hedging.late_floor_ms", "4000")):
        lane.set(f"app/app/{setting}", value)
        seen.append(flight.late_at - flight.dispatched)
    assert seen == [9.0, 3.0, 4.0]


@shows("sla_seconds")
async def test_the_sla_is_the_deadline_of_the_next_job(lane: Tuned) -> None:
    before = admitted(lane, b"1").expires
    lane.set("app/app/sla_seconds", "7")
    assert before - admitted(lane, b"1").expires == pytest.approx(60 - 7)


async def test_a_deleted_key_gives_the_manifests_value_back(lane: Tuned) -> None:
    lane.set("app/app/batching.max_jobs", "3")
    lane.set("app/app/batching.max_jobs", '{"v": 1}')
    assert fill(lane) == 64


async def test_values_that_contradict_each_other_are_refused(lane: Tuned) -> None:
    with pytest.raises(AssertionError, match="would eat the whole SLA"):
        lane.set("app/app/batching.linger_ms", "60000")
    assert closes_after(lane) == 0.01


@shows("traffic.weight")
async def test_traffic_follows_the_weight_of_a_cluster_and_of_a_node_before_that(lane: Tuned) -> None:
    lane.set("app/app/weights.policy", '"static"')
    assert picks(lane) == {"a": 50, "b": 50}
    lane.set("cluster/a/traffic.weight", "3")
    assert picks(lane) == {"a": 75, "b": 25}
    lane.set("node/a/n/traffic.weight", "1")
    assert picks(lane) == {"a": 50, "b": 50}
    lane.set("cluster/b/traffic.weight", "0")
    assert picks(lane) == {"a": 100}


@shows("traffic.version_weights")
async def test_traffic_follows_the_weights_of_versions_and_jobs_that_none_may_take_are_told(lane: Tuned) -> None:
    lane.set("app/app/weights.policy", '"static"')
    beside = ("0+0123456789ab", "1")
    assert picks(lane, versions=beside) == {"b": 100}
    lane.set("app/app/traffic.version_weights", '{"sha256:0123": 0.25}')
    assert picks(lane, versions=beside) == {"a": 20, "b": 80}
    lane.set("app/app/traffic.version_weights", '"0=3, 1=1"')
    assert picks(lane, versions=beside) == {"a": 75, "b": 25}
    lane.set("app/app/traffic.version_weights", '"0=0,1=0"')
    assert picks(lane, versions=beside) == {}
    one: Lane = lane.parts.lane
    assert one.closed(time.monotonic()) == []
    one._dispatcher.submit([new_batch([job(1)], 1, "t")])
    (stall,) = one.closed(time.monotonic())
    assert (stall.kind, stall.subject) == (StallKind.TRAFFIC, "app")
    assert "app/app/traffic.version_weights" in stall.why
    lane.set("app/app/traffic.version_weights", "{}")
    assert one.closed(time.monotonic()) == []
    with pytest.raises(AssertionError, match="weights from 0 to 1000 by version"):
        lane.set("app/app/traffic.version_weights", '{"1": 1001}')


@shows("cordon")
async def test_a_cordoned_cluster_gets_nothing_until_the_cordon_is_lifted(lane: Tuned) -> None:
    lane.set("cluster/b/cordon", "true")
    assert picks(lane) == {"a": 100}
    lane.set("cluster/b/cordon", "false")
    assert picks(lane)["b"] > 0


async def test_nodes_are_asked_for_their_factors_only_while_an_operator_wants_any(lane: Tuned) -> None:
    one: Lane = lane.parts.lane
    asked: list[bool] = []

    def note() -> None:
        asked.append(one._router._factor_of is not None)

    note()
    for key, value in (("cluster/b/cordon", "true"), ("cluster/b/cordon", "false"), ("node/a/n/traffic.weight", "2")):
        lane.set(key, value)
        note()
    for key in ("cluster/b/cordon", "node/a/n/traffic.weight"):
        lane.set(key, '{"v": 1}')
        note()
    assert asked == [False, True, True, True, True, False]
    assert picks(lane) == {"a": 50, "b": 50}


async def test_a_new_version_keeps_what_is_set_and_takes_the_rest_from_its_own_manifest(lane: Tuned) -> None:
    one: Lane = lane.parts.lane
    spec = AppSpec("app", "2", "/nowhere", "m:f", batching=Batching(max_jobs=9, linger_ms=20.0), sla_seconds=60.0)
    tuning = LaneTuning(lane=one, spec=spec)
    tuning.wire(lane.watch)
    lane.set("app/app/batching.max_jobs", "3")
    tuning.deploy(spec, lane.watch)
    assert (fill(lane), closes_after(lane), one._spec.version) == (3, 0.02, "2")


def said(tuned: Tuned, key: str) -> Answer:
    """The lane's last word on a record under this key."""
    answers = [decode_applied(raw) for (of, _), raw in tuned.watch._pending.items() if of.startswith(f"{key}|".encode())]
    last = answers[-1]
    assert isinstance(last, Answer)
    return last


async def test_a_new_manifest_that_contradicts_a_set_value_puts_only_that_aside_and_says_so(lane: Tuned) -> None:
    one: Lane = lane.parts.lane
    tuning: LaneTuning = lane.parts.tuning
    key = "app/app/batching.linger_ms"
    lane.set(key, "50000")
    lane.set("app/app/batching.max_jobs", "3")
    tuning.deploy(replace(tuning._spec, version="2", sla_seconds=10.0), lane.watch)
    answer = said(lane, key)
    assert (answer.verdict, answer.version, answer.effective, answer.source) == (Answered.REJECTED, 1, 10.0, "manifest")
    assert "would eat the whole SLA of 10 s" in (answer.reason or "")
    assert lane.watch.effective("batching.linger_ms") == 10.0
    assert (one._spec.version, fill(lane), closes_after(lane)) == ("2", 3, 0.01)
    lane.set("app/app/batching.max_jobs", "4")
    assert (fill(lane), closes_after(lane)) == (4, 0.01)
    tuning.deploy(replace(tuning._spec, version="3", sla_seconds=60.0), lane.watch)
    answer = said(lane, key)
    assert (answer.verdict, answer.version, answer.effective) == (Answered.APPLIED, 1, 50_000.0)
    assert (one._spec.version, fill(lane), closes_after(lane)) == ("3", 4, 50.0)


@shows("log.level")
async def test_the_log_level_is_the_processes() -> None:
    watch = Tuned(ConfigWatch(settings=NOWHERE, identity=ProcessIdentity(role=Role.RESOURCE, name="0")))
    level = logging.getLogger().level
    try:
        watch.set("global/log.level", '"CRITICAL"')
        assert not logging.getLogger("rayline.anything").isEnabledFor(logging.ERROR)
    finally:
        logging.getLogger().setLevel(level)


@shows(
    "cordon",
    "drain",
    "heartbeat.interval_seconds",
    "models",
)
async def test_an_agent_beats_cordons_and_drains_as_it_is_told() -> None:
    async def beat() -> None: ...

    heart = Heartbeat(beat=beat)
    cordons: list[bool] = []
    orders: list[bool] = []
    models: list[AppValues] = []
    agent: Any = SimpleNamespace(
        set_interval=heart.set_interval,
        set_cordoned=cordons.append,
        set_models=models.append,
        set_apps=lambda _: None,
        set_shares=lambda _: None,
        tune_output=lambda **_: None,
        set_peers_total=lambda _: None,
        set_peers_own=lambda _: None,
    )
    order: Any = SimpleNamespace(set=orders.append)
    identity = ProcessIdentity(role=Role.AGENT, cluster="a", node="p")
    watch = Tuned(watch_agent(NOWHERE, identity, agent=agent, order=order, board=MetricsBoard(now=0.0)))
    watch.set("cluster/a/heartbeat.interval_seconds", "5")
    watch.set("node/a/p/cordon", "true")
    watch.set("node/a/p/drain", "true")
    assert (heart.interval_seconds, cordons[-1], orders[-1]) == (5.0, True, True)
    chosen = {"m": {"publication": 1, "digest": "sha256:" + "0" * 64}}
    watch.set("app/ocr/models", json.dumps(chosen))
    assert models[-1].apps == {"ocr": (4, chosen)}


def tuned_resource(resource: Resource) -> Tuned:
    identity = ProcessIdentity(role=Role.RESOURCE, name="0")
    service = ResourceService(settings=NOWHERE, resource=resource)
    return Tuned(watch_resource(NOWHERE, identity, service, interval_seconds=1.0), service=service)


@shows("rollout.share")
async def test_a_node_takes_the_newest_version_while_its_place_is_below_the_share() -> None:
    older = AppSpec("ocr", "1", "/", "m:f", actors_per_node=1, bundle="sha256:1")
    newest = replace(older, version="2", bundle="sha256:2", prefetch="sha256:3", previous=older)
    gateway = Gateway(cluster="a", address="", token_path=Path("/"), token="", sink=lambda *_: asyncio.sleep(0))
    gateways = Tuned(watch_gateway(NOWHERE, ProcessIdentity(role=Role.GATEWAY, cluster="a"), gateway))
    nowhere: Any = None
    pod = Agent(options=PodOptions(cluster="a", pod="p", address="", token_path=Path("/")), publisher=nowhere)
    chosen: list[Any] = []
    activator: Any = SimpleNamespace(
        set_apps=lambda apps, kept_back: chosen.append((apps[0].version, apps[0].prefetch, kept_back))
    )
    pod._activator = activator
    identity = ProcessIdentity(role=Role.AGENT, cluster="a", node="p")
    agents = Tuned(watch_agent(NOWHERE, identity, agent=pod, order=OperatorOrder(), board=MetricsBoard(now=0.0)))
    assert chosen == [], "no app is known yet"
    pod.set_apps([newest])
    for share, expected in ((place_of("ocr", "a/p"), "1"), (place_of("ocr", "a/p") + 0.001, "2"), (0, "1"), (1, "2")):
        gateways.set("app/ocr/rollout.share", str(share))
        agents.set("app/ocr/rollout.share", str(share))
        assert gateway._spec_on(newest, PodNode("n", "p", 1, 1.0)).version == expected
        assert chosen[-1] == (expected, "sha256:3", {"ocr"} if expected == "1" else set())
    gateway._checker.shutdown()


async def test_the_version_before_stands_beside_the_newest_until_each_node_has_changed(lane: Tuned) -> None:
    lane.set("app/app/weights.policy", '"static"')
    assert picks(lane, versions=("0", "1")) == {"b": 100}
    one: Lane = lane.parts.lane
    before = replace(one._spec, version="0")
    tuning = LaneTuning(lane=one, spec=before)
    tuning.deploy(replace(one._spec, previous=before), lane.watch)
    assert picks(lane, versions=("0", "1")) == {"a": 50, "b": 50}


@shows("view.interval_seconds")
async def test_a_resource_that_runs_ends_a_round_that_would_last_longer_than_it_is_told() -> None:
    resource = Resource(name="0")
    tuned = tuned_resource(resource)
    resource.started(0.0)
    tuned.set("global/view.interval_seconds", "60")
    resource.records(0.0)
    for seconds, due in (("60", 60.0), ("7", 7.0), ("50", 7.0), ("1", 1.0)):
        tuned.set("global/view.interval_seconds", seconds)
        assert resource.due() == pytest.approx(due)
    resource.records(6.5)
    assert resource.due() == pytest.approx(7.0)


async def test_a_resource_that_waits_for_its_next_round_hears_that_it_is_to_be_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.resource_process._EVENTS_SECONDS", 3_600.0)
    tuned = tuned_resource(Resource(name="0"))
    service: ResourceService = tuned.parts.service
    published = asyncio.Event()

    async def publish(*_: object, **__: object) -> None:
        published.set()

    async def enqueue(*_: object, **__: object) -> asyncio.Future[int]:
        return asyncio.ensure_future(asyncio.sleep(0, 0))

    tuned.set("global/view.interval_seconds", "60")
    service.resource.take(Heard([NodeReport("c", "n", 1, 1, NodeState.READY, beat=True)], 0.0, 0.0))
    service._feed.caught_up.set()
    publisher: Any = SimpleNamespace(publish=publish, enqueue=enqueue)
    publishing = asyncio.create_task(service._publish(publisher))
    async with asyncio.timeout(10):
        for seconds in ("60", "0.1", "0.2"):
            tuned.set("global/view.interval_seconds", seconds)
            await published.wait()
            published.clear()
    publishing.cancel()
    await asyncio.wait({publishing})
    assert service.resource.statistics().rounds >= 3


async def test_a_resource_tells_of_a_silent_node_as_lost_after_what_it_is_told() -> None:
    resource = Resource(name="0")
    watch = tuned_resource(resource)

    def silent_for(seconds: float) -> list[str]:
        """What is told of a node that fell silent while another one beats, once it has been silent for so long."""
        resource.take(Heard([NodeReport("c", "n", 1, 1, NodeState.READY, beat=True)], 0.0, 0.0))
        resource.take(Heard([NodeReport("c", "other", 1, 1, NodeState.READY, beat=True)], seconds, seconds))
        return [told.event.kind for told in resource.events(seconds) if told.event.subject == "c/n"]

    assert silent_for(9.0)[-1] == "node.suspect"
    watch.set("global/view.lost_seconds", "8")
    assert silent_for(9.1) == ["node.lost"]


@shows("view.lost_seconds")
async def test_a_lane_gives_up_what_is_in_flight_on_a_node_that_is_silent_for_longer_than_it_is_told(lane: Tuned) -> None:
    one: Lane = lane.parts.lane

    async def called_off(silent_seconds: float) -> CalledOff | None:
        now = time.monotonic()
        actor = ActorEndpoint("app", "1", "x", "127.0.0.1", 1, 2, "i")
        silent = NodeReport("c", "n", 1, 1, NodeState.READY, 1.0, actors=(actor,), beat=True, age_ms=round(silent_seconds * 1000))
        one._view.apply([silent, NodeReport("c", "other", 1, 1, NodeState.READY, beat=True)], now)
        flight = Flight(new_batch([job(1)], 1, "t"), Target("c/n", 1, actor), 0.0, {0: job(1)}, [])
        flight.task = asyncio.create_task(asyncio.Event().wait())
        one._dispatcher._look_after(flight, now)
        flight.task.cancel()
        await asyncio.wait({flight.task})
        return flight.called_off

    lane.set("global/view.lost_seconds", "20")
    assert await called_off(12.0) is None
    lane.set("global/view.lost_seconds", "11")
    assert await called_off(12.0) is CalledOff.NODE_LEFT


@shows("view.pull_seconds")
async def test_a_lane_that_pulls_hears_of_a_notice_with_its_next_pull(lane: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    one: Lane = lane.parts.lane
    clock = [100.0]
    monkeypatch.setattr("ingest.lane.time", SimpleNamespace(monotonic=lambda: clock[0]))
    actor = ActorEndpoint("app", "1", "x", "127.0.0.1", 1, 2, "i")

    def say(state: NodeState, seq: int) -> set[str]:
        """Actors that batches may go to, once the node said this."""
        one.heard([NodeReport("c", "n", 1 + seq // 10, seq, state, 1.0, actors=(actor,), beat=True)])
        return one._router.instances()

    lane.set("app/app/view.pull_seconds", "3")
    assert say(NodeState.READY, 1) == {"i"}
    clock[0] += 2.9
    assert say(NodeState.DRAINING, 2) == {"i"}
    clock[0] += 0.1
    one.heard([])
    assert not one._router.instances()
    left = one.explain_nodes().left["c/n"]
    assert (left["state"], left["said_ms"], left["heard_after_ms"], left["by"]) == ("draining", 2, 0.0, "news")
    lane.set("app/app/view.pull_seconds", "0")
    assert say(NodeState.READY, 10) == {"i"}
    assert not say(NodeState.DRAINING, 11)


async def test_the_set_as_in_the_article_is_taken_by_all_whom_it_concerns_and_is_then_in_force(lane: Tuned) -> None:
    heart = Heartbeat(beat=lambda: asyncio.sleep(0))
    agent: Any = SimpleNamespace(set_interval=heart.set_interval)
    resource = Resource(name="0")
    pod = ProcessIdentity(role=Role.AGENT, cluster="a", node="p")
    processes = {
        Role.LANE: lane,
        Role.RESOURCE: tuned_resource(resource),
        Role.AGENT: Tuned(ConfigWatch(settings=NOWHERE, identity=pod).on("heartbeat.interval_seconds", agent.set_interval)),
    }
    processes[Role.AGENT].set("global/heartbeat.interval_seconds", "9")
    processes[Role.RESOURCE].set("global/view.interval_seconds", "9")
    processes[Role.LANE].set("global/weights.interval_seconds", "9")
    for change in read_set("as-in-the-article"):
        for role in SETTINGS[change.key.setting].roles:
            processes[role].set(str(change.key), json.dumps(change.value))
    one: Lane = lane.parts.lane
    assert (one._router.policy, one._router.interval_seconds, one._pull_seconds) == (SchedulingPolicy.WECHAT, 3.0, 3.0)
    assert heart.interval_seconds == 1.0
    resource.started(0.0)
    list(resource.records(0.0))
    assert resource.due() == pytest.approx(1.0)


def pods_starting(world: Cluster) -> int:
    world.want("c", 20)
    for _ in range(3):
        world.step()
        world.carry_out()
    return len(world.started)


def clusters_building(world: Cluster) -> int:
    for name in "abcdef":
        world.want(name, 1)
    world.step()
    return len(world.book.orders)


def replacing(
    world: Cluster, *, after_seconds: float, pods: int = 8, joined: bool = True, seen_as: NodeFact | None = None
) -> int:
    """Pods that are begun for others, when so long after the start of `pods` this is known of six of those that joined."""
    world.want("c", pods)
    for _ in range(4):
        world.step()
        world.carry_out()
        if joined:
            world.join()
    before = len(world.started)
    world.now_ms += round(after_seconds * 1000)
    if seen_as is not None:
        world.nodes |= dict.fromkeys(sorted(world.nodes)[:6], seen_as)
    world.step()
    world.carry_out()
    return len(world.started) - before


# Setting → the record's value, what the decisions come to, before and after.
KEEPER_EFFECTS: dict[str, tuple[str, Callable[[Cluster], int], int, int]] = {
    "keeper.starting_pods": ("3", pods_starting, 8, 3),
    "keeper.building_clusters": ("2", clusters_building, 4, 2),
    "keeper.surge_pods": (
        "5",
        lambda world: replacing(world, after_seconds=1, seen_as=NodeFact(joined=False, seen=True, leaving=True)),
        1,
        5,
    ),
    "keeper.join_seconds": ("60", lambda world: replacing(world, after_seconds=61, pods=2, joined=False), 0, 2),
    "keeper.silent_seconds": (
        "90",
        lambda world: replacing(world, after_seconds=1, seen_as=NodeFact(joined=False, seen=True, silent_ms=91_000)),
        0,
        6,
    ),
}


@shows(*KEEPER_EFFECTS)
@pytest.mark.parametrize("name", KEEPER_EFFECTS)
async def test_a_keeper_decides_within_the_limits_it_is_told(name: str) -> None:
    value, seen, before, after = KEEPER_EFFECTS[name]
    keeper = KeeperProcess(settings=NOWHERE, name="k")
    watch = Tuned(watch_keeper(NOWHERE, keeper, name="k"))
    assert seen(Cluster(limits=keeper.limits)) == before
    watch.set(f"global/{name}", value)
    assert seen(Cluster(limits=keeper.limits)) == after


def tuned_agent(agent: Any) -> Tuned:
    identity = ProcessIdentity(role=Role.AGENT, cluster="a", node="p")
    return Tuned(watch_agent(NOWHERE, identity, agent=agent, order=OperatorOrder(), board=MetricsBoard(now=0.0)))


@shows("peers.node_bytes_per_second", "peers.total_bytes_per_second")
async def test_a_node_moves_its_share_of_what_all_may_and_no_more_than_it_may_itself() -> None:
    rates: list[tuple[int | None, int | None]] = []
    throttle = Throttle(apply=lambda download, upload: rates.append((download, upload)))
    throttle.observe(fetching=4, reading=False)
    peer: Any = SimpleNamespace(set_global_limit=throttle.set_total, set_limits=throttle.set_own)
    peering = Peering(peer=peer)
    parts = dict.fromkeys(("set_interval", "set_cordoned", "set_models", "set_shares"), lambda _: None)
    agent = SimpleNamespace(
        **parts,
        tune_output=lambda **_: None,
        set_peers_total=peering.set_total_limit,
        set_peers_own=peering.set_own_limit,
    )
    watch = tuned_agent(agent)
    watch.set("global/peers.total_bytes_per_second", "40000000")
    watch.set("cluster/a/peers.node_bytes_per_second", "5000000")
    watch.set("global/peers.total_bytes_per_second", "4000000")
    watch.set("cluster/a/peers.node_bytes_per_second", "0")
    watch.set("global/peers.total_bytes_per_second", "0")
    assert rates == [
        (9_500_000, 38_000_000),
        (5_000_000, 5_000_000),
        (950_000, 3_800_000),
        (None, None),
    ]


class Printing:
    """A pod's intake with one worker, and what is kept of its words."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(on_news=lambda: None)
        self.intake = OutputIntake(folder=folder, cluster="a", node="p", outbox=self.outbox)
        self.intake.start()
        self._limits = OutputLimits()
        self._worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._worker.settimeout(20)
        self._worker.connect(str(folder / SOCKET_NAME))
        cell, (reader, writer) = BatchCell(), os.pipe()
        socket.send_fds(self._worker, [WorkerHello("app", "v1", "actor", "i1", 1).pack()], [reader, reader, cell.fd])
        for fd in (reader, writer, cell.fd):
            os.close(fd)
        self.told()

    def told(self) -> OutputLimits:
        """Waits for the limits that the worker is told next; raises TimeoutError where it is told none."""
        return OutputLimits.unpack(self._worker.recv(4_096))

    def tune(self, **limits: int | bool) -> None:
        self._limits = replace(self._limits, **limits)  # type: ignore[arg-type]
        self.intake.set_limits(self._limits)

    def kept(self, line: bytes, *, times: int) -> list[int]:
        """Lengths of the lines that are kept of so many alike; it is the last that is heard of this worker."""
        self._worker.send(Frame(1, Stream.STDOUT, [line] * times).pack())
        self._worker.close()
        self.intake.finish(20.0)
        lines = [line for parcel in self.outbox.take() for line in parcel.lines]
        return [len(line.text) for line in lines if line.stream is Stream.STDOUT]


# Setting → the record's key and value, the lines that a worker sends, how many are kept and how long the longest is.
LOGS_EFFECTS: dict[str, tuple[str, str, bytes, tuple[int, int]]] = {
    "logs.enabled": ("global", "false", b"x", (0, 0)),
    "logs.lines_per_second": ("cluster/a", "7", b"x", (14, 1)),
    "logs.bytes_per_second": ("global", "2048", b"x" * 100, (41, 100)),
    "logs.line_bytes": ("node/a/p", "100", b"x" * 300, (60, 164)),
    "logs.batch_lines": ("global", "5", b"x", (60, 1)),
}


@shows(*LOGS_EFFECTS)
@pytest.mark.parametrize("name", LOGS_EFFECTS)
async def test_what_is_kept_of_a_workers_output_and_what_it_is_told_to_keep_to(name: str, tmp_path: Path) -> None:
    where, value, line, (count, longest) = LOGS_EFFECTS[name]
    printing = Printing(tmp_path)
    parts = dict.fromkeys(("set_interval", "set_cordoned", "set_models", "set_shares"), lambda _: None)
    peers = dict.fromkeys(("set_peers_total", "set_peers_own"), lambda _: None)
    tuned_agent(SimpleNamespace(**parts, **peers, tune_output=printing.tune)).set(f"{where}/{name}", value)
    # What was in force before may be told once more first.
    while getattr(printing.told(), name.removeprefix("logs.")) != json.loads(value):
        continue
    lengths = printing.kept(line, times=60)
    assert (len(lengths), max(lengths, default=0)) == (count, longest)
