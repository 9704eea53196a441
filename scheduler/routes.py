"""Which nodes get an app's work, kept up to date by what changed in the view: a large view costs nothing where it rests."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from operator import attrgetter

from rayline.reports import ActorEndpoint, NodeState
from scheduler.view import NodeFacts, View

_key = attrgetter("key")


@dataclass(slots=True, eq=False)
class Route:
    """One node with actors that says that it is ready. `endpoints` are those of the app that get work, if any do;
    `interval_ms` is that of its beats when it was last looked at closely."""

    key: str
    node: NodeFacts
    actors: tuple[ActorEndpoint, ...]
    of_app: tuple[ActorEndpoint, ...]
    of_version: tuple[ActorEndpoint, ...]
    endpoints: tuple[ActorEndpoint, ...] = ()
    silent: bool = False
    interval_ms: int = 0


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """Since the last update, by key. `gone`: get no more work; `come`: get work now; one that started anew is in both. `told`:
    those that get work and of which anything was heard, `come` among them."""

    gone: list[str]
    come: list[Route]
    told: list[Route]


class Routes:
    """Owns which nodes get an app's work, as of the last update: ready, not cordoned, not silent, with actors of the app.

    Actors of the version asked for count; where no node has any (it is still being rolled out), those of other versions do.
    Where versions are to stand beside each other, each node's own version counts. Does not own the view. `update` costs what
    changed.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._view: View | None = None
        self._version: str | None = None
        self._beside: tuple[str, ...] | None = None
        self._revision = 0
        self._routes: dict[str, Route] = {}
        self._versioned: set[str] = set()  # those that are not silent and have actors of the version
        self._silent: set[str] = set()
        # When to look for silence, for each route that was not silent when it was last looked at; other entries are out of date.
        self._silences: list[tuple[float, str]] = []
        self._watched: dict[str, float] = {}
        self._live: dict[str, NodeFacts] = {}

    def update(self, view: View, version: str, now: float, *, beside: tuple[str, ...] | None = None) -> RouteChanges:
        """Take over what changed; `now` in monotonic seconds.

        Unless `beside` is None, nodes without actors of `version` get work as well: for those of the first version in `beside`
        that they have, else of any one.
        """
        horizon = view.horizon(now)
        if view is not self._view or version != self._version or beside != self._beside:
            self._view, self._version, self._beside = view, version, beside
            self._routes, self._versioned, self._silent, self._silences, self._watched = {}, set(), set(), [], {}
            look = {*view.keys(), *self._live}
        else:
            look = {*view.changed_since(self._revision), *self._fallen_silent(horizon), *self._silent}
        self._revision = view.revision
        rolled_out = bool(self._versioned)
        told, others = [], []
        node_of, routes, live = view.node, self._routes, self._live
        for key in sorted(look):
            node, route = node_of(key), routes.get(key)
            # Most of what is heard are beats, which change nothing here.
            if (
                route is not None
                and node is not None
                and live.get(key) is node
                and route.actors is node.actors
                and node.state is NodeState.READY
                and not node.cordoned
                and node.interval_ms >= route.interval_ms
                and not node.silent(horizon)
            ):
                told.append(route)
            else:
                others.append(key)
        looked = [route for key in others if (route := self._look(view, key, horizon)) is not None]
        if bool(self._versioned) is not rolled_out:
            others, looked, told = sorted({*look, *routes}), list(routes.values()), []
        for route in looked:
            route.endpoints = self._endpoints(route)
        gone, come = [], []
        for key in others:
            route = routes.get(key)
            node = route.node if route is not None and route.endpoints else None
            known = live.get(key)
            if known is node:
                continue
            if known is not None:
                gone.append(key)
                del live[key]
            if node is not None and route is not None:
                come.append(route)
                live[key] = node
        told += [route for route in looked if route.endpoints]
        told.sort(key=_key)
        return RouteChanges(gone, come, told)

    def _look(self, view: View, key: str, horizon: float) -> Route | None:
        """Bring one node's route up to the view; None where it has none."""
        node = view.node(key)
        if node is None or not node.actors or node.state is not NodeState.READY or node.cordoned:
            if self._routes.pop(key, None) is not None:
                self._versioned.discard(key)
                self._silent.discard(key)
            return None
        route = self._routes.get(key)
        if route is None or route.node is not node or route.actors is not node.actors:
            of_app = tuple([actor for actor in node.actors if actor.app == self._app])
            of_version = tuple([actor for actor in of_app if actor.version == self._version])
            route = self._routes[key] = Route(key, node, node.actors, of_app, of_version)
        route.silent = node.silent(horizon)
        if route.silent:
            self._silent.add(key)
            self._versioned.discard(key)
            return route
        self._silent.discard(key)
        if route.of_version:
            self._versioned.add(key)
        else:
            self._versioned.discard(key)
        route.interval_ms = node.interval_ms
        due = self._watched.get(key)
        if due is None or node.silent_after < due:
            self._watch(key, node.silent_after)
        return route

    def _endpoints(self, route: Route) -> tuple[ActorEndpoint, ...]:
        if route.silent:
            return ()
        if self._beside is None:
            return route.of_version if self._versioned else route.of_app
        return route.of_version or _of_one_version(route.of_app, self._beside)

    def _fallen_silent(self, horizon: float) -> list[str]:
        """Routes that were not heard in time; the next look at the others is put off."""
        silences, fallen, heard = self._silences, [], []
        while silences and silences[0][0] < horizon:
            due, key = heapq.heappop(silences)
            if self._watched.get(key) != due:
                continue
            route = self._routes.get(key)
            if route is None or route.node.silent(horizon):
                del self._watched[key]
                fallen.append(key)
            else:
                heard.append((key, route.node.silent_after))
        for entry in heard:
            self._watch(*entry)
        return fallen

    def _watch(self, key: str, due: float) -> None:
        self._watched[key] = due
        heapq.heappush(self._silences, (due, key))


def _of_one_version(actors: tuple[ActorEndpoint, ...], first: tuple[str, ...]) -> tuple[ActorEndpoint, ...]:
    """Those of one version; a node has several only while one takes the place of another."""
    here = [actor.version for actor in actors]
    chosen = next((version for version in first if version in here), here[0] if here else None)
    return tuple([actor for actor in actors if actor.version == chosen])
