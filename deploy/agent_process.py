"""The process of one pod's agent: what it reports goes to Kafka; everything else is `workers.agent`."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.process_environment import CHANNEL_TOKEN_VARIABLE, POD_GRACE_VARIABLE, RAY_TOKEN_PATH_VARIABLE, required
from rayline.bus import KafkaSettings, Publisher
from workers.agent import PodOptions, run_agent


async def run(*, cluster: str, pod: str, cpus: float, address: str) -> int:
    """Run the pod until its notice or Ray's end; returns the exit code."""
    options = PodOptions(
        cluster=cluster,
        pod=pod,
        address=address,
        token_path=Path(required(RAY_TOKEN_PATH_VARIABLE)),
        token=required(CHANNEL_TOKEN_VARIABLE),
        num_cpus=cpus,
        grace_seconds=float(os.environ.get(POD_GRACE_VARIABLE, "30")),
    )
    async with Publisher(settings=KafkaSettings.from_env(os.environ), client_id=f"rayline-agent-{pod}") as publisher:
        return await run_agent(options=options, publisher=publisher)
