"""The documents say what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgpack
import pytest
import yaml

from deploy.cli.reference import DOCS, all_commands, documents, render
from ingest.admission import Reason
from rayline import jobs, results, topics
from rayline.app_spec import AppSpec
from rayline.clusters import Lease, encode_entry
from rayline.config.answer import Answer, Presence, Verdict
from rayline.config.process import ProcessIdentity
from rayline.config.setting import Role
from rayline.events import Event, encode_event
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.printed import PrintedLine, Printer, Stream, encode_printed
from rayline.reports import NodeReport, NodeState, encode_reports
from rayline.suspects import SuspectCase, encode_suspects
from rayline.view_record import encode_chunks

PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
ASYNCAPI = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
JOB_HEADERS = {jobs.JOB_ID, jobs.DEADLINE_MS, jobs.CONTENT_TYPE, jobs.TRACEPARENT, jobs.TRACESTATE, jobs.CE_ID}


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_generated_parts_are_fresh(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert render(text) == text, "run `python -m deploy.cli.reference`"


# They print for people while they run; the last three write their outcome with `--json FILE`.
PROGRAMS = {"rayline up", "rayline console", "rayline demo", "rayline bench", "rayline chaos"}


def test_every_command_that_prints_speaks_to_machines_and_every_parameter_is_explained() -> None:
    mute = {name for name, command in all_commands() if all("--output" not in one.opts for one in command.params)}
    assert mute == PROGRAMS
    assert [(name, one.name) for name, command in all_commands() for one in command.params if not one.help] == []


@pytest.mark.parametrize("name", sorted(JOB_HEADERS | results.RESULT_HEADERS | results.DLQ_HEADERS))
def test_every_header_stands_in_the_protocol(name: str) -> None:
    assert f"`{name}`" in PROTOCOL


@pytest.mark.parametrize("name", [*results.Outcome, *Reason, *jobs.ContentType])
def test_every_outcome_reason_and_content_type_stands_in_the_protocol(name: str) -> None:
    assert f"`{name}`" in PROTOCOL


def headers(message: str) -> dict[str, object]:
    found: dict[str, object] = ASYNCAPI["components"]["messages"][message]["headers"]["properties"]
    return found


def test_asyncapi_names_the_topics_of_the_code() -> None:
    addresses = [channel["address"].format(app="x") for channel in ASYNCAPI["channels"].values()]
    assert sorted(addresses) == sorted(topic.name for topic in (*topics.app_topics("x"), *topics.platform_topics()))


def test_asyncapi_leads_from_every_operation_to_a_message_and_leaves_none_out() -> None:
    def target(reference: dict[str, str]) -> object:
        found: object = ASYNCAPI
        for part in reference["$ref"].removeprefix("#/").split("/"):
            assert isinstance(found, dict)
            found = found[part]
        return found

    channels = [target(operation["channel"]) for operation in ASYNCAPI["operations"].values()]
    assert all(channel in channels for channel in ASYNCAPI["channels"].values())
    messages = [target(message) for channel in ASYNCAPI["channels"].values() for message in channel["messages"].values()]
    assert all(message in messages for message in ASYNCAPI["components"]["messages"].values())


WRITTEN = {
    "report": msgpack.unpackb(encode_reports([NodeReport(cluster="c", node="n", incarnation=1, seq=1, state=NodeState.READY)])),
    "viewOfNodes": msgpack.unpackb(next(encode_chunks([], ears_age_ms=0))),
    "viewOfLane": json.loads(encode_lane_record(LaneRecord("a", "l", False, 0, {}))),
    "deployed": AppSpec(name="a", version="1", root="/", entrypoint="f:e").as_dict(),
    "answer": json.loads(Answer(key="global/x", version=1, process="lane/a/0", verdict=Verdict.APPLIED).encode()),
    "presence": json.loads(Presence(ProcessIdentity(role=Role.LANE, name="0", app="a")).encode()),
    "printed": msgpack.unpackb(
        encode_printed(Printer("c", "n", "a", "1", "x", "i"), [PrintedLine(1, Stream.STDOUT, "t", "b", None, 0, "1a" * 16)])
    ),
    "clusterEntry": json.loads(encode_entry(Lease(epoch=1, holder="k"))[1]),
    "suspects": msgpack.unpackb(encode_suspects([SuspectCase((1,), 1, ())]) or b""),
    "event": json.loads(encode_event(Event("s", "k", "o", "t"))),
}


@pytest.mark.parametrize("message", WRITTEN)
def test_asyncapi_describes_what_is_written(message: str) -> None:
    jsonschema.validate(WRITTEN[message], ASYNCAPI["components"]["messages"][message]["payload"])


def test_asyncapi_names_the_headers_of_the_code() -> None:
    assert set(headers("job")) == JOB_HEADERS | {"ce_datacontenttype"}
    assert set(headers("result")) == results.RESULT_HEADERS | {jobs.CONTENT_TYPE, jobs.TRACEPARENT}
    assert set(headers("deadLetter")) == results.DLQ_HEADERS


def test_asyncapi_names_the_outcomes_types_and_bounds_of_the_code() -> None:
    result = ASYNCAPI["components"]["messages"]["result"]["headers"]["properties"]
    assert result["outcome"]["enum"] == [outcome.value for outcome in results.Outcome]
    assert result["error-message"]["maxLength"] == results.MAX_ERROR_MESSAGE_CHARS
    assert result["error-type"]["maxLength"] == results.MAX_ERROR_TYPE_CHARS
    schemas = ASYNCAPI["components"]["schemas"]
    assert schemas["contentType"]["enum"] == [kind.value for kind in jobs.ContentType]
    assert schemas["jobId"]["maxLength"] == jobs.MAX_JOB_ID_BYTES
    pattern = ASYNCAPI["components"]["messages"]["deadLetter"]["headers"]["properties"]["dlq-reason"]["pattern"]
    assert all(reason.value in pattern for reason in Reason)
