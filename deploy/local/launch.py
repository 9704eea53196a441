"""How `rayline` processes are started on this machine: their command, environment and log."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local.child import RUN_ID_VARIABLE, Child
from deploy.local.state import StateFolder
from deploy.local.supervision import Role
from deploy.process_environment import (
    CARDS_VARIABLE,
    CHANNEL_TOKEN_VARIABLE,
    DEVELOPMENT_VARIABLE,
    NODE_DIR_VARIABLE,
    NODE_QUOTA_VARIABLE,
    PEERS_ENCRYPT_VARIABLE,
    PEERS_HOST_VARIABLE,
    PEERS_TOKEN_VARIABLE,
    STORE_VARIABLE,
    TRUST_VARIABLE,
)
from rayline.bus import KafkaSettings
from rayline.errors import LaunchError
from rayline.logs import FORMAT_VARIABLE, LEVEL_VARIABLE
from rayline.metrics.process import HOST_VARIABLE, METRICS_VARIABLE
from rayline.telemetry import TRACE_FILE_VARIABLE

# What the launcher was told about environments, metrics and logs goes for all of its processes; a port could be only one's.
_PASSED_ON: Final = frozenset(
    {
        TRACE_FILE_VARIABLE,
        FORMAT_VARIABLE,
        METRICS_VARIABLE,
        HOST_VARIABLE,
        STORE_VARIABLE,
        TRUST_VARIABLE,
        DEVELOPMENT_VARIABLE,
        NODE_DIR_VARIABLE,
        NODE_QUOTA_VARIABLE,
        CARDS_VARIABLE,
    }
)


def pod_environment(folder: StateFolder, pod: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For one pod: where the launcher was given a token of peers, each shares as a machine of its own would, with a node's folder
    of its own."""
    token = environment.get(PEERS_TOKEN_VARIABLE)
    if not token:
        return {}
    encrypt = environment.get(PEERS_ENCRYPT_VARIABLE)
    return {
        PEERS_TOKEN_VARIABLE: token,
        PEERS_HOST_VARIABLE: _loopback_of(pod),
        **({PEERS_ENCRYPT_VARIABLE: encrypt} if encrypt else {}),
        NODE_DIR_VARIABLE: str(Path(environment.get(NODE_DIR_VARIABLE) or folder.node) / pod),
    }


def _loopback_of(pod: str) -> str:
    """An address for one pod: peers know each other by address."""
    digest = hashlib.sha256(pod.encode()).digest()
    return f"127.78.{digest[0]}.{1 + digest[1] % 254}"


def rayline_command(*arguments: str) -> list[str]:
    """A `rayline` process of this very installation; -P: a user's own `deploy` package in the working folder stays out."""
    return [sys.executable, "-P", "-m", "deploy.cli", *arguments]


class ProcessLauncher:
    """Starts `rayline` processes of one run. Owns no process: whoever starts one does.

    `kafka` is set as soon as it is known; nothing can be started before.
    """

    def __init__(self, *, folder: StateFolder, run_id: str, channel_token: str) -> None:
        self.folder = folder
        self.kafka: KafkaSettings | None = None
        self._run_id = run_id
        self._channel_token = channel_token

    async def start(
        self, name: str, role: Role, *arguments: str, cluster: str | None = None, env: Mapping[str, str] = {}
    ) -> Child:
        """`rayline *arguments` as a child, its output in `logs/<name>.log`; raises LaunchError when it cannot be run."""
        return await Child.start(
            name=name,
            role=role,
            command=rayline_command(*arguments),
            env={**self._environment(), **env},
            log_path=self.folder.logs / f"{name}.log",
            cluster=cluster,
        )

    def _environment(self) -> dict[str, str]:
        if self.kafka is None:
            raise LaunchError("no process can be started before Kafka is known")
        inherited = {
            name: value for name, value in os.environ.items() if name in _PASSED_ON or not name.startswith(("RAYLINE_", "RAY_"))
        }
        return {
            # All pods of this machine share what they fetched; `rayline env build` puts bundles into the same store by default.
            STORE_VARIABLE: str(self.folder.environments),
            NODE_DIR_VARIABLE: str(self.folder.node),
            **inherited,
            **self.kafka.to_env(),
            CHANNEL_TOKEN_VARIABLE: self._channel_token,
            RUN_ID_VARIABLE: self._run_id,
            LEVEL_VARIABLE: os.environ.get(LEVEL_VARIABLE, "INFO"),
            "PYTHONUNBUFFERED": "1",
        }
