"""An operator without our command line: kcat writes settings as docs/config.md says, and they are in force."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rayline.bus import KafkaSettings, ensure_topics
from rayline.config import SETTINGS, ConfigWatch, ProcessIdentity, Role, Verdict
from rayline.topics import platform_topics
from tests.integration.config.live import answers, following
from tests.integration.ingest.lanes import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed: apt-get install -y kcat"),
]

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "config.md"
SETTING = "batching.max_jobs"


def documented() -> tuple[str, str]:
    """The lines of the document that set and delete a setting."""
    lines = re.findall(r"^echo .*batching\.max_jobs.*\| kcat .*$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.rpartition("# ")[2] for line in lines] == ["set", "delete"]
    return lines[0], lines[1]


async def test_kcat_sets_and_deletes_a_setting_by_the_lines_of_the_document(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka, platform_topics())
    line, deleting = documented()
    written_down = re.search(r"'app/(?P<app>\w+)/batching\.max_jobs:(?P<value>\d+)'", line)
    assert written_down is not None
    value = json.loads(written_down["value"])
    in_force: list[Any] = []
    identity = ProcessIdentity(role=Role.LANE, app=written_down["app"], name="kcat")
    watch = ConfigWatch(settings=kafka, identity=identity)
    for name in SETTINGS:
        watch.on(name, in_force.append if name == SETTING else lambda _: None)
    await watch.start()
    default = SETTINGS[SETTING].default
    assert in_force == [default]
    async with answers(kafka) as said, following(watch):
        for written, expected in ((line, value), (deleting, default)):
            await asyncio.to_thread(run, written, kafka)
            await until(lambda expected=expected: in_force[-1] == expected, what=f"{written} is in force")  # type: ignore[misc]
        await until(lambda: len(said.records) == 2, what="both are answered")
    assert [(answer.process, answer.verdict, answer.effective) for _, answer in said.records] == [
        (identity.process, Verdict.APPLIED, value),
        (identity.process, Verdict.APPLIED, default),
    ]


def run(line: str, kafka: KafkaSettings) -> None:
    subprocess.run(["sh", "-ec", line.replace("HOST:PORT", kafka.bootstrap_servers)], check=True, timeout=30)
