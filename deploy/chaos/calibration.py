"""How many jobs a second a platform sustains: the highest steady rate, of a few that are tried, at which nothing piles up.

A burst gives the bound. It alone would promise too much: its batches are full, while those of a steady load hold a job or two,
which costs several times as much for each job.
"""

from __future__ import annotations

import asyncio
from typing import Final

from deploy.chaos.evidence.answers import first_answers
from deploy.chaos.load import Load, LoadOptions
from deploy.chaos.measures import percentile_between
from deploy.checker import check
from deploy.committed_reader import end_offsets
from rayline.errors import LaunchError
from rayline.topics import requests_topic, results_topic

WARM_UP_JOBS: Final = 200
BURST_JOBS: Final = 1_500
STEP_SHARES: Final = (0.9, 0.7, 0.55, 0.4)
STEP_SECONDS: Final = 6.0
# Of a step, the first seconds may show what the burst left.
STEP_WARM_UP_MS: Final = 2_000.0
SUSTAINED_P95_MS: Final = 500.0
LEAST_SHARE: Final = 0.3
_BURST_PER_SECOND: Final = 20_000.0
_CHECK_SECONDS: Final = 0.5
_CHECKS: Final = 120


async def sustained_per_second(bootstrap_servers: str, app: str) -> float:
    """Jobs a second at which 95 % are answered within `SUSTAINED_P95_MS`; `LEAST_SHARE` of a burst's pace where no step is.

    Raises:
        LaunchError: jobs were not answered within a minute.
    """
    await _answered(bootstrap_servers, app, _BURST_PER_SECOND, WARM_UP_JOBS)
    pace, _ = await _answered(bootstrap_servers, app, _BURST_PER_SECOND, BURST_JOBS)
    for share in STEP_SHARES:
        rate = share * pace
        _, p95_ms = await _answered(bootstrap_servers, app, rate, round(rate * STEP_SECONDS))
        if p95_ms <= SUSTAINED_P95_MS:
            return rate
    return LEAST_SHARE * pace


async def _answered(bootstrap_servers: str, app: str, per_second: float, jobs: int) -> tuple[float, float]:
    """Produce so many jobs at this rate and wait for their results: jobs answered `ok` a second, p95 of those not of the first
    seconds (0 where there are none)."""
    jobs_from = await asyncio.to_thread(end_offsets, bootstrap_servers, requests_topic(app))
    results_from = await asyncio.to_thread(end_offsets, bootstrap_servers, results_topic(app))
    load = Load(LoadOptions(bootstrap_servers, app, per_second, jobs=jobs))
    await load.start()
    clockwork = await load.wait()
    for _ in range(_CHECKS):
        report = await asyncio.to_thread(check, bootstrap_servers, app=app, requests_from=jobs_from, results_from=results_from)
        if report.results >= jobs:
            answers = await asyncio.to_thread(first_answers, bootstrap_servers, app, results_from, clockwork)
            p95_ms = percentile_between(answers, clockwork.begun_ms + STEP_WARM_UP_MS, float("inf"), 95) or 0.0
            # Jobs that ran out of time cost nothing, so they do not count.
            return (report.jobs_per_s or 0.0) * report.outcomes.get("ok", 0) / report.results, p95_ms
        await asyncio.sleep(_CHECK_SECONDS)
    raise LaunchError(f"{app}: {jobs} jobs were not answered in {_CHECKS * _CHECK_SECONDS:.0f} s")
