"""What one process makes of the config topic: record in, changes and answers out. Pure: no clock, no Kafka.

A record that is refused, by its form or by the process that should apply it, leaves everything as it was. One whose form is right
is held back: it is tried again whenever something else changes, as a process that starts later would come to take it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayline.config.answer import Answer, Verdict, shown_key
from rayline.config.contradictions import Contradictions, fewest, none_known
from rayline.config.process import ProcessIdentity
from rayline.config.record import ABSENT, Change, ConfigKey, RefusedRecord, parse_key, read_change, setting_of
from rayline.config.resolution import AppValues, Effective, node_values, resolve
from rayline.config.setting import About, Scope, Setting

MAX_KEYS: Final = 10_000
MAX_REASON_CHARS: Final = 600

Apply = Callable[[str, Any], str | None]


@dataclass(frozen=True, slots=True)
class _Kept:
    """The valid record under a key."""

    version: int
    change: Change


@dataclass(frozen=True, slots=True)
class _HeldBack:
    """A record that counted and does not any more."""

    key: ConfigKey
    version: int
    reason: str

    @property
    def setting(self) -> str:
        return self.key.setting


class ConfigState:
    """Owns the valid records that concern one process, and what is in force there.

    Does not own how a value is applied: `apply(name, value)` is given with each call; it returns None, or why the process cannot
    take the value (a whole-process setting's plain value; `NodeValues` for one that is about nodes, `AppValues` about apps).

    `contradictions` tells which values do not go together: where those underneath change, as few records as possible are
    held back.

    Life: `start` applies what holds without any record; `take` for each record in the order of the topic; `begin_replay` and
    `end_replay` around a second reading of the whole topic; `rebase` when manifest values change.
    """

    def __init__(
        self, *, identity: ProcessIdentity, declared: Mapping[str, Setting], base: Mapping[str, Any] | None = None
    ) -> None:
        self._identity = identity
        self._declared = declared
        self._base = dict(base or {})
        self._records: dict[ConfigKey, _Kept] = {}
        # Newer than what is kept under the same key.
        self._held: dict[ConfigKey, _Kept] = {}
        self._last_version: OrderedDict[ConfigKey, int] = OrderedDict()
        self._in_force: dict[str, Any] = {}
        self._answered: dict[ConfigKey, tuple[Verdict, Any, str]] = {}
        self._replayed: set[ConfigKey] | None = None
        self.contradictions: Contradictions = none_known
        self.seen = -1

    def start(self, apply: Apply) -> None:
        """Apply what holds before any record."""
        for setting in self._declared.values():
            if self._identity.role in setting.roles:
                self._bring_into_force(setting, apply)

    def effective(self) -> dict[str, Effective]:
        """What is in force for this process, by setting, with its source."""
        own = (s for s in self._declared.values() if self._identity.role in s.roles)
        return {setting.name: self._effective(setting) for setting in own}

    def take(self, *, key: bytes | None, value: bytes | None, version: int, apply: Apply) -> list[Answer]:
        """One record of the topic; `version` is its offset. Returns what this process has to say: on this record where it
        concerns it, and on other records of the same setting that count now, or no longer do."""
        self.seen = max(self.seen, version)
        parsed: ConfigKey | None = None
        setting: Setting | None = None
        try:
            parsed = parse_key(key)
            previous = self._note_version(parsed, version)
            setting = setting_of(parsed, self._declared)
            change = read_change(parsed, setting, value)
            self._check_previous(change, previous)
            if not parsed.concerns(self._identity, setting):
                return []
            self._accept(change, setting, version, apply)
        except RefusedRecord as refusal:
            return self._refuse(shown_key(key), parsed, setting, version, str(refusal))
        return self._answers(setting, parsed, version) + self._retry(apply)

    def rebase(self, base: Mapping[str, Any], apply: Apply) -> list[Answer]:
        """Other values underneath the records (another manifest is in force); returns the answers that this changes."""
        changed = {name for name in {*base, *self._base} if base.get(name, ABSENT) != self._base.get(name, ABSENT)}
        self._base = dict(base)
        return self._settle(changed, apply)

    def begin_replay(self) -> None:
        """The topic is read again from its beginning."""
        self._replayed = set()
        self._last_version.clear()

    def end_replay(self, apply: Apply) -> list[Answer]:
        """The topic is read to its end: forget records that are no longer in it."""
        known = {*self._records, *self._held}
        gone = known - (self._replayed if self._replayed is not None else known)
        self._replayed = None
        for key in gone:
            self._records.pop(key, None)
            self._held.pop(key, None)
            self._answered.pop(key, None)
        return self._settle({key.setting for key in gone}, apply)

    def _settle(self, names: Iterable[str], apply: Apply) -> list[Answer]:
        """What lies underneath these settings changed: bring into force what counts now."""
        refused = self._hold_back()
        changed = sorted({*names, *(answer.setting for answer in refused)})
        waiting, left = changed, len(changed) + 1
        # One after the other, new values may contradict old ones that go next.
        while 0 < len(waiting) < left:
            left = len(waiting)
            waiting = [name for name in waiting if self._bring_into_force(self._declared[name], apply) is not None]
        answers: list[Answer] = []
        for name in changed:
            answers += self._answers(self._declared[name], None, self.seen)
        for one in refused:
            answers += self._refuse(str(one.key), one.key, self._declared[one.setting], one.version, one.reason)
        return answers + self._retry(apply)

    def _hold_back(self) -> list[_HeldBack]:
        """Take out as few records as possible, the newest first, so that no two values contradict each other."""
        broken = self.contradictions(self._values(frozenset()))
        involved = {name for names in broken for name in names}
        candidates = sorted(
            (key for key in self._records if key.setting in involved), key=lambda key: self._records[key].version, reverse=True
        )
        gone = fewest(candidates, lambda without: not self.contradictions(self._values(without)))
        found = []
        for key in sorted(gone, key=str):
            kept = self._records.pop(key)
            self._held.setdefault(key, kept)
            self._answered.pop(key, None)
            reason = next(why for names, why in broken.items() if key.setting in names)
            found.append(_HeldBack(key, kept.version, reason))
        return found

    def _values(self, without: frozenset[ConfigKey]) -> dict[str, Any]:
        own = (s for s in self._declared.values() if self._identity.role in s.roles and s.about is About.PROCESS)
        return {setting.name: self._effective(setting, without=without).value for setting in own}

    def _retry(self, apply: Apply) -> list[Answer]:
        """Try once more what was held back, until nothing changes by it."""
        answers: list[Answer] = []
        taken = True
        while taken:
            taken = False
            for key, held in sorted(self._held.items(), key=lambda one: one[1].version):
                setting = self._declared[key.setting]
                if self._put(held, setting, apply) is None:
                    del self._held[key]
                    answers += self._answers(setting, key, held.version)
                    taken = True
        return answers

    def _note_version(self, key: ConfigKey, version: int) -> int | None:
        previous = self._last_version.pop(key, None)
        self._last_version[key] = version
        if len(self._last_version) > MAX_KEYS:
            self._last_version.popitem(last=False)
        if self._replayed is not None:
            self._replayed.add(key)
        return previous

    def _check_previous(self, change: Change, previous: int | None) -> None:
        # Once the record before it is compacted away, nothing tells any more; it was settled when it was new.
        if change.if_previous is not None and previous is not None and previous != change.if_previous:
            raise RefusedRecord(
                f"it counts only right after version {change.if_previous}, and version {previous} stands between: "
                "somebody else changed the key meanwhile"
            )

    def _accept(self, change: Change, setting: Setting, version: int, apply: Apply) -> None:
        new = _Kept(version, change)
        self._held.pop(change.key, None)
        reason = self._put(new, setting, apply)
        if reason is not None:
            # What is about nodes or apps is decided place by place: nothing else there could come to allow it.
            if setting.about is About.PROCESS:
                self._held[change.key] = new
            raise RefusedRecord(reason)

    def _put(self, new: _Kept, setting: Setting, apply: Apply) -> str | None:
        """Take a record in the place of the one before under its key; why not, where all stays as it was."""
        key = new.change.key
        kept = self._records.get(key)
        if new.change.value is ABSENT and new.change.only is None:
            self._records.pop(key, None)
            self._answered.pop(key, None)
        elif kept is None and len(self._records) >= MAX_KEYS:
            return f"{MAX_KEYS} keys are set already: delete some"
        else:
            self._records[key] = new
        reason = self._bring_into_force(setting, apply)
        if reason is not None:
            if kept is None:
                self._records.pop(key, None)
            else:
                self._records[key] = kept
        return reason

    def _bring_into_force(self, setting: Setting, apply: Apply) -> str | None:
        """Apply the setting's value where it is new; why not, if not."""
        value = self._value(setting)
        if self._in_force.get(setting.name, ABSENT) == value:
            return None
        reason = apply(setting.name, value)
        if reason is None:
            self._in_force[setting.name] = value
        return reason

    def _value(self, setting: Setting) -> Any:
        if setting.about is About.NODE:
            process = self._identity.process
            records = {key: kept.change.value_for(process) for key, kept in self._records.items() if key.setting == setting.name}
            return node_values(setting, records, self._base)
        if setting.about is About.APP:
            return self._app_values(setting)
        return self._effective(setting).value

    def _app_values(self, setting: Setting) -> AppValues:
        said = {
            key.place[0]: (kept.version, kept.change.value_for(self._identity.process))
            for key, kept in self._records.items()
            if key.setting == setting.name
        }
        return AppValues({app: (version, value) for app, (version, value) in said.items() if value is not ABSENT})

    def _effective(
        self, setting: Setting, place: tuple[str, ...] | None = None, *, without: frozenset[ConfigKey] = frozenset()
    ) -> Effective:
        """What holds for this process, or for the nodes at a place; `without` some of the records."""
        process = self._identity.process
        keys = (key for key in self._keys(setting, place) if key in self._records and key not in without)
        return resolve(setting, {key: self._records[key].change.value_for(process) for key in keys}, self._base)

    def _keys(self, setting: Setting, place: tuple[str, ...] | None = None) -> list[ConfigKey]:
        """The keys under which a value for this process, or for the nodes at a place, may stand."""
        who = self._identity
        if place is None:
            place = tuple(part for part in (who.cluster, who.node) if part is not None)
        keys = [ConfigKey(Scope.GLOBAL, (), setting.name)]
        keys += [ConfigKey(Scope.APP, (who.app,), setting.name)] if who.app is not None else []
        keys += [ConfigKey(Scope.CLUSTER, place[:1], setting.name)] if place else []
        keys += [ConfigKey(Scope.NODE, place, setting.name)] if len(place) > 1 else []
        return keys

    def _refuse(self, shown: str, key: ConfigKey | None, setting: Setting | None, version: int, reason: str) -> list[Answer]:
        """Say why, where this process is concerned: nobody else could say it of what is addressed to nobody."""
        who = self._identity
        if key is not None and not who.registrar:
            concerned = key.concerns(who, setting) if setting is not None else key.addresses(who)
            if not concerned:
                return []
        mine = setting if setting is not None and who.role in setting.roles else None
        now = self._at(mine, key) if mine is not None and key is not None else None
        return [
            Answer(
                shown,
                version,
                who.process,
                Verdict.REJECTED,
                now.value if now is not None else None,
                now.source if now is not None else None,
                reason[:MAX_REASON_CHARS],
            )
        ]

    def _answers(self, setting: Setting, taken: ConfigKey | None, version: int) -> list[Answer]:
        """On the record just taken, and on others of the setting whose verdict changed by it."""
        who = self._identity.process
        answers: list[Answer] = []
        if taken is not None and taken not in self._records:
            now = self._at(setting, taken)
            answers.append(Answer(str(taken), version, who, Verdict.APPLIED, now.value, now.source, "deleted"))
        # What is about nodes is decided place by place: one record never changes what is said of another.
        others = self._keys(setting) if setting.about is About.PROCESS else []
        for key in dict.fromkeys([*others, *([taken] if taken is not None else [])]):
            kept = self._records.get(key)
            if kept is None:
                continue
            verdict, now, reason = self._verdict(setting, key, kept)
            said = (verdict, now.value, now.source)
            if key != taken and self._answered.get(key) == said:
                continue
            self._answered[key] = said
            answers.append(Answer(str(key), kept.version, who, verdict, now.value, now.source, reason))
        return answers

    def _verdict(self, setting: Setting, key: ConfigKey, kept: _Kept) -> tuple[Verdict, Effective, str | None]:
        now, only = self._at(setting, key), kept.change.only
        if only not in (None, self._identity.process):
            return Verdict.OVERRIDDEN, now, f"the new value is only for {only}"
        if now.source == str(key):
            return Verdict.APPLIED, now, "tried by this process alone" if only is not None else None
        return Verdict.OVERRIDDEN, now, f"{now.source} is more specific"

    def _at(self, setting: Setting, key: ConfigKey) -> Effective:
        """What is in force where the key points to: for nodes there, for the app, else for this process."""
        if setting.about is About.APP:
            kept = self._records.get(key)
            value = ABSENT if kept is None else kept.change.value_for(self._identity.process)
            return resolve(setting, {key: value}, self._base)
        return self._effective(setting, key.node_place if setting.about is About.NODE else None)


def concerned(key: ConfigKey, declared: Mapping[str, Setting], processes: Collection[ProcessIdentity]) -> list[ProcessIdentity]:
    """Those of the processes that will answer a valid record under this key."""
    setting = setting_of(key, declared)
    return [process for process in processes if key.concerns(process, setting)]
