"""Who takes part: what each node tells of itself, and who of them counts at a moment."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack

from rayline.errors import FormatError

MEMBER_VERSION: Final = 1
MAX_MEMBER_BYTES: Final = 2**20
MAX_TAGS: Final = 20_000
SILENCE_SECONDS: Final = 30.0
_TAG_DIGITS: Final = 16


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

    def to_bytes(self) -> bytes:
        packed: bytes = msgpack.packb(
            [MEMBER_VERSION, self.name, self.host, self.port, self.incarnation, sorted(self.holds), sorted(self.wants)]
        )
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Member:
        """Read `to_bytes` back; raises FormatError for anything else."""
        if len(data) > MAX_MEMBER_BYTES:
            raise FormatError(f"a member's notice of {len(data)} bytes; the limit is {MAX_MEMBER_BYTES}")
        try:
            version, name, host, port, incarnation, holds, wants = msgpack.unpackb(data, raw=False)
            if version != MEMBER_VERSION:
                raise FormatError(f"a member's notice of version {version!r}; this Rayline reads version {MEMBER_VERSION}")
            if not isinstance(name, str) or type(incarnation) is not int or type(port) is not int or not 0 < port < 2**16:
                raise FormatError(f"a member's notice with name {name!r}, port {port!r} and incarnation {incarnation!r}")
            return cls(name, str(ipaddress.ip_address(host)), port, incarnation, _tags(holds), _tags(wants))
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise FormatError(f"not a member's notice: {error!r}") from error


def _tags(items: Any) -> frozenset[str]:
    if not isinstance(items, list) or len(items) > MAX_TAGS:
        raise FormatError(f"a member's notice whose tags are no list of at most {MAX_TAGS}")
    for item in items:
        if not isinstance(item, str) or len(item) != _TAG_DIGITS:
            raise FormatError(f"a member's notice with tag {str(item)[:80]!r}")
    return frozenset(items)


class Roster:
    """Who is alive, from what was heard and when. Pure: times (seconds, monotonic) and notices come in as arguments.

    A member leaves when it says so, when its platform says so (`remove`), or after `silence_seconds` without a word.
    """

    def __init__(self, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._silence_seconds = silence_seconds
        self._heard: dict[str, tuple[float, Member]] = {}

    def hear(self, member: Member, now: float) -> None:
        """News of an earlier incarnation is dropped."""
        known = self._heard.get(member.name)
        if known is None or member.incarnation >= known[1].incarnation:
            self._heard[member.name] = (now, member)

    def remove(self, name: str) -> None:
        self._heard.pop(name, None)

    def alive(self, now: float) -> tuple[Member, ...]:
        """By name; what is silent for too long is forgotten."""
        gone = [name for name, (heard, _) in self._heard.items() if now - heard > self._silence_seconds]
        for name in gone:
            del self._heard[name]
        return tuple(self._heard[name][1] for name in sorted(self._heard))


def seen_from(members: Iterable[Member], addresses: dict[str, tuple[str, int]]) -> tuple[Member, ...]:
    """`members` under the addresses at which they can be reached from here, where those are others (a translated network)."""
    return tuple(
        replace(member, host=addresses[member.name][0], port=addresses[member.name][1]) if member.name in addresses else member
        for member in members
    )
