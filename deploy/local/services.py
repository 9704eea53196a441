"""The platform's own processes beside the clusters: keepers, resources and lanes, each kept alive under a lasting name."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from deploy.local.child import Child
from deploy.local.launch import ProcessLauncher
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Supervisor

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


async def _start_all(supervisor: Supervisor, launcher: ProcessLauncher, role: Role, count: int) -> None:
    names = [f"{role}-{number}" for number in range(1, count + 1)]
    launches = {name: partial(launcher.start, name, role, role.value, "--name", name) for name in names}
    await asyncio.gather(
        *(
            supervisor.start(ChildSpec(name=name, role=role, launch=launch, grace_seconds=_GRACE_SECONDS))
            for name, launch in launches.items()
        )
    )
