"""A lane that does nothing but tell of itself, each second: `python -m tests.integration.telemetry.quiet APP`."""

from __future__ import annotations

import asyncio
import os
import sys

from rayline.bus import KafkaSettings
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.metrics import ProcessMetrics


async def main(app: str) -> None:
    identity = ProcessIdentity(role=Role.LANE, app=app, name="0")
    watching = ConfigWatch(settings=KafkaSettings.from_env(os.environ), identity=identity, presence_seconds=1.0)
    async with ProcessMetrics(identity=identity) as metrics, watching as watch:
        metrics.tell_by(watch)
        print("READY", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
