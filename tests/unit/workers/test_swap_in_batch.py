"""Models that change in the middle of a batch, and under many callers: each answer names the version that gave it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rayline.app_spec import AppSpec, Call, ModelSwap
from rayline.codec import encode_payload
from rayline.jobs import ContentType
from rayline.models import NodeModels, PlacedModel, PlacedModels, generation_of
from rayline.wire import AnswerHead, BatchHead, Verdict, encode_request
from tests.unit.workers.test_channel import channel_to
from workers.app_versions import AppVersions, Served
from workers.executor import Executor, Run
from workers.feature_server import FeatureServer
from workers.loading import LoadedApp, load_app
from workers.model_swap import ModelFollower, load_version
from workers.model_turn import ModelTurn, models_folder, write_placed
from workers.watchdog import Watchdog


class Actor:
    """An executor whose app is swapped by its own calls: the job that says `swap` moves the turn on."""

    def __init__(self, *, prepared: bool = True, **fields: Any) -> None:
        self.turn = [1]
        self.handed_out: list[tuple[str | None, list[int]]] = []
        spec = AppSpec("app", "v1", "/", "m:f", **fields)
        self.versions = AppVersions(served=Served(LoadedApp(self.function(1, spec), False, None), 1, "1:m@1"), turn=self.turn)
        if prepared:
            self.versions.prepare(Served(LoadedApp(self.function(2, spec), False, None), 2, "2:m@2"))
        self.executor = Executor(versions=self.versions, spec=spec)

    def function(self, number: int, spec: AppSpec) -> Callable[[Any], Any]:
        def answer(payload: str) -> int:
            if payload == "swap":
                self.turn[0] = 2
            return number

        return answer if spec.call is Call.JOB else lambda payloads: [answer(payload) for payload in payloads]

    def run(self, payloads: list[str]) -> Verdict:
        run = Run(head=BatchHead("b", ContentType.MSGPACK, 20_000), now=time.monotonic())

        def hand_out() -> None:
            values = [msgpack.unpackb(row["value"]) for row in run.answers.take().to_pylist()]
            self.handed_out.append((run.model_version, values))

        run.hand_out = hand_out
        verdict = self.executor.run(run, [encode_payload(payload, ContentType.MSGPACK) for payload in payloads])
        hand_out()
        return verdict


def test_jobs_before_a_swap_are_handed_out_under_the_version_that_answered_them() -> None:
    actor = Actor()
    assert actor.run(["a", "swap", "b", "c"]) is Verdict.DONE
    assert actor.handed_out == [("1:m@1", [1, 1]), ("2:m@2", [2, 2])]


def test_a_batch_call_is_of_one_version_and_the_next_of_the_new_one() -> None:
    actor = Actor(call=Call.BATCH)
    assert actor.run(["a", "swap", "b"]) is Verdict.DONE
    assert actor.run(["c"]) is Verdict.DONE
    assert actor.handed_out == [("1:m@1", [1, 1, 1]), ("2:m@2", [2])]


@pytest.mark.parametrize("call", list(Call))
def test_what_a_node_went_past_begins_no_call_and_hands_back_the_rest_without_a_word_against_its_node(call: Call) -> None:
    actor = Actor(prepared=False, call=call)
    assert actor.run(["a"]) is Verdict.DONE
    actor.turn[0] = 2
    assert actor.run(["b", "c"]) is Verdict.BUSY
    assert [values for _, values in actor.handed_out] == [[1], []]


SOURCE = """
import itertools, os, pathlib, time
CLOCK = itertools.count()
class Feature:
    def __init__(self):
        self.number = int(pathlib.Path(os.environ["RAYLINE_MODEL_M"]).read_text())
        time.sleep(0.02)
    def __call__(self, payload):
        began = time.monotonic_ns()
        time.sleep(0.001)
        return [began, self.number]
"""


class Pod:
    """Two actors' servers of one app in one pod, in this process, whose agent is the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = models_folder(root / "pod", "app")
        (root / "swap_feature.py").write_text(SOURCE)
        self.placed: tuple[PlacedModels, ...] = ()
        self.ending: list[Callable[[], None]] = []
        self.place(1)
        self.spec = AppSpec("app", "v1", str(root), "swap_feature:Feature", model_swap=ModelSwap.INSTANCE)
        self.servers = [self.start() for _ in range(2)]

    def place(self, number: int) -> None:
        path = self.root / f"m{number}"
        path.write_text(str(number))
        self.placed = (*self.placed, PlacedModels(number, {"m": PlacedModel(str(path), number)}))[-3:]
        write_placed(self.folder, NodeModels(number, self.placed))

    def start(self) -> FeatureServer:
        turn = ModelTurn(folder=self.folder)
        follower = ModelFollower(spec=self.spec, turn=turn)
        placed = follower.first()
        served = load_version(placed, lambda: load_app(self.spec, placed.paths))
        versions = AppVersions(served=served, turn=turn.turn, advance=turn.advance)
        follower.follow(versions)
        executor = Executor(versions=versions, spec=self.spec)
        server = FeatureServer(spec=self.spec, executor=executor, host="127.0.0.1", token="t", max_waiting=4)
        watchdog = Watchdog(server=server, spec=self.spec)
        watchdog.start()
        self.ending += [server.shutdown, watchdog.close, follower.close]
        return server


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAYLINE_MODEL_M", "")
    made = Pod(tmp_path)
    yield made
    for end in made.ending:
        end()


async def test_under_load_every_result_is_of_the_version_it_names_and_no_actor_goes_back(pod: Pod) -> None:
    swaps, stopped, news = 4, threading.Event(), asyncio.Event()
    seen: list[tuple[int, int, int, int]] = []
    failed: list[AnswerHead] = []

    async def load(actor: int) -> None:
        channel = channel_to(pod.servers[actor].port)
        batch = 0
        while not stopped.is_set():
            batch += 1

            def take(answer: Any, head: AnswerHead) -> None:
                for row in answer.to_pylist():
                    began, number = msgpack.unpackb(row["value"])
                    seen.append((began, number, generation_of(head.model_version), actor))

            head = BatchHead(f"b{batch}", ContentType.MSGPACK, 20_000)
            news.set()
            final = await channel.exchange(encode_request([msgpack.packb(1)] * 8), head, timeout_seconds=20, on_chunk=take)
            if final.verdict is not Verdict.DONE:
                failed.append(final)
        channel.close()

    async def swap() -> None:
        for number in range(2, 2 + swaps):
            at = len(seen)
            pod.place(number)
            async with asyncio.timeout(30):
                while {of for _, _, named, of in seen[at:] if named == number} != {0, 1}:
                    news.clear()
                    await news.wait()
        stopped.set()

    async with asyncio.TaskGroup() as tasks:
        for actor in range(2):
            tasks.create_task(load(actor))
        tasks.create_task(swap())
    assert failed == []
    assert {number for _, number, _, _ in seen} == set(range(1, 2 + swaps))
    assert all(number == named for _, number, named, _ in seen)
    for actor in range(2):
        taken = [number for _, number, _, of in sorted(seen) if of == actor]
        assert taken == sorted(taken)
        assert set(taken) >= {1, 1 + swaps}
