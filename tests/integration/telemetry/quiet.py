"""A process of the platform that does nothing but tell of itself: `python -m tests.integration.telemetry.quiet NAME`."""

from __future__ import annotations

import asyncio
import os
import sys

from rayline.bus import KafkaSettings
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.metrics import ProcessMetrics


async def main(name: str) -> None:
    identity = ProcessIdentity(role=Role.RESOURCE, name=name)
    settings = KafkaSettings.from_env(os.environ)
    async with ProcessMetrics(identity=identity) as metrics, ConfigWatch(settings=settings, identity=identity) as watch:
        metrics.tell_by(watch)
        print("READY", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
