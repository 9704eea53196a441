"""The pieces that pages are made of. All text goes in as text: nothing here takes HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from deploy.console.shown import clock
from deploy.observation.snapshot import EventRow

STATE_CELL = """
<q-td :props="props"><span class="rl-state" :data-state="props.value">{{ props.value }}</span></q-td>
"""
METER_CELL = """
<q-td :props="props"><div class="rl-num-cell"><span>{{ props.value == null ? '–' : Math.round(props.value * 100) + ' %' }}</span>
<div class="rl-meter"><i :style="{width: Math.min(100, Math.round((props.value || 0) * 100)) + '%'}"></i></div></div></q-td>
"""
SHARE_CELL = """
<q-td :props="props">{{ props.value == null ? '–' : (props.value * 100).toFixed(1) + ' %' }}</q-td>
"""
# The cell stands in the scroller of a virtual table, and that in the table, which is who is listened to.
OPEN_CELL = """
<q-td :props="props"><a tabindex="0" role="button" class="rl-open" @click="$parent.$parent.$emit('open', props.value)"
@keydown.enter="$parent.$parent.$emit('open', props.value)">{{ props.value }}</a></q-td>
"""


def box(classes: str, tag: str = "div") -> ui.element:
    return ui.element(tag).classes(classes)


def text(content: str, classes: str = "", tag: str = "div") -> Any:
    """Text in a tag of its own."""
    label = ui.label(content).classes(classes)
    label.tag = tag
    return label


@contextmanager
def card(title: str | None = None, classes: str = "", hint: str | None = None) -> Iterator[Any]:
    with box(f"rl-card {classes}", "section") as element:
        if title is not None:
            with box("rl-head"):
                text(title, "rl-title", "h2")
                if hint is not None:
                    text(hint, "rl-sub")
        yield element


def empty(title: str, say: str, command: str | None = None) -> ui.element:
    """What stands where nothing is: what that means, and what would change it."""
    with box("rl-empty") as element:
        text(title, tag="strong")
        text(say)
        if command is not None:
            text(command, tag="code")
    return element


def notice(word: str, say: str, tone: str) -> ui.element:
    with box("rl-notice").style(f"--tone: var(--{tone})").props('role="status"') as element:
        text(word, tag="b")
        text(say, tag="span")
    return element


def state(word: str) -> Any:
    label = text(word, "rl-state", "span")
    label.props["data-state"] = word
    return label


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values side by side."""
    with box("rl-facts"):
        for name, value in rows:
            text(name)
            text(value)


def events(rows: Sequence[EventRow]) -> None:
    """The newest first."""
    with box("rl-events"):
        for event in rows:
            with box("rl-event") as line:
                line.props["data-eviction"] = "true" if event.mark else "false"
                text(clock(event.at_ms), tag="time")
                with box("", "span"):
                    text(event.text, tag="span")
                    if event.reason:
                        text(f" – {event.reason}", tag="em")


class Chart:
    """An ECharts drawing whose options are replaced now and then. Owns the element; sends only what changed."""

    def __init__(self, options: dict[str, Any], classes: str = "rl-chart", *, says: str) -> None:
        self._element = ui.echart(options).classes(classes)
        self._element.props["role"] = "img"
        self._element.props["aria-label"] = says

    def show(self, options: dict[str, Any]) -> None:
        self._element.options.clear()
        self._element.options.update(options)
        self._element.update()


class Field:
    """A label whose text changes, sent only when it does."""

    def __init__(self, classes: str, tag: str = "div") -> None:
        self._label = text("", classes, tag)
        self._tone = ""

    def show(self, content: str, tone: str = "") -> None:
        if self._label.text != content:
            self._label.set_text(content)
        if tone != self._tone:
            self._label.classes(remove=f"rl-{self._tone}" if self._tone else "", add=f"rl-{tone}" if tone else "")
            self._tone = tone
