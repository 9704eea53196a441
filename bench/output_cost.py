"""What it costs a worker process that its output is kept: CPU time of a batch without output, and of a `print`.

python -m bench.output_cost
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

from rayline.app_spec import AppSpec, Call
from rayline.codec import encode_payload
from rayline.jobs import ContentType
from rayline.wire import BatchHead
from workers.app_versions import AppVersions, Served
from workers.executor import Executor
from workers.loading import LoadedApp
from workers.output.capture import OutputCapture, capture_output
from workers.output.frames import Hello
from workers.output.intake import OutputIntake
from workers.output.outbox import Outbox
from workers.run import Run

_ROUNDS: Final = 7
_PAYLOAD: Final = encode_payload(b"x" * 100, ContentType.MSGPACK)
_HEAD: Final = BatchHead("lane-1-123", ContentType.MSGPACK, 20_000)
_WITHIN_LIMITS: Final = 300
_FLOOD: Final = 50_000


def main() -> None:
    """Measure in this process, beside an agent in another one; print to where stderr was."""
    words = os.fdopen(os.dup(2), "w", buffering=1)
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="rayline-output-") as folder, Path(os.devnull).open("w", buffering=1) as plain:
        listening, done = spawning.Event(), spawning.Event()
        agent = spawning.Process(target=_agent, args=(Path(folder), listening, done))
        agent.start()
        listening.wait()
        sizes = [(call, jobs) for call in (Call.JOB, Call.BATCH) for jobs in (1, 64)]
        without = [_batch_us(None, call, jobs) for call, jobs in sizes]
        file_us = _print_us(_FLOOD, file=plain)
        capture = capture_output(Path(folder), Hello("app", "v1", "actor", "i1", os.getpid()))
        assert capture is not None
        for (call, jobs), before in zip(sizes, without, strict=True):
            after = _batch_us(capture, call, jobs)
            words.write(f"call: {call}, {jobs:2} jobs, nothing printed: {before:6.2f} us, kept: {after:6.2f} us a batch\n")
        within, flood = _print_us(_WITHIN_LIMITS), _print_us(_FLOOD)
        words.write(f"print into a file {file_us:.1f} us, kept {within:.1f} us, beyond the limits {flood:.1f} us\n")
        done.set()
        agent.join()


def _agent(folder: Path, listening: Event, done: Event) -> None:
    outbox = Outbox(on_news=lambda: None)
    intake = OutputIntake(folder=folder, cluster="c", node="p", outbox=outbox)
    intake.start()
    listening.set()
    while not done.wait(0.05):
        outbox.take()
    intake.finish(0.0)


def _batch_us(output: OutputCapture | None, call: Call, jobs: int) -> float:
    spec = AppSpec("app", "v1", "/", "m:f", call=call)
    executor = Executor(versions=AppVersions(served=Served(LoadedApp(_echo, False, None))), spec=spec, output=output)
    payloads = [_PAYLOAD] * jobs
    return _cpu_us(lambda: executor.run(Run(head=_HEAD, now=time.monotonic()), payloads), 20_000 // (jobs + 10))


def _cpu_us(call: Callable[[], Any], times: int) -> float:
    """The best of some rounds: what the machine does besides makes one only longer."""
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.thread_time()
        for _ in range(times):
            call()
        best = min(best, (time.thread_time() - begun) / times)
    return best * 1e6


def _print_us(times: int, **options: Any) -> float:
    begun = time.thread_time()
    for number in range(times):
        print("line", number, **options)  # noqa: T201
    return (time.thread_time() - begun) / times * 1e6


def _echo(payload: Any) -> Any:
    return payload


if __name__ == "__main__":
    main()
