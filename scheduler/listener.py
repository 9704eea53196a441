"""Turns records of `rayline.view` and `rayline.reports` into what a view takes in, each at the time it was written. Pure."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rayline.bus import LogRecord
from rayline.clock import BrokerClock
from rayline.errors import FormatError
from rayline.reports import NodeReport, decode_reports
from rayline.topics import CHANGES_PARTITION, VIEW
from rayline.view_record import DEFAULT_GROUP, ViewKey, decode_view_key, decode_view_record
from scheduler.view import STALE_AFTER_SECONDS

_log = logging.getLogger(__name__)

# A reader that found nothing at some moment may have had the next record on its way already.
_ON_THE_WAY_SECONDS: Final = 0.5


class Direct(Enum):
    """Whether reports of the nodes themselves are taken."""

    ALWAYS = auto()
    UNTIL_TOLD = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Heard:
    """Reports, when they were sent (monotonic seconds), and when their sender could hear everybody (`View.apply`).

    `source` is the resource that tells, None where the reporter itself is heard.
    """

    reports: list[NodeReport]
    at: float
    ears: float
    source: ViewKey | None = None


class Listener:
    """Owns the broker's clock as this reader sees it, and whether beats are taken from resources or from the nodes themselves.

    A lane (`Direct.UNTIL_TOLD`) takes the nodes' beats as they come until it hears a resource speak: a platform without
    resources works. From then on beats come from the resources alone, and only news (`CHANGES_PARTITION`) is heard directly as
    well, since a notice must not wait. With every resource silent the view grows stale; no node falls silent by that.
    `groups` are those whose resources it hears; news of clusters that they do not tell of are not for it.
    """

    def __init__(self, *, groups: Collection[str] = (DEFAULT_GROUP,), direct: Direct = Direct.UNTIL_TOLD) -> None:
        self._groups = frozenset(groups)
        self._direct = direct
        self._clock = BrokerClock()
        self._clusters: set[str] = set()
        self._told = False

    @property
    def clock(self) -> BrokerClock:
        """The broker's time as far as it is known here."""
        return self._clock

    @property
    def takes_beats(self) -> bool:
        """Whether the nodes' own beats are of use."""
        return self._direct is Direct.ALWAYS or (self._direct is Direct.UNTIL_TOLD and not self._told)

    def hear(self, topic: str, record: LogRecord, read_at: float, idle_at: float = -math.inf) -> Heard | None:
        """What a record tells, or None where it says nothing to us. A record that cannot be read is left out with a line.

        `read_at` is when it was in our hands (monotonic seconds), `idle_at` when its reader last had nothing left to read.
        """
        self._clock.observe_read(append_ms=record.timestamp_ms, read_at=read_at)
        if idle_at > -math.inf:
            earliest = idle_at - _ON_THE_WAY_SECONDS
            self._clock.observe_append(append_ms=record.timestamp_ms, sent_at=earliest, acknowledged_at=read_at)
        if record.value is None:
            return None
        at = min(read_at, self._clock.monotonic_at(record.timestamp_ms))
        try:
            return (
                self._from_resource(record, record.value, at, read_at)
                if topic == VIEW
                else self._from_node(record, record.value, at)
            )
        except FormatError as error:
            _log.error("record %d of %s is left out: %s", record.offset, topic, error)
            return None

    def _from_resource(self, record: LogRecord, value: bytes, at: float, read_at: float) -> Heard | None:
        key = decode_view_key(record.key)
        if key is None or key.group not in self._groups:
            return None
        told = decode_view_record(value)
        # What stands there from before tells of the nodes, but not that anybody goes on telling.
        self._told |= read_at - at < STALE_AFTER_SECONDS
        self._clusters.update(report.cluster for report in told.reports)
        return Heard(list(told.reports), at, at - told.ears_age_ms / 1000, key)

    def _from_node(self, record: LogRecord, value: bytes, at: float) -> Heard | None:
        if self._direct is Direct.NEVER:
            return None
        if self.takes_beats:
            return Heard(decode_reports(value), at, at)
        if record.partition != CHANGES_PARTITION:
            return None
        reports = decode_reports(value)
        if DEFAULT_GROUP not in self._groups:
            reports = [report for report in reports if report.cluster in self._clusters]
        return Heard(reports, at, -math.inf)
