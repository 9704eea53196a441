"""`rayline config` beside lanes on the real broker: what it changes, waits for, tries first, takes back, and remembers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app as command
from deploy.cli.exit_codes import ExitCode
from rayline.app_spec import Batching
from rayline.bus import KafkaSettings
from rayline.config import ConfigWatch, ProcessIdentity, Role
from tests.integration.config.live import following, tuned_lane, write
from tests.integration.ingest.lanes import new_app, spec_of, submit, until

pytestmark = pytest.mark.integration


async def config(kafka: KafkaSettings, *arguments: object) -> tuple[int, Any]:
    """Run `rayline config …` and read its JSON."""
    args = ["config", *map(str, arguments), "--bootstrap-servers", kafka.bootstrap_servers, "-o", "json"]
    result = await asyncio.to_thread(CliRunner().invoke, command, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else None


@asynccontextmanager
async def load(kafka: KafkaSettings, app: str, *, a_second: int = 60) -> AsyncIterator[None]:
    """A steady stream of jobs."""

    async def stream() -> None:
        first = 0
        while True:
            await asyncio.to_thread(submit, kafka, app, a_second // 5, first=first)
            first += a_second // 5
            await asyncio.sleep(0.2)

    task = asyncio.create_task(stream())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_set_waits_for_every_lane_and_its_exit_code_tells(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.max_jobs"
    async with tuned_lane(kafka, app, "0") as first, tuned_lane(kafka, app, "1") as second:
        code, found = await config(kafka, "set", key, 17, "--wait")
        assert code == ExitCode.OK
        assert {(e["process"], e["verdict"], e["after"]) for e in found["effects"]} == {
            (lane.process, "applied", 17) for lane in (first, second)
        }
        code, found = await config(kafka, "set", f"app/{app}/batching.linger_ms", 60_000, "--wait")
        assert code == ExitCode.NO
        assert {effect["verdict"] for effect in found["effects"]} == {"rejected"}
        assert "SLA" in found["effects"][0]["reason"]
        code, _ = await config(kafka, "unset", key, "--wait")
        assert (code, first.watch.effective("batching.max_jobs")) == (ExitCode.OK, 64)
    code, _ = await config(kafka, "set", key, 18, "--wait", "--timeout", 1)
    assert code == ExitCode.NO, "nobody lives who could take it"


@pytest.mark.parametrize(("key", "value"), [("global/nothing", "1"), ("global/sla_seconds", "soon"), ("nonsense", "1")])
async def test_what_cannot_be_right_is_refused_before_it_is_written(kafka: KafkaSettings, key: str, value: str) -> None:
    from rayline.errors import ConfigError

    with pytest.raises(ConfigError):
        await config(kafka, "set", key, value)


async def test_a_set_is_taken_as_a_whole_and_taken_back(kafka: KafkaSettings, tmp_path: Path) -> None:
    app = await new_app(kafka)
    file = tmp_path / "own.yaml"
    file.write_text(f"app/{app}/weights.policy: wechat\napp/{app}/view.pull_seconds: 3\n")
    async with tuned_lane(kafka, app) as lane:
        code, found = await config(kafka, "apply", file, "--wait")
        assert (code, [change["good"] for change in found["changes"]]) == (ExitCode.OK, [True, True])
        assert [lane.watch.effective(name) for name in ("weights.policy", "view.pull_seconds")] == ["wechat", 3.0]
        assert (await config(kafka, "apply", file, "--unset", "--wait"))[0] == ExitCode.OK
        assert [lane.watch.effective(name) for name in ("weights.policy", "view.pull_seconds")] == ["headroom", 0.0]


async def test_a_dry_run_tells_who_would_change_and_changes_nothing(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    async with tuned_lane(kafka, app) as lane:
        code, found = await config(kafka, "set", f"app/{app}/batching.max_jobs", 5, "--dry-run")
        assert code == ExitCode.OK
        assert found["effects"] == [{"process": lane.process, "before": 64, "after": 5, "verdict": "changes", "reason": None}]
        code, found = await config(kafka, "get", f"app/{app}/batching.max_jobs")
        assert found["set"] is None
        assert found["in_force"] == [{"process": lane.process, "value": 64, "source": "manifest"}]


async def test_a_canary_is_tried_by_one_lane_alone(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.max_jobs"
    async with tuned_lane(kafka, app, "0") as first, tuned_lane(kafka, app, "1") as second:
        assert (await config(kafka, "set", key, 10, "--wait"))[0] == ExitCode.OK
        code, _ = await config(kafka, "set", key, 20, "--canary", "--only", second.process)
        assert code == ExitCode.OK
        assert [lane.watch.effective("batching.max_jobs") for lane in (first, second)] == [10, 20]
        assert (await config(kafka, "rollback", key, "--wait"))[0] == ExitCode.OK
        assert [lane.watch.effective("batching.max_jobs") for lane in (first, second)] == [10, 10]


async def test_history_tells_who_and_what_came_of_it_also_of_other_clients_changes(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.max_jobs"
    registrar = ConfigWatch(settings=kafka, identity=ProcessIdentity(role=Role.GATEWAY, cluster=app, registrar=True))
    await registrar.start()
    async with tuned_lane(kafka, app), following(registrar):
        await config(kafka, "set", key, 10, "--wait", "--author", "ada")
        foreign = write(kafka, key, 11)[0]
        broken = write(kafka, key, raw=b"{")[0]
        await config(kafka, "rollback", key, "--wait", "--author", "grace")
        await until(lambda: registrar.status.seen > broken, what="the registrar to read on")
    _, entries = await config(kafka, "history", key)
    assert [(entry["author"], entry["value"]) for entry in entries[:3]] == [("ada", "10"), (None, "11"), (None, "{")]
    assert entries[0]["outcomes"][0]["outcome"] == "in force"
    assert (entries[1]["version"], entries[2]["refusal"] is not None) == (foreign, True)
    assert (entries[3]["author"], entries[3]["why"], entries[3]["value"]) == ("grace", "rollback", "10")
    assert all(entry["at_ms"] > 0 for entry in entries)


async def test_a_guarded_change_that_makes_latency_worse_is_taken_back_by_itself_with_evidence(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.linger_ms"
    spec = spec_of(app, batching=Batching(max_jobs=500, linger_ms=5.0))
    async with tuned_lane(kafka, app, spec=spec) as lane, load(kafka, app):
        await asyncio.sleep(6)
        began = asyncio.get_running_loop().time()
        code, found = await config(kafka, "set", key, 2_000, "--guard", 20)
        seconds = asyncio.get_running_loop().time() - began
        assert (code, found["rolled_back"]) == (ExitCode.NO, True), found
        assert any("p99" in reason or "p50" in reason for reason in found["guard"]["reasons"])
        assert seconds < 30
        assert lane.watch.effective("batching.linger_ms") == 5.0
    _, entries = await config(kafka, "history", key)
    assert [one["outcome"] for one in entries[0]["outcomes"]] == ["in force", "rolled back"]
    print(f"rolled back after {seconds:.1f} s: {found['guard']['reasons']}")  # noqa: T201


async def test_a_guarded_change_that_is_good_stays_and_a_good_canary_goes_on_to_all(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.linger_ms"
    async with tuned_lane(kafka, app, "0") as first, tuned_lane(kafka, app, "1") as second, load(kafka, app):
        await asyncio.sleep(4)
        code, found = await config(kafka, "set", key, 8, "--guard", 4, "--canary")
        assert (code, found["rolled_back"]) == (ExitCode.OK, False), found
        assert found["guard"]["after"]["results"] >= 30
        assert [lane.watch.effective("batching.linger_ms") for lane in (first, second)] == [8.0, 8.0]


async def test_a_canary_that_refuses_what_it_reads_is_taken_back_though_no_node_sees_these_jobs(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/limits.max_job_bytes"
    async with tuned_lane(kafka, app, "0") as first, tuned_lane(kafka, app, "1") as second, load(kafka, app):
        await asyncio.sleep(4)
        code, found = await config(kafka, "set", key, 1, "--canary", "--only", second.process, "--guard", 15)
        assert (code, found["rolled_back"]) == (ExitCode.NO, True), found
        assert any(reason.startswith("invalid jobs are 100.0%") for reason in found["guard"]["reasons"]), found
        assert [lane.watch.effective("limits.max_job_bytes") for lane in (first, second)] == [1048576, 1048576]


async def test_a_guarded_change_is_taken_back_when_its_process_is_ended(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.max_jobs"
    arguments = ["config", "set", key, "5", "--guard", "300", "--bootstrap-servers", kafka.bootstrap_servers]
    async with tuned_lane(kafka, app) as lane:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.cli", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                while b"watching" not in await process.stderr.readline():
                    assert process.returncode is None
                assert lane.watch.effective("batching.max_jobs") == 5
                process.send_signal(signal.SIGTERM)
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert (process.returncode, b"rolled back" in said) == (ExitCode.INTERRUPTED, True), said
        assert lane.watch.effective("batching.max_jobs") == 64
