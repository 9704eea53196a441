"""A record of the config topic: its key, its value or envelope, and why it may be refused. Pure.

key    global/<setting> · app/<app>/<setting> · cluster/<cluster>/<setting> · node/<cluster>/<pod>/<setting>
value  JSON: the bare value, or an object with "v": 1 and

    value        the value; without it the record deletes, as a tombstone does
    only         the one process for which it counts (a canary); for the others `otherwise` counts, or nothing
    otherwise    what the others keep
    if_previous  it counts only when the record before it under this key has this offset: nobody wrote in between
    author, comment   for the log of changes
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rayline.config.process import ProcessIdentity
from rayline.config.setting import About, Scope, Setting, shown
from rayline.errors import FormatError

MAX_VALUE_BYTES: Final = 64 * 1024
MAX_KEY_BYTES: Final = 512
MAX_TEXT_CHARS: Final = 500
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._+-]{0,127}")
_PLACES: Final = {Scope.GLOBAL: 0, Scope.APP: 1, Scope.CLUSTER: 1, Scope.NODE: 2}
_FIELDS: Final = frozenset({"v", "value", "only", "otherwise", "if_previous", "author", "comment"})
ENVELOPE_VERSION: Final = 1


class RefusedRecord(FormatError):
    """A record of the config topic that cannot be used; the message says why, and what would be right."""


class _Absent:
    """Stands for a value that is not there; JSON's null is one that is."""

    def __repr__(self) -> str:
        return "(none)"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """For whom, and what. `place` holds the names that the scope asks for: none, app, cluster, or cluster and pod."""

    scope: Scope
    place: tuple[str, ...]
    setting: str

    def __str__(self) -> str:
        return "/".join((self.scope.value, *self.place, self.setting))

    @property
    def node_place(self) -> tuple[str, ...] | None:
        """Cluster, or cluster and pod; None for scopes that are no place of nodes."""
        return self.place if self.scope in (Scope.CLUSTER, Scope.NODE) else None

    def addresses(self, process: ProcessIdentity) -> bool:
        """Whether the scope alone covers this process."""
        match self.scope:
            case Scope.GLOBAL:
                return True
            case Scope.APP:
                return self.place == (process.app,)
            case Scope.CLUSTER:
                return self.place == (process.cluster,)
            case Scope.NODE:
                return self.place == (process.cluster, process.node)

    def concerns(self, process: ProcessIdentity, setting: Setting) -> bool:
        """Whether this process uses the value: by its scope, or because it deals with the nodes or the app that it is about."""
        if process.role not in setting.roles:
            return False
        if setting.about is About.APP and self.scope is Scope.APP:
            return True
        if setting.about is About.NODE and self.node_place is not None and process.node is None:
            return process.cluster is None or process.cluster == self.place[0]
        return self.addresses(process)


@dataclass(frozen=True, slots=True)
class Change:
    """A valid record: the value for one process (`only`) or all, ABSENT where it deletes."""

    key: ConfigKey
    value: Any = ABSENT
    only: str | None = None
    otherwise: Any = ABSENT
    if_previous: int | None = None
    author: str | None = None
    comment: str | None = None

    def value_for(self, process: str) -> Any:
        """The value that counts for a process, or ABSENT."""
        return self.value if self.only is None or self.only == process else self.otherwise

    def encode(self) -> bytes:
        """The record's value; the bare JSON value where nothing else is to be said."""
        said: dict[str, Any] = {
            name: value
            for name, value in (
                ("value", self.value),
                ("only", self.only),
                ("otherwise", self.otherwise),
                ("if_previous", self.if_previous),
                ("author", self.author),
                ("comment", self.comment),
            )
            if value is not ABSENT and value is not None
        }
        bare = set(said) == {"value"} and not isinstance(self.value, Mapping)
        return json.dumps(self.value if bare else {"v": ENVELOPE_VERSION, **said}, ensure_ascii=False).encode()


def parse_key(raw: bytes | str | None) -> ConfigKey:
    """Read a key by its form alone.

    Raises:
        RefusedRecord: it is not of the form that is asked for.
    """
    if not raw:
        raise RefusedRecord("the record has no key; right would be <scope>/<setting>, e.g. global/log.level")
    if len(raw) > MAX_KEY_BYTES:
        raise RefusedRecord(f"the key has {len(raw)} bytes; the limit is {MAX_KEY_BYTES}")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise RefusedRecord("the key is not UTF-8") from error
    first, *places, setting = parts if len(parts := text.split("/")) > 1 else ["", ""]
    try:
        scope = Scope(first)
    except ValueError as error:
        known = ", ".join(f"{scope.value}/…" for scope in Scope)
        raise RefusedRecord(f"the key {shown(text)} has no known scope; right would be one of {known}") from error
    if len(places) != _PLACES[scope] or not all(_NAME.fullmatch(part) for part in (*places, setting)):
        raise RefusedRecord(f"the key {shown(text)} is not of the form {form(scope)}")
    return ConfigKey(scope, tuple(places), setting)


def form(scope: Scope) -> str:
    """How keys of a scope look."""
    places = {Scope.GLOBAL: "", Scope.APP: "<app>/", Scope.CLUSTER: "<cluster>/", Scope.NODE: "<cluster>/<pod>/"}[scope]
    return f"{scope.value}/{places}<setting>"


def setting_of(key: ConfigKey, declared: Mapping[str, Setting]) -> Setting:
    """The setting that a key names.

    Raises:
        RefusedRecord: there is none of this name, or it cannot be set for this scope.
    """
    setting = declared.get(key.setting)
    if setting is None:
        raise RefusedRecord(f"no setting is called {shown(key.setting)}: `rayline config list` shows all")
    if key.scope not in setting.scopes:
        right = " or ".join(form(scope).replace("<setting>", setting.name) for scope in setting.scopes)
        raise RefusedRecord(f"{setting.name} cannot be set for the scope {key.scope.value}; right would be {right}")
    return setting


def read_change(key: ConfigKey, setting: Setting, raw: bytes | None) -> Change:
    """Decode and check a record's value; None is a tombstone.

    Raises:
        RefusedRecord: it cannot be read, is of the wrong type, or out of bounds.
    """
    if raw is None:
        return Change(key)
    if len(raw) > MAX_VALUE_BYTES:
        raise RefusedRecord(f"the value has {len(raw)} bytes; the limit is {MAX_VALUE_BYTES}")
    try:
        found = json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise RefusedRecord("the value is nested too deeply") from error
    except ValueError as error:
        raise RefusedRecord(f"the value is not JSON: {str(error)[:200]}") from error
    if not (isinstance(found, dict) and "v" in found):
        return Change(key, _checked(setting, found))
    return _read_envelope(key, setting, found)


def _read_envelope(key: ConfigKey, setting: Setting, found: dict[str, Any]) -> Change:
    if found["v"] != ENVELOPE_VERSION or isinstance(found["v"], bool):
        raise RefusedRecord(f"an envelope of version {shown(found['v'])}; this Rayline reads version {ENVELOPE_VERSION}")
    unknown = [shown(name, 40) for name in found if name not in _FIELDS]
    if unknown:
        raise RefusedRecord(f"the envelope has unknown fields {', '.join(unknown[:3])}; known: {', '.join(sorted(_FIELDS))}")
    texts = {}
    for name in ("only", "author", "comment"):
        text = found.get(name)
        if text is not None and not (isinstance(text, str) and 0 < len(text) <= MAX_TEXT_CHARS):
            raise RefusedRecord(f"`{name}` is {shown(text)}; right would be text of at most {MAX_TEXT_CHARS} characters")
        texts[name] = text
    previous = found.get("if_previous")
    if previous is not None and (isinstance(previous, bool) or not isinstance(previous, int) or not -1 <= previous < 2**63):
        raise RefusedRecord(f"`if_previous` is {shown(previous)}; right would be the offset of a record, or -1 for none")
    return Change(
        key,
        _checked(setting, found["value"]) if "value" in found else ABSENT,
        texts["only"],
        _checked(setting, found["otherwise"]) if "otherwise" in found else ABSENT,
        previous,
        texts["author"],
        texts["comment"],
    )


def _checked(setting: Setting, value: Any) -> Any:
    try:
        return setting.check(value)
    except ValueError as error:
        raise RefusedRecord(str(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
