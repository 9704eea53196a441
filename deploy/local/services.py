"""The platform's own processes beside the clusters, each kept alive under a lasting name."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from typing import Final

from deploy.local.child import Child
from deploy.local.launch import ProcessLauncher
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Supervisor
from deploy.process_environment import CONSOLE_TOKEN_VARIABLE

_GRACE_SECONDS: Final = 10.0


async def start_keepers(supervisor: Supervisor, launcher: ProcessLauncher, count: int) -> None:
    """Start `count` keepers together; one of them leads, the others stand by."""
    await _start_all(supervisor, launcher, Role.KEEPER, count)


async def start_resources(supervisor: Supervisor, launcher: ProcessLauncher, count: int) -> None:
    """Start `count` resources together; each does the whole work."""
    await _start_all(supervisor, launcher, Role.RESOURCE, count)


async def launch_lane(launcher: ProcessLauncher, app: str, name: str) -> Child:
    """One lane of an app under its lasting name."""
    return await launcher.start(name, Role.LANE, "lane", "--app", app, "--instance", name)


async def start_console(supervisor: Supervisor, launcher: ProcessLauncher, *, port: int) -> str:
    """Start the web page for operators at this port, or at a free one where that is taken; returns its address.

    Changes are allowed when the launcher's own environment holds the token that `rayline console` asks for.
    """
    port = port if _is_free(port) else _free_port()
    token = {name: value for name, value in os.environ.items() if name == CONSOLE_TOKEN_VARIABLE}
    launch = partial(launcher.start, "console", Role.CONSOLE, "console", "--port", str(port), env=token)
    await supervisor.start(ChildSpec(name="console", role=Role.CONSOLE, launch=launch, grace_seconds=_GRACE_SECONDS))
    return f"http://localhost:{port}/"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _start_all(supervisor: Supervisor, launcher: ProcessLauncher, role: Role, count: int) -> None:
    names = [f"{role}-{number}" for number in range(1, count + 1)]
    launches = {name: partial(launcher.start, name, role, role.value, "--name", name) for name in names}
    await asyncio.gather(
        *(
            supervisor.start(ChildSpec(name=name, role=role, launch=launch, grace_seconds=_GRACE_SECONDS))
            for name, launch in launches.items()
        )
    )
