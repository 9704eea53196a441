"""Which nodes take an app's newest version, and which stay with the one before. Pure.

Each node has a fixed place in each app's roll-outs, by a hash of both names: it takes the newest version while its place is below
the app's share (`rollout.share`). So every process that knows the share agrees, a pod that comes back has the version that it
had, and a larger share never takes a node back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from rayline.app_spec import AppSpec
from rayline.config.resolution import AppValues

SHARE: Final = "rollout.share"
_BITS: Final = 53


def place_of(app: str, node: str) -> float:
    """Where a node (`cluster/pod`) stands in an app's roll-outs: from 0 to below 1, evenly spread."""
    digest = hashlib.sha256(f"{app}\0{node}".encode()).digest()
    # As many bits as a float holds: more would round some up to 1.
    return (int.from_bytes(digest[:8], "big") >> 64 - _BITS) / (1 << _BITS)


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of its nodes on which each app's newest version runs; 1 where nothing is said."""

    values: AppValues = field(default_factory=AppValues)

    def of(self, app: str) -> float:
        found = self.values.apps.get(app)
        return 1.0 if found is None else float(found[1])

    def takes_newest(self, spec: AppSpec, node: str) -> bool:
        return spec.previous is None or place_of(spec.name, node) < self.of(spec.name)

    def spec_on(self, spec: AppSpec, node: str) -> AppSpec:
        """What a node is to run of the app: the newest version, or the one before."""
        return spec if spec.previous is None or self.takes_newest(spec, node) else spec.previous

    def left_out(self, spec: AppSpec, nodes: Iterable[str]) -> list[str]:
        """Those of the nodes that stay with the version before, the next one to change first."""
        return sorted((node for node in nodes if not self.takes_newest(spec, node)), key=lambda node: place_of(spec.name, node))


def with_previous(spec: AppSpec, running: AppSpec | None, share: float) -> AppSpec:
    """The app as it is to be deployed where `running` is deployed, under the share in force: it names what runs on the nodes
    outside of that share.

    A deployment never changes those nodes, unless it is of the very version that they have: then all have it.
    """
    if running is None:
        return replace(spec, previous=None)
    previous: AppSpec | None = running
    if running.version == spec.version or (share < 1 and running.previous is not None):
        previous = running.previous
    if previous is None or previous.version == spec.version:
        return replace(spec, previous=None)
    return replace(spec, previous=replace(previous, previous=None, prefetch=""))
