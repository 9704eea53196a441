"""One change of a setting: written, answered, tried on one process, guarded, taken back. The command and the console share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deploy.app_registry import AppRegistry
from deploy.config_board import ConfigBoard
from deploy.config_change import Author, Changer, Outcome, canary_of
from deploy.config_guard import Judgement, Margin, Quality, ResultGuard
from rayline.bus import KafkaSettings
from rayline.config import Change, Scope
from rayline.config.record import ABSENT


@dataclass(frozen=True, slots=True)
class Care:
    """How carefully a change is made. `canary`: one process first (`only` names it, or the first concerned is taken).
    `guard_seconds`: results are watched so long (None: not at all), and the change taken back when they get worse by `margin`."""

    canary: bool = False
    only: str | None = None
    guard_seconds: float | None = None
    margin: Margin = field(default_factory=Margin)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a change. `judgement` is the guard's, None without one or when the change was refused before it was watched;
    `tried` names the process that had it first."""

    outcome: Outcome
    judgement: Judgement | None = None
    rolled_back: bool = False
    tried: str | None = None

    @property
    def good(self) -> bool:
        return self.outcome.good and not self.rolled_back

    def as_dict(self) -> dict[str, Any]:
        guard = self.judgement.as_dict() if self.judgement is not None else None
        return {**self.outcome.as_dict(), "guard": guard, "rolled_back": self.rolled_back}


class ConfigFlow:
    """One change from the record written to what came of it. Owns nothing that outlives `run`; cancelled once a guarded
    change is on its way, and until it is judged, it takes the change back.

    `say` is told in words how it goes, `on_look` each second what is seen while it watches.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        author: Author,
        timeout_seconds: float,
        say: Callable[[str], None],
        wait: bool = True,
        on_look: Callable[[Quality], None] | None = None,
    ) -> None:
        """Without `wait` nobody is waited for, unless the change is tried or guarded."""
        self._settings = settings
        self._author = author
        self._timeout_seconds = timeout_seconds
        self._say = say
        self._wait = wait
        self._on_look = on_look

    async def run(self, change: Change, *, care: Care | None = None, why: str = "set") -> Report:
        """Raises ConfigError where there is no process to try it on, BusError where Kafka does not take it."""
        care = care or Care()
        async with (
            ConfigBoard(self._settings) as board,
            Changer(settings=self._settings, board=board, author=self._author) as changer,
        ):
            now = board.current(change.key)
            before = now.change.value if now is not None and now.change is not None else ABSENT
            tried = canary_of(board, change, care.only) if care.canary else None
            if care.guard_seconds is not None:
                return await self._guarded(changer, change, before, tried, care.guard_seconds, care.margin, why)
            if tried is None:
                return Report(await self._make(changer, change, why, wait=self._wait))
            outcome = await self._make(changer, replace(change, only=tried, otherwise=before), f"canary on {tried}")
            return Report(outcome, tried=tried)

    async def _make(self, changer: Changer, change: Change, why: str, *, wait: bool = True) -> Outcome:
        version = await changer.write(change, why=why)
        if not wait:
            return Outcome(str(change.key), version, ())
        return await changer.wait(change, version, timeout_seconds=self._timeout_seconds, why=why)

    async def _guarded(
        self, changer: Changer, change: Change, before: Any, tried: str | None, seconds: float, margin: Margin, why: str
    ) -> Report:
        first, called = change, f"{why}, guarded for {seconds:g} s"
        if tried is not None:
            first, called = replace(change, only=tried, otherwise=before), f"canary on {tried}"
        # The lanes of other apps may have the same name.
        lane = tried.split("/")[1:] if tried is not None and tried.startswith("lane/") else None
        apps, instance = (await self._apps(change), None) if lane is None else ([lane[0]], lane[1])
        async with ResultGuard(self._settings, apps, span_seconds=max(10.0, seconds), instance=instance) as guard:
            await guard.before()
            outcome, judgement = Outcome(str(change.key), -1, ()), None
            # Whoever interrupts us while it is written is heard once it is known what to take back.
            writing = asyncio.create_task(changer.write(first, why=called), name="guarded change")
            try:
                version = await asyncio.shield(writing)
                outcome = await changer.wait(first, version, timeout_seconds=self._timeout_seconds, why=called)
                if outcome.good:
                    self._say(f"{outcome.text()}\nwatching {', '.join(apps) or 'no app'} for {seconds:g} s …")
                    judgement = await guard.after(seconds, margin, self._on_look)
            finally:
                # Left halfway (Ctrl-C, SIGTERM), nobody would watch any more: back to what was known to be good.
                if judgement is None or judgement.reasons:
                    await self._take_back(changer, change, replace(outcome, version=await writing), before, judgement)
        if judgement is None or judgement.reasons:
            return Report(outcome, judgement, True, tried)
        await changer.note_outcome(change.key, outcome.version, "stays", judgement.as_dict(), "guard")
        if tried is not None:
            self._say(f"good on {tried}; now for all")
            outcome = await self._make(changer, change, f"after the canary on {tried}")
        return Report(outcome, judgement, False, tried)

    async def _take_back(
        self, changer: Changer, change: Change, outcome: Outcome, before: Any, judgement: Judgement | None
    ) -> None:
        evidence = judgement.as_dict() if judgement is not None else outcome.as_dict()
        await changer.note_outcome(change.key, outcome.version, "rolled back", evidence, "guard")
        back = await changer.take_back(change.key, outcome.version, before, why=f"version {outcome.version} made it worse")
        if back is None:
            self._say("somebody else changed the key meanwhile: their change stays")
        else:
            taken = await changer.wait(replace(change, value=before), back, timeout_seconds=self._timeout_seconds, why="rollback")
            self._say(f"rolled back:\n{taken.text()}")

    async def _apps(self, change: Change) -> Sequence[str]:
        if change.key.scope is Scope.APP:
            return list(change.key.place)
        async with AppRegistry(self._settings) as registry:
            return sorted(await registry.snapshot())
