"""What the answers of apps in several Pythons say: pure, made from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

# Fewer are no "several".
LEAST_PYTHONS: Final = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """An app, the Python that has to answer for it (`3.11`), the beginning of numpy's version (empty: it has none), and the
    Python that it is moved to while jobs come (empty: it stays)."""

    app: str
    python: str
    numpy: str = ""
    moved_to: str = ""

    @property
    def pythons(self) -> set[str]:
        return {self.python, self.moved_to} - {""}


@dataclass(frozen=True, slots=True)
class Reply:
    """One result: the app's version and the node that stand in it; `feature` is None where its outcome is not `ok`."""

    app: str
    version: str
    node: str
    feature: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AppFound:
    """What was seen of one app: how many jobs and `ok` results, every `sys.version`, numpy, node and interpreter."""

    app: str
    sent: int
    ok: int
    sys_versions: tuple[str, ...]
    numpy: tuple[str, ...]
    nodes: tuple[str, ...]
    executables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems` are in words, none of them where all is as it should be; `missing` Pythons are not on this machine."""

    apps: tuple[AppFound, ...]
    problems: tuple[str, ...]
    missing: tuple[str, ...] = field(default=())

    @property
    def good(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def judge(
    expected: Sequence[Expected], replies: Sequence[Reply], sent: Mapping[str, int], *, missing: Sequence[str] = ()
) -> Verdict:
    """All results of a run, in any order; `sent` counts the jobs of each app."""
    found = [_found(one, replies, sent.get(one.app, 0)) for one in expected]
    problems = [text for one, seen in zip(expected, found, strict=True) for text in _problems(one, seen)]
    pythons = {minor_of(version) for one in found for version in one.sys_versions}
    if len(pythons) < LEAST_PYTHONS:
        problems.append(f"{len(pythons)} Python answered: {LEAST_PYTHONS} at least have to, side by side")
    beside = [one.nodes for one, wanted in zip(found, expected, strict=True) if wanted.numpy]
    if beside and not set.intersection(*map(set, beside)):
        problems.append("no node ran all versions of numpy")
    return Verdict(tuple(found), tuple(problems), tuple(missing))


def minor_of(version: str) -> str:
    """`3.11` of `3.11.7 (main, …)`."""
    return ".".join(version.split()[0].split(".")[:2])


def _found(wanted: Expected, replies: Sequence[Reply], sent: int) -> AppFound:
    ours = [reply for reply in replies if reply.app == wanted.app]
    features = [reply.feature for reply in ours if reply.feature is not None]

    def every(key: str) -> tuple[str, ...]:
        return tuple(sorted({str(feature[key]) for feature in features}))

    nodes = tuple(sorted({reply.node for reply in ours}))
    return AppFound(wanted.app, sent, len(features), every("python"), every("numpy"), nodes, every("executable"))


def _problems(wanted: Expected, seen: AppFound) -> list[str]:
    told = []
    if not seen.sent:
        told.append(f"{wanted.app}: no job was sent")
    if seen.ok != seen.sent:
        told.append(f"{wanted.app}: {seen.sent} jobs, {seen.ok} answered well")
    pythons = {minor_of(version) for version in seen.sys_versions}
    if pythons != wanted.pythons:
        told.append(
            f"{wanted.app}: Python {', '.join(sorted(pythons)) or 'nobody'} answered, not {' then '.join(sorted(wanted.pythons))}"
        )
    strange = [version for version in seen.numpy if not version.startswith(wanted.numpy) or (version and not wanted.numpy)]
    if strange:
        told.append(f"{wanted.app}: numpy {', '.join(strange)} answered, not {wanted.numpy or 'none'}")
    return told
