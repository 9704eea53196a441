"""A change before and after it is written: what is asked for, who would take it, who tries it first, when it is good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deploy.config_board import ConfigBoard
from deploy.config_change import Author, Changer, Effect, Outcome, canary_of, preview, read_request
from rayline.bus import KafkaSettings
from rayline.config import Presence, ProcessIdentity, Role
from rayline.errors import ConfigError
from tests.unit.deploy.config_topics import Topics

NOWHERE = KafkaSettings("127.0.0.1:1")
KEY = "app/ocr/batching.max_jobs"
LANES = [ProcessIdentity(role=Role.LANE, app="ocr", name=name) for name in "01"]


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    made = Topics()
    made.stand_in(monkeypatch, "deploy.config_board")
    for lane in LANES:
        made.say(Presence(lane, {"batching.max_jobs": (9, KEY)}))
    made.say(Presence(ProcessIdentity(role=Role.LANE, app="other", name="0"), {"batching.max_jobs": (64, "default")}))
    return made


@pytest.fixture
async def board(topics: Topics) -> AsyncIterator[ConfigBoard]:
    topics.set(KEY, 9)
    async with ConfigBoard(NOWHERE) as made:
        yield made


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("global/nothing", "1", "nothing"),
        ("nonsense", "1", "nonsense"),
        ("node/a/p/sla_seconds", "1", "sla_seconds"),
        ("global/sla_seconds", "soon", "right would be"),
        (KEY, "0", "right would be"),
        (KEY, "1.5", "right would be"),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_is_written(key: str, value: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_request(key, value)


def test_a_bare_word_is_a_value() -> None:
    assert read_request("global/weights.policy", "static").value == "static"
    assert read_request("global/log.level", '"DEBUG"').value == "DEBUG"


async def test_a_preview_names_those_concerned_and_what_wins(board: ConfigBoard) -> None:
    lanes = [lane.process for lane in LANES]
    assert [(e.process, e.before, e.after, e.verdict) for e in preview(board, read_request(KEY, "5"))] == [
        (lane, 9, 5, "changes") for lane in lanes
    ]
    assert {e.verdict for e in preview(board, read_request(KEY, "9"))} == {"does not change"}
    assert {e.verdict for e in preview(board, read_request(KEY, None))} == {"returns to what is below"}
    by_all = {e.process: e.verdict for e in preview(board, read_request("global/batching.max_jobs", "5"))}
    assert by_all == {**dict.fromkeys(lanes, "overridden"), "lane/other/0": "changes"}


async def test_the_canary_is_the_first_concerned_or_the_one_that_is_named(board: ConfigBoard) -> None:
    change = read_request(KEY, "5")
    assert canary_of(board, change) == "lane/ocr/0"
    assert canary_of(board, change, "lane/ocr/1") == "lane/ocr/1"
    with pytest.raises(ConfigError, match="living: lane/ocr/0, lane/ocr/1"):
        canary_of(board, change, "lane/other/0")


async def test_what_somebody_else_changed_since_is_not_taken_back(board: ConfigBoard) -> None:
    changer = Changer(settings=NOWHERE, board=board, author=Author("ada", "desk", "ops"))
    try:
        assert await changer.take_back(read_request(KEY, None).key, -1, 64, why="worse") is None
    finally:
        await changer.__aexit__()


@pytest.mark.parametrize(
    ("verdicts", "silent", "good"),
    [
        (["applied", "applied"], [], True),
        (["applied", "overridden"], [], True),
        (["applied", "rejected"], [], False),
        (["applied"], ["lane/ocr/1"], False),
        (["overridden"], [], False),
        ([], [], False),
    ],
)
def test_a_change_is_good_when_all_took_it_and_one_at_least_runs_by_it(
    verdicts: list[str], silent: list[str], good: bool
) -> None:
    effects = [Effect(f"lane/ocr/{number}", None, 5, verdict) for number, verdict in enumerate(verdicts)]
    assert Outcome(KEY, 7, effects, silent).good is good


def test_who_changes_is_the_principal_that_the_broker_authenticates_and_what_we_say() -> None:
    settings = KafkaSettings("127.0.0.1:1", sasl_plain_username="ops", sasl_plain_password="p", sasl_mechanism="PLAIN")
    author = Author.here(settings, "ada")
    assert (author.name, author.principal, author.client_id) == ("ada", "ops", "rayline-config")
    assert Author.here(NOWHERE).principal == "anonymous"
    assert dict(author.headers())["rayline-principal"] == b"ops"


def test_who_authenticates_by_a_certificate_is_its_subject(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "desk"), x509.NameAttribute(NameOID.COMMON_NAME, "ops")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    file = tmp_path / "cert.pem"
    file.write_bytes(builder.sign(key, None).public_bytes(Encoding.PEM))
    assert Author.here(KafkaSettings("127.0.0.1:1", ssl_certfile=str(file))).principal == "CN=ops,O=desk"
    with pytest.raises(ConfigError, match="cannot be read"):
        Author.here(KafkaSettings("127.0.0.1:1", ssl_certfile=str(tmp_path / "none.pem")))
