"""An actor's server without Ray around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rayline.app_spec import AppSpec
from rayline.telemetry import Tracing
from workers.app_versions import AppVersions, Served
from workers.executor import Executor
from workers.feature_server import FeatureServer
from workers.loading import LoadedApp, is_async
from workers.watchdog import Watchdog


@pytest.fixture
def serve() -> Iterator[Callable[..., FeatureServer]]:
    """Start the actor's server in this process, around any function."""
    ending: list[Callable[[], None]] = []

    def start(function: Callable[[Any], Any], *, tracing: Tracing | None = None, **fields: Any) -> FeatureServer:
        spec = AppSpec(name="app", version="v1", root="/", entrypoint="m:f", **fields)
        executor = Executor(
            versions=AppVersions(served=Served(LoadedApp(function, is_async(function), "m1"), 0, "m1")), spec=spec
        )
        server = FeatureServer(spec=spec, executor=executor, host="127.0.0.1", token="t", max_waiting=4, tracing=tracing)
        watchdog = Watchdog(server=server, spec=spec)
        watchdog.start()
        ending.extend([server.shutdown, watchdog.close, executor.close])
        return server

    yield start
    for end in ending:
        end()
