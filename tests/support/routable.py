"""Which nodes get work, said the plain way: by looking at the whole view."""

from __future__ import annotations

from rayline.reports import ActorEndpoint, NodeState
from scheduler.view import NodeView, View


def routable(view: View, app: str, version: str, now: float) -> dict[str, tuple[NodeView, tuple[ActorEndpoint, ...]]]:
    """Nodes with their actors of the app, by key: ready, not cordoned, not silent; of other versions only where no node has any
    of `version`."""
    horizon = view.horizon(now)
    for wanted in (version, None):
        found = {}
        for node in view.nodes():
            report = node.report
            of_app = [actor for actor in report.actors or () if actor.app == app]
            actors = tuple(actor for actor in of_app if wanted in (actor.version, None))
            if actors and report.state is NodeState.READY and not report.cordoned and not node.suspect(horizon):
                found[node.key] = (node, actors)
        if found:
            return found
    return {}
