"""Options that many commands share, and where the connection to Kafka comes from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.cli.output import OutputFormat
from rayline.errors import ConfigError

if TYPE_CHECKING:
    from rayline.bus import KafkaSettings

Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="text for people, json or jsonl for machines.")]
StateDir = Annotated[Path, typer.Option("--state-dir", envvar="RAYLINE_STATE_DIR", help="Folder of a local platform.")]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT,…", help="Kafka; default: the local platform's.")
]
KafkaConfig = Annotated[
    Path | None,
    typer.Option(
        "--kafka-config", exists=True, dir_okay=False, help="File with Kafka's own names: bootstrap.servers=…, sasl.*, ssl.*"
    ),
]
App = Annotated[str, typer.Argument(metavar="APP", help="Name of a deployed app.")]
JobSince = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Read all results since then: 90s, 10m, 2h, 7d. Default: the newest first, and no further than needed.",
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="RAYLINE_ENV_STORE",
        metavar="PLACE",
        help="Folder, http(s)://… (to read), or what fsspec opens (s3://…); default: environments/ in the state folder.",
    ),
]
DEFAULT_STATE_DIR: Final = Path(".rayline")

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PROPERTIES: Final = {
    "bootstrap.servers": "bootstrap_servers",
    "metadata.broker.list": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
}


def seconds_of(text: str) -> float:
    """Read `90s`, `10m`, `2h` or `1d`; raises BadParameter on anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time; write 90s, 10m, 2h or 1d", param_hint="--since")
    return float(match[1]) * _UNITS[match[2]]


def kafka_settings(bootstrap: str | None, config: Path | None, state_dir: Path) -> KafkaSettings:
    """Options first, then RAYLINE_KAFKA_* variables, then the platform that runs in `state_dir`.

    Raises:
        ConfigError: none of them names a broker, or what they say cannot be used.
    """
    settings = known_kafka_settings(bootstrap, config, state_dir)
    if settings is None:
        raise ConfigError(
            f"no Kafka given and no platform runs in {state_dir}: start one with `rayline up`, or name a broker with "
            "--bootstrap-servers, --kafka-config or RAYLINE_KAFKA_BOOTSTRAP_SERVERS"
        )
    return settings


def known_kafka_settings(bootstrap: str | None, config: Path | None, state_dir: Path) -> KafkaSettings | None:
    """As `kafka_settings`; None where nothing names a broker."""
    settings = explicit_kafka_settings(bootstrap, config)
    if settings is None:
        from deploy.local.state import StateFolder
        from rayline.bus import KafkaSettings

        env = StateFolder(state_dir).read_kafka()
        settings = KafkaSettings.from_env(env) if env else None
    return settings


def explicit_kafka_settings(bootstrap: str | None, config: Path | None) -> KafkaSettings | None:
    """What options and environment say of Kafka; None when they say nothing."""
    from rayline.bus import KafkaSettings

    prefix = "RAYLINE_KAFKA_"
    values = {name.removeprefix(prefix).lower(): value for name, value in os.environ.items() if name.startswith(prefix)}
    values |= _read_properties(config) if config is not None else {}
    if bootstrap is not None:
        values["bootstrap_servers"] = bootstrap
    if "bootstrap_servers" not in values:
        if values:
            raise ConfigError(f"{', '.join(sorted(values))} given without bootstrap servers: add --bootstrap-servers HOST:PORT")
        return None
    return KafkaSettings.from_env({f"{prefix}{name.upper()}": value for name, value in values.items()})


def _read_properties(path: Path) -> dict[str, str]:
    """A properties file as librdkafka and kcat read it."""
    values: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); right would be text with lines like bootstrap.servers=HOST:PORT"
        ) from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in _PROPERTIES:
            from rayline.yaml_lines import suggestion

            raise ConfigError(
                f"{path}:{number}: {name!r} is not known{suggestion(name, _PROPERTIES)}; known: {', '.join(_PROPERTIES)}"
            )
        values[_PROPERTIES[name]] = value
    return values
