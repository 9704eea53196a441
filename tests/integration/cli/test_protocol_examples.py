"""Clients that are not ours speak to Rayline exactly as docs/protocol.md says: its code blocks are run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.broker.java import find_jars, find_java
from rayline import BlockingClient
from rayline.results import Outcome
from tests.integration.cli.conftest import Run
from tests.integration.cli.test_journey import APP, bootstrap

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

PROTOCOL = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"
TOOLS = {
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}


def block(name: str) -> str:
    found = re.search(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", PROTOCOL.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, name
    return found[1]


def run_block(name: str, kafka: str, path: str = os.environ["PATH"]) -> str:
    interpreter = [sys.executable, "-c"] if name == "confluent" else ["bash", "-euo", "pipefail", "-c"]
    env = {**os.environ, "KAFKA": kafka, "PATH": path}
    done = subprocess.run(
        [*interpreter, block(name)], env=env, capture_output=True, text=True, errors="replace", timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(kafka: str, job_id: str) -> None:
    with BlockingClient(kafka) as client:
        assert client.result(APP, job_id, timeout_seconds=60).outcome is Outcome.OK


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed: apt-get install -y kcat")
def test_kcat(platform: Run) -> None:
    kafka = bootstrap(platform)
    run_block("kcat-produce", kafka)
    wait_for(kafka, "kcat-1")
    (line,) = [line for line in run_block("kcat-consume", kafka).splitlines() if "job-id=kcat-1" in line]
    assert line.startswith("my-key | ")
    assert "outcome=ok" in line
    assert line.endswith("}")
    assert '"chars":15' in line


def test_kafkas_console_tools(platform: Run, tmp_path: Path) -> None:
    jars = find_jars(os.environ)
    if not list(jars.glob("kafka-tools-[0-9]*.jar")):
        pytest.skip(f"Kafka's console tools (org.apache.kafka:kafka-tools) are not in {jars}")
    for name, main in TOOLS.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec "{find_java(os.environ)}" -cp "{jars}/*" {main} "$@"\n')
        script.chmod(0o755)
    kafka, path = bootstrap(platform), f"{tmp_path}:{os.environ['PATH']}"
    run_block("console-produce", kafka, path)
    wait_for(kafka, "console-1")
    (line,) = [line for line in run_block("console-consume", kafka, path).splitlines() if "job-id:console-1" in line]
    assert "outcome:ok" in line
    assert "\tmy-key\t" in line


def test_confluent_kafka(platform: Run) -> None:
    printed = run_block("confluent", bootstrap(platform))
    assert printed.startswith("ok {")
    assert "'chars': 17" in printed
