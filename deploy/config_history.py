"""The log of changes: who changed what, when, and what came of it; outlives the compaction of the config topic."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from deploy.config_board import ConfigBoard
from rayline.bus import CompactedLog, KafkaSettings
from rayline.config import Answer, Verdict
from rayline.topics import CONFIG_HISTORY

_POLL_MS: Final = 200
FOREIGN: Final = "another client"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `value` is the record's value as text, None for a deletion; `author` None where Kafka does not tell."""

    key: str
    version: int
    at_ms: int
    value: str | None
    author: str | None = None
    host: str | None = None
    principal: str | None = None
    client_id: str | None = None
    why: str | None = None
    refusal: str | None = None
    outcomes: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "outcomes": list(self.outcomes)}


async def read_history(settings: KafkaSettings, board: ConfigBoard) -> list[Entry]:
    """All changes that are known, oldest first: the log's, and those that the config topic still holds.

    Where nobody waited to note what came of one, it is what processes said of it, as far as their answers are still there.
    """
    entries = {
        written.version: Entry(
            written.key,
            written.version,
            written.at_ms,
            data["value"],
            data["author"],
            data["host"],
            data["principal"],
            data["client_id"],
            refusal=written.refusal,
        )
        for written in board.records
        for data in (written.as_dict(),)
    }
    outcomes: dict[int, list[dict[str, Any]]] = {}
    async with CompactedLog(settings=settings, topic=CONFIG_HISTORY, client_id="rayline-config-command") as log:
        while not log.caught_up.is_set():
            for record in await log.getmany(timeout_ms=_POLL_MS):
                _take(record.value, entries, outcomes)
    for version, said in _answered(board.answers.values()).items():
        if version in entries and entries[version].refusal is None:
            outcomes.setdefault(version, [said])
    return [
        replace(entry, outcomes=tuple(outcomes.get(version, ()))) if version in outcomes else entry
        for version, entry in sorted(entries.items())
    ]


def before(entries: Iterable[Entry], key: str, version: int) -> Entry | None:
    """The last change of a key before a version that could be used."""
    earlier = [entry for entry in entries if entry.key == key and entry.version < version and entry.refusal is None]
    return max(earlier, key=lambda entry: entry.version, default=None)


def _answered(answers: Iterable[Answer]) -> Mapping[int, dict[str, Any]]:
    """What processes said, by version: `2 applied, 1 rejected`, with the reasons of those that did not take it."""
    by_version: dict[int, list[Answer]] = {}
    for answer in answers:
        by_version.setdefault(answer.version, []).append(answer)
    found: dict[int, dict[str, Any]] = {}
    for version, said in by_version.items():
        counts = Counter(answer.verdict for answer in said)
        reasons = {answer.process: answer.reason for answer in said if answer.verdict is not Verdict.APPLIED}
        text = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
        found[version] = {"outcome": text, "evidence": reasons}
    return found


def _take(raw: bytes | None, entries: dict[int, Entry], outcomes: dict[int, list[dict[str, Any]]]) -> None:
    """One record of the log; what is not of its form is left out (it is a log, others may write there)."""
    try:
        found = json.loads(raw or b"null")
        version = int(found["version"])
        if found["kind"] == "outcome":
            outcomes.setdefault(version, []).append({"outcome": str(found["outcome"]), "evidence": found["evidence"]})
            return
        known = entries.get(version)
        entries[version] = Entry(
            str(found["key"]),
            version,
            int(found["at_ms"]),
            found["value"],
            found.get("author"),
            found.get("host"),
            found.get("principal"),
            found.get("client_id"),
            found.get("why"),
            known.refusal if known is not None else found.get("reason"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return
