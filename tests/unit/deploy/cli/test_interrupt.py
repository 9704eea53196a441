"""Ctrl-C of commands that read or write jobs: exit code 130, and what was done so far is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploy.cli.exit_codes import ExitCode
from tests.support.interrupting import Interrupted, interrupt

# A client whose broker takes the first jobs at once and no more, and which has two results.
_FAKE = """
import asyncio, contextlib, pathlib, sys
import rayline.client
from rayline.client import Client, Submitted
from rayline.results import Outcome, Result

ready = pathlib.Path({ready!r})
taken = 0

class Fake(Client):
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def _send(self, app, job):
        global taken
        taken += 1
        number = taken
        async def settle():
            if number > {most}:
                ready.touch()
                await asyncio.sleep(1)
                raise asyncio.CancelledError
            if number == {most} and {quiet}:
                asyncio.get_running_loop().call_later(0.1, ready.touch)
            return Submitted(job.job_id or str(number), f"{{app}}.requests", 0, number, 0)
        return asyncio.ensure_future(settle())

    async def results(self, app, *, from_beginning, follow):
        for number in range(2):
            yield RESULT(number)
        ready.touch()
        await asyncio.Event().wait()

class RESULT:
    def __init__(self, number):
        self.number = number

    def as_dict(self):
        return {{"job_id": str(self.number), "outcome": "ok", "timing_ms": {{}}, "feature": 1}}

rayline.client.Client = Fake
from deploy.cli import main
sys.argv = {argv!r}
main()
"""


def run(tmp_path: Path, *words: str, most: int = 3, quiet: bool = False, stdin: int | None = None) -> Interrupted:
    ready = tmp_path / "ready"
    argv = ["rayline", *words, "--bootstrap-servers", "127.0.0.1:1"]
    script = _FAKE.format(ready=str(ready), most=most, quiet=quiet, argv=argv)
    return interrupt(script, ready=ready) if stdin is None else interrupt(script, ready=ready, stdin=stdin)


def test_submit_of_a_file_tells_how_many_jobs_the_broker_has(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text("1\n" * 100)
    ended = run(tmp_path, "submit", "app", str(file), "--max-in-flight", "4")
    assert ended.exit_code == ExitCode.INTERRUPTED, ended
    assert "interrupted: 3 jobs submitted to app.requests, where they stay" in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_submit_ends_while_it_waits_for_a_line_of_standard_input(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b'1\n\n2\n{"half')
        ended = run(tmp_path, "submit", "app", "-", "-o", "jsonl", most=2, quiet=True, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert ended.exit_code == ExitCode.INTERRUPTED, ended
    assert "interrupted: 2 jobs submitted" in ended.err
    assert [json.loads(line)["job_id"] for line in ended.out.splitlines()] == ["1", "2"]


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_following_results_ends_with_whole_output(tmp_path: Path, output: str) -> None:
    ended = run(tmp_path, "results", "app", "-f", "-o", output)
    assert ended.exit_code == ExitCode.INTERRUPTED, ended
    assert "interrupted after 2 results" in ended.err
    assert "Traceback" not in ended.err
    records = json.loads(ended.out) if output == "json" else [json.loads(line) for line in ended.out.splitlines()]
    assert [record["job_id"] for record in records] == ["0", "1"]
