"""Puts published models in place on a node, beside what runs, and tells the actors; decisions are `runtime_env.node.models`'."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final, Protocol

from rayline.config import AppValues
from rayline.errors import RaylineError
from rayline.file_locks import FileLease
from rayline.models import ModelChoice, generation_at, read_choices
from rayline.reports import ModelLoad
from rayline.waits import news_by
from runtime_env.node.model_fetching import HeldModel
from runtime_env.node.models import ModelPlacements, ModelTask
from workers.daemon_call import in_daemon_thread
from workers.model_turn import models_folder, read_turn, write_placed

_log: Final = logging.getLogger(__name__)


class FetchesModels(Protocol):
    """What brings one model to this node: `runtime_env.node.model_fetching.ModelFetcher`."""

    def fetch(self, app: str, name: str, choice: ModelChoice, /) -> HeldModel: ...


class ModelPlacer:
    """Owns the thread that fetches, this pod's leases on models, and what its actors are told of them. Does not own the node's
    folder, which other pods of the machine may use as well, nor when an actor takes a model up.

    Life cycle: `set_models` at any time; `begin` once the pod's folder is there, before any actor is; `run` until cancelled.
    Leases end with `run`, or with the process.
    """

    def __init__(self, *, fetcher: FetchesModels, pod_dir: Path) -> None:
        self._fetcher = fetcher
        self._pod_dir = pod_dir
        self._placements = ModelPlacements()
        self._unsaid: set[str] = set()
        self._leases: dict[str, FileLease] = {}
        self._begun = False
        self._wake = asyncio.Event()

    def set_models(self, values: AppValues) -> None:
        """What the setting `models` says of each app now; raises ValueError for choices that are none."""
        chosen = {app: (generation_at(version), read_choices(value)) for app, (version, value) in values.apps.items()}
        self._unsaid.update(self._placements.want(chosen))
        if self._begun:
            self._tell()
        self._wake.set()

    def begin(self) -> None:
        """Tell actors that are yet to come what they wait for."""
        self._begun = True
        self._tell()

    async def run(self) -> None:
        """Fetch what is due, the models of one app at a time; what failed again after its pause."""
        try:
            while True:
                self._wake.clear()
                task = self._placements.next_due(time.monotonic())
                if task is not None:
                    await self._place(task)
                else:
                    await news_by(self._wake, self._placements.wake_at())
        finally:
            for lease in self._leases.values():
                lease.release()

    def told(self) -> tuple[ModelLoad, ...]:
        """What a beat says of them."""
        apps = [(app, self._placements.told(app)) for app in self._placements.apps()]
        return tuple(
            ModelLoad(app, models.wanted, read_turn(models_folder(self._pod_dir, app)), models.problem) for app, models in apps
        )

    async def _place(self, task: ModelTask) -> None:
        try:
            paths = {name: await self._fetched(task.app, name, choice) for name, choice in sorted(task.choices.items())}
        except Exception as error:  # noqa: BLE001 - whatever one model does, the node and its other apps go on
            known = isinstance(error, RaylineError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            _log.warning("models of %s, generation %d: %s", task.app, task.generation, text, exc_info=None if known else error)
            self._placements.fail(task, text, time.monotonic())
        else:
            _log.info("models of %s, generation %d, are in place", task.app, task.generation)
            serving = read_turn(models_folder(self._pod_dir, task.app))
            self._placements.succeed(task, paths, serving=serving)
        self._unsaid.add(task.app)
        self._tell()
        needed = self._placements.needed()
        for digest in [digest for digest in self._leases if digest not in needed]:
            self._leases.pop(digest).release()

    async def _fetched(self, app: str, name: str, choice: ModelChoice) -> str:
        # A store that does not answer must not hold up the end of the pod.
        held = await in_daemon_thread(
            lambda: self._fetcher.fetch(app, name, choice), name="rayline-model", unwanted=lambda late: late.lease.release()
        )
        before = self._leases.get(choice.digest)
        self._leases[choice.digest] = held.lease
        if before is not None:
            before.release()
        return str(held.path)

    def _tell(self) -> None:
        for app in sorted(self._unsaid):
            write_placed(models_folder(self._pod_dir, app), self._placements.told(app))
        self._unsaid.clear()
