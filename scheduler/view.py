"""The view: what is known of all nodes of all clusters, merged from reports. Pure; time comes in as an argument.

Merging does not depend on the order of reports: a larger incarnation replaces a smaller one, within one incarnation the state
only moves forward, and the list of actors comes from the report with the largest sequence number that has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from rayline.reports import ActorEndpoint, NodeReport, NodeState

SUSPECT_AFTER_SECONDS: Final = 3.5


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as merged. `heard` is the monotonic time (seconds) of the last report of it; `actors_seq` orders actor lists."""

    report: NodeReport
    heard: float
    actors_seq: int

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

    def apply(self, reports: Iterable[NodeReport], now: float) -> bool:
        """Merge reports heard at `now` (monotonic seconds); True when state or actors of a node changed."""
        changed = False
        for report in reports:
            known = self._nodes.get(report.key)
            merged = _merge(known, report, now)
            changed |= known is None or known.report != merged.report
            self._nodes[report.key] = merged
        return changed

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
    if known is None or report.incarnation > known.report.incarnation:
        return NodeView(report=report, heard=now, actors_seq=report.seq if report.actors is not None else -1)
    if report.incarnation < known.report.incarnation:
        return known
    old = known.report
    newer = report.actors is not None and report.seq > known.actors_seq
    later = report if report.state > old.state else old
    merged = replace(
        old,
        state=later.state,
        reason=later.reason if later is report else (report.reason if newer else old.reason),
        seq=max(old.seq, report.seq),
        cpus=report.cpus if report.cpus is not None and (newer or old.cpus is None) else old.cpus,
        zone=old.zone or report.zone,
        actors=report.actors if newer else old.actors,
    )
    return NodeView(report=merged, heard=max(now, known.heard), actors_seq=report.seq if newer else known.actors_seq)
