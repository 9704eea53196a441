"""How a process follows the config topic: records in, appliers called, answers out. Decisions are `rayline.config.state`'s."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rayline.bus.connection import for_ever
from rayline.bus.log import CompactedLog, LogRecord, Publisher
from rayline.bus.settings import KafkaSettings
from rayline.config.answer import Answer, Presence, Verdict, shown_key
from rayline.config.contradictions import Contradictions
from rayline.config.declared import SETTINGS
from rayline.config.last_good import LastGood
from rayline.config.process import ProcessIdentity
from rayline.config.record import MAX_VALUE_BYTES
from rayline.config.setting import Setting
from rayline.config.state import ConfigState
from rayline.errors import BusError, RaylineError
from rayline.stalls import Stall
from rayline.topics import CONFIG, CONFIG_APPLIED, CONFIG_HISTORY

_log = logging.getLogger(__name__)

# Written by our own command, which keeps the log of changes itself.
AUTHOR_HEADER: Final = "rayline-author"
MAX_PENDING: Final = 20_000
MAX_NOTED: Final = 2_000
PRESENCE_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
START_SECONDS: Final = 5.0
_POLL_MS: Final = 200
# One turn of the event loop: a flood must not hold up the jobs.
_TURN_SECONDS: Final = 0.005
_LOGGED_A_TURN: Final = 3
_GOOD_BYE_SECONDS: Final = 1.0
_REPAIR_SECONDS: Final = (0.2, 1.0)
_REPLAY_SECONDS: Final = 60.0
_LOG_LEVEL: Final = "log.level"
# In the place of a record's offset.
_PRESENCE: Final = -1


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """`problem`: why the topic cannot be read now, None while it can; `seen`: the offset up to which it is read;
    `unsaid`: answers and notes for the log of changes that were dropped because too many waited."""

    problem: str | None
    seen: int
    unsaid: int


class ConfigWatch:
    """Follows `rayline.config` for one process.

    Owns a reader, a publisher and the state. Does not own what a setting does: each is wired with `on`. The log level is wired
    already. While the topic cannot be read, the last known values stay in force, and log, `status` and the process's presence
    say so.

    Life: `on` for each setting → `start` (reads the topic; every applier has been called with what is in force) → `run` beside
    the process's work until cancelled, which also says good-bye.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        identity: ProcessIdentity,
        base: Mapping[str, Any] | None = None,
        declared: Mapping[str, Setting] = SETTINGS,
        start_seconds: float = START_SECONDS,
        presence_seconds: float = PRESENCE_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        """`base` holds what the process was started with (manifest, options), by setting."""
        self._settings = settings
        self._identity = identity
        self._level = {_LOG_LEVEL: logging.getLevelName(logging.getLogger().level)} if logging.getLogger().level else {}
        self._state = ConfigState(identity=identity, declared=declared, base={**self._level, **(base or {})})
        self._appliers: dict[str, Callable[[Any], None]] = {_LOG_LEVEL: logging.getLogger().setLevel}
        self._declared = declared
        self._start_seconds = start_seconds
        self._presence_seconds = presence_seconds
        self._check_seconds = check_seconds
        self._reader: CompactedLog | None = None
        self._running: asyncio.Task[None] | None = None
        self._last_good = LastGood(declared) if identity.registrar else None
        self._repair_at = float("inf")
        self._pending: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._noted: list[bytes] = []
        self._work = asyncio.Event()
        self._problem: str | None = None
        self._unsaid = 0
        self._metrics: str | None = None
        self._stalls: tuple[Stall, ...] = ()
        self._stalls_at = 0.0

    def on(self, name: str, apply: Callable[[Any], None]) -> ConfigWatch:
        """Call `apply` with each new effective value of a setting (`NodeValues` for one about nodes, `AppValues` about apps).

        It may raise a RaylineError or ValueError: the record is then answered as rejected with its message, and nothing changed.
        Raises KeyError for a setting that is not declared.
        """
        self._appliers[self._declared[name].name] = apply
        return self

    def rule_out(self, contradictions: Contradictions) -> ConfigWatch:
        """What of this process's values contradicts each other. Where a record comes to do so because another manifest is in
        force, it is answered as rejected, and tried again with each change."""
        self._state.contradictions = contradictions
        return self

    def announce(self, *, metrics: str | None) -> None:
        """Let the process's presence tell where its metrics are shown (HOST:PORT)."""
        self._metrics = metrics
        self._tell_presence()

    def tell_stalls(self, stalls: Sequence[Stall]) -> None:
        """Let the process's presence tell at once what makes no progress here; empty: all goes on again."""
        self._stalls, self._stalls_at = tuple(stalls), time.monotonic()
        self._tell_presence()

    @property
    def status(self) -> ConfigStatus:
        return ConfigStatus(self._problem, self._state.seen, self._unsaid)

    def effective(self, name: str) -> Any:
        """What is in force for a setting of this process."""
        return self._state.effective()[name].value

    def rebase(self, base: Mapping[str, Any]) -> None:
        """Another manifest is in force underneath the records."""
        answers = self._state.rebase({**self._level, **base}, self._apply)
        for answer in answers:
            if answer.verdict is Verdict.REJECTED:
                _log.warning("config %s, version %d, counts no longer: %s", answer.key, answer.version, answer.reason)
        self._say(answers)
        self._tell_presence()

    async def start(self) -> None:
        """Apply what holds, then read the topic to its present end; where it cannot be read, go on without, and say so."""
        self._state.start(self._apply)
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._open()
        except (BusError, TimeoutError) as error:
            await self._close_reader()
            self._cannot_read(error)

    async def run(self) -> None:
        """Follow the topic and answer, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(), name="config reader")
                tasks.create_task(self._speak(), name="config answers")
        finally:
            await self._close_reader()

    async def __aenter__(self) -> ConfigWatch:
        """`start`, and `run` beside what follows."""
        await self.start()
        self._running = asyncio.create_task(self.run(), name="config")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _open(self) -> None:
        """A reader that stands at the end of what the topic held when it was opened."""
        self._reader = CompactedLog(
            settings=self._settings,
            topic=CONFIG,
            client_id=f"rayline-config-{self._identity.process.replace('/', '-')}",
            start_timeout_seconds=self._start_seconds,
        )
        await self._reader.start()
        self._state.begin_replay()
        while not self._reader.caught_up.is_set():
            await self._take_all(await self._reader.getmany(timeout_ms=_POLL_MS), live=False)
        self._say(self._state.end_replay(self._apply))
        if self._problem is not None:
            _log.warning("the topic %s can be read again", CONFIG)
        self._problem = None
        self._tell_presence()

    async def _follow(self) -> None:
        await for_ever((BusError, TimeoutError), pause_seconds=RETRY_SECONDS, tell=self._broken_off)(self._read_while_connected)

    async def _read_while_connected(self) -> None:
        if self._reader is None:
            async with asyncio.timeout(_REPLAY_SECONDS):
                await self._open()
        await self._read_on()

    async def _broken_off(self, error: BaseException) -> None:
        await self._close_reader()
        self._cannot_read(error)

    async def _read_on(self) -> None:
        assert self._reader is not None
        check_at = time.monotonic() + self._check_seconds
        while True:
            records = await self._reader.getmany(timeout_ms=_POLL_MS)
            await self._take_all(records, live=True)
            if not records and time.monotonic() >= check_at:
                await self._reader.check(self._check_seconds)
                check_at = time.monotonic() + self._check_seconds

    async def _close_reader(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.stop()

    async def _take_all(self, records: Sequence[LogRecord], *, live: bool) -> None:
        refused, turn_ends = 0, time.monotonic() + _TURN_SECONDS
        for record in records:
            answers = self._state.take(key=record.key, value=record.value, version=record.offset, apply=self._apply)
            for answer in answers:
                rejected = answer.verdict is Verdict.REJECTED
                refused += rejected
                if rejected and refused <= _LOGGED_A_TURN:
                    _log.warning("config %s, version %d, is refused: %s", answer.key, answer.version, answer.reason)
                elif not rejected and live:
                    _log.info(
                        "config %s, version %d: %s, in force %r", answer.key, answer.version, answer.verdict, answer.effective
                    )
            self._say(answers)
            if self._last_good is not None:
                self._last_good.take(key=record.key, value=record.value, version=record.offset)
            if live and self._identity.registrar and AUTHOR_HEADER not in dict(record.headers):
                self._note(record, answers)
            if time.monotonic() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN_SECONDS
        if self._last_good is not None and self._last_good.damaged and self._repair_at == float("inf"):
            # A little apart from other registrars: the first one's record makes the others' superfluous.
            self._repair_at = time.monotonic() + random.uniform(*_REPAIR_SECONDS)
            self._work.set()
        if refused > _LOGGED_A_TURN:
            _log.warning("config: %d more records are refused", refused - _LOGGED_A_TURN)
        if records and live:
            self._tell_presence()

    def _apply(self, name: str, value: Any) -> str | None:
        apply = self._appliers.get(name)
        if apply is None:
            return "this process does not take it while it runs"
        try:
            apply(value)
        except (RaylineError, ValueError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a fault in what applies one setting must not end the process
            _log.exception("the setting %s could not be applied", name)
            return f"a fault of Rayline itself: {error!r}"
        return None

    def _cannot_read(self, error: BaseException) -> None:
        problem = str(error) or "no answer in time"
        if self._problem is None:
            _log.error("the topic %s cannot be read, the last known values stay in force: %s", CONFIG, problem)
        self._problem = problem
        self._tell_presence()

    def _note(self, record: LogRecord, answers: Sequence[Answer]) -> None:
        """For the log of changes: what another client than ours wrote."""
        if len(self._noted) >= MAX_NOTED:
            self._unsaid += 1
            return
        value = record.value
        shown = None if value is None else value[:MAX_VALUE_BYTES].decode("utf-8", "backslashreplace")[:1000]
        rejected = next((answer for answer in answers if answer.verdict is Verdict.REJECTED), None)
        self._noted.append(
            json.dumps(
                {
                    "v": 1,
                    "kind": "change",
                    "key": shown_key(record.key),
                    "version": record.offset,
                    "at_ms": record.timestamp_ms,
                    "value": shown,
                    "author": None,
                    "seen_by": self._identity.process,
                    "outcome": "rejected" if rejected is not None else None,
                    "reason": rejected.reason if rejected is not None else None,
                },
                ensure_ascii=False,
            ).encode()
        )
        self._work.set()

    def _say(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._enqueue((answer.record_key, answer.version), answer.encode())

    def _tell_presence(self) -> None:
        values = {name: (now.value, now.source) for name, now in self._state.effective().items()}
        older_seconds = time.monotonic() - self._stalls_at
        stalls = tuple(replace(stall, seconds=stall.seconds + older_seconds) for stall in self._stalls)
        presence = Presence(
            self._identity,
            values,
            self._state.seen,
            self._problem,
            self._presence_seconds,
            self._metrics,
            socket.gethostname(),
            stalls,
        )
        self._enqueue((presence.record_key, _PRESENCE), presence.encode())

    def _enqueue(self, key: tuple[bytes, int], value: bytes) -> None:
        """The newest word on a record counts; when far too many wait, the oldest is dropped and counted."""
        self._pending.pop(key, None)
        self._pending[key] = value
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
            self._unsaid += 1
        self._work.set()

    async def _speak(self) -> None:
        await for_ever(
            BusError,
            pause_seconds=RETRY_SECONDS,
            tell=lambda error: _log.warning("answers to config records wait: %s", error),
        )(self._speak_while_connected)

    async def _speak_while_connected(self) -> None:
        async with Publisher(
            settings=self._settings, client_id=f"rayline-config-{self._identity.process.replace('/', '-')}"
        ) as publisher:
            await self._speak_with(publisher)

    async def _speak_with(self, publisher: Publisher) -> None:
        try:
            while True:
                presence_at = time.monotonic() + self._presence_seconds
                try:
                    async with asyncio.timeout(min(presence_at, self._repair_at) - time.monotonic()):
                        await self._work.wait()
                except TimeoutError:
                    if time.monotonic() >= presence_at:
                        self._tell_presence()
                self._work.clear()
                await self._send(publisher)
                if time.monotonic() >= self._repair_at:
                    await self._repair(publisher)
        except asyncio.CancelledError:
            await self._say_good_bye(publisher)
            raise

    async def _repair(self, publisher: Publisher) -> None:
        self._repair_at = float("inf")
        if self._last_good is None:
            return
        for change in self._last_good.repairs():
            _log.warning("config %s: what counted before version %s is written again", change.key, change.if_previous)
            author = self._identity.process.encode()
            await publisher.publish(
                CONFIG, key=str(change.key).encode(), value=change.encode(), headers=[(AUTHOR_HEADER, author)]
            )

    async def _say_good_bye(self, publisher: Publisher) -> None:
        try:
            async with asyncio.timeout(_GOOD_BYE_SECONDS):
                await publisher.publish(CONFIG_APPLIED, key=Presence(self._identity).record_key, value=None)
        except (BusError, TimeoutError) as error:
            _log.info("%s left without a good-bye: %r", self._identity.process, error)

    async def _send(self, publisher: Publisher) -> None:
        pending, self._pending = self._pending, OrderedDict()
        noted, self._noted = self._noted, []
        try:
            deliveries = [await publisher.send(CONFIG_APPLIED, key=key, value=value) for (key, _), value in pending.items()]
            deliveries += [await publisher.send(CONFIG_HISTORY, key=None, value=value) for value in noted]
            await asyncio.gather(*deliveries)
        except BaseException:
            # What may not have arrived is said again; anything newer under the same key counts instead.
            self._pending = OrderedDict({**pending, **self._pending})
            self._noted = [*noted, *self._noted]
            self._unsaid += max(0, len(self._noted) - MAX_NOTED)
            del self._noted[MAX_NOTED:]
            # The next connection shall not wait for the next piece of news.
            self._work.set()
            raise
