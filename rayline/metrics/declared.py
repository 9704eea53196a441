"""Every metric, declared once: the exporters, docs/metrics.md and the checks of dashboard and alerts are made from this list.

Names are those of OpenTelemetry's semantic conventions (messaging, process; both still in development there) where one fits,
`rayline.…` otherwise. Units are UCUM, as OpenTelemetry wants them. Each metric also carries `PROCESS_ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from rayline.config.setting import Role
from rayline.metrics.histogram import HistogramSnapshot

# OpenTelemetry's own names of attributes.
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
# Ours.
ROLE: Final = "rayline.role"
PROCESS: Final = "rayline.process"
APP: Final = "rayline.app"
CLUSTER: Final = "rayline.cluster"
NODE: Final = "rayline.node"
OUTCOME: Final = "rayline.outcome"
CAUSE: Final = "rayline.cause"
STANDING: Final = "rayline.standing"
ACTIVITY: Final = "rayline.activity"
STALL: Final = "rayline.stall"
SUBJECT: Final = "rayline.subject"
EVENT: Final = "rayline.event"
ACTION: Final = "rayline.action"
LEVEL: Final = "rayline.level"
PHASE: Final = "rayline.phase"
CHILD: Final = "rayline.child"
VERSION: Final = "rayline.version"

PROCESS_ATTRIBUTES: Final = (ROLE, PROCESS, APP, CLUSTER, NODE)

_LATENCY_SECONDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0),
)
_STAGE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_JOBS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)


class Instrument(StrEnum):
    """COUNTER only grows (until the process starts anew), UP_DOWN can be added up over processes, GAUGE cannot."""

    COUNTER = "counter"
    UP_DOWN = "updowncounter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """`roles`: the processes that have it. `bounds`: the upper bounds of a histogram's buckets, without infinity."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    roles: tuple[Role, ...]
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


class Sample(NamedTuple):
    """One value of one metric now; a histogram's is a `HistogramSnapshot`."""

    metric: Metric
    value: float | HistogramSnapshot
    attributes: Mapping[str, str] = {}


@dataclass(slots=True)
class _Register:
    metrics: dict[str, Metric] = field(default_factory=dict)

    def add(
        self,
        name: str,
        instrument: Instrument,
        unit: str,
        description: str,
        *roles: Role,
        attributes: tuple[str, ...] = (),
        bounds: tuple[float, ...] = (),
    ) -> Metric:
        assert name not in self.metrics, f"{name} is declared twice"
        metric = self.metrics[name] = Metric(name, instrument, unit, description, roles, attributes, bounds)
        return metric


_register = _Register()
_add = _register.add
_LANE, _AGENT, _GATEWAY, _RESOURCE, _KEEPER = Role.LANE, Role.AGENT, Role.GATEWAY, Role.RESOURCE, Role.KEEPER
_C, _U, _G, _H = Instrument.COUNTER, Instrument.UP_DOWN, Instrument.GAUGE, Instrument.HISTOGRAM
_JOB, _MESSAGE = "{job}", "{message}"

# Jobs and results.
CONSUMED = _add(
    "messaging.client.consumed.messages",
    _C,
    _MESSAGE,
    "Job records read.",
    _LANE,
    attributes=(SYSTEM, OPERATION, DESTINATION, GROUP),
)
SENT = _add(
    "messaging.client.sent.messages",
    _C,
    _MESSAGE,
    "Results and dead letters committed.",
    _LANE,
    attributes=(SYSTEM, OPERATION, DESTINATION),
)
PROCESS_DURATION = _add(
    "messaging.process.duration",
    _H,
    "s",
    "From reading a job to the commit of its result.",
    _LANE,
    attributes=(SYSTEM, OPERATION, DESTINATION, GROUP),
    bounds=_LATENCY_SECONDS,
)
LATENCY = _add(
    "rayline.job.latency",
    _H,
    "s",
    "From the broker's append of a job to the commit of its result: what the SLA is about.",
    _LANE,
    bounds=_LATENCY_SECONDS,
)
RESULTS = _add("rayline.job.results", _C, _JOB, "Results committed, by outcome.", _LANE, attributes=(OUTCOME,))
LATE = _add("rayline.job.late", _C, _JOB, "Jobs whose deadline passed before their result, of any outcome, was committed.", _LANE)
QUEUE = _add("rayline.job.queue.duration", _H, "s", "From reading a job to its (last) dispatch.", _LANE, bounds=_STAGE_SECONDS)
DISPATCH = _add(
    "rayline.job.dispatch.duration",
    _H,
    "s",
    "From dispatch to answer, without the execution: the way there and back, and waiting at the actor.",
    _LANE,
    bounds=_STAGE_SECONDS,
)
EXECUTE = _add("rayline.job.execute.duration", _H, "s", "Execution of a job's batch.", _LANE, bounds=_STAGE_SECONDS)
PUBLISH = _add(
    "rayline.job.publish.duration", _H, "s", "From a job's end to the commit of its result.", _LANE, bounds=_STAGE_SECONDS
)
BATCH_SIZE = _add("rayline.batch.size", _H, _JOB, "Jobs of a dispatched batch.", _LANE, bounds=_BATCH_JOBS)
SLA = _add(
    "rayline.app.sla", _G, "s", "The SLA in force: the deadline of a job that names none, from the broker's append on.", _LANE
)
HELD_JOBS = _add("rayline.jobs.held", _U, _JOB, "Jobs in a lane's memory, from reading to commit.", _LANE)
HELD_BYTES = _add("rayline.memory.held", _U, "By", "Payload and result bytes in a lane's memory.", _LANE)
QUEUED = _add("rayline.batches.queued", _U, "{batch}", "Batches that wait for an actor.", _LANE)
IN_FLIGHT = _add("rayline.batches.in_flight", _U, "{batch}", "Batches at actors.", _LANE)

# Partitions.
LAG = _add(
    "rayline.partition.lag",
    _G,
    _MESSAGE,
    "Records between the committed offset and the end of the partition, open transactions of producers included.",
    _LANE,
    attributes=(DESTINATION, PARTITION),
)
PROGRESS_AGE = _add(
    "rayline.partition.progress.age",
    _G,
    "s",
    "Time since anything of the partition was read or committed; 0 while nothing is to be done there.",
    _LANE,
    attributes=(DESTINATION, PARTITION),
)
HALTED = _add(
    "rayline.partition.halted",
    _G,
    "1",
    "1 for a partition that is not read any more because Kafka lost records of it; see `rayline status`.",
    _LANE,
    attributes=(DESTINATION, PARTITION),
)
OPEN_TRANSACTION = _add(
    "rayline.partition.open_transaction.age",
    _G,
    "s",
    "How long a producer's open transaction has kept the records behind it from being read.",
    _LANE,
    attributes=(DESTINATION, PARTITION, SUBJECT),
)

# Dispatch and its budget.
FIRST = _add("rayline.dispatch.first", _C, _JOB, "Jobs dispatched for the first time.", _LANE)
RETRIES = _add("rayline.dispatch.retries", _C, _JOB, "Jobs dispatched once more, by cause.", _LANE, attributes=(CAUSE,))
HEDGES = _add("rayline.dispatch.hedges", _C, _JOB, "Jobs given to a second actor beside the first.", _LANE)
HEDGE_WINS = _add("rayline.dispatch.hedge_wins", _C, _JOB, "Hedged jobs that the second actor answered first.", _LANE)
REFUSED = _add("rayline.dispatch.refused", _C, _JOB, "Jobs that an actor turned away: no load.", _LANE)
SHORT = _add(
    "rayline.budget.short", _C, "{wait}", "How often a batch waited or went without hedge: the budget was used up.", _LANE
)
BUDGET_LEFT = _add("rayline.budget.available", _G, _JOB, "Jobs that may be dispatched once more now.", _LANE)
BUDGET_RESERVE = _add("rayline.budget.reserve", _G, _JOB, "The reserve that the budget refills to by itself.", _LANE)
QUARANTINED = _add("rayline.job.quarantined", _C, _JOB, "Jobs that killed their workers alone.", _LANE)

# Transactions.
TRANSACTIONS = _add("rayline.transactions", _C, "{transaction}", "Transactions committed.", _LANE)
TRANSACTION_DURATION = _add(
    "rayline.transaction.duration", _H, "s", "From the first record of a transaction to its commit.", _LANE, bounds=_STAGE_SECONDS
)
RECOVERIES = _add(
    "rayline.transaction.recoveries", _C, "{transaction}", "Transactions that failed; the producer was made anew.", _LANE
)

# Nodes.
NODES = _add(
    "rayline.nodes", _G, "{node}", "Nodes that this process knows, by standing.", _LANE, _RESOURCE, attributes=(STANDING,)
)
WEIGHT = _add(
    "rayline.node.weight", _G, "1", "A node's share of new batches (the heaviest nodes only).", _LANE, attributes=(NODE,)
)
VIEW_AGE = _add("rayline.view.age", _G, "s", "Time since anybody's beats were heard.", _LANE, _RESOURCE)
VIEW_STALE = _add("rayline.view.stale", _G, "1", "1 while nobody is heard and the last view stays in force.", _LANE, _RESOURCE)
NODE_EVENTS = _add(
    "rayline.node.events",
    _C,
    "{event}",
    "What happened to nodes: joins, notices, evictions, silence, losses. Each resource counts what it saw.",
    _RESOURCE,
    attributes=(EVENT,),
)
NODE_NOTICES = _add("rayline.node.notices", _C, "{notice}", "Notices that this pod was given.", _AGENT)
BEATS_DROPPED = _add("rayline.heartbeat.dropped", _C, "{beat}", "Beats left out because one was still under way.", _AGENT)
LINES_PRINTED = _add("rayline.output.lines", _C, "{line}", "Lines of users' code that Kafka was given.", _AGENT)
LINES_DROPPED = _add("rayline.output.dropped", _C, "{line}", "Lines of users' code that were dropped.", _AGENT)
# An actor has no page of its own: its pod's agent shows what it does.
_OF_ACTORS = (APP, VERSION)
ACTOR_PROCESSES = _add("rayline.actor.processes", _U, "{actor}", "Actors of this pod that live.", _AGENT, attributes=_OF_ACTORS)
ACTOR_JOBS = _add("rayline.actor.jobs", _C, _JOB, "Jobs of batches that this pod's actors ran.", _AGENT, attributes=_OF_ACTORS)
ACTOR_BATCHES = _add("rayline.actor.batches", _C, "{batch}", "Batches that this pod's actors ran.", _AGENT, attributes=_OF_ACTORS)
ACTOR_IN_FLIGHT = _add(
    "rayline.actor.in_flight", _U, _JOB, "Jobs without an answer that are with this pod's actors.", _AGENT, attributes=_OF_ACTORS
)
ACTOR_CPU = _add(
    "rayline.actor.cpu.time", _C, "s", "CPU time of this pod's actors, user and system.", _AGENT, attributes=_OF_ACTORS
)
ACTOR_MEMORY = _add(
    "rayline.actor.memory.usage", _U, "By", "Resident memory of this pod's actors.", _AGENT, attributes=_OF_ACTORS
)
ACTORS = _add("rayline.actors", _G, "{actor}", "Actors of a cluster, by phase.", _GATEWAY, attributes=(PHASE,))
VIEW_PUBLISHED = _add("rayline.view.published", _C, _MESSAGE, "Records of the view published.", _RESOURCE)
VIEW_PUBLISHED_BYTES = _add("rayline.view.published.size", _C, "By", "Bytes of the view published.", _RESOURCE)
REPORTS_HEARD = _add("rayline.view.heard", _C, _MESSAGE, "Records of nodes heard.", _RESOURCE)
LEADING = _add("rayline.keeper.leading", _G, "1", "1 for the keeper that leads.", _KEEPER)
KEEPER_ACTIONS = _add("rayline.keeper.actions", _C, "{action}", "What the keeper ordered.", _KEEPER, attributes=(ACTION,))
VIEWERS = _add("rayline.console.viewers", _U, "{viewer}", "Pages of the console that are open in browsers.", Role.CONSOLE)
CHILDREN = _add(
    "rayline.launcher.children",
    _U,
    "{process}",
    "Processes that the launcher keeps alive, by what they are for.",
    Role.LAUNCHER,
    attributes=(CHILD,),
)

# Every process.
_EVERY = tuple(Role)
CPU = _add("process.cpu.time", _C, "s", "CPU time of this process, user and system.", *_EVERY)
MEMORY = _add("process.memory.usage", _U, "By", "Resident memory of this process.", *_EVERY)
FILES = _add("process.unix.file_descriptor.count", _U, "{file_descriptor}", "Open files and sockets.", *_EVERY)
LOG_LINES = _add("rayline.process.log.lines", _C, "{line}", "Log lines written, by level.", *_EVERY, attributes=(LEVEL,))
LOOP_DELAY = _add("rayline.process.loop.delay", _G, "s", "How late the event loop came to its last look at itself.", *_EVERY)
LOOP_AGE = _add(
    "rayline.process.loop.age",
    _G,
    "s",
    "Time since the event loop last turned; all other values are as old. Grows while it is blocked.",
    *_EVERY,
)
LOOP_BLOCKED = _add(
    "rayline.process.loop.blocked",
    _C,
    "s",
    "Time that the event loop stood still, counted where it was late by more than a second at once.",
    *_EVERY,
)
ACTIVITY_AGE = _add(
    "rayline.process.progress.age",
    _G,
    "s",
    "Time since an activity of this process last got something done (beats, rounds, looks, commits).",
    *_EVERY,
    attributes=(ACTIVITY,),
)
STALLED = _add(
    "rayline.process.stalled",
    _G,
    "s",
    "How long something has made no progress that should; there is no value while all goes on.",
    *_EVERY,
    attributes=(STALL, SUBJECT),
)
CONFIG_UNREADABLE = _add(
    "rayline.config.unreadable", _G, "1", "1 while the config topic cannot be read and the last known values hold.", *_EVERY
)

METRICS: Final[Mapping[str, Metric]] = _register.metrics
