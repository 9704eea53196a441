"""Models that are published by themselves, on one node: what is wanted, what is in place, what is tried again when. Pure.

Times and events come in as arguments. What was in place stays told of while something newer is fetched, and one generation beyond
that: actors that run on it go on, and may start again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rayline.models import MAX_PROBLEM_CHARS, ModelChoice, NodeModels, PlacedModel, PlacedModels

FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0
# The generation in force, the one before it, and one that its actors may still be on their way to.
GENERATIONS_KEPT: Final = 3


@dataclass(frozen=True, slots=True)
class ModelTask:
    """Put these publications of an app's models in place."""

    app: str
    generation: int
    choices: Mapping[str, ModelChoice]


@dataclass(slots=True)
class _App:
    task: ModelTask
    asked: int
    placed: tuple[PlacedModels, ...] = ()
    placed_choices: dict[int, Mapping[str, ModelChoice]] = field(default_factory=dict)
    problem: str | None = None
    failures: int = 0
    retry_at: float = 0.0

    @property
    def is_done(self) -> bool:
        return bool(self.placed) and self.placed[-1].generation == self.task.generation


class ModelPlacements:
    """Owns what is wanted and known of each app's models. Does not own files, threads, or what fetching means.

    Life cycle: `want` at any time; whoever works asks `next_due`, and calls `succeed` or `fail` for it. Calls about a generation
    that is not wanted any more change nothing.
    """

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}

    def want(self, chosen: Mapping[str, tuple[int, Mapping[str, ModelChoice]]]) -> list[str]:
        """Exactly these from now on: the generation of the record that says so, and its choices, by app. Returns the apps that
        this changes anything for.

        Where a record's generation does not grow (the record was deleted, or its topic made anew), it is one more than before:
        nobody may mistake what comes later for something older.
        """
        changed = []
        for app in sorted({*chosen, *self._apps}):
            known = self._apps.get(app)
            asked, choices = chosen.get(app, (0, {}))
            if known is None:
                self._apps[app] = _App(ModelTask(app, asked, choices), asked)
            elif (known.asked, known.task.choices) == (asked, choices):
                continue
            else:
                generation = asked if asked > known.task.generation else known.task.generation + 1
                known.asked, known.task = asked, ModelTask(app, generation, choices)
                known.problem, known.failures, known.retry_at = None, 0, 0.0
            changed.append(app)
        return changed

    def apps(self) -> list[str]:
        """Every app that was ever chosen models for, since this began."""
        return sorted(self._apps)

    def told(self, app: str) -> NodeModels:
        """What the actors of an app are to know."""
        known = self._apps[app]
        return NodeModels(known.task.generation, known.placed, known.problem)

    def next_due(self, now: float) -> ModelTask | None:
        """What to fetch now: what was never tried before what failed."""
        due = [known for known in self._apps.values() if not known.is_done and known.retry_at <= now]
        due.sort(key=lambda known: (known.failures, known.task.generation))
        return due[0].task if due else None

    def wake_at(self) -> float | None:
        """When the next failed one is to be tried again; None where none failed."""
        return min((known.retry_at for known in self._apps.values() if not known.is_done and known.failures), default=None)

    def succeed(self, task: ModelTask, paths: Mapping[str, str], *, serving: int = 0) -> None:
        """The models of the task lie at these paths, by name. `serving` is the generation that actors are at: it stays told,
        however many newer ones they could not load."""
        known = self._apps[task.app]
        if known.task != task:
            return
        models = {name: PlacedModel(path, task.choices[name].publication) for name, path in paths.items()}
        placed = (*known.placed, PlacedModels(task.generation, models))
        in_use = tuple(one for one in placed[:-GENERATIONS_KEPT] if one.generation == serving)
        known.placed = in_use + placed[-GENERATIONS_KEPT:]
        known.placed_choices[task.generation] = task.choices
        known.placed_choices = {one.generation: known.placed_choices[one.generation] for one in known.placed}
        known.problem, known.failures = None, 0

    def fail(self, task: ModelTask, problem: str, now: float) -> None:
        """To be tried again after a second, and after twice as long each time, up to a minute."""
        known = self._apps[task.app]
        if known.task != task:
            return
        pause = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(known.failures, 20))
        known.problem, known.failures, known.retry_at = problem[:MAX_PROBLEM_CHARS], known.failures + 1, now + pause

    def needed(self) -> set[str]:
        """The digests of all publications that must not be collected: in place, or on their way."""
        return {
            choice.digest
            for known in self._apps.values()
            for choices in (known.task.choices, *known.placed_choices.values())
            for choice in choices.values()
        }
