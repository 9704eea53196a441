"""Who runs in the bench: Rayline, driven by its command line as a user would, and the references, each a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import tenacity
import yaml
from confluent_kafka import Consumer, KafkaException, TopicPartition

from bench.load import PARTITIONS, LoadError
from bench.processes import cpu_seconds, is_ray_worker, spent, tree
from deploy.checker import Correlation
from deploy.local.state import StateFolder
from deploy.local.supervision import Role
from rayline.topics import group_id, requests_topic, results_topic

WORKLOADS = Path(__file__).parent / "workloads"
_RUN_SECONDS = 300.0
_COMMAND_SECONDS = 180.0
_END_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TAIL_CHARS = 3_000


@dataclass(frozen=True, slots=True)
class Heap:
    """The work of one run: ``jobs`` jobs that lie in the requests topic of ``app`` already."""

    bootstrap_servers: str
    app: str
    workload: str
    jobs: int
    cpu_loops: int


class Contestant(Protocol):
    """Works a heap off and says what CPU that took."""

    @property
    def name(self) -> str:
        """Its name in the table and in the JSON."""

    @property
    def correlation(self) -> Correlation:
        """How its results name their jobs."""

    def work_off(self, heap: Heap) -> dict[str, float]:
        """CPU seconds for 1,000 jobs by role, start-up left out. Raises LoadError when it does not finish."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A module of ``bench.references``; ends by itself when all jobs are done."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    correlation: Correlation = Correlation.KEY

    def work_off(self, heap: Heap) -> dict[str, float]:
        """See ``Contestant``."""
        options = {
            "--bootstrap-servers": heap.bootstrap_servers,
            "--requests": requests_topic(heap.app),
            "--results": results_topic(heap.app),
            "--jobs": str(heap.jobs),
        }
        if self.arguments:
            options["--cpu-loops"] = str(heap.cpu_loops)
        words = [word for option in options.items() for word in option]
        said = _run([sys.executable, "-m", self.module, *self.arguments, *words], seconds=_RUN_SECONDS)
        report = json.loads(said.splitlines()[-1])
        return {role: seconds / report["processed"] * 1000 for role, seconds in report["cpu_s"].items()}


class Rayline:
    """Rayline as a user runs it: ``up``, ``deploy``, ``down``, with two Ray clusters of one 1-core pod each and two lanes.

    Owns a state folder for each run and takes the platform down after it. Does not own the broker.
    """

    name = "rayline"
    correlation = Correlation.SOURCE

    def __init__(self, *, command: Sequence[str] = (str(Path(sys.executable).with_name("rayline")),)) -> None:
        self._command = tuple(command)

    def work_off(self, heap: Heap) -> dict[str, float]:
        """See ``Contestant``."""
        with self.running(heap) as state_dir, GroupProgress(heap.bootstrap_servers, heap.app) as progress:
            done_before = progress.wait_for(1, seconds=_COMMAND_SECONDS)
            before = platform_cpu_seconds(state_dir)
            progress.wait_for(heap.jobs, seconds=_RUN_SECONDS)
            used = spent(before, platform_cpu_seconds(state_dir))
        counted = heap.jobs - done_before
        if counted <= 0:
            raise LoadError(f"{heap.jobs} jobs were done before the first look: give more jobs")
        return {role: seconds / counted * 1000 for role, seconds in used.items()}

    @contextmanager
    def running(self, heap: Heap) -> Iterator[Path]:
        """The platform with the heap's app deployed; yields the state folder."""
        with tempfile.TemporaryDirectory(prefix="rayline-bench-") as folder:
            state_dir, app_dir = Path(folder) / "state", Path(folder) / "app"
            write_app(app_dir, heap)
            where = ["--state-dir", str(state_dir)]
            shape = ["--clusters", "2", "--pods", "1", "--pod-cpus", "1", "--lanes", "2", "--detach"]
            try:
                self._rayline("up", *shape, "--bootstrap-servers", heap.bootstrap_servers, *where)
                self._rayline("deploy", str(app_dir / "app.yaml"), *where)
                yield state_dir
                # The broker outlives the round: an app that stayed would get lanes and actors in all that follow.
                self._rayline("undeploy", heap.app, *where)
            finally:
                self._rayline("down", *where)

    def wait_until_done(self, heap: Heap) -> None:
        """Wait until the heap is worked off. Raises LoadError when it takes too long."""
        with GroupProgress(heap.bootstrap_servers, heap.app) as progress:
            progress.wait_for(heap.jobs, seconds=_RUN_SECONDS)

    def _rayline(self, *words: str) -> str:
        return _run([*self._command, *words], seconds=_COMMAND_SECONDS)


# A new group has no coordinator for a moment.
_asked_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(KafkaException),
    wait=tenacity.wait_fixed(0.2),
    stop=tenacity.stop_after_delay(30),
    reraise=True,
)


class GroupProgress:
    """How far a consumer group has committed, asked of the broker; cheap enough to ask often."""

    def __init__(self, bootstrap_servers: str, app: str) -> None:
        # Never subscribes, so it is no member of the group.
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group_id(app), "log_level": 3})
        topic = requests_topic(app)
        self._partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]

    def done(self) -> int:
        """Jobs that lie before the committed offsets (of topics that were filled without transactions)."""
        committed = _asked_again(self._consumer.committed, self._partitions, _COMMAND_SECONDS)
        return sum(max(0, partition.offset) for partition in committed)

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> "GroupProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for(self, jobs: int, *, seconds: float) -> int:
        """Wait until at least so many are done; returns how many are. Raises LoadError after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (done := self.done()) < jobs:
            if time.monotonic() > deadline:
                raise LoadError(f"{done} of {jobs} jobs were done after {seconds:g} s; see the logs in the state folder")
            time.sleep(_POLL_SECONDS)
        return done


def write_app(folder: Path, heap: Heap, **fields: Any) -> None:
    """A copy of the workload's app under the heap's name, with the calibrated loop; `fields` of the manifest replace its own."""
    folder.mkdir(parents=True)
    shutil.copy(WORKLOADS / "features.py", folder)
    manifest: dict[str, Any] = yaml.safe_load((WORKLOADS / f"{heap.workload}.yaml").read_text())
    manifest |= {"name": heap.app, **fields}
    if "constructor" in manifest:
        manifest["constructor"]["loops"] = heap.cpu_loops
    (folder / "app.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))


def platform_cpu_seconds(state_dir: Path) -> dict[str, float]:
    """CPU seconds so far of a local platform by role: ``lane``, ``workers`` (actors), ``platform`` (Ray's own, gateways)."""
    state = StateFolder(state_dir).read()
    if state is None:
        raise LoadError(f"{state_dir}: the platform is not running; see its logs")
    roles: dict[int, str] = {}
    processes: list[psutil.Process] = []
    for record in state.processes:
        if record.role == Role.BROKER or record.process() is None:
            continue
        for process in tree(record.pid):
            roles[process.pid] = "lane" if record.role == Role.LANE else "platform"
            processes.append(process)

    def role_of(process: psutil.Process) -> str:
        return "workers" if is_ray_worker(process) else roles[process.pid]

    return cpu_seconds(processes, role_of)


def references(workload: str) -> tuple[Reference, ...]:
    """Who is measured beside Rayline on a workload."""
    micro_batches = Reference(
        name=f"{workload}_ray_micro_batches", module="bench.references.ray_micro_batches", arguments=(workload,)
    )
    if workload != "echo":
        return (micro_batches,)
    alone = Reference(name="echo_aiokafka_transactions", module="bench.references.echo_aiokafka_transactions")
    return (alone, micro_batches)


def _run(command: Sequence[str], *, seconds: float) -> str:
    """What it said. In a session of its own: Ctrl-C reaches it by us alone, and it gets the time to end what it has started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            said, told = process.communicate(timeout=seconds)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise LoadError(f"`{' '.join(command)}` did not end within {seconds:g} s") from error
            raise
    if process.returncode:
        raise LoadError(f"`{' '.join(command)}` ended with {process.returncode}:\n{told[-_TAIL_CHARS:]}")
    return said


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
