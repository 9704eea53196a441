"""Changing a setting so that one knows what came of it: write, wait for every process, try on one first, take back."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.config_board import CLIENT_HEADER, HOST_HEADER, PRINCIPAL_HEADER, ConfigBoard, value_text
from rayline.bus import KafkaSettings, Publisher
from rayline.config import SETTINGS, Change, ConfigKey, RefusedRecord, Verdict, parse_key
from rayline.config.record import ABSENT, read_change, setting_of
from rayline.config.setting import About, Scope
from rayline.config.watch import AUTHOR_HEADER
from rayline.errors import ConfigError
from rayline.topics import CONFIG, CONFIG_HISTORY

CLIENT_ID: Final = "rayline-config"
_RANK: Final = {scope.value: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes, as far as Kafka lets one know: the principal is what the broker authenticates, the rest is what we say."""

    name: str
    host: str
    principal: str
    client_id: str = CLIENT_ID

    @classmethod
    def here(cls, settings: KafkaSettings, name: str | None = None) -> Author:
        return cls(name or getpass.getuser(), socket.gethostname(), _principal(settings))

    def headers(self) -> list[tuple[str, bytes]]:
        return [
            (AUTHOR_HEADER, self.name.encode()),
            (HOST_HEADER, self.host.encode()),
            (PRINCIPAL_HEADER, self.principal.encode()),
            (CLIENT_HEADER, self.client_id.encode()),
        ]


def _principal(settings: KafkaSettings) -> str:
    """Who the broker takes us for, unless it maps names: the SASL user, or the subject of our certificate."""
    if settings.sasl_plain_username is not None:
        return settings.sasl_plain_username
    if settings.ssl_certfile is None:
        return "anonymous"
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(Path(settings.ssl_certfile).read_bytes()).subject.rfc4514_string()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificate {settings.ssl_certfile} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change would do, or did, in one process."""

    process: str
    before: Any
    after: Any
    verdict: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a change: what each process said, and who said nothing in time."""

    key: str
    version: int
    effects: Sequence[Effect]
    silent: Sequence[str] = field(default_factory=tuple)

    @property
    def good(self) -> bool:
        """Every process concerned took it, and in one at least it is in force."""
        verdicts = {effect.verdict for effect in self.effects}
        return not self.silent and Verdict.REJECTED not in verdicts and Verdict.APPLIED in verdicts

    def as_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "version": self.version,
            "good": self.good,
            "effects": [asdict(effect) for effect in self.effects],
            "silent": list(self.silent),
        }

    def text(self) -> str:
        lines = [f"{self.key}, version {self.version}"]
        for effect in self.effects:
            why = f" ({effect.reason})" if effect.reason else ""
            lines.append(f"  {effect.process}: {effect.verdict}, in force {value_text(effect.after)}{why}")
        lines += [f"  {process}: no answer" for process in self.silent]
        if not self.effects and not self.silent:
            lines.append("  no process that lives is concerned")
        return "\n".join(lines)


def read_request(key: str, value: str | None) -> Change:
    """What a person asks for: the value as JSON, or as a bare word; None deletes.

    Raises:
        ConfigError: no such setting, scope or value.
    """
    try:
        parsed = parse_key(key)
        setting = setting_of(parsed, SETTINGS)
        if value is None:
            return Change(parsed)
        try:
            json.loads(value)
        except ValueError:
            value = json.dumps(value)
        change = read_change(parsed, setting, value.encode())
    except RefusedRecord as error:
        raise ConfigError(str(error)) from error
    return change


def preview(board: ConfigBoard, change: Change) -> list[Effect]:
    """Who would change, from what to what; nothing is written."""
    setting = SETTINGS[change.key.setting]
    effects = []
    for now in board.in_force(change.key):
        scope = now.source.partition("/")[0]
        wins = _RANK.get(scope, -1) <= _RANK[change.key.scope.value]
        value = change.value_for(now.process)
        if value is ABSENT:
            deletes = now.source == str(change.key)
            effects.append(Effect(now.process, now.value, None, "returns to what is below" if deletes else "does not change"))
        elif not wins:
            effects.append(Effect(now.process, now.value, now.value, Verdict.OVERRIDDEN.value, f"{now.source} is more specific"))
        else:
            same = now.value == value and setting.about is About.PROCESS
            effects.append(Effect(now.process, now.value, value, "does not change" if same else "changes"))
    return effects


class Changer:
    """Writes changes and keeps the log of them. Owns one publisher; is given the board.

    Life: `async with` → any number of changes.
    """

    def __init__(self, *, settings: KafkaSettings, board: ConfigBoard, author: Author) -> None:
        self._publisher = Publisher(settings=settings, client_id=author.client_id)
        self._board = board
        self._author = author

    async def __aenter__(self) -> Changer:
        await self._publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.close()

    async def write(self, change: Change, *, why: str) -> int:
        """Write a change and note who did it, when, what and why; returns its version."""
        deletes = change == Change(change.key)
        value = None if deletes else change.encode()
        sent = await self._publisher.send(CONFIG, key=str(change.key).encode(), value=value, headers=self._author.headers())
        delivery = await sent
        await self._note(
            {
                "kind": "change",
                "key": str(change.key),
                "version": delivery.offset,
                "at_ms": delivery.timestamp_ms,
                "value": None if value is None else value.decode(),
                "author": self._author.name,
                "host": self._author.host,
                "client_id": self._author.client_id,
                "principal": self._author.principal,
                "why": why,
            }
        )
        return delivery.offset

    async def wait(self, change: Change, version: int, *, timeout_seconds: float, why: str = "set") -> Outcome:
        """What each process that lives says of it; also noted in the log of changes."""
        board = self._board
        wanted = {identity.process for identity in board.concerned(change.key)}

        def answered() -> bool:
            return all((version, process) in board.answers for process in wanted)

        await board.wait_until(answered, timeout_seconds)
        # A process that left meanwhile owes no answer.
        wanted &= set(board.presences())
        said = [board.answers[version, process] for process in sorted(wanted) if (version, process) in board.answers]
        outcome = Outcome(
            str(change.key),
            version,
            [Effect(answer.process, None, answer.effective, answer.verdict.value, answer.reason) for answer in said],
            sorted(wanted - {answer.process for answer in said}),
        )
        await self.note_outcome(
            change.key, version, "in force" if outcome.good else "not in force everywhere", outcome.as_dict(), why
        )
        return outcome

    async def note_outcome(self, key: ConfigKey, version: int, outcome: str, evidence: Any, why: str) -> None:
        """Add to the log of changes what came of one."""
        await self._note(
            {"kind": "outcome", "key": str(key), "version": version, "outcome": outcome, "evidence": evidence, "why": why}
        )

    async def take_back(self, key: ConfigKey, version: int, before: Any, *, why: str) -> int | None:
        """Set what counted before a change of ours; None when somebody else changed the key since."""
        # What the board has not read yet, `if_previous` settles.
        if (self._board.newest_version(key) or 0) > version:
            return None
        return await self.write(Change(key, before, if_previous=version), why=why)

    async def _note(self, entry: dict[str, Any]) -> None:
        await self._publisher.publish(CONFIG_HISTORY, key=None, value=json.dumps({"v": 1, **entry}, default=str).encode())


def canary_of(board: ConfigBoard, change: Change, process: str | None = None) -> str:
    """The process that tries a change first: the one that was named, or the first concerned.

    Raises:
        ConfigError: no such process lives.
    """
    living = [identity.process for identity in board.concerned(change.key)]
    if not living or (process is not None and process not in living):
        raise ConfigError(f"no process {process or ''} lives that {change.key} concerns; living: {', '.join(living) or 'none'}")
    return process or living[0]
