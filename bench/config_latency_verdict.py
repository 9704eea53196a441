"""How soon changes of settings were in force: pure, made from plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.bars import Bar
from deploy.checker import LatencyMs

BOUND_MS = 1_000.0


@dataclass(frozen=True, slots=True)
class Made:
    """One change, with milliseconds from its record on, all by the broker's clock. `answered`: until each process concerned said
    that it is applied; `shown`: until each that shows it by what it does did so. None: not in time, or it said something else."""

    key: str
    value: Any
    answered_ms: Mapping[str, float | None]
    shown_ms: Mapping[str, float | None]


def judge(changes: Sequence[Made]) -> dict[str, Any]:
    """The outcome: for each key the slowest process of each change, for each role all of its answers, and the bars."""
    bars: list[Bar] = []
    keys: dict[str, Any] = {}
    for key in dict.fromkeys(change.key for change in changes):
        made = [change for change in changes if change.key == key]
        keys[key] = {
            "changes": len(made),
            "processes": sorted({process for change in made for process in change.answered_ms}),
            "answered_ms": _slowest([change.answered_ms for change in made]),
        }
        if any(change.shown_ms for change in made):
            keys[key]["shown_by"] = sorted({subject for change in made for subject in change.shown_ms})
            keys[key]["shown_ms"] = _slowest([change.shown_ms for change in made])
        for what in ("answered_ms", "shown_ms"):
            found = keys[key].get(what)
            if found is not None:
                bars.append(Bar(f"{key}: {what}, p99 of {len(made)}", found["p99"] or 0.0, BOUND_MS, at_least=False))
                bars.append(Bar(f"{key}: {what}, not in time", found["missing"], 0, at_least=False))
    return {
        "keys": keys,
        "roles": _by_role(changes),
        "changes": [asdict(change) for change in changes],
        "bars": [bar.to_json() for bar in bars],
    }


def _slowest(changes: Sequence[Mapping[str, float | None]]) -> dict[str, float | int | None]:
    """Of each change the process that came last; a change that one did not take in time counts as missing."""
    last = [
        max((ms for ms in change.values() if ms is not None), default=0.0) for change in changes if None not in change.values()
    ]
    return {**LatencyMs.of(last).to_json(), "missing": len(changes) - len(last)}


def _by_role(changes: Sequence[Made]) -> dict[str, dict[str, float | None]]:
    answers: dict[str, list[float]] = {}
    for change in changes:
        for process, ms in change.answered_ms.items():
            if ms is not None:
                answers.setdefault(process.partition("/")[0], []).append(ms)
    return {role: LatencyMs.of(found).to_json() for role, found in sorted(answers.items())}
