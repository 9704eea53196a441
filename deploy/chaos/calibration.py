"""How many jobs a second a platform sustains: a burst, and the pace at which its results come."""

from __future__ import annotations

import asyncio
from typing import Final

from deploy.chaos.load import Load, LoadOptions
from deploy.checker import check
from deploy.committed_reader import end_offsets
from rayline.errors import LaunchError
from rayline.topics import requests_topic, results_topic

WARM_UP_JOBS: Final = 200
BURST_JOBS: Final = 1_500
_BURST_PER_SECOND: Final = 20_000.0
_CHECK_SECONDS: Final = 0.5
_CHECKS: Final = 120


async def sustained_per_second(bootstrap_servers: str, app: str) -> float:
    """Jobs a second of a burst of `BURST_JOBS`, after a smaller one that wakes everything up.

    Raises:
        LaunchError: the burst was not answered within a minute.
    """
    await _burst(bootstrap_servers, app, WARM_UP_JOBS)
    return await _burst(bootstrap_servers, app, BURST_JOBS)


async def _burst(bootstrap_servers: str, app: str, jobs: int) -> float:
    jobs_from = await asyncio.to_thread(end_offsets, bootstrap_servers, requests_topic(app))
    results_from = await asyncio.to_thread(end_offsets, bootstrap_servers, results_topic(app))
    load = Load(LoadOptions(bootstrap_servers, app, _BURST_PER_SECOND, jobs=jobs))
    await load.start()
    await load.wait()
    for _ in range(_CHECKS):
        report = await asyncio.to_thread(check, bootstrap_servers, app=app, requests_from=jobs_from, results_from=results_from)
        if report.results >= jobs:
            # Jobs that ran out of time cost nothing, so they do not count.
            return (report.jobs_per_s or 0.0) * report.outcomes.get("ok", 0) / report.results
        await asyncio.sleep(_CHECK_SECONDS)
    raise LaunchError(f"{app}: a burst of {jobs} jobs was not answered in {_CHECKS * _CHECK_SECONDS:.0f} s")
