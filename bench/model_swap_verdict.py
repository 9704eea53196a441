"""What results say of a run in which models were swapped: pure, made from plain values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LABEL = re.compile(r"(\d+):(?:weights@(\d+)|bundle)\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """One result: which node answered, what its header says of the model, what the function itself read in the model's file, and
    when its call began (ns, one machine's clock)."""

    node: str
    model_version: str | None
    publication: int
    began_ns: int
    published_ms: int

    @property
    def generation(self) -> int:
        match = _LABEL.match(self.model_version or "")
        return int(match[1]) if match else 0

    @property
    def is_labelled_right(self) -> bool:
        """The header names the publication that the function read."""
        match = _LABEL.match(self.model_version or "")
        return self.publication == (int(match[2]) if match and match[2] else 0)


@dataclass(frozen=True, slots=True)
class Swap:
    """A change that was asked for: its generation, and when the command began that asked for it (epoch ms). `exported_ms`: when
    the version lay there as a file, before it was published; None where an older one was taken again."""

    generation: int
    what: str
    at_ms: int
    exported_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`backwards`: calls that began, on their node, after one of a newer generation; `backwards_published`: the same by the times
    of the results in Kafka, where answers of one node may overtake each other. `taken_up_ms`: from the begin of a swap's
    command to the last node's first call, in order of the swaps; None where a node never came to it. `first_result_ms`: from the
    exported file to the first result in Kafka that it made, for those that were exported; None where there is none."""

    results: int
    failed: int
    lost: int
    duplicated: int
    mislabelled: int
    backwards: int
    backwards_published: int
    nodes: Mapping[str, int]
    generations: int
    swaps: int
    taken_up_ms: Sequence[int | None]
    first_result_ms: Sequence[int | None]

    @property
    def good(self) -> bool:
        wrong = self.failed + self.lost + self.duplicated + self.mislabelled + self.backwards
        return self.results > 0 and self.swaps > 0 and not wrong and None not in self.taken_up_ms

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def judge(answers: Sequence[Answer], swaps: Sequence[Swap], *, failed: int, lost: int, duplicated: int) -> Verdict:
    """All results of a run, in any order."""
    by_node: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_node[answer.node].append(answer)
    nodes = {node: len(found) for node, found in sorted(by_node.items())}
    return Verdict(
        results=len(answers) + failed,
        failed=failed,
        lost=lost,
        duplicated=duplicated,
        mislabelled=sum(not answer.is_labelled_right for answer in answers),
        backwards=sum(_falls(sorted(found, key=lambda one: one.began_ns)) for found in by_node.values()),
        backwards_published=sum(_falls(sorted(found, key=lambda one: one.published_ms)) for found in by_node.values()),
        nodes=nodes,
        generations=len({answer.generation for answer in answers}),
        swaps=len(swaps),
        taken_up_ms=[_taken_up_ms(swap, by_node.values()) for swap in swaps],
        first_result_ms=[_first_result_ms(swap, answers, swap.exported_ms) for swap in swaps if swap.exported_ms is not None],
    )


def _falls(ordered: Iterable[Answer]) -> int:
    """How many are older than one before them."""
    newest, falls = 0, 0
    for answer in ordered:
        falls += answer.generation < newest
        newest = max(newest, answer.generation)
    return falls


def _taken_up_ms(swap: Swap, nodes: Iterable[Iterable[Answer]]) -> int | None:
    firsts = [min((one.began_ns for one in found if one.generation >= swap.generation), default=None) for found in nodes]
    if not firsts or None in firsts:
        return None
    return round(max(first for first in firsts if first is not None) / 1e6) - swap.at_ms


def _first_result_ms(swap: Swap, answers: Iterable[Answer], exported_ms: int) -> int | None:
    first = min((one.published_ms for one in answers if one.generation >= swap.generation), default=None)
    return None if first is None else first - exported_ms
