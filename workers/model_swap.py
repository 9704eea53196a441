"""How one actor gets from one version of its models to the next: the successor is loaded while it serves, then waits its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from rayline.app_spec import AppSpec, ModelSwap
from rayline.errors import ActorUnready, FormatError
from rayline.models import MAX_PROBLEM_CHARS, NodeModels, PlacedModel, PlacedModels
from workers.app_versions import AppVersions, Served
from workers.failures import TracebackLog, bounded
from workers.loading import LoadedApp, load_successor
from workers.model_turn import ModelTurn

LOOK_SECONDS = 0.1
RETRY_SECONDS = 15.0
# Of `limits.startup_seconds`, for the agent to put the models in place; the rest is the app's own.
WAIT_SHARE = 0.5


def choose_first(models: NodeModels, *, served: bool, turn: int, asked: int) -> PlacedModels | None:
    """What an actor that starts loads: what it was made for (unless the node is past it), else what its neighbours serve, else
    the newest; None: not here yet."""
    if asked > turn:
        return models.of(asked)
    if served:
        return models.of(turn)
    if models.newest is not None:
        return models.newest
    return None if models.wanted else models.of(0)


class ModelFollower:
    """Follows what the agent puts in place for one actor. Owns a thread and the actor's part in the node's turn; does not own the
    app that serves (`AppVersions`), nor a successor that is an actor of its own (the gateway places it).

    Life cycle: `first` before the app is loaded; `follow` once it is; `close` ends it (an actor never does).
    """

    def __init__(self, *, spec: AppSpec, turn: ModelTurn, asked: int = 0) -> None:
        """`asked` is the generation for which the gateway made this actor; 0: none in particular."""
        self._spec = spec
        self._turn = turn
        self._asked = asked
        self._tracebacks = TracebackLog()
        self._closed = threading.Event()
        self._models: Mapping[str, PlacedModel] | None = None
        self._first_here = False
        self._failed: tuple[int, float] | None = None
        self._wanted_actor = 0
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def wanted_actor(self) -> int:
        """The generation that needs an actor of its own here; 0: none does."""
        return self._wanted_actor

    @property
    def problem(self) -> str | None:
        """Why the wanted models are not served here, when that is more than a matter of moments."""
        return self._problem

    def first(self) -> PlacedModels:
        """What this actor is to load; waits for the agent. Raises ActorUnready when nothing is there in time."""
        until = time.monotonic() + WAIT_SHARE * self._spec.limits.startup_seconds
        while True:
            try:
                models = self._turn.placed()
            except FormatError as error:
                raise ActorUnready(f"app {self._spec.name}: {error}") from error
            served = self._turn.is_served()
            found = choose_first(models, served=served, turn=self._turn.turn[0], asked=self._asked)
            if found is not None:
                self._models, self._first_here = found.models, not served
                return found
            if time.monotonic() >= until:
                wanted = self._asked or models.wanted
                why = models.problem or "the node's agent has not put them in place"
                raise ActorUnready(f"app {self._spec.name}: models of generation {wanted} are not on this node: {why}")
            self._closed.wait(LOOK_SECONDS)

    def follow(self, versions: AppVersions) -> None:
        """Look for news from now on."""
        self.loaded(versions)
        self._thread = threading.Thread(target=self._follow, args=(versions,), name="rayline-models", daemon=True)
        self._thread.start()

    def loaded(self, versions: AppVersions) -> None:
        """The first version could serve now."""
        self._turn.prepared(versions.prepared)
        if self._first_here:
            # Nobody serves anything older: who starts next need not begin with it.
            self._turn.advance(versions.prepared)

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._turn.close()

    def _follow(self, versions: AppVersions) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self.step(versions, time.monotonic())
            except (FormatError, OSError) as error:
                self._problem = bounded(f"models: {error}", MAX_PROBLEM_CHARS)

    def step(self, versions: AppVersions, now: float) -> None:
        """One look: load what is new, and move the turn on when all actors of the app here are ready for it."""
        models = self._turn.placed()
        newest = models.newest
        if newest is None or newest.generation <= versions.prepared:
            self._problem = models.problem
        elif newest.models == self._models:
            # The same models chosen once more: nothing is to be loaded.
            self._hold_ready(versions, load_version(newest, lambda: versions.newest.app))
        elif self._spec.model_swap is ModelSwap.ACTOR:
            self._wanted_actor = newest.generation
            self._problem = models.problem
        elif self._failed is None or self._failed[0] != newest.generation or now - self._failed[1] >= RETRY_SECONDS:
            self._prepare(versions, newest, now)
        if versions.prepared > versions.served.generation and self._turn.advance_together(versions.prepared):
            # So that the earlier one is let go, although no call may come for long.
            versions.take()

    def _prepare(self, versions: AppVersions, placed: PlacedModels, now: float) -> None:
        served = versions.served
        try:
            successor = load_version(placed, lambda: load_successor(self._spec, served.app, placed.paths))
        except ActorUnready as error:
            self._failed = (placed.generation, now)
            self._tracebacks.print(error)
            self._problem = bounded(f"models {placed.label} do not load, the earlier ones go on: {error}", MAX_PROBLEM_CHARS)
            return
        self._models = placed.models
        self._hold_ready(versions, successor)

    def _hold_ready(self, versions: AppVersions, successor: Served) -> None:
        self._failed = self._problem = None
        self._wanted_actor = 0
        self._turn.prepared(successor.generation, lambda: versions.prepare(successor))


def load_version(placed: PlacedModels, load: Callable[[], LoadedApp]) -> Served:
    """Load the app with these models; results name the generation, and behind it what the app itself declares."""
    app = load()
    named = [part for part in (placed.label, app.model_version) if part]
    return Served(app, placed.generation, " ".join(named) or None)
