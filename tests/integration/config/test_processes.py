"""The platform's own processes take a setting that is for all of them, and say when they cannot read any."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tenacity

from deploy.app_registry import publish_app
from deploy.cli.exit_codes import ExitCode
from deploy.config_board import read_presences
from deploy.status import read_status
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, Publisher
from rayline.config import Presence, ProcessIdentity, Role
from rayline.stalls import StallKind
from rayline.topics import CONFIG_APPLIED
from tests.integration.config.test_command import config
from tests.support.names import fresh

pytestmark = pytest.mark.integration


@asynccontextmanager
async def processes(kafka: KafkaSettings, *commands: list[str]) -> AsyncIterator[None]:
    """`rayline COMMAND` each, ended in order at the end."""
    started = [_start(kafka, command) for command in commands]
    try:
        yield
        assert [process.poll() for process in started] == [None] * len(started), "a process ended by itself"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            await asyncio.to_thread(process.wait, 20)


def _start(kafka: KafkaSettings, command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **kafka.to_env(), "RAYLINE_LOG_LEVEL": "WARNING"}
    return subprocess.Popen([sys.executable, "-m", "deploy.cli", *command], env=environment)


async def _living(kafka: KafkaSettings, wanted: set[str]) -> None:
    """Until all of them have told of themselves."""
    async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(90)):
        with attempt:
            assert wanted <= set(await read_presences(kafka))


async def test_lane_resource_and_keeper_take_one_global_record(kafka: KafkaSettings) -> None:
    app = fresh("processes")
    await publish_app(kafka, AppSpec(app, "1", "/nowhere", "m:f", partitions=1))
    wanted = {f"lane/{app}/0", f"resource/{app}-0", f"keeper/{app}"}
    async with processes(
        kafka,
        ["lane", "--app", app, "--instance", "0"],
        ["resource", "--name", "0", "--group", app],
        ["keeper", "--name", app],
    ):
        await _living(kafka, wanted)
        try:
            code, found = await config(kafka, "set", "global/log.level", "ERROR", "--wait", "--timeout", 30)
            assert code == ExitCode.OK, found
            assert {effect["process"] for effect in found["effects"]} >= wanted
            values = {process: presence.values["log.level"] for process, presence in (await read_presences(kafka)).items()}
            assert {values[process][0] for process in wanted} == {"ERROR"}
        finally:
            assert (await config(kafka, "unset", "global/log.level", "--wait", "--timeout", 30))[0] == ExitCode.OK
    assert not wanted & set(await read_presences(kafka)), "a process left without a good-bye"


async def test_status_names_a_process_that_cannot_read_its_settings(kafka: KafkaSettings, tmp_path: Path) -> None:
    identity = ProcessIdentity(role=Role.LANE, app=fresh("deaf"), name="0")
    presence = Presence(identity, problem="the topic rayline.config does not exist")
    async with Publisher(settings=kafka) as publisher:
        await publisher.publish(CONFIG_APPLIED, key=presence.record_key, value=presence.encode())
        try:
            report = await read_status(tmp_path, kafka)
        finally:
            await publisher.publish(CONFIG_APPLIED, key=presence.record_key, value=None)
    assert [(one.kind, one.process) for one in report.stalls if one.subject == identity.process] == [
        (StallKind.CONFIG, identity.process)
    ]
    assert f"{identity.process} cannot read its live settings" in report.text()
