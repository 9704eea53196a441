"""Which nodes get work, said the plain way: by looking at the whole view."""

from __future__ import annotations

from rayline.reports import ActorEndpoint, NodeState
from scheduler.view import NodeView, View


def routable(
    view: View, app: str, version: str, now: float, beside: tuple[str, ...] | None = None
) -> dict[str, tuple[NodeView, tuple[ActorEndpoint, ...]]]:
    """Nodes with their actors of the app, by key: ready, not cordoned, not silent; of other versions only where no node has any
    of `version`, or (each node one, those in `beside` first) where they stand beside it."""
    horizon = view.horizon(now)
    for wanted in (version, None):
        found = {}
        for node in view.nodes():
            report = node.report
            of_app = [actor for actor in report.actors or () if actor.app == app]
            if beside is None:
                actors = tuple(actor for actor in of_app if wanted in (actor.version, None))
            else:
                order = [*(v for v in (version, *beside) if v in {a.version for a in of_app}), *(a.version for a in of_app)]
                actors = tuple(actor for actor in of_app if actor.version == order[0])
            if actors and report.state is NodeState.READY and not report.cordoned and not node.suspect(horizon):
                found[node.key] = (node, actors)
        if found:
            return found
    return {}
