"""What a person asks for, done through Kafka: searches, replays, settings, orders; and who did it, in the event log."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from deploy.config_board import HOST_HEADER, ConfigBoard, value_text
from deploy.config_change import Author, Effect, preview
from deploy.config_flow import Care, ConfigFlow, Report
from deploy.config_guard import Quality
from deploy.config_history import read_history
from deploy.console.desk import ConfigLook, Letters
from deploy.dead_letters import DeadLetter, read_dead_letters, replay
from deploy.job_search import Found, search
from deploy.node_orders import cordon_node, drain_node
from deploy.printed_lines import JobLines, lines_of
from rayline.bus import KafkaSettings, Publisher
from rayline.config import Change
from rayline.config.record import ABSENT
from rayline.config.watch import AUTHOR_HEADER
from rayline.events import Event, encode_event
from rayline.results import Result
from rayline.topics import EVENTS

_CLIENT_ID: Final = "rayline-console"
_SEARCH_SECONDS: Final = 20.0
_READ_SECONDS: Final = 20.0
_ANSWER_SECONDS: Final = 10.0
_MOST_RESULTS: Final = 100
_MOST_LETTERS: Final = 500
_MOST_LINES: Final = 200
_MOST_SET: Final = 500
# Each search reads a topic: so many people may do that at once, the others wait.
_AT_ONCE: Final = 2
_WATCHED_AT_ONCE: Final = 4


class KafkaDesk:
    """Owns the changes under way, and no connection between two requests. Does not own the picture of the platform, nor who may
    ask.

    Every change is told in `rayline.events` under `console.…` before it is made, with its author: what cannot
    be noted is not done.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._watching = asyncio.Semaphore(_WATCHED_AT_ONCE)
        self._changes: set[asyncio.Task[Report]] = set()

    async def find_job(self, app: str, job_id: str, *, hours: float) -> Found:
        """Results of that job id, or of that record; ends after twenty seconds with what was found by then."""
        async with self._turn:
            return await search(
                self._settings,
                app,
                job_id,
                since_seconds=hours * 3600,
                limit_seconds=_SEARCH_SECONDS,
                most=_MOST_RESULTS,
            )

    async def printed(self, result: Result) -> JobLines:
        """The last two hundred lines, found as `rayline explain` finds them; ends after twenty seconds."""
        async with self._turn:
            return await lines_of(self._settings, result, most=_MOST_LINES)

    async def dead_letters(self, app: str) -> Letters:
        """The newest dead letters, newest first."""
        kept: deque[DeadLetter] = deque(maxlen=_MOST_LETTERS)
        count = 0
        async with self._turn, asyncio.timeout(_READ_SECONDS):
            async for dead in read_dead_letters(self._settings, app):
                kept.append(dead)
                count += 1
        return Letters(list(reversed(kept)), count - len(kept))

    async def replay(self, app: str, letters: Sequence[str], *, author: str) -> Sequence[tuple[str, str]]:
        """Submit letters again."""
        await self._note(author, "replay", app, f"submits {len(letters)} dead letters of {app} again", ", ".join(letters))
        async with self._turn:
            return await replay(self._settings, app, set(letters))

    async def reveal(self, app: str, letter: str, *, author: str) -> None:
        """Note who looked at a payload."""
        await self._note(author, "payload-shown", app, f"looks into the dead letter {letter} of {app}")

    async def config(self) -> ConfigLook:
        """Everything that is known of the live settings."""
        async with self._turn, asyncio.timeout(_READ_SECONDS), ConfigBoard(self._settings) as board:
            history = await read_history(self._settings, board)
            values = {
                written.key: value_text(written.change.value)
                for written in board.set_keys()[:_MOST_SET]
                if written.change is not None
            }
            return ConfigLook(values, board.presences(), history)

    async def preview(self, change: Change) -> Sequence[Effect]:
        """What a change would do; nothing is written."""
        async with self._turn, asyncio.timeout(_READ_SECONDS), ConfigBoard(self._settings) as board:
            return preview(board, change)

    async def change(
        self,
        change: Change,
        *,
        author: str,
        care: Care,
        say: Callable[[str], None],
        on_look: Callable[[Quality], None],
    ) -> Report:
        """Write a change, wait for what each process says of it, and watch results where that was asked for. A browser that is
        closed ends nothing; the console itself, ending, takes back what it still watches."""
        said = f"deletes {change.key}" if change.value is ABSENT else f"sets {change.key} to {value_text(change.value)}"
        said += " (canary)" if care.canary else ""
        said += f", guarded for {care.guard_seconds:g} s" if care.guard_seconds is not None else ""
        await self._note(author, "config", str(change.key), said)
        flow = ConfigFlow(
            settings=self._settings,
            author=Author.here(self._settings, author),
            timeout_seconds=_ANSWER_SECONDS,
            say=say,
            on_look=on_look,
        )
        turn = self._watching if care.guard_seconds is not None else self._turn

        async def make() -> Report:
            async with turn:
                return await flow.run(change, care=care, why="console")

        making = asyncio.create_task(make(), name=f"change of {change.key}")
        self._changes.add(making)
        making.add_done_callback(self._changes.discard)
        return await asyncio.shield(making)

    async def cordon(self, node: str, *, cordoned: bool, author: str) -> str:
        """Keep new work away from a node, or lift that."""
        word = "cordon" if cordoned else "uncordon"
        await self._note(author, word, node, f"{word}s {node}")
        answered = await cordon_node(self._settings, node, cordoned=cordoned)
        return f"{answered.node} {'gets no new work' if cordoned else 'gets new work again'}"

    async def drain(self, node: str, *, author: str) -> str:
        """Have a node end its work and leave."""
        await self._note(author, "drain", node, f"drains {node}")
        answered = await drain_node(self._settings, node, gone_seconds=None)
        return f"{answered.node} is {answered.state.name.lower()}"

    async def _note(self, author: str, kind: str, subject: str, did: str, reason: str | None = None) -> None:
        event = Event("console", f"console.{kind}", subject, f"{author} {did}", reason)
        headers = [(AUTHOR_HEADER, author.encode()), (HOST_HEADER, socket.gethostname().encode())]
        async with Publisher(settings=self._settings, client_id=_CLIENT_ID) as publisher:
            await (await publisher.send(EVENTS, key=event.key, value=encode_event(event), headers=headers))
