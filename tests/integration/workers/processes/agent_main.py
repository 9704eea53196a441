"""A pod for tests: the real agent, whose reports go to a file instead of Kafka (one JSON line for each node report)."""

import asyncio
import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rayline.bus import Delivery
from rayline.reports import decode_reports
from rayline.topics import CHANGES_PARTITION
from workers.agent import PodOptions, run_agent


class FilePublisher:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> asyncio.Future[Delivery]:
        assert topic == "rayline.reports"
        assert key is not None
        assert value is not None
        with self._path.open("a") as file:
            for report in decode_reports(value):
                change = partition == CHANGES_PARTITION
                file.write(json.dumps({"key": key.decode(), "change": change, **asdict(report)}) + "\n")
        delivered: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        delivered.set_result(Delivery(partition or 0, 0, int(time.time() * 1000)))
        return delivered


def main() -> int:
    logging.basicConfig(level="INFO", stream=sys.stderr)
    given = json.loads(sys.argv[1])
    reports = Path(given.pop("reports"))
    options = PodOptions(**{**given, "token_path": Path(given["token_path"])})
    return asyncio.run(run_agent(options=options, publisher=FilePublisher(reports)))


if __name__ == "__main__":
    sys.exit(main())
