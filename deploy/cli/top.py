"""`top`: the platform on a terminal, alive; or one look at it for machines."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings
from deploy.cli.output import OutputFormat, note, show
from rayline.errors import ConfigError

if TYPE_CHECKING:
    from deploy.observation import Snapshot
    from rayline.bus import KafkaSettings

# A thousand nodes cost a fifth of a second to show.
_CHANGES_PER_SECOND: Final = 1.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one look at everything and end: for scripts and pipes.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds within which --once must have read everything.")] = 15,
    group: Annotated[str, typer.Option("--group", help="Group of resources whose nodes are shown.")] = "default",
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Watch apps, clusters, nodes and events live; sort, filter, drain and cordon by key (`?` in it tells the keys)."""
    if not once and output is not OutputFormat.TEXT:
        raise typer.BadParameter(f"-o {output.value} needs --once: the live view is for people", param_hint="-o")
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("`rayline top` needs a terminal: `rayline top --once` prints one look (`-o json` for machines)")
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    if once:
        snapshot = asyncio.run(_look(settings, group, timeout))
        from deploy.top.plain import plain

        show(output, snapshot.as_dict(), plain(snapshot))
        return
    asyncio.run(_watch(settings, group))


async def _look(settings: KafkaSettings, group: str, timeout_seconds: float) -> Snapshot:
    from deploy.observation import Observation

    async with Observation(settings, group=group) as seen:
        begun = time.monotonic()
        if not await seen.caught_up(timeout_seconds):
            for source in seen.snapshot().sources:
                if not source.known:
                    note(f"{source.source} could not be read: {source.problem or f'no answer within {timeout_seconds:g} s'}")
            return seen.snapshot()
        async for snapshot in seen.subscribe():
            # Two looks at an app's offsets make its rate.
            rated = all(app.rate_in is not None or app.problem is not None for app in snapshot.apps)
            if rated or time.monotonic() - begun > timeout_seconds:
                return snapshot
    raise AssertionError("unreachable: subscribe never ends")


async def _watch(settings: KafkaSettings, group: str) -> None:
    from deploy.observation import Observation
    from deploy.top.app import TopApp
    from deploy.top.orders import KafkaOrders

    async with Observation(settings, group=group, changes_per_second=_CHANGES_PER_SECOND) as seen:
        await TopApp(seen, KafkaOrders(settings)).run_async()
