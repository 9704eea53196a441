"""Events, settings and processes as the platform's topics tell them, in bounded memory. Pure."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from deploy.config_board import LastWord, Written, read_record, value_text
from deploy.observation.snapshot import ConfigRow, EventRow, ProcessRow
from deploy.progress import MEMORY_SECONDS, overdue
from rayline.bus import LogRecord
from rayline.config import Answer, Presence, Role, Verdict, decode_applied
from rayline.config.answer import SEPARATOR
from rayline.config.record import ABSENT
from rayline.errors import FormatError
from rayline.events import decode_event
from rayline.topics import CONFIG_APPLIED, EVENTS
from scheduler.node_history import EVENT_ID

_log = logging.getLogger(__name__)

MAX_EVENTS: Final = 1_000
MAX_KEYS: Final = 2_000
MAX_PROCESSES: Final = 4_000
_REMEMBERED_IDENTITIES: Final = 5_000
_SETTLED_MS: Final = 3_600_000
_MARKS: Final = {
    "node.notice": "notice",
    "node.suspect": "silent",
    "node.lost": "lost",
    "node.gone": "gone",
    "node.cordoned": "cordon",
    "pod.replaced": "replaced",
    "pod.recovered": "recovered",
    "cluster.built": "built",
    "cluster.discarded": "discarded",
    "cluster.recovered": "recovered",
    "lease.taken": "keeper",
    "config.set": "config",
    "config.deleted": "config",
}


class EventBook:
    """Owns the last events, oldest first; what several resources told stands there once."""

    def __init__(self) -> None:
        self._events: deque[EventRow] = deque(maxlen=MAX_EVENTS)
        self._seen: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    def take(self, record: LogRecord) -> None:
        """One record of `rayline.events`; what cannot be read is left out with a line."""
        if record.value is None:
            return
        identity = dict(record.headers).get(EVENT_ID)
        if identity is not None:
            known = (record.key or b"", identity)
            if known in self._seen:
                return
            self._seen[known] = None
            if len(self._seen) > _REMEMBERED_IDENTITIES:
                self._seen.popitem(last=False)
        try:
            event = decode_event(record.value)
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, EVENTS, error)
            return
        self.add(
            EventRow(
                record.timestamp_ms,
                record.offset,
                event.source,
                event.kind,
                event.subject,
                event.text,
                event.reason,
                _MARKS.get(event.kind),
            )
        )

    def add(self, row: EventRow) -> None:
        """In the order of their times: two topics are read, and one may be behind."""
        later = []
        while self._events and self._events[-1].at_ms > row.at_ms:
            later.append(self._events.pop())
        self._events.append(row)
        self._events.extend(reversed(later))

    def newest_first(self) -> tuple[EventRow, ...]:
        return tuple(reversed(self._events))

    def marks(self, since_ms: int) -> tuple[EventRow, ...]:
        """Those that belong on a chart, oldest first."""
        return tuple(event for event in self._events if event.mark is not None and event.at_ms >= since_ms)


class SettingsBook:
    """Owns the records of the config topic that count, what processes said of them, and the processes' last words."""

    def __init__(self, events: EventBook) -> None:
        self._events = events
        self._current: OrderedDict[str, Written] = OrderedDict()
        self._refused: OrderedDict[str, Written] = OrderedDict()
        self._answers: dict[str, dict[str, Answer]] = {}
        self._processes: OrderedDict[str, tuple[Presence, int]] = OrderedDict()

    def take_config(self, record: LogRecord) -> None:
        """One record of `rayline.config`."""
        written = read_record(record)
        change = written.change
        if change is None:
            _keep(self._refused, written.key, written)
        else:
            deleted = change.value is ABSENT and change.only is None
            self._refused.pop(written.key, None)
            self._answers.pop(written.key, None)
            if deleted:
                self._current.pop(written.key, None)
            else:
                _keep(self._current, written.key, written)
        self._events.add(_config_event(written))

    def take_applied(self, record: LogRecord) -> None:
        """One record of `rayline.config.applied`."""
        if record.value is None:
            self._processes.pop((record.key or b"").decode("utf-8", "replace").removeprefix(SEPARATOR), None)
            return
        try:
            found = decode_applied(record.value)
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, CONFIG_APPLIED, error)
            return
        if isinstance(found, Presence):
            self._processes[found.identity.process] = (found, record.timestamp_ms)
            self._processes.move_to_end(found.identity.process)
            if len(self._processes) > MAX_PROCESSES:
                self._processes.popitem(last=False)
            return
        told = self._answers.setdefault(found.key, {})
        if len(self._answers) > 2 * MAX_KEYS or len(told) > MAX_PROCESSES:
            self._answers = {key: answers for key, answers in self._answers.items() if key in self._current}
            told = self._answers.setdefault(found.key, {})
        told[found.process] = found

    def forget(self, now_ms: int) -> None:
        """Drop processes that have been silent for long."""
        old = [name for name, (_, at_ms) in self._processes.items() if now_ms - at_ms > MEMORY_SECONDS * 1000]
        for name in old:
            del self._processes[name]

    def rows(self, living: Collection[str]) -> tuple[ConfigRow, ...]:
        """The keys that are set, and those whose last record is refused; only answers of the `living` processes count."""
        return tuple(self._row(written, living) for _, written in sorted([*self._current.items(), *self._refused.items()]))

    def last_words(self, now_ms: int, heard_ms: int = 0) -> dict[str, LastWord]:
        """What each process said last, by name. Before `heard_ms` nobody could be heard: silence counts from then on."""
        return {
            name: LastWord(presence, max(0, now_ms - max(at_ms, heard_ms)) / 1000)
            for name, (presence, at_ms) in sorted(self._processes.items())
            if now_ms - at_ms <= MEMORY_SECONDS * 1000
        }

    def _row(self, written: Written, living: Collection[str]) -> ConfigRow:
        told = {process: answer for process, answer in self._answers.get(written.key, {}).items() if process in living}
        now = {process: answer for process, answer in told.items() if answer.version == written.version}
        value: Any = None
        if written.change is not None and written.change.value is not ABSENT:
            value = written.change.value
        return ConfigRow(
            key=written.key,
            version=written.version,
            at_ms=written.at_ms,
            value=value,
            author=written.author,
            refusal=written.refusal,
            applied=tuple(sorted(name for name, answer in now.items() if answer.verdict is Verdict.APPLIED)),
            overridden=tuple(sorted(name for name, answer in now.items() if answer.verdict is Verdict.OVERRIDDEN)),
            rejected={name: answer.reason or "" for name, answer in sorted(now.items()) if answer.verdict is Verdict.REJECTED},
        )


def process_rows(words: Iterable[LastWord]) -> tuple[ProcessRow, ...]:
    """Processes by their last words."""
    return tuple(
        ProcessRow(
            process=word.presence.identity.process,
            role=word.presence.identity.role.value,
            app=word.presence.identity.app,
            cluster=word.presence.identity.cluster,
            node=word.presence.identity.node,
            told_seconds_ago=round(word.silent_seconds, 1),
            silent=overdue(word),
            problem=word.presence.problem,
        )
        for word in words
    )


def lanes_of(words: Iterable[LastWord]) -> dict[tuple[str, str], LastWord]:
    """The lanes' last words, by app and lane."""
    lanes = (word for word in words if word.presence.identity.role is Role.LANE)
    return {(word.presence.identity.app or "", word.presence.identity.name): word for word in lanes}


def _keep(table: OrderedDict[str, Written], key: str, written: Written) -> None:
    table[key] = written
    table.move_to_end(key)
    if len(table) > MAX_KEYS:
        table.popitem(last=False)


def _config_event(written: Written) -> EventRow:
    """A change of the settings is an event for people as well."""
    by = f" by {written.author}" if written.author else ""
    change = written.change
    if change is None:
        kind, text = "config.refused", f"{written.key} was refused"
    elif change.value is ABSENT:
        kind, text = "config.deleted", f"{written.key} deleted{by}: back to the default"
    else:
        kind, text = "config.set", f"{written.key} = {value_text(change.value)[:200]}{by}"
    return EventRow(written.at_ms, written.version, "config", kind, written.key, text, written.refusal, _MARKS.get(kind))
