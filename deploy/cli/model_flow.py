"""One change of an app's models from the command line: chosen, written, tried and guarded, taken up by every node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import OutputFormat, note, show
from deploy.config_board import ConfigBoard
from deploy.config_change import Author
from deploy.config_flow import Care, ConfigFlow
from deploy.config_history import Entry, read_history
from deploy.model_choices import Choices, InForce, NodeServes, choices_text, in_force, nodes_of
from deploy.node_watch import NodeWatch
from rayline.bus import KafkaSettings
from rayline.models import choices_value, generation_at

# The new choices (None: there are none to go to), made of what is in force and the log of changes.
ChangeChoices = Callable[[InForce, list[Entry]], Choices | None]
_REPORT_MEMORY_SECONDS: Final = 5.0


class ModelFlow:
    """One change of an app's models, from what is in force to what came of it. Owns nothing that outlives `run`."""

    def __init__(
        self, settings: KafkaSettings, app: str, *, author: str | None, timeout: float, wait: bool, output: OutputFormat
    ) -> None:
        self._settings = settings
        self._app = app
        self._author = author
        self._timeout = timeout
        self._wait = wait
        self._output = output

    async def run(self, change: ChangeChoices, why: str, *, dry_run: bool, care: Care | None = None) -> ExitCode:
        """Raises as `ConfigFlow.run`."""
        now, choices = await self._choose(change)
        if choices is None or choices == now.choices:
            what = "nothing else was ever in force" if choices is None else f"{choices_text(choices)} in force already"
            show(self._output, {"app": self._app, "generation": now.generation, "changed": False}, f"{self._app}: {what}")
            return ExitCode.NO if choices is None else ExitCode.OK
        text = f"{self._app}: {choices_text(now.choices)} → {choices_text(choices)}"
        if dry_run:
            show(self._output, {"app": self._app, "dry_run": True, "change": text}, f"{text} (not written)")
            return ExitCode.OK
        note(text)
        return await self._make(now, choices, why, care)

    async def _choose(self, change: ChangeChoices) -> tuple[InForce, Choices | None]:
        async with ConfigBoard(self._settings) as board:
            now = in_force(board, self._app)
            return now, change(now, await read_history(self._settings, board))

    async def _make(self, now: InForce, choices: Choices, why: str, care: Care | None) -> ExitCode:

        started = time.monotonic()
        wait = self._wait or care is not None
        author = Author.here(self._settings, self._author)
        flow = ConfigFlow(settings=self._settings, author=author, timeout_seconds=self._timeout, say=note, wait=wait)
        record = now.with_choices(self._app, choices)
        if care is not None:
            # It is written more than once.
            record = replace(record, if_previous=None)
        report = await flow.run(record, care=care, why=why)
        generation = generation_at(report.outcome.version)
        alone = report.tried is not None and report.judgement is None
        nodes = await self._served(generation, started) if wait and not alone and report.good else []
        behind = [node for node in nodes if not node.serves(generation)]
        found = {
            **report.as_dict(),
            "app": self._app,
            "generation": generation,
            "models": choices_value(choices),
            "changed": True,
            "good": report.good and not behind,
            "nodes": [node_row(node) for node in nodes],
            "seconds": round(time.monotonic() - started, 3),
        }
        lines = [f"{self._app}: {choices_text(choices)}, generation {generation}" + ("" if wait else ", is written")]
        lines += [report.outcome.text()] if wait and not report.outcome.good else []
        lines += [report.judgement.text()] if report.judgement is not None else []
        lines += ["taken back"] if report.rolled_back else []
        lines += [f"{len(nodes) - len(behind)} of {len(nodes)} nodes serve it after {found['seconds']:.1f} s"] if nodes else []
        lines += [
            f"  {node.node} still serves {node.serving or 'its own'}: {node.reason or 'no reason known'}" for node in behind
        ]
        show(self._output, found, "\n".join(lines))
        return ExitCode.OK if not wait or found["good"] else ExitCode.NO

    async def _served(self, generation: int, started: float) -> list[NodeServes]:
        left = max(0.1, started + self._timeout - time.monotonic())
        return await read_nodes(self._settings, self._app, until=generation, seconds=left)


async def read_nodes(settings: KafkaSettings, app: str, *, until: int = 0, seconds: float = 0.0) -> list[NodeServes]:
    """Where the app runs, as nodes report it, once all of them serve a generation or time is up."""

    watch = NodeWatch(settings, since_seconds=_REPORT_MEMORY_SECONDS)
    await watch.start()
    try:
        await watch.caught_up()
        if until:
            try:
                async with asyncio.timeout(seconds):
                    await watch.wait_until(lambda: all(node.serves(until) for node in nodes_of(watch.joined(), app)))
            except TimeoutError:
                note(f"not all nodes serve generation {until} after {seconds:.0f} s")
        return nodes_of(watch.joined(), app)
    finally:
        await watch.close()


def node_row(node: NodeServes) -> dict[str, Any]:
    """For machines."""
    return {"node": node.node, "wanted": node.wanted, "serving": node.serving, "reason": node.reason}
