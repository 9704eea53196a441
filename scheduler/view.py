"""The view: what is known of all nodes of all clusters, merged from reports. Pure; time comes in as an argument.

Merging does not depend on the order of reports, nor on how often one arrives: a larger incarnation replaces a smaller one,
within one incarnation the state only moves forward, and each other fact comes from the report that ranks highest for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from rayline.reports import ActorEndpoint, NodeReport, NodeState

SUSPECT_AFTER_SECONDS: Final = 3.5
FORGET_AFTER_SECONDS: Final = 600.0

_Rank = tuple[object, ...]
_NO_RANK: Final[_Rank] = ()


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as merged. `heard` is the monotonic time (seconds) of the last report of it.

    The ranks say how well founded actors, CPUs, zone and reason are: another report counts where it ranks higher.
    """

    report: NodeReport
    heard: float
    actors_rank: _Rank = _NO_RANK
    cpus_rank: _Rank = _NO_RANK
    zone_rank: _Rank = _NO_RANK
    reason_rank: _Rank = _NO_RANK

    @property
    def key(self) -> str:
        return self.report.key

    def suspect(self, now: float) -> bool:
        """It fell silent: three beats of one second were missed."""
        return now - self.heard > SUSPECT_AFTER_SECONDS


class View:
    """Owns the merged nodes. Does not own their weights or what is in flight there."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeView] = {}
        self._next_forgetting = 0.0

    def apply(self, reports: Iterable[NodeReport], now: float) -> bool:
        """Merge reports heard at `now` (monotonic seconds); True when more than their sequence numbers is new."""
        changed = False
        for report in reports:
            known = self._nodes.get(report.key)
            merged = _merge(known, report, now)
            changed |= known is None or known.suspect(now) or replace(known.report, seq=merged.report.seq) != merged.report
            self._nodes[report.key] = merged
        if now >= self._next_forgetting:
            self._next_forgetting = now + FORGET_AFTER_SECONDS / 10
            changed |= self._forget(now)
        return changed

    def _forget(self, now: float) -> bool:
        """Drop nodes of which nothing was heard for long; with every reporter silent, none."""
        if all(node.suspect(now) for node in self._nodes.values()):
            return False
        silent = [key for key, node in self._nodes.items() if now - node.heard > FORGET_AFTER_SECONDS]
        for key in silent:
            del self._nodes[key]
        return bool(silent)

    def nodes(self) -> list[NodeView]:
        return [self._nodes[key] for key in sorted(self._nodes)]

    def get(self, key: str) -> NodeView | None:
        return self._nodes.get(key)

    def routable(self, app: str, version: str, now: float) -> dict[str, tuple[NodeView, tuple[ActorEndpoint, ...]]]:
        """Ready nodes with actors of the app, by key.

        Actors of `version` count; where no node has any (it is still being rolled out), those of the app's other versions do.
        Suspect nodes are left out as long as another one is there: with every reporter silent, the last view stays in force.
        """
        ready = [node for node in self.nodes() if node.report.state is NodeState.READY and node.report.actors]
        for wanted in (version, None):
            found = {
                node.key: (node, actors)
                for node in ready
                if (
                    actors := tuple(
                        actor
                        for actor in node.report.actors or ()
                        if actor.app == app and (wanted is None or actor.version == wanted)
                    )
                )
            }
            if found:
                fresh = {key: entry for key, entry in found.items() if not entry[0].suspect(now)}
                return fresh or found
        return {}


def _merge(known: NodeView | None, report: NodeReport, now: float) -> NodeView:
    new = _alone(report, now)
    if known is None or report.incarnation > known.report.incarnation:
        return new
    if report.incarnation < known.report.incarnation:
        return known
    old = known.report
    actors = max(known, new, key=lambda view: view.actors_rank)
    cpus = max(known, new, key=lambda view: view.cpus_rank)
    zone = max(known, new, key=lambda view: view.zone_rank)
    reason = max(known, new, key=lambda view: view.reason_rank)
    return NodeView(
        report=replace(
            old,
            state=max(old.state, report.state),
            seq=max(old.seq, report.seq),
            actors=actors.report.actors,
            cpus=cpus.report.cpus,
            zone=zone.report.zone,
            reason=reason.report.reason,
        ),
        heard=max(now, known.heard),
        actors_rank=actors.actors_rank,
        cpus_rank=cpus.cpus_rank,
        zone_rank=zone.zone_rank,
        reason_rank=reason.reason_rank,
    )


def _alone(report: NodeReport, now: float) -> NodeView:
    """A node of which this is the first report. The values themselves stand last in a rank: two reporters may share a number."""
    complete = report.actors is not None
    return NodeView(
        report=report,
        heard=now,
        actors_rank=(report.seq, repr(report.actors)) if complete else _NO_RANK,
        cpus_rank=(complete, report.seq, report.cpus) if report.cpus is not None else _NO_RANK,
        zone_rank=(complete, report.seq, report.zone) if report.zone is not None else _NO_RANK,
        reason_rank=(report.state, report.seq, report.reason or ""),
    )
