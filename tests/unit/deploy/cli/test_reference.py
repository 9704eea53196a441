"""The documents say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.cli.reference import DOCS, documents, render
from ingest.admission import Reason
from rayline import jobs, results, topics

PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
ASYNCAPI = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
JOB_HEADERS = {jobs.JOB_ID, jobs.DEADLINE_MS, jobs.CONTENT_TYPE, jobs.TRACEPARENT, jobs.TRACESTATE, jobs.CE_ID}


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_generated_parts_are_fresh(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert render(text) == text, "run `python -m deploy.cli.reference`"


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
    addresses = {name: channel["address"].format(app="x") for name, channel in ASYNCAPI["channels"].items()}
    assert addresses == {
        "requests": topics.requests_topic("x"),
        "results": topics.results_topic("x"),
        "dlq": topics.dlq_topic("x"),
        "config": topics.CONFIG,
        "configApplied": topics.CONFIG_APPLIED,
        "events": topics.EVENTS,
        "logs": topics.LOGS,
    }


def test_asyncapi_names_the_headers_of_the_code() -> None:
    assert set(headers("job")) == JOB_HEADERS
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
