"""The two interfaces behind the pages: who tells, and who acts when a person asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.config_change import Effect
from deploy.config_flow import Care, Report
from deploy.config_guard import Quality
from deploy.config_history import Entry
from deploy.dead_letters import DeadLetter
from deploy.job_search import Found
from deploy.observation.snapshot import NodeSeries, Series, Snapshot
from deploy.printed_lines import JobLines
from rayline.config import Change, Presence
from rayline.results import Result


class Source(Protocol):
    """Who tells. `snapshot` is the newest one and costs nothing; `version` grows with each."""

    @property
    def version(self) -> int: ...

    def snapshot(self) -> Snapshot: ...

    def series(self, app: str | None, seconds: int) -> Series: ...

    def node_series(self, key: str) -> NodeSeries: ...


@dataclass(frozen=True, slots=True)
class ConfigLook:
    """The live settings at one moment: what is set (key to value as JSON), who lives, and the log of changes, oldest first."""

    values: Mapping[str, str]
    presences: Mapping[str, Presence]
    history: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Letters:
    """The newest dead letters of an app, newest first, and how many were left out because there are more."""

    letters: Sequence[DeadLetter]
    left_out: int


class Desk(Protocol):
    """Who acts. Every method may raise a RaylineError, or TimeoutError, whose text is for the person who asked."""

    async def find_job(self, app: str, job_id: str, *, hours: float) -> Found: ...

    async def printed(self, result: Result) -> JobLines:
        """What the function printed for a job, the last lines of it."""

    async def dead_letters(self, app: str) -> Letters: ...

    async def replay(self, app: str, letters: Sequence[str], *, author: str) -> Sequence[tuple[str, str]]: ...

    async def reveal(self, app: str, letter: str, *, author: str) -> None:
        """Note who looked at a payload; it is not shown when that fails."""

    async def config(self) -> ConfigLook: ...

    async def preview(self, change: Change) -> Sequence[Effect]: ...

    async def change(
        self,
        change: Change,
        *,
        author: str,
        care: Care,
        say: Callable[[str], None],
        on_look: Callable[[Quality], None],
    ) -> Report:
        """Make a change as carefully as asked. It goes on when nobody waits any more; what is told then is told to nobody."""

    async def cordon(self, node: str, *, cordoned: bool, author: str) -> str: ...

    async def drain(self, node: str, *, author: str) -> str: ...
