"""The Ray actor that runs one app in one process and hosts its own Flight port.

Its class is carried to the worker by value (`ray.cloudpickle.register_pickle_by_value(workers)`): a user's project may have a
package `workers` of its own. Hence no logger, lock or import of `workers` at run time in what it uses.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rayline
from rayline.app_spec import AppSpec
from rayline.errors import ActorUnready
from rayline.models import BUNDLED
from rayline.telemetry import open_tracing
from workers.app_versions import AppVersions
from workers.drain_port import DrainPort
from workers.executor import Executor
from workers.failures import MAX_TRACEBACK_CHARS, TracebackLog, bounded
from workers.feature_server import FeatureServer
from workers.job_gauge import JobGauge
from workers.loading import load_app
from workers.model_swap import ModelFollower, load_version
from workers.model_turn import ModelTurn, models_folder
from workers.output.capture import OutputCapture, capture_output, secrets_in
from workers.output.frames import Hello
from workers.pod_folder import NOTICE_MARK, POD_DIR_VARIABLE
from workers.sessions import lead_group
from workers.watchdog import Watchdog

# An actor that nobody needs any more is removed by the gateway after 30 s.
HAND_BACK_SECONDS = 25.0
_PR_SET_PDEATHSIG = 1
# Batches that may wait at the gate for each call that may run; more are answered BUSY.
WAITING_PER_CALL = 8


class FeatureActor:
    """Owns the worker process: import path, app, port, watchdog, what it prints, its entry in the pod's directory.

    Life cycle: the constructor loads the app; when that fails the actor lives on and `endpoint` tells why, so that Ray does not
    start it again and again. `drain` is the last word of its life.
    """

    def __init__(
        self,
        *,
        spec: Mapping[str, Any],
        token: str,
        name: str,
        host: str,
        attempt: str,
        drop_paths: Sequence[str] = (),
        models: int = 0,
    ) -> None:
        """`attempt` is new each time the gateway places the actor, and the same each time Ray starts its process again. `models`
        is the generation that it is made for; 0: what its neighbours serve."""
        die_with_parent()
        lead_group()
        self._spec = AppSpec.from_dict(spec)
        self._name = name
        self._attempt = attempt
        self._host = host
        self._instance = secrets.token_hex(8)
        self._started_ms = int(time.time() * 1000)
        self._server: FeatureServer | None = None
        self._models = models
        self._follower: ModelFollower | None = None
        self._reason: str | None = None
        pod_dir = os.environ.get(POD_DIR_VARIABLE)
        self._pod_dir = None if pod_dir is None else Path(pod_dir)
        leave_only_the_app(drop_paths)
        self._output = None if self._pod_dir is None else self._capture_output(self._pod_dir, token)
        died = self._mark_loading()
        try:
            if died:
                raise ActorUnready(f"app {self._spec.name}: the process died while it loaded {self._spec.entrypoint}")
            self._serve(token)
        except ActorUnready as error:
            TracebackLog(None if self._output is None else self._output.traceback).print(error)
            self._reason = bounded(str(error), MAX_TRACEBACK_CHARS)
            if self._follower is not None:
                # Its neighbours do not wait with their models for one that never serves.
                self._follower.close()
        self._unmark_loading()

    def endpoint(self) -> dict[str, Any]:
        """The fields of `rayline.reports.ActorEndpoint` and `pid`; `reason` is set, and `port` 0, when the app cannot load.

        `wanted_models` is a generation of models that needs an actor of its own here (0: none), `models_problem` why the wanted
        ones are not served.
        """
        return {
            "app": self._spec.name,
            "version": self._spec.version,
            "name": self._name,
            "host": self._host,
            "port": 0 if self._server is None else self._server.port,
            "slots": self._spec.concurrency + 1,
            "instance": self._instance,
            "pid": os.getpid(),
            "reason": self._reason,
            "wanted_models": 0 if self._follower is None else self._follower.wanted_actor,
            "models_problem": None if self._follower is None else self._follower.problem,
        }

    def drain(self) -> None:
        """Take no more batches; returns at once, `statistics` tells when nothing runs any more."""
        if self._server is not None:
            self._server.drain(HAND_BACK_SECONDS, leaving=False)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is here now; empty when the app is not loaded."""
        return {} if self._server is None else self._server.statistics()

    def _serve(self, token: str) -> None:
        os.chdir(self._spec.root)
        executor = Executor(versions=self._load(), spec=self._spec, output=self._output)
        max_waiting = WAITING_PER_CALL * self._spec.concurrency
        self._server = FeatureServer(
            spec=self._spec,
            executor=executor,
            host=self._host,
            token=token,
            max_waiting=max_waiting,
            tracing=open_tracing("worker", os.environ),
        )
        gauge = None if self._pod_dir is None else JobGauge(self._pod_dir / f"actor-{os.getpid()}")
        Watchdog(server=self._server, spec=self._spec, gauge=gauge).start()
        if self._pod_dir is not None:
            path = self._pod_dir / f"actor-{os.getpid()}.json"
            DrainPort(entry=path, server=self._server)
            entry = {"pid": os.getpid(), "app": self._spec.name, "version": self._spec.version}
            path.with_suffix(".new").write_text(json.dumps(entry))
            path.with_suffix(".new").replace(path)
            # After the entry is there: the agent makes its mark before it reads the entries, so that one of us sees the other.
            if (self._pod_dir / NOTICE_MARK).exists():
                self._server.drain(0.0)

    def _load(self) -> AppVersions:
        """The app with the models that this node is at; outside of a pod, with its own."""
        spec = self._spec
        if self._pod_dir is None:
            return AppVersions(served=load_version(BUNDLED, lambda: load_app(spec)))
        turn = ModelTurn(folder=models_folder(self._pod_dir, spec.name))
        self._follower = ModelFollower(spec=spec, turn=turn, asked=self._models)
        placed = self._follower.first()
        versions = AppVersions(
            served=load_version(placed, lambda: load_app(spec, placed.paths)), turn=turn.turn, advance=turn.advance
        )
        self._follower.follow(versions)
        return versions

    def _capture_output(self, pod_dir: Path, token: str) -> OutputCapture | None:
        hidden = (token, *secrets_in({**os.environ, **self._spec.env}))
        hello = Hello(self._spec.name, self._spec.version, self._name, self._instance, os.getpid(), hidden)
        return capture_output(pod_dir, hello)

    def _mark_loading(self) -> bool:
        """Leave a mark while loading; True when an earlier process of this attempt died before it took its mark away."""
        if self._pod_dir is None:
            return False
        try:
            self._loading_mark().touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def _unmark_loading(self) -> None:
        if self._pod_dir is not None:
            self._loading_mark().unlink(missing_ok=True)

    def _loading_mark(self) -> Path:
        assert self._pod_dir is not None
        return self._pod_dir / f"loading-{self._attempt}"


def leave_only_the_app(drop_paths: Sequence[str]) -> None:
    """Take from the import path what Ray added for the driver, and Rayline's own checkout when it is installed editable."""
    checkout = Path(rayline.__path__[0]).resolve().parent
    dropped = {str(Path(path).resolve()) for path in drop_paths}
    if checkout.name not in ("site-packages", "dist-packages"):
        dropped.add(str(checkout))
    sys.path[:] = [path for path in sys.path if path and str(Path(path).resolve()) not in dropped]


def die_with_parent() -> None:
    """Linux: SIGKILL this process when the one that started it ends (the raylet, or a pod's agent)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
