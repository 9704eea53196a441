"""`doctor`: is this machine, and this folder, in order?"""

from __future__ import annotations

import asyncio

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, explicit_kafka_settings
from deploy.cli.output import OutputFormat, show


def doctor(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check what Rayline needs here; a remedy for each thing that is not in order. Changes nothing."""
    from deploy.doctor import Health, examine

    findings = asyncio.run(examine(state_dir, explicit_kafka_settings(bootstrap_servers, kafka_config)))
    healthy = all(finding.health is not Health.BAD for finding in findings)
    text = "\n".join(finding.text() for finding in findings)
    verdict = "all in order" if healthy else "not in order: see the lines marked ✗"
    show(output, {"healthy": healthy, "findings": [finding.as_dict() for finding in findings]}, f"{text}\n{verdict}")
    if not healthy:
        raise typer.Exit(ExitCode.NO)
