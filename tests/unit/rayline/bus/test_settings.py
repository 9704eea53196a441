"""Kafka settings: what is refused, and that a child process gets the same ones."""

from __future__ import annotations

import pytest

from rayline.bus import KafkaSettings, SaslMechanism, SecurityProtocol
from rayline.errors import ConfigError

FULL = KafkaSettings(
    "a:9092,b:9092",
    security_protocol=SecurityProtocol.SASL_SSL,
    sasl_mechanism=SaslMechanism.SCRAM_SHA_512,
    sasl_plain_username="lane",
    sasl_plain_password="s3cret",
    ssl_cafile="/ca.pem",
    ssl_certfile="/cert.pem",
    ssl_keyfile="/key.pem",
)


@pytest.mark.parametrize("settings", [KafkaSettings("localhost:9092"), FULL])
def test_a_child_process_gets_the_same_settings(settings: KafkaSettings) -> None:
    env = settings.to_env()
    assert all(name.startswith("RAYLINE_KAFKA_") for name in env)
    assert KafkaSettings.from_env({**env, "PATH": "/bin"}) == settings


def test_a_password_is_never_shown() -> None:
    assert "s3cret" not in repr(FULL)
    assert "s3cret" not in str(FULL)


def test_plaintext_clients_get_no_credentials() -> None:
    assert KafkaSettings("h:1").client_kwargs() == {"bootstrap_servers": "h:1", "security_protocol": "PLAINTEXT"}


def test_sasl_credentials_reach_the_client() -> None:
    kwargs = KafkaSettings(
        "h:1", SecurityProtocol.SASL_PLAINTEXT, sasl_plain_username="u", sasl_plain_password="p"
    ).client_kwargs()
    assert kwargs["sasl_mechanism"] == "PLAIN"
    assert (kwargs["sasl_plain_username"], kwargs["sasl_plain_password"]) == ("u", "p")


def test_strings_become_the_enums() -> None:
    assert KafkaSettings.from_env({"RAYLINE_KAFKA_BOOTSTRAP_SERVERS": "h:1", "RAYLINE_KAFKA_SECURITY_PROTOCOL": "SSL"}) == (
        KafkaSettings("h:1", SecurityProtocol.SSL)
    )


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "RAYLINE_KAFKA_BOOTSTRAP_SERVERS"),
        ({"BOOTSTRAP_SERVERS": "  "}, "bootstrap servers"),
        ({"BOOTSTRAP_SERVERS": "h:1", "SECURITY_PROTOCOL": "TLS"}, "TLS"),
        ({"BOOTSTRAP_SERVERS": "h:1", "SASL_MECHANISM": "GSSAPI"}, "GSSAPI"),
        ({"BOOTSTRAP_SERVERS": "h:1", "SECURITY_PROTOCOL": "SASL_SSL"}, "sasl_plain_username"),
        ({"BOOTSTRAP_SERVERS": "h:1", "SSL_KEYFILE": "/k"}, "ssl_certfile"),
    ],
)
def test_what_cannot_work_is_refused_by_name(env: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        KafkaSettings.from_env({f"RAYLINE_KAFKA_{key}": value for key, value in env.items()})


def test_missing_certificates_are_named_when_a_client_is_made() -> None:
    with pytest.raises(ConfigError, match="ssl_"):
        KafkaSettings("h:1", SecurityProtocol.SSL, ssl_cafile="/no/such/file.pem").client_kwargs()
