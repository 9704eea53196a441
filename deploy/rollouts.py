"""A version deployed beside the one that runs: which one that is, and the share of the nodes that takes the new one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from deploy.app_registry import AppRegistry, publish_app
from deploy.config_board import read_app_values
from deploy.config_change import Author
from deploy.config_flow import ConfigFlow
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, ensure_topics
from rayline.config import AppValues, Change, ConfigKey, Scope
from rayline.errors import TopicMismatch
from rayline.rollout import SHARE, Shares, place_of, with_previous
from rayline.topics import platform_topics

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """An app as it is deployed, and the share of its nodes that takes its newest version."""

    spec: AppSpec
    share: float = 1.0

    @property
    def partial(self) -> bool:
        """Some nodes are to stay with the version before."""
        return self.spec.previous is not None and self.share < 1

    def taking(self, nodes: Iterable[str]) -> list[str]:
        """Those of the nodes that are to run the newest version."""
        return [node for node in nodes if self._shares.takes_newest(self.spec, node)]

    def next_share(self, nodes: Iterable[str]) -> float | None:
        """The least share, in hundredths rounded up, at which one node more takes it; None where all do."""
        left = self._shares.left_out(self.spec, nodes)
        return math.floor(place_of(self.spec.name, left[0]) * 100 + 1) / 100 if left else None

    def as_dict(self, nodes: Iterable[str]) -> dict[str, Any]:
        keys = list(nodes)
        previous = self.spec.previous
        return {
            "share": self.share,
            "previous": None if previous is None else previous.version,
            "nodes": len(keys),
            "taking": len(self.taking(keys)),
            "next_share": self.next_share(keys),
        }

    def text(self, nodes: Iterable[str]) -> str:
        """One sentence, for a roll-out that is partial."""
        told, previous = self.as_dict(nodes), self.spec.previous
        assert previous is not None
        following = "" if told["next_share"] is None else f"; one more at {told['next_share']:g}"
        new = f"{self.spec.version} belongs on {told['taking']} of {told['nodes']} nodes ({SHARE} {self.share:g})"
        return f"{self.spec.name}: {new}, {previous.version} on the others{following}"

    @property
    def _shares(self) -> Shares:
        return Shares(AppValues({self.spec.name: (0, self.share)}))


async def roll_out(
    settings: KafkaSettings, spec: AppSpec, *, share: float | None = None, say: Callable[[str], None]
) -> tuple[Rollout, list[TopicMismatch]]:
    """Deploy a version beside the one that runs; with `share`, on that share of the nodes from the beginning. Returns where the
    app's topics differ from what they should be, too.

    Raises:
        BusError: Kafka refuses.
    """
    await ensure_topics(settings, platform_topics())
    async with AppRegistry(settings) as registry:
        running = (await registry.snapshot()).get(spec.name)
    before = (await read_shares(settings)).get(spec.name, 1.0)
    spec = with_previous(spec, running, before)
    if share is None or share == before:
        return Rollout(spec, before), await publish_app(settings, spec)
    if before < 1:
        # The nodes outside of the share have the same version before and after.
        differences = await publish_app(settings, spec)
        await _set_share(settings, spec.name, share, say)
        return Rollout(spec, share), differences
    if running is not None and running.previous is not None:
        # All nodes have what runs: where it has none before it, a smaller share takes nobody back to that.
        await publish_app(settings, replace(running, previous=None))
    await _set_share(settings, spec.name, share, say)
    return Rollout(spec, share), await publish_app(settings, spec)


async def read_shares(settings: KafkaSettings) -> dict[str, float]:
    """The shares that are set, by app. Raises BusError when Kafka does not tell."""
    return {app: float(value) for app, value in (await read_app_values(settings, SHARE)).items()}


async def _set_share(settings: KafkaSettings, app: str, share: float, say: Callable[[str], None]) -> None:
    flow = ConfigFlow(settings=settings, author=Author.here(settings), timeout_seconds=ANSWER_SECONDS, say=say)
    report = await flow.run(Change(ConfigKey(Scope.APP, (app,), SHARE), share), why="deploy")
    if not report.good:
        say(f"warning: not every process has answered yet:\n{report.outcome.text()}")
