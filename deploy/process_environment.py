"""The variables by which the launcher speaks to its processes (Kafka's are `KafkaSettings`' own)."""

from __future__ import annotations

import os
from typing import Final

from rayline.errors import ConfigError

CHANNEL_TOKEN_VARIABLE: Final = "RAYLINE_CHANNEL_TOKEN"
RAY_TOKEN_PATH_VARIABLE: Final = "RAY_AUTH_TOKEN_PATH"
POD_GRACE_VARIABLE: Final = "RAYLINE_POD_GRACE_SECONDS"
PRESTOP_PORT_VARIABLE: Final = "RAYLINE_PRESTOP_PORT"
INTERRUPTION_FILE_VARIABLE: Final = "RAYLINE_INTERRUPTION_FILE"
INTERRUPTION_URL_VARIABLE: Final = "RAYLINE_INTERRUPTION_URL"
INTERRUPTION_HEADER_VARIABLE: Final = "RAYLINE_INTERRUPTION_HEADER"
STORE_VARIABLE: Final = "RAYLINE_ENV_STORE"
TRUST_VARIABLE: Final = "RAYLINE_ENV_TRUST"
DEVELOPMENT_VARIABLE: Final = "RAYLINE_ENV_DEV"
NODE_DIR_VARIABLE: Final = "RAYLINE_NODE_DIR"
NODE_QUOTA_VARIABLE: Final = "RAYLINE_NODE_QUOTA_GIB"
CARDS_VARIABLE: Final = "RAYLINE_CARDS"
PEERS_TOKEN_VARIABLE: Final = "RAYLINE_PEERS_TOKEN"
PEERS_HOST_VARIABLE: Final = "RAYLINE_PEERS_HOST"
PEERS_PORT_VARIABLE: Final = "RAYLINE_PEERS_PORT"
PEERS_PUBLIC_HOST_VARIABLE: Final = "RAYLINE_PEERS_PUBLIC_HOST"
PEERS_ENCRYPT_VARIABLE: Final = "RAYLINE_PEERS_ENCRYPT"
CONSOLE_TOKEN_VARIABLE: Final = "RAYLINE_CONSOLE_TOKEN"


def is_set(text: str | None) -> bool:
    """Whether a variable says yes, as the command line reads it."""
    return (text or "").strip().lower() in ("1", "true", "t", "yes", "y", "on")


def required(name: str) -> str:
    """The value of a variable; raises ConfigError when it is not set."""
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} is not set: this is a process of the platform, which `rayline up` starts")
    return value
