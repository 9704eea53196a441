"""Ends a worker process that user code has hung or bloated, after telling the lanes what became of their batches."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

from rayline.app_spec import AppSpec
from rayline.wire import Verdict
from workers.feature_server import FeatureServer
from workers.job_gauge import JobGauge

EXIT_CODE = 70
TICK_SECONDS = 0.1
# An async call that was cancelled at its limit has this long to end before the process is given up.
HANG_GRACE_SECONDS = 0.5
# Beyond the limit, for code that holds the interpreter lock so that no Python thread runs.
BACKSTOP_SECONDS = 5.0
GOODBYE_SECONDS = 0.3


class Watchdog:
    """Owns two threads and faulthandler's timer. Watches batches that others run; ends the process, never a single thread.

    A batch past its budget is answered TIMEOUT at once; the process ends only when a single call has run longer than
    `limits.execute_seconds`, because a short budget is not the function's fault. Answers are written by a thread of their own: a
    frozen lane may block it, and must not stop the watch. The first thread keeps `gauge` up to date as well.
    """

    def __init__(self, *, server: FeatureServer, spec: AppSpec, gauge: JobGauge | None = None) -> None:
        self._server = server
        self._gauge = gauge
        self._spec = spec
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="rayline-watchdog", daemon=True),
            threading.Thread(target=self._answer_early, name="rayline-early-answers", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop watching (an actor is watched as long as it lives; a server inside another process need not be)."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=5)
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        limit = self._spec.limits.execute_seconds
        rearm_at = 0.0
        while not self._closed.wait(TICK_SECONDS):
            now = time.monotonic()
            if now >= rearm_at:
                rearm_at = now + 1.0
                faulthandler.dump_traceback_later(limit + BACKSTOP_SECONDS, exit=True, file=2)
            for exchange in self._server.exchanges:
                started = exchange.run.call_started
                if started is not None and now - started > limit + HANG_GRACE_SECONDS:
                    # The batch that hung was told TIMEOUT; for its neighbours there is no room here any more, but the node stays.
                    self._exit(
                        f"a call of {self._spec.entrypoint} ran longer than limits.execute_seconds = {limit:g}", Verdict.BUSY
                    )
            self._check_memory()
            if self._gauge is not None:
                self._gauge.show(self._server.gauged())

    def _answer_early(self) -> None:
        limit = self._spec.limits.execute_seconds
        while not self._closed.wait(TICK_SECONDS):
            now = time.monotonic()
            for exchange in self._server.exchanges:
                started, run = exchange.run.call_started, exchange.run
                if started is not None and now - started > limit:
                    exchange.finish(Verdict.TIMEOUT, f"a call ran longer than limits.execute_seconds = {limit:g}")
                elif now > run.deadline + TICK_SECONDS:
                    exchange.finish(Verdict.TIMEOUT, f"the batch's budget of {run.head.budget_ms:.0f} ms is used up")
                else:
                    exchange.stop_if_left()
                    exchange.flush(now)

    def _check_memory(self) -> None:
        limit = self._spec.resources.memory_bytes
        if limit <= 0:
            return
        used = int(Path("/proc/self/statm").read_bytes().split()[1]) * self._page_bytes
        if used > limit:
            self._exit(f"memory: {used / 2**20:.0f} MiB resident, resources.memory allows {limit / 2**20:.0f} MiB", Verdict.LOST)

    def _exit(self, reason: str, verdict: Verdict) -> None:
        """Tell all lanes, give the answers a moment to leave, and end the process so that Ray starts it again."""
        exchanges = self._server.exchanges
        sys.stderr.write(f"rayline: worker {os.getpid()} ends itself: {reason}\n")
        sys.stderr.flush()

        def say_goodbye() -> None:
            for exchange in exchanges:
                exchange.finish(verdict, reason)

        threading.Thread(target=say_goodbye, daemon=True).start()
        until = time.monotonic() + GOODBYE_SECONDS
        while time.monotonic() < until and not all(exchange.left_by_peer() for exchange in exchanges):
            self._closed.wait(TICK_SECONDS / 5)
        os._exit(EXIT_CODE)
