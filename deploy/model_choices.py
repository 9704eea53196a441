"""Which publications of an app's models are in force, which were before, and which nodes serve them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.config_board import ConfigBoard
from deploy.config_history import Entry
from rayline.config import SETTINGS, Change, ConfigKey, RefusedRecord, Scope
from rayline.config.record import ABSENT, read_change
from rayline.models import ModelChoice, choices_value, generation_at, read_choices
from rayline.reports import NodeReport

SETTING: Final = "models"
Choices = Mapping[str, ModelChoice]


def models_key(app: str) -> ConfigKey:
    return ConfigKey(Scope.APP, (app,), SETTING)


@dataclass(frozen=True, slots=True)
class InForce:
    """What counts for all nodes now: the generation (0: nothing was ever chosen) and the choices; models that are not among them
    are the bundle's own. `newest` is the newest record, valid or not, which a change must follow."""

    generation: int
    choices: Choices
    newest: int

    def with_choices(self, app: str, choices: Choices) -> Change:
        """The record that puts these choices in force, unless somebody else changes them meanwhile."""
        return Change(models_key(app), choices_value(choices), if_previous=self.newest)


def in_force(board: ConfigBoard, app: str) -> InForce:
    """By the config topic as `board` read it; a canary's choices do not count."""
    key = models_key(app)
    written, newest = board.current(key), board.newest_version(key)
    last = -1 if newest is None else newest
    if written is None or written.change is None:
        return InForce(0, {}, last)
    value = written.change.value if written.change.only is None else written.change.otherwise
    return InForce(generation_at(written.version), {} if value is ABSENT else read_choices(value), last)


def choices_before(entries: Sequence[Entry], app: str, now: Choices) -> Choices | None:
    """The last choices for all nodes that differ from those of `now`; None where there never were others.

    `entries` is the log of changes, oldest first. Before the first choice, every model was the bundle's own.
    """
    found = [choices for entry in entries if (choices := _choices_of(entry, app)) is not None]
    earlier = [choices for choices in found if choices != now]
    return earlier[-1] if earlier else ({} if now else None)


def choice_before(entries: Sequence[Entry], app: str, name: str, now: Choices) -> Choices | None:
    """As `choices_before`, going back with one model alone."""
    found = [choices for entry in entries if (choices := _choices_of(entry, app)) is not None]
    earlier = [choices for choices in found if choices.get(name) != now.get(name)]
    if not earlier and name not in now:
        return None
    others = {other: choice for other, choice in now.items() if other != name}
    before = earlier[-1].get(name) if earlier else None
    return others if before is None else {**others, name: before}


def _choices_of(entry: Entry, app: str) -> Choices | None:
    """What a change put in force for all nodes; None for a canary, a refused record, or another key."""
    if entry.key != str(models_key(app)) or entry.refusal is not None:
        return None
    if entry.value is None:
        return {}
    try:
        change = read_change(models_key(app), SETTINGS[SETTING], entry.value.encode())
    except RefusedRecord:
        return None
    if change.only is not None:
        return None
    return {} if change.value is ABSENT else read_choices(change.value)


@dataclass(frozen=True, slots=True)
class NodeServes:
    """One node with actors of the app: the generation wanted there, the one that answers, and why they differ."""

    node: str
    wanted: int
    serving: int
    reason: str | None

    def serves(self, generation: int) -> bool:
        return self.serving >= generation


def nodes_of(reports: Sequence[NodeReport], app: str) -> list[NodeServes]:
    """Each node where the app runs, by name."""
    found = []
    for report in sorted(reports, key=lambda report: report.key):
        if not any(actor.app == app for actor in report.actors or ()):
            continue
        told = [one for one in (report.load.models if report.load is not None else ()) if one.app == app]
        wanted, serving = (told[0].wanted, told[0].serving) if told else (0, 0)
        reason = told[0].reason if told and told[0].reason else report.reason
        found.append(NodeServes(report.key, wanted, serving, reason))
    return found


def choices_text(choices: Choices) -> str:
    return ", ".join(f"{name}@{choice.publication}" for name, choice in sorted(choices.items())) or "the bundle's own"
