"""What a process says of a config record, and of itself: the records of `rayline.config.applied`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rayline.config.process import ProcessIdentity
from rayline.config.setting import Role
from rayline.errors import FormatError
from rayline.stalls import Stall

MAX_SHOWN_KEY_CHARS: Final = 300
# Stands between config key and process; neither can hold it.
SEPARATOR: Final = "|"
_PRESENCE: Final = "process"


class Verdict(StrEnum):
    """APPLIED: the record's value is in force. REJECTED: it changed nothing. OVERRIDDEN: it is valid, and another one wins."""

    APPLIED = "applied"
    REJECTED = "rejected"
    OVERRIDDEN = "overridden"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process says of one record. `version` is its offset; `effective` what is in force there now (None for a setting
    that this process does not have), and `source` the key it comes from, or `manifest` or `default`."""

    key: str
    version: int
    process: str
    verdict: Verdict
    effective: Any = None
    source: str | None = None
    reason: str | None = None

    @property
    def record_key(self) -> bytes:
        return f"{self.key}{SEPARATOR}{self.process}".encode()

    def encode(self) -> bytes:
        return json.dumps(
            {
                "v": 1,
                "key": self.key,
                "version": self.version,
                "process": self.process,
                "verdict": self.verdict.value,
                "effective": self.effective,
                "source": self.source,
                "reason": self.reason,
            },
            ensure_ascii=False,
        ).encode()


@dataclass(frozen=True, slots=True)
class Presence:
    """A process as it tells of itself now and then: what is in force there, and whether it can read the config topic.

    `values` maps a setting to its value and source; `problem` is why the topic cannot be read, None while it can; `seen` is the
    offset up to which it is read; `refresh_seconds` says within what time the next one comes. `metrics` is where its metrics
    are shown (HOST:PORT, as seen on its own `host`), `stalls` what makes no progress there.
    """

    identity: ProcessIdentity
    values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    seen: int = -1
    problem: str | None = None
    refresh_seconds: float = 10.0
    metrics: str | None = None
    host: str | None = None
    stalls: tuple[Stall, ...] = ()

    @property
    def record_key(self) -> bytes:
        return f"{SEPARATOR}{self.identity.process}".encode()

    def encode(self) -> bytes:
        who = self.identity
        return json.dumps(
            {
                "v": 1,
                "kind": _PRESENCE,
                "role": who.role.value,
                "name": who.name,
                "app": who.app,
                "cluster": who.cluster,
                "node": who.node,
                "registrar": who.registrar,
                "values": {name: list(pair) for name, pair in self.values.items()},
                "seen": self.seen,
                "problem": self.problem,
                "refresh_seconds": self.refresh_seconds,
                "metrics": self.metrics,
                "host": self.host,
                "stalls": [stall.as_dict() for stall in self.stalls],
            },
            ensure_ascii=False,
        ).encode()


def decode_applied(raw: bytes) -> Answer | Presence:
    """Read a record of `rayline.config.applied`.

    Raises:
        FormatError: it is neither an answer nor a presence.
    """
    try:
        found = json.loads(raw)
        if found["v"] != 1:
            raise FormatError(f"an answer of version {found['v']!r}; this Rayline reads version 1: upgrade it")
        if found.get("kind") == _PRESENCE:
            identity = ProcessIdentity(
                role=Role(found["role"]),
                name=found["name"],
                app=found["app"],
                cluster=found["cluster"],
                node=found["node"],
                registrar=bool(found["registrar"]),
            )
            values = {name: (value, str(source)) for name, (value, source) in found["values"].items()}
            return Presence(
                identity,
                values,
                int(found["seen"]),
                found["problem"],
                float(found["refresh_seconds"]),
                found.get("metrics"),
                found.get("host"),
                tuple(map(Stall.from_dict, found.get("stalls", ()))),
            )
        return Answer(
            str(found["key"]),
            int(found["version"]),
            str(found["process"]),
            Verdict(found["verdict"]),
            found["effective"],
            found["source"],
            found["reason"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"not a record of rayline.config.applied: {error!r}") from error


def shown_key(raw: bytes | None) -> str:
    """A record's key as an answer names it, whatever its bytes are."""
    text = (raw or b"").decode("utf-8", "backslashreplace").replace(SEPARATOR, "\\x7c")
    return text[:MAX_SHOWN_KEY_CHARS].encode("utf-8", "backslashreplace").decode()
