"""One job's journey, as the headers of its result tell it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from deploy.job_search import search
from rayline.bus import KafkaSettings, missing_topics
from rayline.errors import BusError, FormatError
from rayline.results import Outcome, Result
from rayline.topics import results_topic

if TYPE_CHECKING:
    from deploy.printed_lines import JobLines

_PHASES: Final = {
    "queue": "waiting in Kafka and for its batch to close",
    "dispatch": "on the way to a worker, and waiting there",
    "execute": "in the feature function, with its batch",
    "publish": "waiting for and in the transaction that published it",
}
_UNANSWERED: Final = {"queue": "waiting, and all that it was tried in"}
_CAUSES: Final = {
    "evicted": "its node left, was leaving, or fell silent",
    "killed": "its worker died",
    "hung": "the call did not return within its limit",
    "error": "the function raised",
    "running": "had not answered when the job ended",
}
_BAR_CHARS: Final = 30
_FEATURE_CHARS: Final = 500
_TIERS: Final = {
    "room": "an actor was free, and by the node's last sample a core as well",
    "idle": "an actor was free, though the node's cores were taken",
    "spare": "behind a running batch, where batches are short",
}


async def find_results(settings: KafkaSettings, app: str, job: str, *, since_seconds: float | None = None) -> Sequence[Result]:
    """The results of a job's id or record, oldest first; see `deploy.job_search.search`.

    Raises:
        BusError: there is no such app, or its results cannot be read.
    """
    if await missing_topics(settings, [results_topic(app)]):
        raise BusError(f"no app {app!r} here: its topics do not exist; `rayline status` lists apps")
    return (await search(settings, app, job, since_seconds=since_seconds)).results


def journey_text(result: Result) -> str:
    """The journey for a person: outcome, place and why there, a bar for each phase, the result."""
    total = sum(result.timing_ms.values())
    arrived_ms = result.timestamp_ms - total
    lines = [
        f"job {result.job_id}: {result.outcome}"
        + (f" ({result.error_type}: {result.error_message})" if result.error_type else ""),
        f"  record    {result.source}",
        f"  arrived   {_moment(arrived_ms)}, published {_moment(result.timestamp_ms)}",
        f"  app       version {result.app_version or '–'}, model {result.model_version or '–'}",
        f"  ran on    {place_text(result)}",
        f"  attempts  {result.attempts}" + (f", last in batch {result.batch}" if result.batch else ""),
        *(f"    {line}" for line in tried_lines(result)),
        *(pick_text(result).split("\n")[1:] if result.pick is not None else ()),
        *([f"  trace     {result.trace_id}"] if result.trace_id else ()),
        f"  time      {total:.1f} ms",
    ]
    lines += [_phase_line(name, ms, total, answered=result.answered) for name, ms in result.timing_ms.items()]
    if result.outcome is Outcome.OK:
        lines.append(f"  result    {_feature(result)}")
    return "\n".join(lines)


def place_text(result: Result) -> str:
    """Where a job ran, or was sent last, or why it was nowhere; for a person."""
    if result.answered:
        return f"{result.cluster}/{result.node}"
    if result.node is not None:
        return f"ended without an answer; last sent to {result.cluster}/{result.node}"
    if result.attempts or result.outcome is Outcome.QUARANTINED:
        # Its workers died in the hands of an earlier owner of its partition.
        return "ended without an answer; where it was sent is not known any more"
    return f"no node: it was {'refused before dispatch' if result.outcome is Outcome.INVALID else 'never dispatched'}"


def tried_lines(result: Result) -> list[str]:
    """The attempts that brought no answer, oldest first, for a person."""
    untold = result.attempts - len(result.tried) - result.answered
    lines = [f"{untold} earlier one{'s' * (untold != 1)}, no longer told"] if result.tried and untold > 0 else []
    for one in result.tried:
        meaning = _CAUSES.get(one.cause, "not known to this version")
        lines.append(f"{one.cluster}/{one.node}  {one.cause}: {meaning} (batch {one.batch})")
    return lines


def printed_text(printed: JobLines | None) -> str:
    """What a job printed, for a person; None where that is not known."""
    if printed is None:
        return "  printed   not known"
    if printed.lost:
        return "  printed   nothing that is still kept"
    if not printed.lines:
        return "  printed   nothing"
    return "\n".join(["  printed", *(f"    {part}" for line in printed.lines for part in line.text(where=False).split("\n"))])


def pick_text(result: Result) -> str:
    """Why a job went to the node where it was sent last, for a person."""
    if result.pick is None:
        return f"job {result.job_id}: {place_text(result)}"
    pick = dict(part.partition("=")[::2] for part in result.pick.split(","))
    tier, nodes = pick.get("tier", ""), pick.get("nodes", "?")
    others = f"{nodes} node{'s' * (nodes != '1')} with such a place stood in the rotation"
    avoided, share = int(pick.get("avoided", "0")), float(pick.get("share", "nan"))
    return "\n".join(
        [
            f"job {result.job_id} was sent to {result.cluster}/{result.node} (attempt {result.attempts}, batch {result.batch})",
            f"  place     {tier}: {_TIERS.get(tier, 'not known to this version')}; {others}",
            f"  weight    {pick.get('weight', '?')}, {share:.1%} of the sum (update {pick.get('update')})",
            *([f"  operators {', '.join(told)}"] if (told := _operators(pick)) else []),
            f"  running   {pick.get('running', '?')} batch(es) of this lane were there already",
            *([f"  avoided   {avoided} node(s): this batch had failed there before, or runs there already"] if avoided else []),
        ]
    )


def _operators(pick: Mapping[str, str]) -> list[str]:
    """What operators multiplied the node's weight by."""
    names = {"traffic": "traffic.weight", "version": "traffic.version_weights"}
    return [f"{setting} {pick[name]}" for name, setting in names.items() if name in pick]


def _moment(at_ms: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms / 1000)) + f".{int(at_ms) % 1000:03d}Z"


def _feature(result: Result) -> str:
    try:
        text = json.dumps(result.feature(), ensure_ascii=False, default=repr)
    except FormatError as error:
        text = f"cannot be decoded: {error}"
    return text if len(text) <= _FEATURE_CHARS else f"{text[:_FEATURE_CHARS]}…"


def _phase_line(name: str, ms: float, total: float, *, answered: bool) -> str:
    meaning = _PHASES.get(name, "") if answered else _UNANSWERED.get(name, _PHASES.get(name, ""))
    share = ms / total if total else 0.0
    bar = "█" * round(share * _BAR_CHARS)
    return f"    {name:<9}{ms:9.1f} ms {share:5.0%}  {bar:<{_BAR_CHARS}}  {meaning}".rstrip()
