"""What the verbs of `rayline config` that only look print, of topics without a broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app as cli
from deploy.cli.exit_codes import ExitCode
from rayline.config import SETTINGS, Answer, Presence, ProcessIdentity, Role, Verdict
from rayline.config.declared import schema
from tests.unit.deploy.config_topics import Topics

KEY = "app/ocr/batching.max_jobs"
LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    made = Topics()
    made.stand_in(monkeypatch, "deploy.config_board", "deploy.config_history")
    return made


def run(*arguments: str, expected: int = ExitCode.OK) -> str:
    kafka = () if arguments[0] in ("list", "schema") else ("--bootstrap-servers", "127.0.0.1:1")
    result = CliRunner().invoke(cli, ["config", *arguments, *kafka])
    assert result.exit_code == expected, result.output
    return result.stdout


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "-o", "json"))


def living(topics: Topics, value: Any = 64, source: str = "manifest", **more: Any) -> None:
    """A lane that tells what is in force there."""
    topics.say(Presence(LANE, {"batching.max_jobs": (value, source)}, **more))


def test_list_names_every_setting_with_its_bounds_scopes_and_effect() -> None:
    rows = read("list")["settings"]
    assert [row["name"] for row in rows] == list(SETTINGS)
    assert all(row["right"] and row["scopes"] and row["effect"] and row["description"] for row in rows)
    assert "a whole number from 1 to 100000 (jobs)" in run("list")


def test_schema_is_that_of_the_declared_settings() -> None:
    assert json.loads(run("schema")) == schema()


def test_get_tells_what_is_set_and_what_is_in_force_where(topics: Topics) -> None:
    living(topics, 9, KEY)
    version = topics.set(KEY, 9)
    found = read("get", KEY)
    assert (found["set"]["value"], found["set"]["version"]) == ("9", version)
    assert found["in_force"] == [{"process": "lane/ocr/0", "value": 9, "source": KEY}]
    assert run("get", KEY) == f"{KEY} = 9 (version {version})\n  lane/ocr/0: 9 from {KEY}\n"


def test_a_dry_run_says_that_something_more_specific_wins(topics: Topics) -> None:
    living(topics, 9, KEY)
    (effect,) = read("set", "global/batching.max_jobs", "5", "--dry-run")["effects"]
    assert (effect["before"], effect["after"], effect["verdict"]) == (9, 9, "overridden")
    assert KEY in effect["reason"]
    assert [record.key for record in topics.records["rayline.config"]] == []


def test_diff_tells_only_what_is_not_as_by_default(topics: Topics) -> None:
    living(topics, 9, KEY, problem="it may not read it")
    topics.set(KEY, 9)
    topics.set("global/sla_seconds", 8)
    topics.set("global/sla_seconds", None)
    found = read("diff")
    assert [row["key"] for row in found["set"]] == [KEY]
    assert found["differs"] == [
        {"process": "lane/ocr/0", "setting": "batching.max_jobs", "default": 64, "value": 9, "source": KEY}
    ]
    assert found["cannot_read"] == {"lane/ocr/0": "it may not read it"}
    assert "lane/ocr/0 cannot read the config topic: it may not read it" in run("diff")


def test_diff_of_defaults_says_so(topics: Topics) -> None:
    living(topics, 64, "default")
    assert run("diff") == "nothing is set, every process runs with its defaults\n"


def test_watch_prints_changes_and_answers_as_they_come(topics: Topics) -> None:
    topics.set(KEY, 8)
    topics.set(KEY, 9, later=True, rayline_author="ada")
    topics.say(Answer(KEY, 1, "lane/ocr/0", Verdict.REJECTED, 8, KEY, "too many"), later=True)
    lines = [json.loads(line) for line in run("watch", "--seconds", "0.4", "-o", "jsonl").splitlines()]
    change, answer = sorted(lines, key=lambda line: str(line["kind"]), reverse=True)
    assert (change["kind"], change["key"], change["value"], change["author"]) == ("change", KEY, "9", "ada")
    assert (answer["process"], answer["verdict"], answer["reason"]) == ("lane/ocr/0", "rejected", "too many")


def test_history_names_client_and_principal_and_what_came_of_it(topics: Topics) -> None:
    version = topics.set(KEY, 9)
    who = {"author": "ada", "host": "desk", "client_id": "rayline-config", "principal": "ops"}
    topics.note(kind="change", key=KEY, version=version, at_ms=1, value="9", why="set", **who)
    topics.note(kind="outcome", key=KEY, version=version, outcome="in force", evidence={}, why="set")
    line = run("history", KEY)
    assert "ada@desk (rayline-config, ops)" in line
    assert line.rstrip().endswith("set  in force")


def test_history_tells_what_came_of_a_change_that_nobody_waited_for(topics: Topics) -> None:
    topics.set(KEY, 9)
    for name, verdict in (("0", Verdict.APPLIED), ("1", Verdict.APPLIED), ("2", Verdict.REJECTED)):
        reason = "no room" if verdict is Verdict.REJECTED else None
        topics.say(Answer(KEY, 0, f"lane/ocr/{name}", verdict, 9, KEY, reason))
    (entry,) = read("history", KEY)
    assert entry["outcomes"] == [{"outcome": "2 applied, 1 rejected", "evidence": {"lane/ocr/2": "no room"}}]
    assert "another client    2 applied, 1 rejected" in run("history", KEY)


def test_history_tells_a_refusal_alone(topics: Topics) -> None:
    topics.set(KEY, b"{")
    topics.say(Answer(KEY, 0, "lane/ocr/0", Verdict.REJECTED, 64, "manifest", "not JSON"))
    (entry,) = read("history")
    assert entry["refusal"]
    assert entry["outcomes"] == []
    assert "refused: " in run("history")


def test_rollback_of_what_was_never_changed_is_refused(topics: Topics) -> None:
    run("rollback", KEY, expected=ExitCode.NO)
    topics.set(KEY, 9)
    run("rollback", KEY, "--to", "7", expected=ExitCode.NO)
