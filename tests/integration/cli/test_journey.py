"""The command line from submit to down, on a real platform."""

from __future__ import annotations

import json
import os
import signal
import stat
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import tenacity

from rayline import BlockingClient, Client, NewJob
from rayline.errors import BusError, NoResult
from rayline.results import Outcome
from tests.integration.cli.conftest import EXAMPLE, Run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

APP = "text-features"


def bootstrap(platform: Run) -> str:
    servers: str = platform("status", "-o", "json").json()["bootstrap_servers"]
    return servers


def test_each_submitted_line_becomes_one_result(platform: Run) -> None:
    submitted = platform("submit", APP, str(EXAMPLE / "jobs.jsonl"), "-o", "jsonl").lines()
    with BlockingClient(bootstrap(platform)) as client:
        outcomes = {client.result(APP, job["job_id"], timeout_seconds=30).outcome for job in submitted}
    assert outcomes == {Outcome.OK}
    ours = {job["job_id"] for job in submitted}
    found = [result["job_id"] for result in platform("results", APP, "-o", "json").json() if result["job_id"] in ours]
    assert sorted(found) == sorted(ours)


async def test_many_jobs_each_find_their_own_result_though_they_share_an_id(platform: Run) -> None:
    submitted = []
    async with Client(bootstrap(platform)) as client:
        jobs = [NewJob({"text": "x " * number}, job_id="twin") for number in range(1, 21)]
        assert await client.submit_many(APP, jobs, max_in_flight=4, on_submitted=submitted.append) == 20
        words = {(await client.result(APP, job, timeout_seconds=30)).feature()["words"] for job in submitted}
    assert words == set(range(1, 21))


async def test_an_unknown_app_and_a_missing_result_are_told_soon(platform: Run) -> None:
    async with Client(bootstrap(platform)) as client:
        with pytest.raises(BusError, match="no app 'nope'"):
            await client.submit("nope", 1)
        with pytest.raises(NoResult, match="rayline status"):
            await client.result(APP, "never submitted", timeout_seconds=0.5)


def test_a_files_bytes_are_a_job_and_a_users_error_is_its_result(platform: Run, tmp_path: Path) -> None:
    (tmp_path / "picture.bin").write_bytes(b"\x00\x01")
    platform("submit", APP, "--dir", str(tmp_path))
    with BlockingClient(bootstrap(platform)) as client:
        result = client.result(APP, "picture.bin", timeout_seconds=30)
    assert (result.outcome, result.error_type) == (Outcome.ERROR, "builtins.ValueError")
    explained = platform("explain", APP, "picture.bin")
    assert "ran on" in explained.out
    assert platform("explain", APP, "nobody", expect=3).out == ""


@tenacity.retry(stop=tenacity.stop_after_delay(20), wait=tenacity.wait_fixed(0.2), reraise=True)
def lines_of(platform: Run, job: str) -> list[Any]:
    """What a job printed, once it is in Kafka."""
    return platform("logs", APP, "--job", job, "-o", "jsonl").lines()


def test_what_a_job_printed_is_told_by_logs_and_explain(platform: Run) -> None:
    with BlockingClient(bootstrap(platform)) as client:
        client.submit(APP, "no map", job_id="speaks")
        client.result(APP, "speaks", timeout_seconds=30)
    (line,) = lines_of(platform, "speaks")
    assert (line["stream"], line["job"], line["app"], line["cluster"]) == ("traceback", "speaks", APP, "c1")
    assert line["text"].startswith("ValueError: a payload is")
    assert "! ValueError: a payload is" in platform("explain", APP, "speaks").out
    (story,) = platform("explain", APP, "speaks", "-o", "json").json()
    assert [printed["text"] for printed in story["printed"]] == [line["text"]]
    assert "speaks ! ValueError" in platform("logs", APP, "-n", "0").out
    platform("logs", APP, "--job", "nobody", expect=3)
    platform("logs", APP, "--since", "soon", expect=2)


def test_a_dead_letter_is_listed_shown_and_replayed(platform: Run) -> None:
    with BlockingClient(bootstrap(platform)) as client:
        bad = client.submit(APP, {"text": "x"}, job_id="bad", headers=[("deadline-ms", b"soon"), ("mine", b"kept")])
        assert client.result(APP, bad, timeout_seconds=30).outcome is Outcome.INVALID
        (letter,) = [row["letter"] for row in platform("dlq", "list", APP, "-o", "jsonl").lines() if row["job_id"] == "bad"]
        shown = platform("dlq", "show", APP, letter, "-o", "json").json()
        assert shown["reason"].startswith("bad_header")
        assert shown["headers"] == {"deadline-ms": "soon", "mine": "kept", "job-id": "bad"}
        (replayed,) = platform("dlq", "replay", APP, letter, "-o", "json").json()
        assert replayed["job"] != f"{bad.partition}-{bad.offset}"
    platform("dlq", "replay", APP, "9-9", expect=3)


def test_a_line_that_is_no_json_is_named_and_nothing_is_hidden(platform: Run) -> None:
    refused = platform("submit", APP, "-", stdin='{"text": "a"}\nnot json\n', expect=1)
    assert "standard input:2: not JSON" in refused.err
    assert "Traceback" not in refused.err


def test_a_second_up_says_that_one_is_running(platform: Run) -> None:
    refused = platform("up", expect=1)
    assert "is running already" in refused.err
    assert "rayline down" in refused.err


def test_status_tells_where_every_process_shows_its_metrics(platform: Run) -> None:
    report = platform("status", "-o", "json").json()
    roles = Counter(process.split("/")[0] for process in report["addresses"])
    assert roles.keys() >= {"lane", "agent", "gateway", "resource", "keeper", "launcher"}
    assert ("console" in roles) == (report["console"] is not None)
    for process, address in report["addresses"].items():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            assert f'rayline_process="{process}"' in page.read().decode()


def test_secrets_are_ours_alone_and_doctor_finds_all_in_order(platform: Run, folder: Path) -> None:
    assert stat.S_IMODE((folder / ".rayline" / "secrets.json").stat().st_mode) == 0o600
    report = platform("doctor", "-o", "json").json()
    assert report["healthy"], report


def test_an_evicted_pod_is_replaced_and_jobs_go_on(platform: Run) -> None:
    (pod,) = [row["name"] for row in platform("status", "-o", "json").json()["processes"] if row["role"] == "pod"]
    with BlockingClient(bootstrap(platform)) as client:
        client.submit(APP, "no map", job_id="before-the-eviction")
        assert client.result(APP, "before-the-eviction", timeout_seconds=30).node == pod
    (said,) = lines_of(platform, "before-the-eviction")
    platform("evict", pod, "--grace", "5")
    platform("evict", pod, expect=1)
    platform("deploy", str(EXAMPLE), "--wait", timeout_seconds=240)
    with BlockingClient(bootstrap(platform)) as client:
        result = client.result(APP, client.submit(APP, {"text": "after the eviction"}), timeout_seconds=60)
    assert result.outcome is Outcome.OK
    assert result.node != pod
    (cluster,) = platform("clusters", "-o", "json").json()["clusters"]
    assert (cluster["state"], cluster["generation"], cluster["desired_pods"]) == ("running", 1, 1)
    assert [row["replaces"] for row in cluster["pods"] if row["phase"] == "running"] == [pod]
    wait_until_gone(platform, pod)
    assert lines_of(platform, "before-the-eviction") == [said]
    told = platform("explain", APP, "before-the-eviction").out
    assert f"ran on    c1/{pod}" in told
    assert "! ValueError: a payload is" in told
    (story,) = platform("explain", APP, "before-the-eviction", "-o", "json").json()
    assert (story["node"], story["answered"], story["tried"]) == (pod, True, [])
    assert [printed["text"] for printed in story["printed"]] == [said["text"]]


@tenacity.retry(
    retry=tenacity.retry_if_result(lambda gone: not gone),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(60),
)
def wait_until_gone(platform: Run, pod: str) -> bool:
    return pod not in [row["name"] for row in platform("status", "-o", "json").json()["processes"]]


def test_killed_keepers_and_resources_are_back_and_a_change_of_size_is_carried_out(platform: Run) -> None:
    before = {row["name"]: row["pid"] for row in platform("status", "-o", "json").json()["processes"]}
    struck = {name: pid for name, pid in before.items() if name.startswith(("keeper", "resource"))}
    assert len(struck) == 3
    for pid in struck.values():
        os.kill(pid, signal.SIGKILL)
    assert platform("scale", "c1", "--pods", "2", "-o", "json").json() == {"cluster": "c1", "pods": 2, "pods_before": 1}
    platform("deploy", str(EXAMPLE), "--wait", timeout_seconds=240)
    wait_for_pods(platform, 2)
    platform("scale", "c1", "--pods", "1")
    wait_for_pods(platform, 1)
    after = {row["name"]: row["pid"] for row in platform("status", "-o", "json").json()["processes"]}
    assert struck.keys() <= after.keys()
    assert not set(struck.values()) & set(after.values())
    assert platform("clusters", "-o", "json").json()["keeper"]["epoch"] > 1
    platform("scale", "no/cluster", "--pods", "1", expect=1)
    platform("scale", "c9", "--pods", "0", expect=1)


@tenacity.retry(
    retry=tenacity.retry_if_result(lambda settled: not settled),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(120),
)
def wait_for_pods(platform: Run, pods: int) -> bool:
    (cluster,) = platform("clusters", "-o", "json").json()["clusters"]
    running = [row for row in cluster["pods"] if row["phase"] == "running"]
    return cluster["state"] == "running" and cluster["desired_pods"] == len(running) == pods


def test_a_killed_lane_comes_back_and_loses_nothing(platform: Run) -> None:
    (lane,) = [row for row in platform("status", "-o", "json").json()["processes"] if row["role"] == "lane"]
    with BlockingClient(bootstrap(platform)) as client:
        before = client.submit(APP, {"text": "before"})
        os.kill(lane["pid"], signal.SIGKILL)
        after = client.submit(APP, {"text": "after"})
        assert {client.result(APP, job, timeout_seconds=30).outcome for job in (before, after)} == {Outcome.OK}


def test_down_leaves_no_process_and_a_killed_launcher_is_cleaned_up_after(platform: Run, folder: Path) -> None:
    state = json.loads((folder / ".rayline" / "state.json").read_text())
    processes = [psutil.Process(record["pid"]) for record in (state["launcher"], *state["processes"])]
    tree = [below for process in processes for below in (process, *process.children(recursive=True))]
    os.kill(state["launcher"]["pid"], signal.SIGKILL)
    assert platform("status", expect=3).out.startswith("the launcher (pid")
    platform("down", timeout_seconds=120)
    assert psutil.wait_procs(tree, timeout=10)[1] == []
    assert platform("down").out == "nothing was running\n"
