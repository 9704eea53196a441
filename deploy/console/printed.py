"""What the function printed for one job, and its traceback, as a part of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nicegui import ui

from deploy.console import parts, shown
from deploy.console.desk import Desk
from deploy.printed_lines import JobLines
from rayline.errors import RaylineError
from rayline.results import Result

MOST_TEXT_CHARS: Final = 8_192


class Printed:
    """Owns its place in the card of a job. Does not own how lines are found.

    Life: made within the card, with a button → `read`, by the button or by who made it, which puts the lines there.
    """

    def __init__(self, result: Result, desk: Desk) -> None:
        self._result = result
        self._desk = desk
        with parts.box("rl-row"):
            parts.text("What it printed", "rl-title", "h3")
            self._button = ui.button("Show", on_click=self.read).props("flat dense")
        self._place = parts.box("rl-grid")

    async def read(self) -> None:
        """Find the lines and show them, or say why there are none."""
        self._button.set_visibility(False)
        self._place.clear()
        with self._place:
            parts.text("Its lines are looked for …", "rl-sub").props('role="status"')
        try:
            found: JobLines | str = await self._desk.printed(self._result)
        except (RaylineError, TimeoutError) as error:
            found = str(error) or "rayline.logs holds too much since then to be looked through"
        # Another search may have taken the card away meanwhile.
        if self._place.is_deleted:
            return
        self._place.clear()
        with self._place:
            if isinstance(found, str):
                parts.notice("Not known", found, "warn")
                self._button.set_visibility(True)
            else:
                _show(found)


def _show(found: JobLines) -> None:
    if not found.lines:
        parts.text(_nothing(found), "rl-sub")
        return
    if found.left_out:
        parts.text(
            f"The last {len(found.lines)}; {shown.count(found.left_out)} came before: `rayline logs` has them all.", "rl-sub"
        )
    with parts.box("rl-printed") as lines:
        lines.props.update({"tabindex": "0", "role": "group", "aria-label": "What it printed"})
        for line in found.lines:
            row = parts.text(_text(line.said))
            row.props.update({"data-at": f"{shown.clock_ms(line.line.at_ms)} {line.mark}", "data-stream": line.line.stream.value})
    parts.text("| stdout, ! stderr and tracebacks, ~ what is missing", "rl-sub")


def _nothing(found: JobLines) -> str:
    if found.lost:
        return (
            "Nothing that is still kept: lines stay for a day, or until there are too many, and those of this time may be gone."
        )
    return "Nothing was printed."


def _text(said: Sequence[str]) -> str:
    text = "\n".join(said)
    return text if len(text) <= MOST_TEXT_CHARS else f"{text[:MOST_TEXT_CHARS]} … ({len(text)} characters)"
