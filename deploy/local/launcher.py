"""`rayline up`: the platform in the foreground until a signal, or as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from deploy.local.child import ProcessRecord
from deploy.local.launch import rayline_command
from deploy.local.plan import PlatformPlan
from deploy.local.platform import LocalPlatform
from deploy.local.startup_log import StartupLog
from deploy.local.state import StateFolder
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.errors import LaunchError
from rayline.metrics import ProcessMetrics, Sample, declared

__all__ = ["PlatformPlan", "run_detached", "run_in_foreground"]

_POLL_SECONDS: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def run_in_foreground(plan: PlatformPlan) -> bool:
    """Start, run until SIGINT or SIGTERM, stop; a second signal kills what is still ending. Whether it was up before it ended.

    Raises:
        LaunchError: a part did not come up, or another launcher runs here.
        RaylineError: the platform cannot go on.
        ConfigError: the environment names no port for its metrics.
    """
    identity = ProcessIdentity(role=Role.LAUNCHER, name=socket.gethostname())
    async with ProcessMetrics(identity=identity) as metrics:
        return await _run(plan, identity, metrics)


async def _run(plan: PlatformPlan, identity: ProcessIdentity, metrics: ProcessMetrics) -> bool:
    log = StartupLog()
    platform = LocalPlatform(plan, log=log)
    metrics.board.source(lambda _: _children(platform.processes()))
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    hurrying: list[asyncio.Future[None]] = []

    def on_signal() -> None:
        if asked.is_set():
            log.say("killing what is still running")
            hurrying.append(asyncio.ensure_future(platform.hurry()))
        asked.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    interrupted = asyncio.ensure_future(asked.wait())
    starting = asyncio.ensure_future(platform.start())
    try:
        waiting: set[asyncio.Future[Any]] = {starting, interrupted}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _say_what_next(log, platform, plan)
            going_on: set[asyncio.Future[Any]] = {interrupted, platform.failure}
            async with ConfigWatch(settings=platform.settings, identity=identity) as watch:
                metrics.tell_by(watch)
                await asyncio.wait(going_on, return_when=asyncio.FIRST_COMPLETED)
            if platform.failure.done():
                await platform.failure
            return True
        return False
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        interrupted.cancel()
        if platform.started:
            log.say("stopping: keepers, lanes, gateways, pods, heads, broker")
            await platform.stop()
            log.say("stopped")
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _children(processes: Iterable[ProcessRecord]) -> list[Sample]:
    counted = Counter(record.role for record in processes)
    return [Sample(declared.CHILDREN, count, {declared.CHILD: role}) for role, count in counted.items()]


def run_detached(plan: PlatformPlan) -> None:
    """Start the launcher in a session of its own, show what it tells until it is ready, and return.

    Raises:
        LaunchError: it ended before it was ready.
    """
    folder = StateFolder(plan.state_dir)
    folder.lock()
    folder.unlock()
    log_path = folder.logs / "launcher.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    kafka = plan.kafka.to_env() if plan.kafka is not None else {}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            rayline_command("up", *_arguments(plan)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **kafka},
            start_new_session=True,
        )
    try:
        _follow_until_ready(process, folder, log_path)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _follow_until_ready(process: subprocess.Popen[bytes], folder: StateFolder, log_path: Path) -> None:
    with log_path.open() as log:
        while True:
            ended = process.poll() is not None
            state = folder.read()
            ready = state is not None and state.ready and state.launcher.pid == process.pid
            sys.stderr.write(log.read())
            if ended:
                raise LaunchError(
                    f"the launcher ended with status {process.returncode} before it was ready; see above and {folder.logs}"
                )
            if ready:
                return
            time.sleep(_POLL_SECONDS)


def _arguments(plan: PlatformPlan) -> list[str]:
    return [
        *("--state-dir", str(plan.state_dir.resolve())),
        *("--clusters", str(plan.clusters)),
        *("--pods", str(plan.pods_per_cluster)),
        *("--pod-cpus", str(plan.cpus_per_pod)),
        *("--lanes", str(plan.lanes_per_app)),
        *("--keepers", str(plan.keepers)),
        "--console" if plan.console else "--no-console",
    ]


def _say_what_next(log: StartupLog, platform: LocalPlatform, plan: PlatformPlan) -> None:
    where = "" if plan.state_dir.resolve() == Path(".rayline").resolve() else f" --state-dir {plan.state_dir}"
    log.say(
        f"up after {log.elapsed_seconds:.1f} s: Kafka at {platform.settings.bootstrap_servers}, logs in {platform.folder.logs}"
    )
    log.say(f"next: `rayline deploy app.yaml --wait{where}`, `rayline status{where}`; Ctrl-C or `rayline down{where}` stops it")
