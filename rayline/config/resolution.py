"""Which of several records counts: the most specific one, then what the process was started with, then the default. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rayline.config.record import ABSENT, ConfigKey
from rayline.config.setting import Scope, Setting

DEFAULT: Final = "default"
MANIFEST: Final = "manifest"
_RANK: Final = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Effective:
    """A value in force and where it comes from: the key of a record, MANIFEST, or DEFAULT."""

    value: Any
    source: str


def resolve(setting: Setting, records: Mapping[ConfigKey, Any], base: Mapping[str, Any]) -> Effective:
    """The effective value for one process.

    `records` holds the values that concern the process, by key (ABSENT counts as none); `base` what the process was started
    with (manifest, options), by setting.
    """
    present = [key for key, value in records.items() if key.setting == setting.name and value is not ABSENT]
    if present:
        winner = max(present, key=lambda key: _RANK[key.scope])
        return Effective(records[winner], str(winner))
    if setting.name in base:
        return Effective(base[setting.name], MANIFEST)
    return Effective(setting.default, DEFAULT)


@dataclass(frozen=True, slots=True)
class AppValues:
    """A setting that is about apps: what is set for each, with the version (offset) of the record that says so."""

    apps: Mapping[str, tuple[int, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeValues:
    """A setting that is about nodes: what holds for each, by place (cluster, or cluster and pod)."""

    default: Any
    places: Mapping[tuple[str, ...], Any] = field(default_factory=dict)

    def of(self, node: str) -> Any:
        """The value for a node, named `cluster/pod`."""
        cluster, _, pod = node.partition("/")
        for place in ((cluster, pod), (cluster,)):
            if place in self.places:
                return self.places[place]
        return self.default


def node_values(setting: Setting, records: Mapping[ConfigKey, Any], base: Mapping[str, Any]) -> NodeValues:
    """All places that records name; anywhere else, what holds for the process itself."""
    keys: Iterable[ConfigKey] = (key for key, value in records.items() if key.setting == setting.name and value is not ABSENT)
    places = {place: records[key] for key in keys if (place := key.node_place) is not None}
    elsewhere = {key: value for key, value in records.items() if key.node_place is None}
    return NodeValues(resolve(setting, elsewhere, base).value, places)
