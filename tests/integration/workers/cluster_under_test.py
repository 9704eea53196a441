"""A real Ray cluster for tests: head, pods and gateway as they run in production, with files and pipes in the place of Kafka."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rayline.app_spec import AppSpec
from rayline.errors import ClusterError
from rayline.reports import ActorEndpoint
from workers.cluster import LocalHead
from workers.sessions import session_members, signal_session

PROCESSES = Path(__file__).parent / "processes"
TOKEN = "token of the channel"
ATTEMPTS = 3


class GatewayProcess:
    """A gateway in its own process, and the last report of each node."""

    def __init__(self, *, address: str, token_path: Path, log_path: Path) -> None:
        given = {"cluster": "c1", "address": address, "token_path": str(token_path), "token": TOKEN}
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROCESSES / "gateway_main.py"), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("["):  # Ray writes its own messages to a driver's stdout
                self._lines.put(line)

    def set_apps(self, apps: Sequence[AppSpec]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([spec.as_dict() for spec in apps]) + "\n")
        self.process.stdin.flush()

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """The first report of a node that meets the condition from now on."""
        while not self._lines.empty():
            self._lines.get()
        until = time.monotonic() + seconds
        last: list[Any] = []
        while (left := until - time.monotonic()) > 0:
            try:
                last = json.loads(self._lines.get(timeout=left))
            except queue.Empty:
                break
            for report in last:
                if condition(report):
                    return dict(report)
        raise AssertionError(f"no such report within {seconds} s; the last one is {last}")

    def wait_for_actor(self, app: str, node: str, seconds: float = 60, instead_of: str | None = None) -> ActorEndpoint:
        """The first ready actor of an app on a node, of another instance than `instead_of`."""

        def find(report: dict[str, Any]) -> list[dict[str, Any]]:
            actors = report["actors"] if report["node"] == node and report["state"] != 3 else []
            return [actor for actor in actors if actor["app"] == app and actor["instance"] != instead_of]

        return ActorEndpoint(**find(self.wait_for(lambda report: bool(find(report)), seconds))[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Pod:
    """One pod, its reports and its end."""

    def __init__(self, *, name: str, head: LocalHead, folder: Path, token_path: Path, cpus: int, grace_seconds: float) -> None:
        self.name = name
        self.reports_path = folder / f"{name}.reports"
        given = {
            "cluster": "c1",
            "pod": name,
            "address": head.address,
            "token_path": str(token_path),
            "num_cpus": cpus,
            "grace_seconds": grace_seconds,
            "reports": str(self.reports_path),
        }
        with (folder / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROCESSES / "agent_main.py"), json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def reports(self, *, changes: bool) -> list[dict[str, Any]]:
        """What its agent told so far: what was to be known at once, or else the beats."""
        lines = self.reports_path.read_text().splitlines() if self.reports_path.exists() else []
        return [report for report in map(json.loads, lines) if report["change"] is changes]

    def states(self) -> list[str]:
        return [("STARTING", "READY", "DRAINING", "GONE")[report["state"]] for report in self.reports(changes=True)]

    def members(self) -> list[int]:
        return session_members(self.process.pid)

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        signal_session(self.process.pid, signal.SIGKILL)
        self.process.wait()


class ClusterUnderTest:
    """Head, pods and gateway; `close` leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token_path = folder / "ray-token"
        self.head = LocalHead(cluster="c1", token_path=self.token_path, log_path=folder / "head.log")
        self.pods: dict[str, Pod] = {}
        self.apps: dict[str, AppSpec] = {}
        self._start_head()
        self.gateway = self.start_gateway()

    def _start_head(self) -> None:
        for left in reversed(range(ATTEMPTS)):
            self.head.start()
            try:
                self.head.wait_ready(60)
            except ClusterError:
                self.head.kill()
                if left == 0:
                    raise
            else:
                return

    def start_gateway(self) -> GatewayProcess:
        self.gateway = GatewayProcess(address=self.head.address, token_path=self.token_path, log_path=self.folder / "gateway.log")
        return self.gateway

    def start_pod(self, name: str, *, cpus: int = 1, grace_seconds: float = 10) -> Pod:
        for _ in range(ATTEMPTS):
            pod = Pod(
                name=name, head=self.head, folder=self.folder, token_path=self.token_path, cpus=cpus, grace_seconds=grace_seconds
            )
            self.pods[name] = pod
            if self._has_joined(pod):
                return pod
        raise AssertionError(f"pod {name} did not join in {ATTEMPTS} attempts")

    def _has_joined(self, pod: Pod) -> bool:
        """Ray 2.60 gives up on a node that needs more than 30 s to start (a busy machine): a launcher then starts it again."""
        while pod.process.poll() is None:
            try:
                self.gateway.wait_for(lambda report: report["node"] == pod.name and report["state"] < 3, seconds=1)
            except AssertionError:
                continue
            return True
        return False

    def deploy(self, spec: AppSpec) -> None:
        self.apps[spec.name] = spec
        self.gateway.set_apps(list(self.apps.values()))

    def undeploy(self, name: str) -> None:
        del self.apps[name]
        self.gateway.set_apps(list(self.apps.values()))

    def close(self) -> None:
        self.gateway.kill()
        for pod in self.pods.values():
            pod.end()
        self.head.stop()
