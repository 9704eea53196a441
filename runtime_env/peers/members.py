"""Who takes part: what each node tells of itself, and who of them counts at a moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One node that takes part. `host` is an IP address; `holds` and `wants` are tags of swarms (`BlobMetainfo.tag`): what it has
    whole and what it is fetching. `name` is unique among members; a larger `incarnation` (epoch ms of its start) replaces a
    smaller one.
    """

    name: str
    host: str
    port: int
    incarnation: int = 0
    holds: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()


class Roster:
    """Who is alive, from what was heard and when. Pure: times (seconds, monotonic) and notices come in as arguments.

    A member leaves when its platform says so (`remove`), or is not alive after a silence that depends on how often it speaks.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, Member]] = {}

    def hear(self, member: Member, now: float, *, silence_seconds: float) -> None:
        """News of an earlier incarnation is dropped."""
        known = self._heard.get(member.name)
        if known is None or member.incarnation >= known[1].incarnation:
            self._heard[member.name] = (now + silence_seconds, member)

    def remove(self, name: str) -> None:
        self._heard.pop(name, None)

    def alive(self, now: float) -> tuple[Member, ...]:
        """By name; what is silent for too long is forgotten."""
        gone = [name for name, (until, _) in self._heard.items() if now > until]
        for name in gone:
            del self._heard[name]
        return tuple(self._heard[name][1] for name in sorted(self._heard))
