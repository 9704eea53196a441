"""Which actors a cluster should have, against which it has, as actions. Pure: time and observations come in as arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import quote, unquote

from rayline.app_spec import AppSpec
from rayline.errors import WorkerError

NAME_PREFIX: Final = "rayline"
FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_ACTORS_PER_NODE: Final = 1024


class ActorDied(WorkerError):
    """An actor is gone for good."""


class ActorUnavailable(WorkerError):
    """An actor cannot answer now; Ray starts it again."""


@dataclass(frozen=True, slots=True)
class PodNode:
    """A living pod as Ray knows it. `incarnation` is its start (epoch ms)."""

    node_id: str
    pod: str
    incarnation: int
    cpus: float
    gpus: float = 0.0
    zone: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class ActorKey:
    """Names one actor of one pod; a pod that came back (another incarnation) has other actors.

    `models` is the generation of models that it was made for; 0: it takes what its node is at.
    """

    app: str
    version: str
    pod: str
    incarnation: int
    index: int
    models: int = 0

    @property
    def name(self) -> str:
        """The actor's name in Ray: `rayline:<app>:<version>:<pod>@<incarnation>:<index>`, each part percent-encoded, and
        `:<models>` where there are any."""
        node = f"{quote(self.pod, safe='')}@{self.incarnation}"
        name = f"{NAME_PREFIX}:{quote(self.app, safe='')}:{quote(self.version, safe='')}:{node}:{self.index}"
        return f"{name}:{self.models}" if self.models else name

    @classmethod
    def parse(cls, name: str) -> ActorKey | None:
        """The key of a name, or None when it is not one of ours."""
        parts = name.split(":")
        if len(parts) not in (5, 6) or parts[0] != NAME_PREFIX:
            return None
        pod, _, incarnation = parts[3].rpartition("@")
        if not (incarnation.isdecimal() and all(part.isdecimal() for part in parts[4:])):
            return None
        return cls(unquote(parts[1]), unquote(parts[2]), unquote(pod), int(incarnation), *map(int, parts[4:]))


class ActorPhase(Enum):
    """As the gateway sees an actor. FAILED: it is there, but its app cannot be loaded."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Observed:
    """One actor that exists: since when it is in its phase (monotonic seconds)."""

    phase: ActorPhase
    since: float


@dataclass(frozen=True, slots=True)
class Failures:
    """How often in a row an actor's app could not be loaded, and when it did last."""

    count: int
    last: float

    def may_try(self, now: float) -> bool:
        return now - self.last >= min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self.count - 1, 10))


@dataclass(frozen=True, slots=True)
class Place:
    """Make this actor on this node."""

    key: ActorKey
    node_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Nobody needs this actor any more: let it finish, then remove it."""

    key: ActorKey


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget this actor at once: its pod is gone, or its app could not be loaded and is to be tried again."""

    key: ActorKey


Action = Place | Drain | Remove


def share_node(node: PodNode, apps: Sequence[AppSpec]) -> dict[str, int]:
    """How many actors of each app a node gets: one for each in turn while CPUs and GPUs last, up to `actors_per_node`.

    Every app gets at least one where nothing else fits, so that an app larger than a node is slow there rather than absent; GPUs
    are never promised twice.
    """
    counts = {spec.name: 0 for spec in apps}
    cpus, gpus = node.cpus, node.gpus
    open_apps = sorted(apps, key=lambda spec: spec.name)
    while open_apps:
        left = []
        for spec in open_apps:
            need = spec.resources
            first = counts[spec.name] == 0
            wanted = spec.actors_per_node is None or counts[spec.name] < spec.actors_per_node
            has_cpu = first or spec.actors_per_node is not None or cpus >= need.num_cpus > 0
            if wanted and has_cpu and gpus >= need.num_gpus and counts[spec.name] < MAX_ACTORS_PER_NODE:
                counts[spec.name] += 1
                cpus -= need.num_cpus
                gpus -= need.num_gpus
                left.append(spec)
        open_apps = left
    return counts


def _everywhere(spec: AppSpec, _: PodNode) -> AppSpec:
    return spec


def plan(
    *,
    apps: Mapping[str, AppSpec],
    nodes: Sequence[PodNode],
    actors: Mapping[ActorKey, Observed],
    failures: Mapping[ActorKey, Failures],
    now: float,
    held: Set[str] = frozenset(),
    models: Mapping[tuple[str, str, int], int] | None = None,
    spec_on: Callable[[AppSpec, PodNode], AppSpec] = _everywhere,
) -> list[Action]:
    """What to do now. Old versions (of an app, or of its models) on a node go once every actor of the new one there is ready.

    `spec_on` tells which version of an app a node is to run. `held` names apps of which it is not known yet what they should be:
    their actors stay as they are. `models` gives the generation that needs actors of its own, by app, pod and incarnation.
    """
    models = models or {}
    desired: dict[ActorKey, PodNode] = {}
    successors: dict[tuple[str, str, int], AppSpec] = {}
    living = {(node.pod, node.incarnation) for node in nodes}
    for node in nodes:
        here = {app: spec_on(spec, node) for app, spec in apps.items()}
        successors.update({(app, node.pod, node.incarnation): spec for app, spec in here.items()})
        for app, count in share_node(node, list(here.values())).items():
            for index in range(count):
                generation = models.get((app, node.pod, node.incarnation), 0)
                desired[ActorKey(app, here[app].version, node.pod, node.incarnation, index, generation)] = node
    unready = {
        (key.app, key.pod, key.incarnation) for key in desired if key not in actors or actors[key].phase is not ActorPhase.READY
    }
    actions: list[Action] = []
    for key in sorted(actors):
        phase = actors[key].phase
        if (key.pod, key.incarnation) not in living:
            actions.append(Remove(key))
        elif key in desired:
            if phase is ActorPhase.FAILED and _may_try(key, failures, now):
                actions.append(Remove(key))
        elif key.app in held:
            continue
        elif phase is ActorPhase.FAILED:
            actions.append(Remove(key))
        elif phase is not ActorPhase.DRAINING and not _waits_for_successor(key, successors, models, unready):
            actions.append(Drain(key))
    actions += [
        Place(key, node.node_id)
        for key, node in sorted(desired.items(), key=lambda item: item[0])
        if key not in actors and _may_try(key, failures, now)
    ]
    return actions


def _may_try(key: ActorKey, failures: Mapping[ActorKey, Failures], now: float) -> bool:
    return key not in failures or failures[key].may_try(now)


def _waits_for_successor(
    key: ActorKey,
    successors: Mapping[tuple[str, str, int], AppSpec],
    models: Mapping[tuple[str, str, int], int],
    unready: set[tuple[str, str, int]],
) -> bool:
    place = (key.app, key.pod, key.incarnation)
    successor = successors.get(place)
    if successor is None or successor.resources.num_gpus > 0:
        # A GPU is not there twice: its old owner has to go first.
        return False
    if (successor.version, models.get(place, 0)) == (key.version, key.models):
        return False
    return place in unready


def wanted_models(actors: Mapping[ActorKey, int]) -> dict[tuple[str, str, int], int]:
    """The generation of models that needs actors of its own, by app, pod and incarnation: the newest that an actor there asks
    for, or was made for. `actors` holds what each one asks for (0: nothing)."""
    found: dict[tuple[str, str, int], int] = {}
    for key, asked in actors.items():
        place = (key.app, key.pod, key.incarnation)
        found[place] = max(found.get(place, 0), key.models, asked)
    return {place: generation for place, generation in found.items() if generation}


def withheld(ready: Set[ActorKey]) -> set[ActorKey]:
    """Ready actors that lanes shall not hear of yet: their first call ends the turn of older models on that node, so as many of
    them must be ready as there are old ones."""
    counts = Counter((_place_of(key), key.models) for key in ready)
    return {
        key
        for key in ready
        if any(
            place == _place_of(key) and models < key.models and count > counts[place, key.models]
            for (place, models), count in counts.items()
        )
    }


def _place_of(key: ActorKey) -> tuple[str, str, str, int]:
    return key.app, key.version, key.pod, key.incarnation
