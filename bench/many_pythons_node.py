"""A node without Ray and Kafka: its agent's part puts environments in place, and hosts serve from them over Flight.

`python -m bench.many_pythons_node ARGUMENTS` is one host, as Ray's worker would be: calls come on stdin, answers go to stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgpack
import pyarrow as pa

from bench.many_pythons_verdict import Reply
from rayline.app_spec import AppSpec
from rayline.errors import ActorUnready
from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint
from rayline.wire import AnswerHead, BatchHead, Verdict, encode_request
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import Preparer
from runtime_env.node.source import StoreSource
from runtime_env.signing import Trust
from runtime_env.store import Store
from workers.activation import Activator, check_environment
from workers.channel import FlightChannel
from workers.host_actor import HostActor
from workers.pod_folder import POD_DIR_VARIABLE

NAME: Final = "bench/node"
_QUOTA_BYTES: Final = 64 * 2**30
_ASK_SECONDS: Final = 0.2
_ENDPOINT_FIELDS: Final = ("app", "version", "name", "host", "port", "slots", "instance")
_BUDGET_MS: Final = 60_000


class Node:
    """Owns the node's folder, the agent's task that prepares, and a host process for each app. Does not own the store.

    Life: `async with`, then `serve` any apps, `answer` any jobs.
    """

    def __init__(self, *, folder: Path, store: Store, cards: Sequence[str] = ()) -> None:
        self._pod_dir = folder / "pod"
        self._pod_dir.mkdir(parents=True)
        node = NodeFolder(path=folder / "node", quota_bytes=_QUOTA_BYTES)
        preparer = Preparer(
            folder=node,
            store=store,
            source=StoreSource(store=store, cache=node.blobs),
            trust=Trust.read(None, development=True),
            check=lambda root, bundle: check_environment(root, bundle, cards),
        )
        self._activator = Activator(folder=node, preparer=preparer, pod_dir=self._pod_dir)
        self._token = secrets.token_hex(16)
        self._task: asyncio.Task[None] | None = None
        self._hosts: list[subprocess.Popen[str]] = []
        self._channels: dict[str, FlightChannel] = {}

    async def __aenter__(self) -> Node:
        self._task = asyncio.create_task(self._activator.run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for channel in self._channels.values():
            channel.close()
        for host in self._hosts:
            host.kill()
            host.wait()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def serve(self, specs: Sequence[AppSpec]) -> None:
        """Exactly these from now on, each by a host of its own. Raises ActorUnready with the reason where one cannot."""
        self._activator.set_apps(specs)
        await self._activator.settled()
        for spec in specs:
            if spec.bundle not in self._channels:
                self._channels[spec.bundle] = await asyncio.to_thread(self._host, spec, asyncio.get_running_loop())

    async def answer(self, spec: AppSpec, number: int) -> Reply:
        """One job, as a lane sends it."""
        features: list[Any] = []

        def take(answer: pa.RecordBatch, _: AnswerHead) -> None:
            features.extend(msgpack.unpackb(row["value"]) for row in answer.to_pylist() if row["value"] is not None)

        head = await self._channels[spec.bundle].exchange(
            encode_request([msgpack.packb({"number": number})]),
            BatchHead(secrets.token_hex(4), ContentType.MSGPACK, _BUDGET_MS),
            timeout_seconds=_BUDGET_MS / 1000,
            on_chunk=take,
        )
        done = head.verdict is Verdict.DONE and len(features) == 1
        return Reply(spec.name, spec.version, NAME, features[0] if done else None)

    def _host(self, spec: AppSpec, loop: asyncio.AbstractEventLoop) -> FlightChannel:
        given = {"spec": spec.as_dict(), "token": self._token, "name": f"{spec.name}-0", "host": "127.0.0.1", "attempt": "1"}
        host = subprocess.Popen(
            [sys.executable, "-m", "bench.many_pythons_node", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, POD_DIR_VARIABLE: str(self._pod_dir)},
            text=True,
        )
        self._hosts.append(host)
        endpoint = self._endpoint(host, spec)
        return FlightChannel(endpoint, app=spec.name, version=spec.version, token=self._token, loop=loop)

    def _endpoint(self, host: subprocess.Popen[str], spec: AppSpec) -> ActorEndpoint:
        assert host.stdin is not None
        assert host.stdout is not None
        while True:
            host.stdin.write(f"{_ASK_SECONDS}\n")
            host.stdin.flush()
            line = host.stdout.readline()
            if not line:
                raise ActorUnready(f"the host of {spec.name} ended: see its words above")
            told = json.loads(line)
            if told["port"]:
                return ActorEndpoint(**{name: told[name] for name in _ENDPOINT_FIELDS})
            if told["reason"]:
                raise ActorUnready(f"{spec.name} {spec.version}: {told['reason']}")


def _be_host(given: str) -> None:
    import threading

    host = HostActor(**json.loads(given))
    never = threading.Event()
    for line in sys.stdin:
        told = host.endpoint()
        if not told["port"] and not told["reason"]:
            never.wait(float(line))
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _be_host(sys.argv[1])
