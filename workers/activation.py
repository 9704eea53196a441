"""Puts the environments of a node's apps in place, one after the other, beside what runs; the decisions are
`runtime_env.node.activation`'s, the steps `runtime_env.node.preparing`'s."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Final, Protocol

from rayline.app_spec import AppSpec
from rayline.engines import Chosen
from rayline.errors import RaylineError
from rayline.file_locks import FileLease
from rayline.reports import MAX_ENVIRONMENTS, EnvironmentLoad
from rayline.waits import news_by
from runtime_env.bundle import Bundle
from runtime_env.node.activation import Activation, Activations, Phase, Wanted
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import OnPhase, OnProgress, Prepared, failure_of
from runtime_env.preflight import check_health
from runtime_env.process_environment import process_environment, python_of
from runtime_env.providers import check_provider, choose_provider
from workers.bundle_process import check_guest, without_secrets
from workers.daemon_call import in_daemon_thread, post
from workers.pod_environments import PodEnvironment, forget_environment, write_environment

MAX_TOLD_CHARS: Final = 600
# In the place of a version, for an environment that nothing runs from yet.
PREFETCHED: Final = "(prefetched)"

_log = logging.getLogger(__name__)


class Prepares(Protocol):
    """What carries out the steps: `runtime_env.node.preparing.Preparer`."""

    def prepare(self, wanted: Wanted, on_phase: OnPhase, on_progress: OnProgress, /) -> Prepared: ...


class Activator:
    """Owns the thread that prepares, this pod's leases on environments, and the files by which its actors learn of them. Does not
    own the node's folder, which other pods of the machine may use as well.

    Life cycle: `set_apps` at any time in the loop's thread; `run` until cancelled; `settled` returns once each environment that
    the apps need is ready or was tried. Leases end with `run`, or with the process.
    """

    def __init__(self, *, folder: NodeFolder, preparer: Prepares, pod_dir: Path) -> None:
        self._folder = folder
        self._preparer = preparer
        self._pod_dir = pod_dir
        self._activations = Activations()
        self._leases: dict[str, FileLease] = {}
        self._ready: dict[str, Prepared] = {}
        self._apps_known = False
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()

    def set_apps(self, apps: Sequence[AppSpec], *, kept_back: Set[str] = frozenset()) -> None:
        """All apps that run on this node from now on; those without a bundle need nothing. Those in `kept_back` are to run in the
        version before the newest."""
        wanted = [Wanted(spec.name, spec.version, spec.bundle, back=spec.name in kept_back) for spec in apps if spec.bundle]
        wanted += [
            Wanted(spec.name, PREFETCHED, spec.prefetch, ahead=True) for spec in apps if spec.prefetch not in ("", spec.bundle)
        ]
        for digest in self._activations.want(wanted, time.monotonic()):
            forget_environment(self._pod_dir, digest)
            self._ready.pop(digest, None)
            self._release(digest)
        self._apps_known = True
        self._note_change()
        self._wake.set()

    async def settled(self) -> None:
        """Until the apps are known, and each of their environments is ready or was tried once."""
        while not (self._apps_known and self._activations.settled):
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Prepare what is due, one environment at a time; what failed again after its pause."""
        try:
            while True:
                self._wake.clear()
                wanted = self._activations.next_due(time.monotonic())
                if wanted is not None:
                    await self._prepare(wanted)
                else:
                    await news_by(self._wake, self._activations.wake_at())
        finally:
            for digest in list(self._leases):
                self._release(digest)

    def told(self, now: float) -> tuple[EnvironmentLoad, ...]:
        """What a beat says of them: those that are not ready first."""
        found = sorted(self._activations.all(), key=lambda one: one.phase is Phase.READY)
        return tuple(_load(one, now) for one in found[:MAX_ENVIRONMENTS])

    async def _prepare(self, wanted: Wanted) -> None:
        digest = wanted.digest
        self._activations.begin(digest, time.monotonic())
        self._note_change(digest)
        _log.info("environment of %s %s: %s", wanted.app, wanted.version, digest)
        try:
            if digest not in self._leases:
                self._leases[digest] = self._folder.lease(digest)
            prepared = await self._in_thread(wanted)
        except Exception as error:  # noqa: BLE001 - whatever one environment does, the node and its other apps go on
            failure = failure_of(error)
            known = error if not isinstance(error, RaylineError) else None
            _log.warning("environment of %s %s failed: %s", wanted.app, wanted.version, failure.reason, exc_info=known)
            self._activations.fail(digest, failure, time.monotonic())
        else:
            self._activations.succeed(digest, time.monotonic())
            if self._activations.get(digest) is not None:
                self._ready[digest] = prepared
            engine = "" if prepared.chosen is None else f", {prepared.chosen.engine} on {prepared.chosen.provider}"
            _log.info("environment of %s %s is ready: Python %s%s", wanted.app, wanted.version, prepared.bundle.python, engine)
        if self._activations.get(digest) is None:
            self._release(digest)
        self._note_change(digest)

    async def _in_thread(self, wanted: Wanted) -> Prepared:
        """In a daemon thread: a pod that is evicted during a long download must not wait for it."""
        loop, digest = asyncio.get_running_loop(), wanted.digest

        def on_phase(phase: Phase) -> None:
            post(loop, lambda one: self._advance(digest, one), phase)

        def on_progress(fetched_bytes: int, total_bytes: int) -> None:
            post(loop, lambda one: self._progress(digest, *one), (fetched_bytes, total_bytes))

        return await in_daemon_thread(lambda: self._preparer.prepare(wanted, on_phase, on_progress), name="rayline-environment")

    def _advance(self, digest: str, phase: Phase) -> None:
        self._activations.advance(digest, phase, time.monotonic())
        self._note_change(digest)

    def _progress(self, digest: str, fetched_bytes: int, total_bytes: int) -> None:
        self._activations.progress(digest, fetched_bytes, total_bytes)
        self._changed.set()

    def _note_change(self, digest: str | None = None) -> None:
        one = None if digest is None else self._activations.get(digest)
        if one is not None:
            try:
                write_environment(self._pod_dir, self._file_of(one))
            except OSError as error:
                _log.error("the pod's actors cannot be told of %s: %s", one.wanted, error)
                if one.phase is Phase.READY:
                    # Tried again until they can be.
                    self._activations.fail(one.wanted.digest, failure_of(error), time.monotonic())
        self._changed.set()

    def _file_of(self, one: Activation) -> PodEnvironment:
        digest = one.wanted.digest
        ready = self._ready.get(digest) if one.phase is Phase.READY else None
        failure = one.failure
        return PodEnvironment(
            digest=digest,
            phase=one.phase.value,
            root=None if ready is None else str(ready.root),
            lease=None if ready is None else str(self._folder.lease_file(digest)),
            reason=None if failure is None else failure.reason[-MAX_TOLD_CHARS:],
            remedy=None if failure is None else failure.remedy,
            engine={} if ready is None or ready.chosen is None else asdict(ready.chosen),
        )

    def _release(self, digest: str) -> None:
        lease = self._leases.pop(digest, None)
        if lease is not None:
            lease.release()


def check_environment(root: Path, bundle: Bundle, cards: Sequence[str]) -> Chosen | None:
    """The health check of a node with cards of these kinds: the app's engine is asked for its provider, then the app's entrypoint
    and the actor's own part are imported, each in a process of its own. Returns what the app computes with, where it names an
    engine.

    Raises HealthCheckFailed, ProviderAbsent.
    """
    variables = without_secrets(os.environ)
    chosen = choose_provider(bundle, cards)
    if chosen is not None:
        check_provider(root, bundle, chosen, variables)
    check_imports(root, bundle, chosen)
    return chosen


def check_imports(root: Path, bundle: Bundle, chosen: Chosen | None = None) -> None:
    """The part of the health check that a machine can do which is no node (`chosen` is None there). Raises HealthCheckFailed."""
    variables = without_secrets(os.environ)
    check_health(root, bundle, variables, chosen)
    environment = process_environment(root, bundle, variables, chosen)
    check_guest(python_of(root), environment, root, timeout_seconds=bundle.startup_seconds)


def _load(one: Activation, now: float) -> EnvironmentLoad:
    failed = one.phase is Phase.FAILED
    failure = one.failure if failed else None
    fetching = one.phase is Phase.FETCHING and one.total_bytes > 0
    return EnvironmentLoad(
        app=one.wanted.app,
        version=one.wanted.version,
        phase=one.phase.value,
        share=round(one.fetched_bytes / one.total_bytes, 3) if fetching else None,
        reason=None if failure is None else failure.reason[-MAX_TOLD_CHARS:],
        remedy=None if failure is None else failure.remedy,
        retry_seconds=round(max(0.0, one.retry_at - now), 1) if failed else None,
    )
