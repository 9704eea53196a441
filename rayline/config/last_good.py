"""Keeps compaction from making an invalid record the only one: what was good under its key is written once more. Pure.

Kafka keeps the last record of a key. An invalid one is ignored for as long as the valid one before it is still there; a process
that starts after that one is gone would run without it. So a registrar writes the last good record again, on the condition that
nobody wrote in between (`if_previous`): of several registrars that do so one counts, and the others' records say the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from rayline.config.record import Change, ConfigKey, RefusedRecord, parse_key, read_change, setting_of
from rayline.config.setting import Setting

MAX_REMEMBERED: Final = 10_000


class LastGood:
    """Owns the last good change of each key, and which keys end in a record that does not count. Does not own writing."""

    def __init__(self, declared: Mapping[str, Setting]) -> None:
        self._declared = declared
        self._good: OrderedDict[ConfigKey, Change] = OrderedDict()
        self._newest: OrderedDict[ConfigKey, int] = OrderedDict()
        self._damaged: dict[ConfigKey, int] = {}

    @property
    def damaged(self) -> bool:
        return bool(self._damaged)

    def take(self, *, key: bytes | None, value: bytes | None, version: int) -> None:
        """One record of the topic, in its order."""
        try:
            parsed = parse_key(key)
            setting = setting_of(parsed, self._declared)
        except RefusedRecord:
            return
        previous = self._newest.get(parsed)
        _remember(self._newest, parsed, version)
        self._damaged.pop(parsed, None)
        good = self._good.get(parsed, Change(parsed))
        try:
            change = read_change(parsed, setting, value)
        except RefusedRecord:
            if _said(good) != _said(Change(parsed)):
                self._damaged[parsed] = version
            return
        if change.if_previous is not None and previous is not None and previous != change.if_previous:
            if _said(good) != _said(change):
                self._damaged[parsed] = version
            return
        _remember(self._good, parsed, change)

    def repairs(self) -> list[Change]:
        """What to write now; each damage is told once."""
        found = []
        for key, version in self._damaged.items():
            good = self._good.get(key, Change(key))
            said = f"version {version} cannot be used; what counted before goes on counting"
            found.append(replace(good, if_previous=version, comment=said))
        self._damaged.clear()
        return found


def _said(change: Change) -> tuple[Any, str | None, Any]:
    return change.value, change.only, change.otherwise


def _remember(kept: OrderedDict[ConfigKey, Any], key: ConfigKey, value: Any) -> None:
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)
