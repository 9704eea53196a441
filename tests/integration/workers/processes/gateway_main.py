"""A gateway for tests: apps come as JSON lines on stdin, reports go as JSON lines to stdout."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from rayline.app_spec import AppSpec
from rayline.reports import NodeReport
from workers.gateway import Gateway, run_gateway


async def apps() -> AsyncIterator[list[AppSpec]]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield [AppSpec.from_dict(item) for item in json.loads(line)]


async def sink(reports: list[NodeReport], _partition: int) -> None:
    sys.stdout.write(json.dumps([asdict(report) for report in reports]) + "\n")
    sys.stdout.flush()


def main() -> None:
    logging.basicConfig(level="INFO", stream=sys.stderr)
    given = json.loads(sys.argv[1])
    given["token_path"] = Path(given["token_path"])
    asyncio.run(run_gateway(Gateway(**given, sink=sink), apps=apps()))


if __name__ == "__main__":
    main()
