"""Ports, sessions, loading and imports: what surrounds an actor's process."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec
from rayline.errors import ActorUnready, ClusterError
from workers.cluster import make_ray_folder, own_ray_folder, write_token
from workers.job_gauge import GAUGE_SUFFIX, Gauged, JobGauge
from workers.loading import load_app
from workers.pod_actors import end_orphans, read_pod_actors
from workers.ports import BLOCK_PORTS, claim_ports
from workers.sessions import lead_session, session_members, signal_session, wait_session_end


def test_two_claims_never_share_a_port_or_an_address() -> None:
    blocks = [claim_ports("the same name") for _ in range(3)]
    try:
        assert len({block.first // BLOCK_PORTS for block in blocks}) == 3
        assert len({block.host for block in blocks}) == 3
        options = [option for block in blocks for option in block.ray_options()]
        assert len(set(options)) == len(options)
    finally:
        for block in blocks:
            block.release()


def test_a_block_with_a_taken_port_is_passed_over_and_a_released_one_comes_back() -> None:
    first = claim_ports("somebody")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first.first + 5))
        first.release()
        second = claim_ports("somebody")
        assert second.number != first.number
        second.release()
    third = claim_ports("somebody")
    assert third.number == first.number
    third.release()


@pytest.fixture
def session() -> Iterator[subprocess.Popen[bytes]]:
    """A session of two processes, of which one is in a process group of its own."""
    program = "import os, time\nif os.fork() == 0: os.setpgid(0, 0)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as leader:
        until = time.monotonic() + 10
        while len(session_members(leader.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        yield leader
        signal_session(leader.pid, signal.SIGKILL)


def test_a_session_ends_as_a_whole(session: subprocess.Popen[bytes]) -> None:
    assert not wait_session_end(session.pid, timeout_seconds=0.05)
    signal_session(session.pid, signal.SIGKILL)
    assert wait_session_end(session.pid, timeout_seconds=5)


def test_folders_of_killed_nodes_are_removed_when_the_next_one_starts(session: subprocess.Popen[bytes], tmp_path: Path) -> None:
    for name, owner in (("running", session.pid), ("killed", 2**22)):
        make_ray_folder(tmp_path / name)
        own_ray_folder(tmp_path / name, owner)
    (tmp_path / "of somebody else").mkdir()
    make_ray_folder(tmp_path / "next")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "of somebody else", "running"]


def test_one_process_of_a_session_can_be_spared(session: subprocess.Popen[bytes]) -> None:
    signal_session(session.pid, signal.SIGKILL, spare=session.pid)
    assert session_members(session.pid) == [session.pid]
    assert wait_session_end(session.pid, timeout_seconds=0, spare=session.pid)


def test_a_leader_of_a_foreign_sessions_group_refuses_to_be_a_pod() -> None:
    program = "from workers.sessions import lead_session\nlead_session()"
    done = subprocess.run([sys.executable, "-c", program], process_group=0, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"setsid" in done.stderr
    assert ClusterError.__name__.encode() in done.stderr
    assert lead_session.__doc__


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = write_token(path)
    assert len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert write_token(path) == token


def test_entries_of_dead_actors_are_removed_and_broken_ones_passed_over(tmp_path: Path) -> None:
    entry = '{"pid": %d, "app": "a", "version": "v"}'
    (tmp_path / "actor-1.json").write_text(entry % os.getpid())
    (tmp_path / "actor-2.json").write_text(entry % 2**22)
    (tmp_path / "actor-3.json").write_text("{")
    assert [actor.pid for actor in read_pod_actors(tmp_path)] == [os.getpid()]
    assert not (tmp_path / "actor-2.json").exists()


def test_a_lane_imports_the_channel_without_ray_and_without_pandas() -> None:
    program = (
        "import sys, workers.channel\nfrom rayline.wire import encode_request\nencode_request([b'x'])\n"
        "print([name for name in ('ray', 'pandas') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_an_agent_does_without_what_is_large() -> None:
    """Arrow and numpy are 45 MiB, in each pod; Ray is more."""
    program = (
        "import sys, deploy.agent_process\n"
        "print([name for name in ('pyarrow', 'numpy', 'ray', 'pydantic', 'opentelemetry.sdk') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def app(root: Path, source: str, **fields: object) -> AppSpec:
    name = f"feature_{abs(hash(root))}"
    (root / f"{name}.py").write_text(source)
    given = {"entrypoint": f"{name}:feature", **fields}
    return AppSpec(name="app", version="v1", root=str(root), **given)  # type: ignore[arg-type]


@pytest.fixture
def clean_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RAYLINE_TEST", "before")


@pytest.mark.usefixtures("clean_path")
def test_an_app_is_loaded_with_its_variables_and_its_class_made_once(tmp_path: Path) -> None:
    source = """
import os
SEEN = os.environ["RAYLINE_TEST"]
class feature:
    model_version = "m7"
    def __init__(self, *, plus): self.plus = plus
    async def __call__(self, payload): return payload + self.plus
"""
    loaded = load_app(app(tmp_path, source, env={"RAYLINE_TEST": "set"}, constructor={"plus": 3}))
    assert loaded.is_async
    assert loaded.model_version == "m7"
    assert loaded.function.plus == 3
    assert sys.modules[type(loaded.function).__module__].SEEN == "set"
    assert sys.path[0] == str(tmp_path)


@pytest.mark.usefixtures("clean_path")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('no model')", "no model"),
        ("import sys; sys.exit('no licence')", "no licence"),
        ("feature = 3", "int, not a function"),
        ("", "has no attribute 'feature'"),
    ],
)
def test_an_app_that_cannot_be_loaded_says_why(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(ActorUnready, match=reason):
        load_app(app(tmp_path, source))


# An actor whose code forked a process that lives on; it says who that is, and dies as it is told.
FORKING_ACTOR = """
import ctypes, os, signal, sys, time
from workers.sessions import lead_group
lead_group()
lead_group()
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
how = sys.stdin.readline().strip()
if how == "exit":
    os._exit(3)
if how == "segfault":
    ctypes.string_at(0)
os.kill(os.getpid(), getattr(signal, how))
"""


@pytest.mark.parametrize("listed_first", [False, True])
@pytest.mark.parametrize("how", ["exit", "segfault", "SIGKILL", "SIGABRT"])
def test_what_a_dead_actors_code_forked_is_ended_by_the_pods_agent(tmp_path: Path, how: str, listed_first: bool) -> None:
    command = [sys.executable, "-c", FORKING_ACTOR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as actor:
        assert actor.stdin is not None
        assert actor.stdout is not None
        child = int(actor.stdout.readline())
        JobGauge(tmp_path / f"actor-{actor.pid}").show(Gauged(1))
        assert end_orphans(str(tmp_path)) == [], "it lives"
        actor.stdin.write(f"{how}\n")
        actor.stdin.flush()
        actor.wait(timeout=20)
    fd = os.pidfd_open(child)
    try:
        if listed_first:
            entry = {"pid": actor.pid, "app": "a", "version": "1"}
            (tmp_path / f"actor-{actor.pid}.json").write_text(json.dumps(entry))
            assert read_pod_actors(tmp_path) == []
        assert end_orphans(str(tmp_path)) == ([] if listed_first else [actor.pid])
        assert select.select([fd], [], [], 10)[0], "what it forked goes on"
    finally:
        os.close(fd)
    assert not (tmp_path / f"actor-{actor.pid}{GAUGE_SUFFIX}").exists()
    assert end_orphans(str(tmp_path)) == []
    assert end_orphans(str(tmp_path / "nowhere")) == []


def test_a_group_of_another_session_is_not_a_dead_actors(tmp_path: Path) -> None:
    program = "import os, time\nif os.fork() == 0: time.sleep(60)\nprint(flush=True)\nos._exit(0)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        leader.wait(timeout=20)
        JobGauge(tmp_path / f"actor-{leader.pid}").show(Gauged(1))
        assert end_orphans(str(tmp_path)) == [leader.pid]
        assert session_members(leader.pid), "a stranger was ended"
        signal_session(leader.pid, signal.SIGKILL)
