"""What makes no progress: the one rule of status, top and console. Alerts rest on the same words of the processes, as
`rayline.process.stalled` tells them. Pure: `now_ms` is epoch milliseconds.

Each process says of itself what stands still there. This adds what it cannot say: that it is frozen or silent, that nobody works
on an app, that a partition stands still of which no lane says anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from deploy.config_board import LastWord
from ingest.stalls import STUCK_MARGIN_SECONDS, unheard
from rayline.config import Role
from rayline.stalls import Stall, StallKind
from rayline.topics import requests_topic

__all__ = [
    "MEMORY_SECONDS",
    "Backlog",
    "NoProgress",
    "Silence",
    "idle_apps",
    "overdue",
    "process_stalls",
    "silent_broker",
    "stuck_partitions",
    "unheard_nodes",
]

# What has been silent for longer is no news any more.
MEMORY_SECONDS: Final = 600.0
# A broker that is well answers within milliseconds; a short restart of it is no stall.
BROKER_SILENT_MS: Final = 3_000
MAX_PARTITIONS_TOLD: Final = 3
# A process speaks within its own interval; two were missed, and half a one for the way here.
_MISSED: Final = 2.5
_TOLD_BY_LANES: Final = frozenset({StallKind.PARTITION, StallKind.HALTED, StallKind.OPEN_TRANSACTION})


class Silence(Enum):
    """What came instead of an answer. FROZEN: the connection was taken, and nothing said; GONE: nobody listens there;
    OUT_OF_REACH: it cannot be asked from here."""

    FROZEN = auto()
    GONE = auto()
    OUT_OF_REACH = auto()


@dataclass(frozen=True, slots=True)
class NoProgress:
    """Something that should move and does not. `since_ms` is broker time; `text` one sentence with the remedy; `process` names
    who stands still or says so."""

    kind: StallKind
    subject: str
    since_ms: int
    text: str
    process: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """One partition of an app's requests: records after the committed offset, and since when (epoch milliseconds) none of them
    was committed (None: that is not known)."""

    partition: int
    lag: int
    unmoved_ms: int | None


def overdue(word: LastWord) -> bool:
    """It should have spoken since."""
    return word.silent_seconds > _MISSED * word.presence.refresh_seconds


def process_stalls(word: LastWord, answer: Sequence[Stall] | Silence, *, now_ms: int) -> list[NoProgress] | None:
    """What one process's last word, and its answer where it was asked, say of it; None for one that is gone."""
    presence, process = word.presence, word.presence.identity.process
    told_ms = now_ms - round(word.silent_seconds * 1000)

    def itself(why: str) -> list[NoProgress]:
        return [NoProgress(StallKind.PROCESS, process, told_ms, f"{process} {why}", process)]

    if isinstance(answer, Silence):
        if answer is Silence.FROZEN:
            return itself("is frozen: it takes connections and says nothing; see whether it is stopped or starved, or end it")
        # The silence of pods is judged by their nodes' beats.
        if answer is Silence.GONE or (overdue(word) and presence.identity.role is Role.AGENT):
            return None
        if overdue(word):
            return itself(f"has said nothing for {word.silent_seconds:.0f} s: it is frozen, cut off, or killed; see its log")
        found = [_own(stall, process, told_ms) for stall in presence.stalls]
    elif not answer and overdue(word):
        return itself(f"has not reached Kafka for {word.silent_seconds:.0f} s: see its log")
    else:
        found = [_own(stall, process, now_ms) for stall in answer]
    if presence.problem is not None:
        text = f"{process} cannot read its live settings and keeps the last known ones: {presence.problem}"
        found.append(NoProgress(StallKind.CONFIG, process, told_ms, text, process))
    return found


def idle_apps(lags: Iterable[tuple[str, int | None]], worked_on: Collection[str], *, now_ms: int) -> list[NoProgress]:
    """Apps (name, lag) whose jobs wait while no lane of theirs is known; `worked_on` names those that have one."""
    return [
        NoProgress(StallKind.LANE, app, now_ms, f"{lag} jobs of {app} wait and it has no lane: start one with `rayline lane`")
        for app, lag in lags
        if lag and app not in worked_on
    ]


def stuck_partitions(
    app: str, backlogs: Sequence[Backlog], told: Iterable[NoProgress], *, sla_seconds: float, now_ms: int
) -> list[NoProgress]:
    """Partitions of which nothing was committed for longer than any deadline allows; one line where they are many. Those that
    are `told` by their lane, which knows why, are left out."""
    known = {stall.subject for stall in told if stall.kind in _TOLD_BY_LANES}
    patience_ms = (sla_seconds + STUCK_MARGIN_SECONDS) * 1000
    stuck = [
        (one, one.unmoved_ms)
        for one in backlogs
        if one.lag
        and one.unmoved_ms is not None
        and now_ms - one.unmoved_ms > patience_ms
        and _subject(app, one.partition) not in known
    ]
    if len(stuck) > MAX_PARTITIONS_TOLD:
        lag = sum(one.lag for one, _ in stuck)
        where = f"{len(stuck)} of {len(backlogs)} partitions of {app}"
        return [_stuck(requests_topic(app), where, lag, min(since_ms for _, since_ms in stuck), now_ms)]
    return [
        _stuck(_subject(app, one.partition), f"partition {one.partition} of {app}", one.lag, since_ms, now_ms)
        for one, since_ms in stuck
    ]


def silent_broker(servers: str, answered_ms: int, *, now_ms: int) -> list[NoProgress]:
    """Whether the broker that last answered then is silent for too long."""
    if now_ms - answered_ms <= BROKER_SILENT_MS:
        return []
    text = f"no Kafka broker answers at {servers}: what is known is as it was then; see whether the brokers run"
    return [NoProgress(StallKind.BROKER, servers, answered_ms, text)]


def unheard_nodes(ears: float, now: float, *, now_ms: int) -> list[NoProgress]:
    """Whether nobody tells of nodes since `ears`; like `now`, monotonic seconds."""
    return [NoProgress(stall.kind, stall.subject, _since(stall, now_ms), stall.why) for stall in unheard(ears, now)]


def _own(stall: Stall, process: str, at_ms: int) -> NoProgress:
    text = f"{process}: no progress of {stall.subject}: {stall.why}"
    return NoProgress(stall.kind, stall.subject, _since(stall, at_ms), text, process)


def _since(stall: Stall, at_ms: int) -> int:
    return at_ms - round(stall.seconds * 1000)


def _subject(app: str, partition: int) -> str:
    return f"{requests_topic(app)}/{partition}"


def _stuck(subject: str, where: str, lag: int, since_ms: int, now_ms: int) -> NoProgress:
    text = (
        f"{lag} jobs lie in {where} and nothing of it was committed for {(now_ms - since_ms) / 1000:.0f} s: "
        "see whether its lanes and nodes are there, and the lanes' logs"
    )
    return NoProgress(StallKind.PARTITION, subject, since_ms, text)
