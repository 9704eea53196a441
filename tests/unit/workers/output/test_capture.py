"""What a worker process prints reaches its pod's agent: whole, tied to batch and job, in bounds, also when the process dies."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rayline.printed import PrintedLine, Stream
from workers.output.intake import OutputIntake
from workers.output.limits import OutputLimits
from workers.output.outbox import Outbox

ROOT = Path(__file__).resolve().parents[4]
PATIENCE_SECONDS = 30.0


class Agent:
    """An intake, and one worker process that prints for it."""

    def __init__(self, folder: Path) -> None:
        self._news = threading.Event()
        self._folder = folder
        self._ended: list[PrintedLine] = []
        self.outbox = Outbox(on_news=self._news.set)
        self.intake = OutputIntake(folder=folder, cluster="c1", node="p1", outbox=self.outbox, skew_ms=lambda: 1_000_000.0)
        self.intake.start()
        self.start_worker()

    def start_worker(self) -> None:
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "tests.support.printing_main", str(self._folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, source: str, payloads: Sequence[Any], **fields: Any) -> float:
        """One batch; the seconds that it took."""
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps({"source": textwrap.dedent(source), "payloads": payloads, **fields}) + "\n")
        self.worker.stdin.flush()
        return float(self.worker.stdout.readline() or "nan")

    def lines(self, enough: Callable[[list[PrintedLine]], bool]) -> list[PrintedLine]:
        """What came, once it is enough."""
        found: list[PrintedLine] = []
        until = time.monotonic() + PATIENCE_SECONDS
        while not enough(found):
            self._news.clear()
            taken = [line for parcel in self.outbox.take() for line in parcel.lines]
            found += taken
            if not taken and not self._news.wait(max(0.0, until - time.monotonic())):
                raise AssertionError(f"these are not enough: {found}")
        return found

    def texts(self, count: int) -> list[str]:
        return [line.text for line in self.lines(lambda found: len(found) >= count)]

    def close(self) -> None:
        self.worker.kill()
        self.worker.communicate()
        self.intake.finish(5.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("pod"))
    yield agent
    agent.close()


@pytest.fixture
def agent(shared: Agent) -> Iterator[Agent]:
    yield shared
    shared.intake.set_limits(OutputLimits())
    shared.outbox.take()


def test_a_line_is_tied_to_its_batch_and_job_and_has_the_brokers_time(agent: Agent) -> None:
    now_ms = time.time() * 1000
    agent.run(
        """
        import sys
        def feature(payload):
            print("to", payload)
            sys.stderr.write("and\\nfro\\n")
            return payload
        """,
        ["a", "b"],
        batch="b7",
        ids=["first", None],
    )
    lines = agent.lines(lambda found: len(found) >= 6)
    assert [(line.stream, line.text, line.batch, line.job) for line in lines] == [
        (Stream.STDOUT, "to a", "b7", "first"),
        (Stream.STDERR, "and", "b7", "first"),
        (Stream.STDERR, "fro", "b7", "first"),
        (Stream.STDOUT, "to b", "b7", "3-1"),
        (Stream.STDERR, "and", "b7", "3-1"),
        (Stream.STDERR, "fro", "b7", "3-1"),
    ]
    assert all(abs(line.at_ms + 1_000_000 - now_ms) < 20_000 for line in lines)


def test_a_traceback_is_one_text_tied_to_its_job(agent: Agent) -> None:
    agent.run("def feature(payload):\n    return 1 / payload", [1, 0], ids=["good", "bad"])
    (line,) = agent.lines(lambda found: len(found) >= 1)
    assert (line.stream, line.job, line.batch) == (Stream.TRACEBACK, "bad", "b1")
    assert line.text.startswith("Traceback (most recent call last):\n")
    assert line.text.endswith("ZeroDivisionError: division by zero")


def test_an_error_that_a_batch_function_returns_for_a_job_is_that_jobs(agent: Agent) -> None:
    agent.run("def feature(payloads):\n    return [ValueError('no'), 2, 3]", [1, 2, 3], call="batch", ids=["1", "2", "3"])
    (line,) = agent.lines(lambda found: len(found) >= 1)
    assert (line.stream, line.job, line.text) == (Stream.TRACEBACK, "1", "ValueError: no")


def test_async_jobs_side_by_side_and_their_threads_keep_their_lines_apart(agent: Agent) -> None:
    agent.run(
        """
        import asyncio
        async def feature(payload):
            print("begin", payload, end=" ")
            await asyncio.sleep(0.01)
            print("end", payload)
            await asyncio.to_thread(print, "thread of", payload)
            if payload == 2:
                raise ValueError("two")
            return payload
        """,
        [1, 2, 3],
        ids=["1", "2", "3"],
    )
    lines = agent.lines(lambda found: len(found) >= 7)
    for number in "123":
        assert [line.text for line in lines if line.job == number][:2] == [f"begin {number} end {number}", f"thread of {number}"]
    assert [line.job for line in lines if line.stream is Stream.TRACEBACK] == ["2"]


def test_a_batch_function_and_threads_of_its_own_print_for_the_batch(agent: Agent) -> None:
    agent.run(
        """
        import threading
        def feature(payloads):
            print("whole batch")
            thread = threading.Thread(target=print, args=("own thread",))
            thread.start()
            thread.join()
            return payloads
        """,
        [1, 2],
        call="batch",
        ids=["1", "2"],
    )
    lines = agent.lines(lambda found: len(found) >= 2)
    assert [(line.text, line.batch, line.job) for line in lines] == [("whole batch", "b1", None), ("own thread", "b1", None)]


def test_what_is_written_past_python_is_tied_to_the_batch_that_runs(agent: Agent) -> None:
    agent.run(
        """
        import os, subprocess, sys, time
        def feature(payload):
            time.sleep(0.1)  # the batch before this one must be long enough ago
            os.write(1, b"from the descriptor\\n")
            subprocess.run(["sh", "-c", "echo from a child; echo and its stderr >&2"])
            subprocess.run(["echo", "through fileno"], stdout=sys.stdout)
            time.sleep(0.2)
            return payload
        """,
        [1],
        batch="b9",
    )
    lines = agent.lines(lambda found: len(found) >= 4)
    assert sorted(line.text for line in lines) == ["and its stderr", "from a child", "from the descriptor", "through fileno"]
    assert {(line.batch, line.job) for line in lines} == {("b9", None)}


def test_lines_and_tracebacks_have_the_trace_in_which_their_batch_runs(agent: Agent) -> None:
    source = """
        import os
        def feature(payload):
            print("through Python")
            os.write(1, b"past it\\n")
            raise ValueError("and why not")
        """
    for trace_id in ("1a" * 16, None):
        trace = None if trace_id is None else f"00-{trace_id}-{'2b' * 8}-01"
        agent.run(source, [1], trace=trace, batch=f"of-{trace_id}")
        lines = agent.lines(lambda found: len(found) >= 3)
        assert {line.stream for line in lines} == {Stream.STDOUT, Stream.TRACEBACK}
        assert {(line.batch, line.trace_id) for line in lines if line.batch is not None} == {(f"of-{trace_id}", trace_id)}


def test_binary_and_secrets_and_lines_that_are_not_ended(agent: Agent) -> None:
    agent.run(
        """
        import sys
        def feature(payload):
            sys.stdout.buffer.write(b"\\xff\\0\\x1b[2J\\n")
            print("lone \\udcff surrogate")
            print("it is correct horse, password=hunter2")
            print("no end", end="")
            return payload
        """,
        [1],
    )
    assert agent.texts(4) == ["\\xff\\x00\\x1b[2J", "lone \\udcff surrogate", "it is ***, password=***", "no end"]


def test_a_flood_is_cut_to_its_limits_and_counted_and_costs_the_function_little(agent: Agent) -> None:
    agent.intake.set_limits(OutputLimits(batch_lines=50))
    seconds = agent.run(
        """
        def feature(payload):
            for number in range(payload):
                print("line", number)
            return payload
        """,
        [50_000],
    )
    lines = agent.lines(lambda found: sum(line.dropped for line in found) + len(found) > 50_000)
    kept = [line for line in lines if not line.dropped]
    assert len(kept) + sum(line.dropped for line in lines) == 50_000
    assert len(kept) <= 500 + 500 * (seconds + 2)


def test_a_hundred_megabytes_in_one_write_are_cut_and_counted(agent: Agent) -> None:
    agent.run(
        """
        def feature(payload):
            print("x" * payload)
            print("y\\n" * (payload // 2), end="")
            return payload
        """,
        [50_000_000],
    )
    lines = agent.lines(lambda found: any(line.dropped for line in found))
    assert lines[0].text.startswith("x" * 8_192 + " … (49991808 bytes more)")
    kept = [line for line in lines if not line.dropped]
    assert len(kept) - 1 + sum(line.dropped for line in lines) == 25_000_000


def test_a_flood_past_python_is_cut_and_counted(agent: Agent) -> None:
    agent.run(
        """
        import subprocess
        def feature(payload):
            subprocess.run(["sh", "-c", f"yes | head -n {payload}"])
            return payload
        """,
        [2_000_000],
    )
    lines = agent.lines(lambda found: sum(line.dropped or 1 for line in found) >= 2_000_000)
    assert sum(line.dropped or 1 for line in lines) == 2_000_000
    assert len(lines) < 5_000


def test_switched_off_nothing_is_kept_and_switched_on_again_it_is(agent: Agent) -> None:
    chatty = """
        import os
        def feature(payload):
            print("hello", payload)
            os.write(1, b"hello\\n")
            return payload
        """
    agent.intake.set_limits(OutputLimits(enabled=False))
    agent.run(chatty, ["off"])
    agent.intake.set_limits(OutputLimits())
    agent.run("def feature(payload):\n    import time; time.sleep(1.1); return payload", [1])
    agent.run(chatty, ["on"])
    assert set(agent.texts(2)) == {"hello on", "hello"}


def test_the_last_words_of_a_process_that_is_killed_are_there(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    try:
        agent.run(
            """
            import os, signal
            def feature(payload):
                print("about to die")
                os.write(2, b"last words\\nno line end")
                os.kill(os.getpid(), signal.SIGKILL)
            """,
            [1],
            batch="b3",
            ids=["poison"],
        )
        lines = agent.lines(lambda found: len(found) >= 3)
        assert {(line.text, line.batch, line.job) for line in lines} == {
            ("about to die", "b3", "poison"),
            ("last words", "b3", None),
            ("no line end", "b3", None),
        }
    finally:
        agent.close()
