"""The config topic and what processes say of it, as one picture that a command can look at, wait on, or follow."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.config import (
    SETTINGS,
    Answer,
    Change,
    ConfigKey,
    Presence,
    ProcessIdentity,
    RefusedRecord,
    decode_applied,
    parse_key,
)
from rayline.config.answer import SEPARATOR, shown_key
from rayline.config.record import ABSENT, read_change, setting_of
from rayline.config.resolution import DEFAULT, resolve
from rayline.config.setting import About, Scope
from rayline.config.watch import AUTHOR_HEADER
from rayline.errors import FormatError
from rayline.topics import CONFIG, CONFIG_APPLIED

_log = logging.getLogger(__name__)

_POLL_MS: Final = 100
# A process that was silent for so many of its own intervals is gone.
_BEATS_MISSED: Final = 3
HOST_HEADER: Final = "rayline-host"
CLIENT_HEADER: Final = "rayline-client-id"
PRINCIPAL_HEADER: Final = "rayline-principal"


@dataclass(frozen=True, slots=True)
class Written:
    """One record of the config topic. `change` is None where it cannot be used, and `refusal` says why."""

    key: str
    version: int
    at_ms: int
    value: bytes | None
    change: Change | None
    refusal: str | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def author(self) -> str | None:
        return self.headers.get(AUTHOR_HEADER) or (self.change.author if self.change is not None else None)

    def as_dict(self) -> dict[str, Any]:
        value = None if self.value is None else self.value.decode("utf-8", "backslashreplace")[:1000]
        return {
            "key": self.key,
            "version": self.version,
            "at_ms": self.at_ms,
            "value": value,
            "author": self.author,
            "host": self.headers.get(HOST_HEADER),
            "client_id": self.headers.get(CLIENT_HEADER),
            "principal": self.headers.get(PRINCIPAL_HEADER),
            "refusal": self.refusal,
        }


@dataclass(frozen=True, slots=True)
class InForce:
    """What one process says is in force there."""

    process: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class LastWord:
    """What a process said of itself last, and how long ago."""

    presence: Presence
    silent_seconds: float


class Presences:
    """The processes as they tell of themselves. Owns the last word of each."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Presence, int]] = {}

    def take(self, record: LogRecord) -> Answer | None:
        """One record of `rayline.config.applied`; returns it where it is an answer. What cannot be read is left out."""
        if record.value is None:
            self._last.pop((record.key or b"").decode("utf-8", "replace").removeprefix(SEPARATOR), None)
            return None
        try:
            found = decode_applied(record.value)
        except FormatError as error:
            _log.warning("a record of %s is left out: %s", CONFIG_APPLIED, error)
            return None
        if isinstance(found, Answer):
            return found
        self._last[found.identity.process] = (found, record.timestamp_ms)
        return None

    def living(self) -> dict[str, Presence]:
        """Those that spoke lately, by name."""
        now_ms = time.time() * 1000
        return {
            process: presence
            for process, (presence, at_ms) in sorted(self._last.items())
            if now_ms - at_ms < presence.refresh_seconds * 1000 * _BEATS_MISSED
        }

    def last_words(self) -> dict[str, LastWord]:
        """Everybody who has not said good-bye, by name, however long they have been silent."""
        now_ms = time.time() * 1000
        return {
            process: LastWord(presence, max(0.0, now_ms - at_ms) / 1000)
            for process, (presence, at_ms) in sorted(self._last.items())
        }


async def read_last_words(settings: KafkaSettings) -> dict[str, LastWord]:
    """Everybody who has not said good-bye. Raises BusError when Kafka does not tell."""
    return (await _read_presences(settings)).last_words()


async def read_presences(settings: KafkaSettings) -> dict[str, Presence]:
    """The living processes now. Raises BusError when Kafka does not tell."""
    return (await _read_presences(settings)).living()


async def _read_presences(settings: KafkaSettings) -> Presences:
    found = Presences()
    async with CompactedLog(settings=settings, topic=CONFIG_APPLIED, client_id="rayline-config-command") as log:
        while not log.caught_up.is_set():
            for record in await log.getmany(timeout_ms=_POLL_MS):
                found.take(record)
    return found


async def read_app_values(settings: KafkaSettings, setting: str) -> dict[str, Any]:
    """What is set of a setting, by app; not what one process alone has. Raises BusError when Kafka does not tell."""
    found: dict[str, Any] = {}
    async with CompactedLog(settings=settings, topic=CONFIG, client_id="rayline-config-command") as log:
        while not log.caught_up.is_set():
            for record in await log.getmany(timeout_ms=_POLL_MS):
                change = read_record(record).change
                if change is not None and change.key.setting == setting and change.key.scope is Scope.APP:
                    found[change.key.place[0]] = change.value_for("")
    return {app: value for app, value in found.items() if value is not ABSENT}


class ConfigBoard:
    """Owns two readers and what they read. Does not own any change.

    Life: `async with` (everything that stands in the topics now is read) → look, `follow` beside it, `wait_until`.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._config = CompactedLog(settings=settings, topic=CONFIG, client_id="rayline-config-command")
        self._applied = CompactedLog(settings=settings, topic=CONFIG_APPLIED, client_id="rayline-config-command")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.records: list[Written] = []
        self.answers: dict[tuple[int, str], Answer] = {}
        self._presences = Presences()
        self.on_record: Callable[[Written], None] | None = None
        self.on_answer: Callable[[Answer], None] | None = None

    async def __aenter__(self) -> ConfigBoard:
        try:
            await self._config.start()
            await self._applied.start()
            while not (self._config.caught_up.is_set() and self._applied.caught_up.is_set()):
                await self._read()
        except BaseException:
            await self._stop()
            raise
        self._task = asyncio.create_task(self._follow(), name="config board")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._stop()

    async def wait_until(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Until `condition` holds; False when time is up. Raises BusError when a topic cannot be read any more."""
        assert self._task is not None
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if self._task.done():
                self._task.result()
            self._changed.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({changed, self._task}, timeout=min(left, 1.0), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        return True

    def current(self, key: ConfigKey) -> Written | None:
        """The valid record that counts under a key; None where there is none, or it was deleted."""
        found = None
        for written in self.records:
            if written.change is not None and written.change.key == key:
                found = written
        return None if found is None or found.change is None or _deletes(found.change) else found

    def newest_version(self, key: ConfigKey) -> int | None:
        """The offset of the newest record under a key, valid or not."""
        return max((written.version for written in self.records if written.key == str(key)), default=None)

    def set_keys(self) -> list[Written]:
        """The records that count, by key."""
        keys = {written.change.key for written in self.records if written.change is not None}
        return [written for key in sorted(keys, key=str) if (written := self.current(key)) is not None]

    def presences(self) -> dict[str, Presence]:
        """The processes that live, by name."""
        return self._presences.living()

    def concerned(self, key: ConfigKey) -> list[ProcessIdentity]:
        """The living processes that will answer a valid record under this key."""
        setting = setting_of(key, SETTINGS)
        return [presence.identity for presence in self.presences().values() if key.concerns(presence.identity, setting)]

    def in_force(self, key: ConfigKey) -> list[InForce]:
        """What each process that the key concerns has in force there."""
        setting = SETTINGS[key.setting]
        if setting.about is About.NODE:
            covering = [ConfigKey(Scope.CLUSTER, key.place[:1], key.setting), ConfigKey(Scope.NODE, key.place, key.setting)]
            value, source = setting.default, DEFAULT
            for other in covering:
                written = self.current(other)
                if written is not None and written.change is not None:
                    value, source = written.change.value, written.key
            return [InForce(identity.process, value, source) for identity in self.concerned(key)]
        if setting.about is About.APP:
            written = self.current(key)
            change = Change(key) if written is None or written.change is None else written.change
            return [
                InForce(identity.process, now.value, now.source)
                for identity in self.concerned(key)
                for now in (resolve(setting, {key: change.value_for(identity.process)}, {}),)
            ]
        present = self.presences()
        return [
            InForce(identity.process, *present[identity.process].values.get(key.setting, (None, "not told yet")))
            for identity in self.concerned(key)
        ]

    async def _follow(self) -> None:
        while True:
            await self._read()

    async def _read(self) -> None:
        """A little of both topics; whichever is quiet does not hold up the other for long."""
        changes, answers = await asyncio.gather(
            self._config.getmany(timeout_ms=_POLL_MS), self._applied.getmany(timeout_ms=_POLL_MS)
        )
        for record in changes:
            written = read_record(record)
            self.records.append(written)
            if self.on_record is not None:
                self.on_record(written)
        for record in answers:
            self._take_answer(record)
        if changes or answers:
            self._changed.set()

    def _take_answer(self, record: LogRecord) -> None:
        answer = self._presences.take(record)
        if answer is None:
            return
        self.answers[answer.version, answer.process] = answer
        if self.on_answer is not None:
            self.on_answer(answer)

    async def _stop(self) -> None:
        await self._applied.stop()
        await self._config.stop()


def read_record(record: LogRecord) -> Written:
    """A record of the config topic as a command shows it, usable or not."""
    change, refusal = None, None
    try:
        key = parse_key(record.key)
        change = read_change(key, setting_of(key, SETTINGS), record.value)
    except RefusedRecord as error:
        refusal = str(error)
    headers = {name: value.decode("utf-8", "replace")[:200] for name, value in record.headers if value is not None}
    return Written(shown_key(record.key), record.offset, record.timestamp_ms, record.value, change, refusal, headers)


def value_text(value: Any) -> str:
    """A value as one would type it."""
    return "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False)


def _deletes(change: Change) -> bool:
    return change.value is ABSENT and change.only is None
