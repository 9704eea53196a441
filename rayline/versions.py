"""Versions of one app that stand beside each other: how a person names them, and which part of the work each gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MAX_VERSIONS: Final = 50
MAX_WEIGHT: Final = 1000.0
_NAME: Final = re.compile(r"sha256:[0-9a-f]{4,64}|[a-zA-Z0-9][a-zA-Z0-9._+-]{0,95}")
_DIGITS: Final = re.compile(r"[0-9a-f]{4,64}")
_SHA256: Final = "sha256:"
_BUILD: Final = "+"


def read_version_weights(value: Any) -> dict[str, float]:
    """The value of the setting `traffic.version_weights`: `{"1.4.0": 0.1, …}`, or the same as text, `1.4.0=0.1,…`.

    Raises:
        ValueError: anything else; the message says what is wrong.
    """
    pairs = _pairs(value) if isinstance(value, str) else list(value.items()) if isinstance(value, dict) else None
    if pairs is None:
        raise ValueError("neither an object nor text")
    if len(pairs) > MAX_VERSIONS:
        raise ValueError(f"{len(pairs)} versions; the limit is {MAX_VERSIONS}")
    found: dict[str, float] = {}
    for name, weight in pairs:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"no version is called {str(name)[:100]!r}")
        if name in found:
            raise ValueError(f"version {name} stands there twice")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"the weight of version {name} is {str(weight)[:40]}")
        found[name] = float(weight)
    return dict(sorted(found.items()))


def names(name: str, version: str) -> bool:
    """Whether a person who says `name` means `version` (`1.4.0`, `1.4.0+0123456789ab`, or a hash of an app's contents).

    A version has three names: itself, what stands before its `+`, and its bundle's digest or at least four digits of the
    beginning of that (or of the hash).
    """
    return _closeness(name, version) is not None


@dataclass(frozen=True, slots=True)
class VersionWeights:
    """What the weight of a node is multiplied by, by the version of the app that it answers with. `named`: as it was set."""

    named: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.named)

    def of(self, version: str) -> float:
        """The weight of a version; of several names for it the most exact one counts; 1 where none names it."""
        found = [(closeness, name) for name in self.named if (closeness := _closeness(name, version)) is not None]
        return self.named[max(found)[1]] if found else 1.0

    def unmatched(self, versions: Iterable[str]) -> list[str]:
        """The names that mean none of these versions."""
        known = list(versions)
        return [name for name in self.named if not any(names(name, version) for version in known)]


def _pairs(text: str) -> list[tuple[str, float]]:
    pairs = []
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        try:
            pairs.append((name.strip(), float(weight)))
        except ValueError as error:
            problem = f"the weight of version {name[:100]} is {weight[:40]!r}" if equals else f"{part[:100]!r} has no `=`"
            raise ValueError(problem) from error
    return pairs


def _closeness(name: str, version: str) -> tuple[int, int] | None:
    """How exactly a name means a version, more is more; None where it does not."""
    base, _, build = version.partition(_BUILD)
    digits = name.removeprefix(_SHA256)
    if name == version:
        return 2, 0
    if name == base:
        return 1, 0
    digest = build or version
    if _DIGITS.fullmatch(digits) and _DIGITS.fullmatch(digest) and digits[: len(digest)] == digest[: len(digits)]:
        return 0, len(digits)
    return None
