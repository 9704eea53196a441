"""The platform's own processes show their metrics where status says they do."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from pathlib import Path
from random import Random

import pytest
import tenacity
from prometheus_client.parser import text_string_to_metric_families

from deploy.app_registry import publish_app
from deploy.broker.java import free_port
from deploy.metrics_reference import prometheus_names
from deploy.status import read_status
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.metrics import METRICS
from tests.integration.config.test_processes import processes
from tests.support.names import fresh

pytestmark = pytest.mark.integration

# Values that come with the first node or fault.
LATER = {
    "rayline.partition.open_transaction.age",
    "rayline.node.weight",
    "rayline.view.age",
    "rayline.view.stale",
    "rayline.process.stalled",
    "rayline.process.progress.age",
    "rayline.process.log.lines",
}


async def test_lane_resource_keeper_and_console_show_what_is_declared_for_them(kafka: KafkaSettings, tmp_path: Path) -> None:
    app = fresh("shown")
    await publish_app(kafka, AppSpec(app, "1", "/nowhere", "m:f", partitions=1))
    port = free_port(Random())
    wanted = {
        f"lane/{app}/0": "lane",
        f"resource/{app}-0": "resource",
        f"keeper/{app}": "keeper",
        f"console/{socket.gethostname()}-{port}": "console",
    }
    names = prometheus_names()
    commands = [
        ["lane", "--app", app, "--instance", "0"],
        ["resource", "--name", "0", "--group", app],
        ["keeper", "--name", app],
        ["console", "--port", str(port)],
    ]
    async with processes(kafka, *commands):
        async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(90)):
            with attempt:
                addresses = (await read_status(tmp_path, kafka)).as_dict()["addresses"]
                assert wanted.keys() <= addresses.keys()
                for process, role in wanted.items():
                    shown = await asyncio.to_thread(_families, addresses[process])
                    expected = {names[m.name] for m in METRICS.values() if role in m.roles and m.name not in LATER}
                    assert not {name.removesuffix("_total") for name in expected} - shown


def _families(address: str) -> set[str]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        return {family.name for family in text_string_to_metric_families(response.read().decode())}
