"""Output for people and machines, exit codes, and where the connection comes from."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli.exit_codes import ExitCode, explain_failure
from deploy.cli.options import explicit_kafka_settings, kafka_settings
from deploy.cli.output import OutputFormat, Records, show, table
from rayline.bus import SecurityProtocol
from rayline.errors import BrokerUnavailable, ConfigError

HEAVY = {"ray", "pyarrow", "aiokafka", "pydantic", "rich.console", "numpy"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_document_and_jsonl_one_object_a_line(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"n": number, "raw": b"\xff"} for number in range(count)]
    for output in (OutputFormat.JSON, OutputFormat.JSONL):
        with Records(output, str) as records:
            for row in rows:
                records.add(row)
        text = capsys.readouterr().out
        read = json.loads(text) if output is OutputFormat.JSON else [json.loads(line) for line in text.splitlines()]
        assert [row["n"] for row in read] == list(range(count))


def test_a_json_array_is_closed_when_reading_ends_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with Records(OutputFormat.JSON, str) as records:
            records.add({"n": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(capsys.readouterr().out) == [{"n": 1}]


def test_text_is_for_people_and_ends_with_a_newline(capsys: pytest.CaptureFixture[str]) -> None:
    show(OutputFormat.TEXT, {"ignored": 1}, "hello")
    assert capsys.readouterr().out == "hello\n"


def test_table_columns_are_as_wide_as_their_longest_cell() -> None:
    assert table(("A", "B"), [("long", 1), ("x", 22)]) == "A     B\nlong  1\nx     22"


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (BrokerUnavailable("no broker; start one"), ExitCode.FAILED, "error: no broker; start one\n"),
        (
            ExceptionGroup("g", [ConfigError("a"), ExceptionGroup("h", [ConfigError("b")])]),
            ExitCode.FAILED,
            "error: a\nerror: b\n",
        ),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, ""),
        (asyncio.CancelledError(), ExitCode.INTERRUPTED, ""),
    ],
)
def test_known_failures_are_told_without_a_traceback(
    error: BaseException, code: ExitCode, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain_failure(error) is code
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("g", [ConfigError("a"), ValueError("x")])])
def test_unexpected_failures_come_with_a_traceback(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_failure(error) is ExitCode.UNEXPECTED
    assert "ValueError: x" in capsys.readouterr().err


def test_the_option_wins_over_the_file_and_the_file_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLINE_KAFKA_BOOTSTRAP_SERVERS", "env:1")
    config = tmp_path / "kafka.properties"
    config.write_text("# as for kcat\nbootstrap.servers = file:1\nsecurity.protocol=SASL_SSL\nsasl.username=u\nsasl.password=p\n")
    from_env, from_file, from_option = (
        explicit_kafka_settings(None, None),
        explicit_kafka_settings(None, config),
        explicit_kafka_settings("option:1", config),
    )
    assert from_env is not None
    assert from_file is not None
    assert from_option is not None
    assert (from_env.bootstrap_servers, from_file.bootstrap_servers, from_option.bootstrap_servers) == (
        "env:1",
        "file:1",
        "option:1",
    )
    assert from_option.security_protocol is SecurityProtocol.SASL_SSL


def test_an_unknown_property_is_named_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_text("bootstrap.servers=a:1\nsasl.user=u\n")
    with pytest.raises(ConfigError, match=r"kafka.properties:2: 'sasl.user' is not known \(did you mean `sasl.username`\?\)"):
        explicit_kafka_settings(None, config)


def test_a_file_of_properties_that_is_no_text_is_told_with_what_it_should_hold(tmp_path: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"kafka.properties cannot be read .*bootstrap.servers=HOST:PORT"):
        explicit_kafka_settings(None, config)


def test_without_any_kafka_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYLINE_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(ConfigError, match="rayline up"):
        kafka_settings(None, None, tmp_path)


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, deploy.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
