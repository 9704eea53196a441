"""One change of a setting from the command line: written, answered, tried on one process, guarded, taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deploy.app_registry import AppRegistry
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import OutputFormat, note, show
from deploy.config_board import ConfigBoard
from deploy.config_change import Author, Changer, Outcome, canary_of
from deploy.config_guard import Judgement, Margin, ResultGuard
from rayline.bus import KafkaSettings
from rayline.config import Change, Scope
from rayline.config.record import ABSENT


class ConfigFlow:
    """One change from the record written to what came of it. Owns nothing that outlives `run`."""

    def __init__(self, settings: KafkaSettings, author: str | None, timeout: float, wait: bool, output: OutputFormat) -> None:
        self._settings = settings
        self._author = author
        self._timeout = timeout
        self._wait = wait
        self._output = output

    async def run(
        self,
        change: Change,
        *,
        canary: bool = False,
        only: str | None = None,
        guard_seconds: float | None = None,
        margin: Margin | None = None,
        why: str = "set",
    ) -> ExitCode:
        author = Author.here(self._settings, self._author)
        async with (
            ConfigBoard(self._settings) as board,
            Changer(settings=self._settings, board=board, author=author) as changer,
        ):
            now = board.current(change.key)
            before = now.change.value if now is not None and now.change is not None else ABSENT
            tried = canary_of(board, change, only) if canary else None
            if tried is None and guard_seconds is None:
                outcome = await self._make(changer, change, why)
                return self._tell(outcome, None)
            first = replace(change, only=tried, otherwise=before) if tried is not None else change
            if guard_seconds is None:
                outcome = await self._make(changer, first, f"canary on {tried}")
                note(
                    f"only {tried} has it; for all: rayline config set {change.key} …; back: rayline config rollback {change.key}"
                )
                return self._tell(outcome, None)
            assert margin is not None
            return await self._guarded(changer, change, first, before, tried, guard_seconds, margin)

    async def _make(self, changer: Changer, change: Change, why: str) -> Outcome:
        version = await changer.write(change, why=why)
        if not self._wait:
            return Outcome(str(change.key), version, ())
        return await changer.wait(change, version, timeout_seconds=self._timeout, why=why)

    async def _guarded(
        self,
        changer: Changer,
        change: Change,
        first: Change,
        before: Any,
        tried: str | None,
        seconds: float,
        margin: Margin,
    ) -> ExitCode:
        apps = await self._apps(change)
        instance = tried.split("/")[2] if tried is not None and tried.startswith("lane/") else None
        async with ResultGuard(self._settings, apps, span_seconds=max(10.0, seconds), instance=instance) as guard:
            await guard.before()
            outcome = await self._make(changer, first, f"guarded for {seconds:g} s" if tried is None else f"canary on {tried}")
            judgement = None
            try:
                if outcome.good:
                    note(f"{outcome.text()}\nwatching {', '.join(apps) or 'no app'} for {seconds:g} s …")
                    judgement = await guard.after(seconds, margin)
            finally:
                # Left halfway (Ctrl-C), nobody would watch any more: back to what was known to be good.
                if judgement is None or judgement.reasons:
                    await self._take_back(changer, change, outcome, before, judgement)
        if judgement is None or judgement.reasons:
            return self._tell(outcome, judgement, rolled_back=True)
        await changer.note_outcome(change.key, outcome.version, "stays", judgement.as_dict(), "guard")
        if tried is not None:
            note(f"good on {tried}; now for all")
            outcome = await self._make(changer, change, f"after the canary on {tried}")
        return self._tell(outcome, judgement)

    async def _take_back(
        self, changer: Changer, change: Change, outcome: Outcome, before: Any, judgement: Judgement | None
    ) -> None:
        evidence = judgement.as_dict() if judgement is not None else outcome.as_dict()
        await changer.note_outcome(change.key, outcome.version, "rolled back", evidence, "guard")
        back = await changer.take_back(change.key, outcome.version, before, why=f"version {outcome.version} made it worse")
        if back is None:
            note("somebody else changed the key meanwhile: their change stays")
        else:
            taken = await changer.wait(replace(change, value=before), back, timeout_seconds=self._timeout, why="rollback")
            note(f"rolled back:\n{taken.text()}")

    async def _apps(self, change: Change) -> Sequence[str]:
        if change.key.scope is Scope.APP:
            return list(change.key.place)
        async with AppRegistry(self._settings) as registry:
            return sorted(await registry.snapshot())

    def _tell(self, outcome: Outcome, judgement: Judgement | None, *, rolled_back: bool = False) -> ExitCode:
        parts = [outcome.text()] if self._wait else [f"{outcome.key}, version {outcome.version}, is written"]
        parts += [judgement.text()] if judgement is not None else []
        record = {
            **outcome.as_dict(),
            "guard": judgement.as_dict() if judgement is not None else None,
            "rolled_back": rolled_back,
        }
        show(self._output, record, "\n".join(parts))
        return ExitCode.OK if not self._wait or (outcome.good and not rolled_back) else ExitCode.NO
