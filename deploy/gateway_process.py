"""The process of one cluster's gateway: apps come from `rayline.apps`, its reports go to `rayline.reports`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from deploy.app_registry import AppRegistry
from deploy.process_environment import CHANNEL_TOKEN_VARIABLE, RAY_TOKEN_PATH_VARIABLE, required
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, Publisher
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.metrics import ProcessMetrics
from rayline.reports import NodeReport, encode_reports
from rayline.rollout import SHARE
from rayline.topics import REPORTS
from workers.gateway import Gateway, run_gateway


async def run(*, cluster: str, address: str) -> None:
    """Run the gateway until SIGTERM or SIGINT; its actors stay, and a later gateway finds them again."""
    settings = KafkaSettings.from_env(os.environ)
    identity = ProcessIdentity(role=Role.GATEWAY, cluster=cluster, registrar=True)
    async with (
        AppRegistry(settings) as registry,
        Publisher(settings=settings, client_id=f"rayline-gateway-{cluster}") as publisher,
        ProcessMetrics(identity=identity) as metrics,
    ):

        async def publish(reports: list[NodeReport], partition: int) -> None:
            if reports:
                await publisher.publish(REPORTS, key=cluster.encode(), value=encode_reports(reports), partition=partition)

        gateway = Gateway(
            cluster=cluster,
            address=address,
            token_path=Path(required(RAY_TOKEN_PATH_VARIABLE)),
            token=required(CHANNEL_TOKEN_VARIABLE),
            sink=publish,
        )
        # Read before the first round: which version belongs on which node depends on it.
        async with watch_config(settings, identity, gateway) as watch:
            metrics.tell_by(watch)
            running = asyncio.create_task(run_gateway(gateway, apps=_all_apps(registry), board=metrics.board))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, running.cancel)
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()


def watch_config(settings: KafkaSettings, identity: ProcessIdentity, gateway: Gateway) -> ConfigWatch:
    """What a gateway reads of the live settings."""
    return ConfigWatch(settings=settings, identity=identity).on(SHARE, gateway.set_shares)


async def _all_apps(registry: AppRegistry) -> AsyncIterator[Sequence[AppSpec]]:
    async for apps in registry.changes():
        yield list(apps.values())
