"""A node of `bench.distribution` that puts a bundle in place as the agent of a pod does before Ray starts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.distribution_node import TOKEN, host_of
from bench.distribution_run import Way
from deploy.node_environments import open_environments
from deploy.process_environment import (
    NODE_DIR_VARIABLE,
    PEERS_HOST_VARIABLE,
    PEERS_TOKEN_VARIABLE,
    STORE_VARIABLE,
    TRUST_VARIABLE,
)
from rayline.app_spec import AppSpec
from rayline.errors import RaylineError
from runtime_env.node.activation import Phase, Wanted
from runtime_env.node.preparing import OnPhase, OnProgress, Prepared
from workers.activation import Activator, Prepares

GIVE_UP_SECONDS: Final = 600.0
_ENDED: Final = "ended"


class NodeStart:
    """Owns a node's folder and what an agent has of it: the store, peers and trust by its variables, and the activator that
    fetches, verifies, unpacks and checks. Not the agent itself: there is no Kafka and no Ray."""

    def __init__(self, *, way: Way, name: str, app: Path, trust: Path, store_url: str, rate: int | None, folder: Path) -> None:
        peers = {PEERS_TOKEN_VARIABLE: TOKEN, PEERS_HOST_VARIABLE: host_of(name)} if way is Way.PEERS else {}
        own = {STORE_VARIABLE: store_url, TRUST_VARIABLE: str(trust), NODE_DIR_VARIABLE: str(folder / "node")}
        found = open_environments({**own, **peers}, node=f"bench/{name}", cores=1)
        self.peering = found.peering
        if self.peering is not None and rate is not None:
            self.peering.set_own_limit(rate)
        self._spec = AppSpec.from_dict(json.loads(app.read_text(encoding="utf-8")))
        self._steps = _TimedSteps(preparer=found.preparer)
        self._pod_dir = folder / "pod"
        self._pod_dir.mkdir()
        self._activator = Activator(folder=found.folder, preparer=self._steps, pod_dir=self._pod_dir)

    def run(self) -> dict[str, float]:
        """Seconds in each phase, attempts that failed and the pauses after them included. Raises RaylineError where the
        environment does not get ready."""
        return asyncio.run(self._start([self._spec]))

    async def _start(self, specs: Sequence[AppSpec]) -> dict[str, float]:
        running = asyncio.create_task(self._activator.run())
        self._activator.set_apps(specs)
        try:
            if not await asyncio.to_thread(self._steps.prepared.wait, GIVE_UP_SECONDS):
                raise RaylineError(f"not ready after {GIVE_UP_SECONDS:g} s: {self._activator.told(time.monotonic())}")
            return self._steps.seconds()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


class _TimedSteps:
    """The preparer, with a note of when each phase began."""

    def __init__(self, *, preparer: Prepares) -> None:
        self.prepared = threading.Event()
        self._preparer = preparer
        self._began: list[tuple[float, str]] = []

    def prepare(self, wanted: Wanted, on_phase: OnPhase, on_progress: OnProgress) -> Prepared:
        def noted(phase: Phase) -> None:
            self._note(phase)
            on_phase(phase)

        self._note(Phase.FETCHING)
        prepared = self._preparer.prepare(wanted, noted, on_progress)
        self._note(_ENDED)
        self.prepared.set()
        return prepared

    def seconds(self) -> dict[str, float]:
        spent: dict[str, float] = {}
        for (began, phase), (ended, _) in zip(self._began, self._began[1:], strict=False):
            spent[phase] = spent.get(phase, 0.0) + ended - began
        return spent

    def _note(self, phase: str) -> None:
        self._began.append((time.monotonic(), phase))
