"""How to reach Kafka: one frozen value, and the one place where its environment variables are written and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from aiokafka.helpers import create_ssl_context

from rayline.errors import ConfigError

ENV_PREFIX: Final = "RAYLINE_KAFKA_"


class SecurityProtocol(StrEnum):
    """What Kafka calls `security.protocol`."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def encrypted(self) -> bool:
        return self in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def authenticated(self) -> bool:
        return self in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)


class SaslMechanism(StrEnum):
    """What Kafka calls `sasl.mechanism`; those that need no more than a name and a password."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Address and credentials of one Kafka cluster; strings are taken for the enums.

    `bootstrap_servers` is `host:port[,host:port...]`; the `ssl_*` fields are paths of PEM files (`ssl_cafile` None:
    the machine's own authorities). `sasl_mechanism` without a value is PLAIN where the protocol is a SASL one.

    Raises:
        ConfigError: an unknown protocol or mechanism, or SASL without a name and password.
    """

    bootstrap_servers: str
    security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    sasl_mechanism: SaslMechanism | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise ConfigError("no Kafka bootstrap servers given: name at least one as host:port")
        try:
            protocol = SecurityProtocol(self.security_protocol)
            mechanism = SaslMechanism(self.sasl_mechanism) if self.sasl_mechanism else None
        except ValueError as error:
            known = ", ".join([*SecurityProtocol, *SaslMechanism])
            raise ConfigError(f"{error}: Rayline speaks {known}") from error
        if protocol.authenticated:
            mechanism = mechanism or SaslMechanism.PLAIN
            if not self.sasl_plain_username or not self.sasl_plain_password:
                raise ConfigError(f"{protocol} needs sasl_plain_username and sasl_plain_password")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ConfigError("ssl_keyfile is given without ssl_certfile: give both or none")
        object.__setattr__(self, "security_protocol", protocol)
        object.__setattr__(self, "sasl_mechanism", mechanism)

    def client_kwargs(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes. Reads the certificate files."""
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": str(self.security_protocol),
        }
        if self.security_protocol.encrypted:
            try:
                kwargs["ssl_context"] = create_ssl_context(
                    cafile=self.ssl_cafile, certfile=self.ssl_certfile, keyfile=self.ssl_keyfile
                )
            except OSError as error:
                raise ConfigError(f"the TLS files for Kafka cannot be used: {error}; check the ssl_* paths") from error
        if self.security_protocol.authenticated:
            kwargs["sasl_mechanism"] = str(self.sasl_mechanism)
            kwargs["sasl_plain_username"] = self.sasl_plain_username
            kwargs["sasl_plain_password"] = self.sasl_plain_password
        return kwargs

    def to_env(self) -> dict[str, str]:
        """Environment variables from which a child process makes the same settings."""
        return {
            ENV_PREFIX + name.name.upper(): str(value) for name in fields(self) if (value := getattr(self, name.name)) is not None
        }

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> KafkaSettings:
        """The settings that `to_env` wrote; pass `os.environ`.

        Raises:
            ConfigError: the bootstrap servers are missing, or a value cannot be used.
        """
        values: dict[str, Any] = {name.name: env[key] for name in fields(cls) if env.get(key := ENV_PREFIX + name.name.upper())}
        if "bootstrap_servers" not in values:
            raise ConfigError(f"{ENV_PREFIX}BOOTSTRAP_SERVERS is not set: give it, or --bootstrap-servers")
        return cls(**values)
