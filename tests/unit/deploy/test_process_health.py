"""What status says of a process: by its own answer, by its silence, by its last word."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from deploy.config_board import LastWord
from deploy.process_health import ask_process, read_health
from deploy.progress import Silence, process_stalls
from rayline.config import Presence, ProcessIdentity, Role
from rayline.config.answer import decode_applied
from rayline.stalls import Stall, StallKind

LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")


NOW_MS = 1_700_000_000_000


def stall(subject: str, seconds: float = 3.0) -> Stall:
    return Stall(StallKind.ACTIVITY, subject, seconds, "nothing moves")


def word(silent_seconds: float = 1.0, *, identity: ProcessIdentity = LANE, **fields: Any) -> LastWord:
    given = {"metrics": "127.0.0.1:1", "host": socket.gethostname(), **fields}
    return LastWord(Presence(identity, **given), silent_seconds)


def told(word: LastWord, answer: Sequence[Stall] | Silence) -> list[str] | None:
    found = process_stalls(word, answer, now_ms=NOW_MS)
    return None if found is None else [stall.text for stall in found]


def test_a_process_that_answers_is_believed_more_than_its_last_word() -> None:
    said = word(stalls=(stall("old"),))
    assert told(said, []) == []
    assert told(said, [stall("beats")]) == ["lane/ocr/0: no progress of beats: nothing moves"]


def test_one_that_cannot_be_asked_is_known_by_its_last_word_and_since_when() -> None:
    (found,) = process_stalls(word(2, stalls=(stall("beats", 5),)), Silence.OUT_OF_REACH, now_ms=NOW_MS) or ()
    assert (found.subject, found.since_ms, found.process) == ("beats", NOW_MS - 7_000, "lane/ocr/0")


def test_one_that_takes_connections_and_says_nothing_is_frozen() -> None:
    assert "is frozen" in (told(word(), Silence.FROZEN) or ("",))[0]


def test_one_that_is_gone_is_not_said_to_stand_still() -> None:
    assert told(word(400), Silence.GONE) is None


async def test_another_process_on_its_port_is_not_taken_for_it() -> None:
    async def ask(_: str) -> dict[str, Any]:
        return {"process": "lane/ocr/1", "stalls": []}

    assert await read_health({"a": word()}, ask=ask) == []


def test_one_on_another_machine_that_is_overdue_is_told_but_for_pods() -> None:
    assert "26 s" in (told(word(26), Silence.OUT_OF_REACH) or ("",))[0]
    pod = ProcessIdentity(role=Role.AGENT, cluster="c1", node="p1")
    assert told(word(26, identity=pod), Silence.OUT_OF_REACH) is None


def test_one_that_answers_here_but_has_not_reached_kafka_is_told() -> None:
    assert "Kafka" in (told(word(40), []) or ("",))[0]


def test_one_that_cannot_read_its_settings_is_told_beside_what_else_stands_still() -> None:
    found = process_stalls(word(problem="no topic", stalls=(stall("beats"),)), Silence.OUT_OF_REACH, now_ms=NOW_MS) or ()
    assert [one.kind for one in found] == [StallKind.ACTIVITY, StallKind.CONFIG]


def test_a_presence_keeps_what_it_says_on_its_way() -> None:
    presence = word(stalls=(stall("beats"),)).presence
    assert decode_applied(presence.encode()) == presence


def test_a_presence_of_an_older_process_is_read_without() -> None:
    old = json.loads(word().presence.encode())
    for name in ("metrics", "host", "stalls"):
        del old[name]
    presence = decode_applied(json.dumps(old).encode())
    assert isinstance(presence, Presence)
    assert (presence.metrics, presence.stalls) == (None, ())


async def test_only_processes_within_reach_are_asked() -> None:
    asked: list[str] = []

    async def ask(address: str) -> Silence:
        asked.append(address)
        return Silence.GONE

    far = word(host="another", metrics="127.0.0.1:2")
    open_to_all = word(host="another", metrics="10.0.0.1:3")
    await read_health({"a": word(), "b": far, "c": open_to_all, "d": word(metrics=None), "e": word(10_000)}, ask=ask)
    assert sorted(asked) == ["10.0.0.1:3", "127.0.0.1:1"]


async def test_a_listener_that_says_nothing_is_frozen_and_a_closed_port_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert await ask_process(address) is Silence.FROZEN
    assert await ask_process(address) is Silence.GONE


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"\xff"])
async def test_an_answer_that_is_none_of_ours_is_nobody(body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        assert await ask_process(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") is Silence.GONE
